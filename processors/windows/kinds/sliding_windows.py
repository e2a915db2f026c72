"""Sliding windows: each reading closes one, over the last so much time of its group."""

from __future__ import annotations

from typing import Any

import numpy as np

from headrace.batch import Int64s
from processors.windows.aggregates import Aggregates
from processors.windows.input.readings import Readings
from processors.windows.kinds.emitted import Emitted
from processors.windows.kinds.sliding import Sliding
from processors.windows.time.closed_up_to import ClosedUpTo


class SlidingWindows:
    """The readings of each group that later windows reach back to."""

    def __init__(self, size_us: int, aggregates: Aggregates) -> None:
        self._sliding = Sliding(size_us, aggregates)
        self._tail: Readings | None = None

    def add_groups(self, groups: int) -> None:
        """Nothing: a group is known by its readings."""

    def begin(self, groups: Int64s, closed_up_to: ClosedUpTo) -> None:
        """Nothing: windows follow the readings alone."""

    def take(self, readings: Readings) -> tuple[Emitted, int]:
        """Take readings in their order; each one's window."""
        block, fresh = readings, np.ones(len(readings), np.bool_)
        others = None
        if self._tail is not None:
            touched = np.zeros(max(int(self._tail.slots.max()), int(readings.slots.max())) + 1, np.bool_)
            touched[readings.slots] = True
            mine = touched[self._tail.slots]
            if not mine.all():
                others = self._tail.take(np.flatnonzero(~mine))
            if mine.any():
                older = self._tail if others is None else self._tail.take(np.flatnonzero(mine))
                block = Readings.joined([older, readings])
                order = np.lexsort((block.ts_us, block.slots))
                block, fresh = block.take(order), order >= len(older)
        closed = self._sliding.results(block.slots, block.ts_us, block.columns, fresh)
        kept = block.take(np.flatnonzero(self._sliding.tail(block.slots, block.ts_us)))
        self._tail = kept if others is None else Readings.joined([others, kept])
        emitted = Emitted(block.slots[fresh], closed.starts_us, closed.ends_us, closed.results)
        # Of readings of the same time the last one's window holds them all.
        last = np.ones(len(emitted), np.bool_)
        last[:-1] = (emitted.slots[1:] != emitted.slots[:-1]) | (emitted.ends_us[1:] != emitted.ends_us[:-1])
        return (emitted if last.all() else emitted.take(np.flatnonzero(last))), 0

    def advance(self, touched: Int64s, closed_up_to: ClosedUpTo) -> Emitted:  # noqa: ARG002 - as the other kinds
        """Nothing: only readings close windows."""
        return Emitted.none()

    def provisional(self) -> Emitted:
        """Nothing: no window is open."""
        return Emitted.none()

    def forget_changes(self) -> None:
        """Nothing: no window is open."""

    def open_windows(self) -> int:
        """None."""
        return 0

    def open_readings(self) -> int:
        """None: the readings that are kept have emitted."""
        return 0

    def packed(self, first: int, last: int) -> dict[str, Any]:
        """What is kept of the groups from ``first`` up to ``last``, for MessagePack."""
        if self._tail is None:
            return {}
        of = np.flatnonzero((self._tail.slots >= first) & (self._tail.slots < last))
        return {"tail": self._tail.take(of).packed()} if len(of) else {}

    def unpack(self, packed: dict[str, Any], dtypes: dict[str, Any]) -> None:
        """Take up what was packed."""
        if "tail" in packed:
            tail = Readings.unpacked(packed["tail"], dtypes)
            self._tail = tail if self._tail is None else Readings.joined([self._tail, tail])
