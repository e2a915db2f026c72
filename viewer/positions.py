"""Where a row of the store goes in a table of the page: the same row always to the same position.

The engine's tables are keyed by a position (an int from 0). What decides over it is here, and pure: a row that
is repeated, corrected or late overwrites what it belongs to instead of adding a row, and a table never grows
beyond its bound. ``place`` gives the position, or None for a row that is not to be shown.

>>> ring = Ring(2)
>>> [ring.place("a", 10), ring.place("b", 10), ring.place("a", 10)]
[0, 1, 0]
>>> ring.place("a", 20) in (0, 1), ring.place("a", 5)
(True, None)
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Sequence
from typing import Protocol

_DIGITS = re.compile(r"(\d+)")


class Positions(Protocol):
    """What decides where rows go."""

    def place(self, device: str, ts_us: int) -> int | None:
        """The position of the device's row of this event time (µs), or None if it is not shown."""
        ...

    @property
    def used(self) -> int:
        """How many positions hold a row."""
        ...

    @property
    def hidden_devices(self) -> int:
        """How many devices were seen that have no place."""
        ...


class LastValues:
    """A position a device, for the first ``devices`` of them; a row older than the shown one is not shown."""

    def __init__(self, devices: int) -> None:
        self._limit = devices
        self._slots: dict[str, int] = {}
        self._times_us: list[int] = []
        self._hidden: set[str] = set()

    def place(self, device: str, ts_us: int) -> int | None:
        """The device's position, or None when it has a newer row already or there are too many devices."""
        slot = self._slots.get(device)
        if slot is None:
            if len(self._slots) >= self._limit:
                self._hidden.add(device)
                return None
            slot = self._slots[device] = len(self._times_us)
            self._times_us.append(ts_us)
        elif ts_us < self._times_us[slot]:
            return None
        self._times_us[slot] = ts_us
        return slot

    @property
    def used(self) -> int:
        """How many devices have a position."""
        return len(self._slots)

    @property
    def hidden_devices(self) -> int:
        """How many devices came after the bound was reached."""
        return len(self._hidden)


class Ring:
    """The ``rows`` newest rows by event time, whatever the order they came in.

    With ``thin_us`` a device has at most one row in each such stretch of event time, the latest, so that a
    fast topic shows minutes and not moments. A row older than all of a full ring is not shown.
    """

    def __init__(self, rows: int, *, thin_us: int = 0) -> None:
        self._rows = rows
        self._thin_us = thin_us
        self._positions: dict[tuple[str, int], int] = {}
        self._times_us = [0] * rows
        self._oldest: list[tuple[int, int, str]] = []

    def place(self, device: str, ts_us: int) -> int | None:
        """The position of this row; None if it is older than what is shown."""
        at_us = ts_us - ts_us % self._thin_us if self._thin_us else ts_us
        position = self._positions.get((device, at_us))
        if position is not None:
            if ts_us < self._times_us[position]:
                return None
        elif len(self._positions) < self._rows:
            position = len(self._positions)
            heapq.heappush(self._oldest, (at_us, position, device))
            self._positions[device, at_us] = position
        elif at_us <= self._oldest[0][0]:
            return None
        else:
            gone_us, position, gone = self._oldest[0]
            heapq.heapreplace(self._oldest, (at_us, position, device))
            del self._positions[gone, gone_us]
            self._positions[device, at_us] = position
        self._times_us[position] = ts_us
        return position

    @property
    def used(self) -> int:
        """How many positions hold a row."""
        return len(self._positions)

    @property
    def hidden_devices(self) -> int:
        """None is hidden: a ring takes every device's rows."""
        return 0


class Series(Ring):
    """A ring of a few devices only: a chart of hundreds of lines costs much and shows nothing.

    With ``per_device`` it holds so many rows for each device that is chosen, and ``rows`` at the most.
    """

    def __init__(self, rows: int, *, devices: int, per_device: int | None = None, thin_us: int = 0) -> None:
        super().__init__(rows, thin_us=thin_us)
        self._limit = devices
        self._per_device = per_device
        self._chosen: set[str] = set()
        self._hidden: set[str] = set()

    def choose(self, devices: Iterable[str]) -> None:
        """Take devices in, the first by name (numbers in names counted as numbers), while there is room."""
        if len(self._chosen) >= self._limit:
            return
        new = sorted(set(devices) - self._chosen, key=by_name)
        self._chosen.update(new[: self._limit - len(self._chosen)])
        if self._per_device is not None:
            self._rows = min(len(self._times_us), self._per_device * len(self._chosen))

    def place(self, device: str, ts_us: int) -> int | None:
        """The position of this row; None for a device that was not chosen, or an old row."""
        if device not in self._chosen:
            self._hidden.add(device)
            return None
        return super().place(device, ts_us)

    @property
    def hidden_devices(self) -> int:
        """How many devices were seen that are not chosen."""
        return len(self._hidden)


def by_name(name: str) -> list[tuple[int, int, str]]:
    """A sort key that puts ``meter-2`` before ``meter-10``."""
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in _DIGITS.split(name)]


def place_all(positions: Positions, devices: Sequence[str], times_us: Sequence[int]) -> dict[int, int]:
    """For each position that these rows change, the index of the row that it shows at last."""
    place = positions.place
    placed: dict[int, int] = {}
    for index, (device, ts_us) in enumerate(zip(devices, times_us, strict=True)):
        position = place(device, ts_us)
        if position is not None:
            placed[position] = index
    return placed
