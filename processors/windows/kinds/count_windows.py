"""Windows of so many readings: hopping windows along the ordinals of a group's readings."""

from __future__ import annotations

from typing import Any

import numpy as np

from headrace.batch import Int64s
from headrace.column import Bools
from headrace.pipeline.model import Count
from processors.windows.aggregates import Aggregates
from processors.windows.arrays import heads_of, with_room
from processors.windows.input.readings import Readings
from processors.windows.kinds.emitted import Emitted
from processors.windows.kinds.pane_windows import PaneWindows
from processors.windows.time.alignment import Fixed
from processors.windows.time.closed_up_to import ClosedUpTo


class CountWindows(PaneWindows):
    """The open windows of each group, and how many of its readings there have been."""

    def __init__(self, window: Count, aggregates: Aggregates) -> None:
        step = window.step or window.count
        super().__init__(
            Fixed(window.count, step),
            aggregates,
            unit=step if window.count % step == 0 else 1,
            along_time=False,
            # Windows that end by this would begin before a group's first reading.
            before_all=window.count - 1,
        )
        self._counted: Int64s = np.empty(0, np.int64)

    def add_groups(self, groups: int) -> None:
        """Know so many groups in all."""
        super().add_groups(groups)
        self._counted = with_room(self._counted, groups, 0)

    def begin(self, groups: Int64s, closed_up_to: ClosedUpTo) -> None:
        """Nothing: windows follow the readings alone."""

    def take(self, readings: Readings) -> tuple[Emitted, int]:
        """Take readings in their order; the windows that they fill."""
        slots = readings.slots
        heads = heads_of(slots)
        first = np.flatnonzero(heads)
        run = np.cumsum(heads) - 1
        ordinals = self._counted[slots] + np.arange(len(slots)) - first[run]
        touched = self.fold(slots, ordinals, readings.ts_us, readings.columns)
        last = np.append(first[1:], len(slots)) - 1
        groups = slots[last]
        self._counted[groups] = ordinals[last] + 1
        touched = np.unique(touched)
        due = self.due(touched, self._counted[touched])
        return (self.close(due, self._counted[due]) if len(due) else Emitted.none()), 0

    def advance(self, touched: Int64s, closed_up_to: ClosedUpTo) -> Emitted:  # noqa: ARG002 - as the other kinds
        """The windows of groups that have fallen silent, as far as they are filled."""
        counted = self._counted[: len(closed_up_to.seen_us)]
        silent = np.flatnonzero((counted > 0) & (closed_up_to.seen_us < closed_up_to.silent_us))
        if not len(silent):
            return Emitted.none()
        emitted = self.close_all(silent)
        # The next reading begins a new one.
        self._counted[silent], self.closed[silent] = 0, self._before_all
        return emitted

    def holds(self, groups: Int64s, unknown_us: int) -> Bools:
        """Of which of n groups readings have been counted."""
        return super().holds(groups, unknown_us) | (self._counted[groups] > 0)

    def packed(self, first: int, last: int) -> dict[str, Any]:
        """The open windows of the groups from ``first`` up to ``last``, for MessagePack."""
        counted = self._counted[first:last].astype("<i8").tobytes()
        return {**super().packed(first, last), "first": first, "counted": counted}

    def unpack(self, packed: dict[str, Any], dtypes: dict[str, Any]) -> None:
        """Take up what was packed."""
        first, counted = packed["first"], np.frombuffer(packed["counted"], "<i8")
        of = slice(first, first + len(counted))
        self._counted[of] = counted
        # Windows that readings fill close at once.
        self.closed[of] = np.maximum(counted, self._before_all)
        super().unpack(packed, dtypes)
