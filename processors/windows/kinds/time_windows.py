"""Tumbling and hopping windows along event time."""

from __future__ import annotations

import numpy as np

from headrace.batch import Int64s
from processors.windows.aggregates import Aggregates
from processors.windows.input.readings import Readings
from processors.windows.kinds.emitted import Emitted
from processors.windows.kinds.pane_windows import PaneWindows
from processors.windows.time.alignment import Alignment
from processors.windows.time.closed_up_to import ClosedUpTo


class TimeWindows(PaneWindows):
    """The open panes of tumbling or hopping windows; readings may come in any order."""

    def __init__(self, alignment: Alignment, aggregates: Aggregates, *, unit: int) -> None:
        super().__init__(alignment, aggregates, unit=unit, along_time=True)

    def begin(self, groups: Int64s, closed_up_to: ClosedUpTo) -> None:
        """Know how far these groups are before readings of theirs are taken.

        A window that they have passed without a reading emits nothing any more, though a pane of it may be filled yet.
        """
        if self.alignment.overlapping:
            self.closed[groups] = np.maximum(self.closed[groups], closed_up_to.of(groups))

    def take(self, readings: Readings) -> tuple[Emitted, int]:
        """Fold readings into their panes; none is outside of all windows."""
        self.fold(readings.slots, readings.ts_us, readings.ts_us, readings.columns)
        return Emitted.none(), 0

    def advance(self, touched: Int64s, closed_up_to: ClosedUpTo) -> Emitted:
        """The windows that end now; ``touched`` are the groups (each once) that may have moved by themselves."""
        if closed_up_to.common_us is not None:
            due = self.overdue(closed_up_to.common_us)
        else:
            silent = self.overdue(closed_up_to.silent_us)
            due = self.due(touched, closed_up_to.of(touched)) if len(touched) else touched
            if len(silent):
                due = np.union1d(due, silent)
        return self.close(due, closed_up_to.of(due)) if len(due) else Emitted.none()
