"""Readings that wait until their place in the order is sure: what kinds that depend on order take them from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from headrace.batch import Int64s
from processors.windows.input.readings import Readings


class ReorderBuffer:
    """The readings of one stream over one partition whose place in the order is not sure yet.

    Readings are released sorted by group and time; with ``ties`` those of equal times at once, of the device
    with the lesser name first. Of one device they stay in the order they came.
    """

    def __init__(self, *, ties: bool) -> None:
        self._ties = ties
        self._held: Readings | None = None

    def __len__(self) -> int:
        return 0 if self._held is None else len(self._held)

    def put(self, readings: Readings) -> None:
        """Hold further readings."""
        self._held = readings if self._held is None else Readings.joined([self._held, readings])

    def release(self, closed_us: Int64s, names: Sequence[str]) -> Readings | None:
        """The readings whose place is sure, given for each group the time up to which it is closed.

        No reading before that time comes any more; one of exactly that time may.
        ``names``: of the devices.
        """
        held = self._held
        if held is None:
            return None
        closed = closed_us[held.slots]
        ready = held.ts_us < closed if self._ties else held.ts_us <= closed
        if not ready.any():
            return None
        left = np.flatnonzero(~ready)
        self._held = held.take(left) if len(left) else None
        released = held.take(np.flatnonzero(ready)) if len(left) else held
        return released.take(self._order(released, names))

    def _order(self, readings: Readings, names: Sequence[str]) -> Int64s:
        if not self._ties:
            return np.lexsort((readings.ts_us, readings.slots))
        devices = np.unique(readings.devices)
        ranks = np.empty(int(devices[-1]) + 1, np.int64)
        ranks[sorted(devices.tolist(), key=names.__getitem__)] = np.arange(len(devices))
        return np.lexsort((ranks[readings.devices], readings.ts_us, readings.slots))

    def note_latest(self, seen_us: Int64s) -> None:
        """Raise each group's time to that of its latest reading that waits."""
        if self._held is not None:
            np.maximum.at(seen_us, self._held.slots, self._held.ts_us)

    def of(self, first: int, last: int) -> Readings | None:
        """What is held of the groups from ``first`` up to ``last``."""
        if self._held is None:
            return None
        return self._held.take(np.flatnonzero((self._held.slots >= first) & (self._held.slots < last)))
