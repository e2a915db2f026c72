"""Tumbling and hopping windows along event time."""

from __future__ import annotations

import numpy as np

from headrace.batch import Int64s
from processors.windows.aggregates import Aggregates
from processors.windows.alignment import Alignment
from processors.windows.pane_windows import PaneWindows
from processors.windows.passed import Passed
from processors.windows.spoken import Spoken
from processors.windows.waiting import Readings


class TimeWindows(PaneWindows):
    """The open panes of tumbling or hopping windows; readings may come in any order."""

    def __init__(self, alignment: Alignment, aggregates: Aggregates, *, unit: int) -> None:
        super().__init__(alignment, aggregates, unit=unit, along_time=True)

    def begin(self, groups: Int64s, passed: Passed) -> None:
        """Know how far these groups are before readings of theirs are taken.

        A window that they have passed without a reading speaks no more, though a pane of it may be filled yet.
        """
        if self.alignment.overlapping:
            self.closed[groups] = np.maximum(self.closed[groups], passed.of(groups))

    def take(self, readings: Readings) -> tuple[Spoken, int]:
        """Fold readings into their panes; none is outside of all windows."""
        self.fold(readings.slots, readings.ts_us, readings.ts_us, readings.columns)
        return Spoken.none(), 0

    def advance(self, touched: Int64s, passed: Passed) -> Spoken:
        """The windows that end now; ``touched`` are the groups (each once) that may have moved by themselves."""
        if passed.common_us is not None:
            due = self.overdue(passed.common_us)
        else:
            silent = self.overdue(passed.silent_us)
            due = self.due(touched, passed.of(touched)) if len(touched) else touched
            if len(silent):
                due = np.union1d(due, silent)
        return self.close(due, passed.of(due)) if len(due) else Spoken.none()
