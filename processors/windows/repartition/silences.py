"""Windows that silence ends, of groups that span partitions: by the order of a group's readings, not by when they came.

A partition may forward a group's readings long after another has forwarded later ones. They are taken sorted by time,
so how long the group was silent is told from the readings themselves.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from headrace.batch import Int64s
from headrace.column import Bools
from processors.windows.arrays import heads_of
from processors.windows.input.last_seen import LastSeen
from processors.windows.input.readings import Readings
from processors.windows.kinds.emitted import Emitted
from processors.windows.kinds.engine import Engine
from processors.windows.kinds.pane_windows import FOR_EVER
from processors.windows.time.closed_up_to import ClosedUpTo
from processors.windows.time.watermark import NEVER


class EndedBySilence:
    """An engine, with an end to its windows before each reading that comes ``silence_us`` after the one before it."""

    def __init__(self, engine: Engine, silence_us: int) -> None:
        self._engine = engine
        self._silence_us = silence_us
        self._last_seen = LastSeen()

    @property
    def seen_us(self) -> Int64s:
        """For each group the greatest time of the readings that its windows have taken."""
        return self._last_seen.us

    def add_groups(self, groups: int) -> None:
        """Know so many groups in all."""
        self._last_seen.add_groups(groups)
        self._engine.add_groups(groups)

    def begin(self, groups: Int64s, closed_up_to: ClosedUpTo) -> None:
        """Know how far these groups are before readings of theirs are taken."""
        self._engine.begin(groups, closed_up_to)

    def take(self, readings: Readings) -> tuple[Emitted, int]:
        """Take readings, sorted by group and time; those before a silence end with it."""
        slots, ts_us = readings.slots, readings.ts_us
        heads = heads_of(slots)
        before = np.empty_like(ts_us)
        before[1:] = ts_us[:-1]
        before[heads] = self._last_seen.us[slots[heads]]
        after_silence = (before != NEVER) & (ts_us - before > self._silence_us)
        times = np.cumsum(after_silence)
        first = np.flatnonzero(heads)
        # How many silences there are in a group before each of its readings.
        times -= np.repeat(times[first] - after_silence[first], np.diff(first, append=len(slots)))
        emitted, outside = [], 0
        for nth in range(int(times.max()) + 1):
            part = readings.take(np.flatnonzero(times == nth)) if times.any() else readings
            ended = slots[after_silence & (times == nth)]
            if len(ended):
                emitted.append(self._end(ended))
            if len(part):
                closed, left_out = self._engine.take(part)
                emitted.append(closed)
                outside += left_out
                self._last_seen.note(part.slots, part.ts_us)
        return Emitted.joined(emitted), outside

    def _end(self, slots: Int64s) -> Emitted:
        """End the windows of these groups."""
        seen = np.full(len(self._last_seen.us), FOR_EVER, np.int64)
        seen[slots] = NEVER
        return self._engine.advance(slots, ClosedUpTo(lambda groups: np.full(len(groups), NEVER), 0, None, seen))

    def advance(self, touched: Int64s, closed_up_to: ClosedUpTo) -> Emitted:
        """The windows that end because time has passed."""
        return self._engine.advance(touched, closed_up_to)

    def provisional(self) -> Emitted:
        """The open windows that have changed since they last emitted, as they are now."""
        return self._engine.provisional()

    def forget_changes(self) -> None:
        """Count no window as changed."""
        self._engine.forget_changes()

    @property
    def oldest_open_us(self) -> int | None:
        """The time of the oldest reading in an open window; None without any."""
        return self._engine.oldest_open_us

    def open_windows(self) -> int:
        """How many windows are open."""
        return self._engine.open_windows()

    def open_readings(self) -> int:
        """How many readings these hold."""
        return self._engine.open_readings()

    def holds(self, groups: Int64s, unknown_us: int) -> Bools:
        """Of which of n groups anything is kept."""
        return self._engine.holds(groups, unknown_us)

    def forget(self, groups: Int64s) -> None:
        """Be as if these groups, of which nothing is kept, had never been."""
        self._engine.forget(groups)
        self._last_seen.us[groups] = NEVER

    def packed(self, first: int, last: int) -> dict[str, Any]:
        """What is open of the groups from ``first`` up to ``last``, for MessagePack."""
        return {**self._engine.packed(first, last), "seen_us": self._last_seen.packed(first, last), "seen_from": first}

    def unpack(self, packed: dict[str, Any], dtypes: dict[str, Any]) -> None:
        """Take up what was packed."""
        self._last_seen.unpack(packed["seen_us"], packed["seen_from"])
        self._engine.unpack(packed, dtypes)
