"""Readings that wait until their place in the order is sure: what kinds that depend on order take them from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from headrace.batch import Int64s
from headrace.column import Bools
from processors.windows.arrays import with_room
from processors.windows.input.held_readings import HeldReadings
from processors.windows.input.readings import Readings
from processors.windows.time.watermark import NEVER


class ReorderBuffer:
    """The readings of one stream over one partition whose place in the order is not sure yet.

    Readings are released sorted by group and time; with ``ties`` those of equal times at once, of the device
    with the lesser name first. Of one device they stay in the order they came.
    """

    def __init__(self, *, ties: bool) -> None:
        self._ties = ties
        self._held = HeldReadings("waiting")
        self._new: Readings | None = None
        """What was put since the last release: most of it may be released at once."""
        self._latest_us: Int64s | None = None
        """For each group the time of its latest reading, once that is asked for."""

    def __len__(self) -> int:
        return len(self._held) + (0 if self._new is None else len(self._new))

    def put(self, readings: Readings) -> None:
        """Hold further readings. The state of their groups is to be written again."""
        self._new = readings if self._new is None else Readings.joined([self._new, readings])
        if self._latest_us is not None:
            self._latest_us = with_room(self._latest_us, int(readings.slots.max()) + 1, NEVER)
            np.maximum.at(self._latest_us, readings.slots, readings.ts_us)

    def release(self, closed_us: Int64s, names: Sequence[str]) -> Readings | None:
        """The readings whose place is sure, given for each group the time up to which it is closed.

        No reading before that time comes any more; one of exactly that time may.
        ``names``: of the devices. The state of their groups is to be written again.
        """
        upto_us = closed_us - 1 if self._ties else closed_us
        released = self._held.take(upto_us)
        ready = self._ready(upto_us)
        if ready is None and not released:
            return None
        if ready is None and len(released) == 1:
            ordered = released[0]  # it is
        else:
            ordered = Readings.joined(released if ready is None else [*released, ready]).sorted()
        return self._tied(ordered, names) if self._ties else ordered

    def _ready(self, upto_us: Int64s) -> Readings | None:
        """What may be released of the new readings; the others are held."""
        new, self._new = self._new, None
        if new is None:
            return None
        ready = new.ts_us <= upto_us[new.slots]
        if ready.all():
            return new
        some = ready.any()
        self._held.append(new.take(np.flatnonzero(~ready)) if some else new)
        return new.take(np.flatnonzero(ready)) if some else None

    def _tied(self, ordered: Readings, names: Sequence[str]) -> Readings:
        """Readings in their order, those of equal times by their devices' names."""
        slots, devices, ts_us = ordered.slots, ordered.devices, ordered.ts_us
        if not ((ts_us[1:] == ts_us[:-1]) & (slots[1:] == slots[:-1]) & (devices[1:] != devices[:-1])).any():
            return ordered
        different = np.unique(devices)
        ranks = np.empty(int(different[-1]) + 1, np.int64)
        ranks[sorted(different.tolist(), key=names.__getitem__)] = np.arange(len(different))
        return ordered.take(np.lexsort((ranks[devices], ts_us, slots)))

    def holds(self, groups: Int64s) -> Bools:
        """Of which of n groups readings wait."""
        return self.held.holds(groups)

    def forget(self, groups: Int64s) -> None:
        """Be as if these groups, of which nothing waits, had never been."""
        if self._latest_us is not None:
            known = groups[groups < len(self._latest_us)]
            self._latest_us[known] = NEVER

    def note_latest(self, seen_us: Int64s) -> None:
        """Raise each group's time to that of its latest reading that waits (or has waited, and was seen since)."""
        if self._latest_us is None:
            if not len(self):
                return  # it may be restored yet
            self._latest_us = np.full(len(seen_us), NEVER, np.int64)
            self.held.note_latest(self._latest_us)
        known = min(len(seen_us), len(self._latest_us))
        np.maximum(seen_us[:known], self._latest_us[:known], out=seen_us[:known])

    @property
    def held(self) -> HeldReadings:
        """All that waits, as the state has it."""
        if self._new is not None:
            self._held.append(self._new)
            self._new = None
        return self._held
