"""A stream's windows over readings that come in order and in time: nothing is late, and silence is what it seems.

It is the window operator itself, on one partition that has all readings. Event time passes between readings, too: a
group that has no reading for longer than ``idle`` and ``grace`` is silent, whatever the others do, as it is on a live
line where all is well.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from headrace.batch import Batch, Int64s
from headrace.pipeline.model import Sliding
from processors.windows import Outcome, WindowOperator, WindowSpec
from processors.windows.arrays import heads_of, with_room
from processors.windows.time.watermark import NEVER


def in_time(spec: WindowSpec) -> WindowSpec:
    """The spec for readings that come in order, each device and time once, and from one partition."""
    return replace(spec, follows="furthest", drop_repeats=False, devices_span=False, emit_us=None, late="drop")


class InTime:
    """The windows of one stream; readings are added in order of time."""

    def __init__(self, spec: WindowSpec) -> None:
        self.spec = in_time(spec)
        self._operator = WindowOperator(self.spec)
        self._silence_us = self._operator.intake.clocks.silence_us
        self._passed_us = NEVER
        self._last_us: Int64s = np.empty(0, np.int64)
        """For each group the time of its last reading, where silence ends windows."""

    def named(self, batch: Batch) -> Batch:
        """The batch with the columns that expressions may ask for beside the stored ones."""
        return batch.with_columns({self.spec.key: batch.devices})

    def groups_of(self, batch: Batch) -> Int64s:
        """The slot of each reading's group."""
        return self._operator.intake.place(self.spec.compute(batch)).slots

    def add(self, batch: Batch) -> list[Batch]:
        """Take readings, none older than those before; the windows that are over."""
        found: list[Batch] = []
        for part in self._cut(batch) if self.spec.ends_in_silence else [batch]:
            if self.spec.ends_in_silence:
                self._note(found, self._operator.pass_to(int(part.ts_us[0])))
            self._note(found, self._operator.add(part, int(part.ts_us[-1])))
        return found

    def pass_to(self, clock_us: int) -> list[Batch]:
        """No reading comes until event time is so far; the windows that are over by then."""
        found: list[Batch] = []
        self._passed_us = clock_us
        self._note(found, self._operator.pass_to(clock_us))
        return found

    @property
    def complete_us(self) -> int:
        """All windows that start before this have been given."""
        spec, passed_us = (
            self.spec,
            max(self._operator.intake.clocks.partition_us, self._passed_us - self.spec.grace_us),
        )
        if spec.alignment is not None:
            return passed_us - spec.alignment.longest
        if isinstance(spec.window, Sliding):
            return passed_us - int(spec.window.size)
        oldest_us = self._operator.oldest_open_us
        return passed_us if oldest_us is None else min(passed_us, oldest_us)

    @staticmethod
    def _note(found: list[Batch], outcome: Outcome) -> None:
        if outcome.results is not None:
            found.append(outcome.results)

    def _cut(self, batch: Batch) -> list[Batch]:
        """The batch, cut where a group's silence must have ended its window before its next reading comes."""
        slots, ts_us = self.groups_of(batch), batch.ts_us
        self._last_us = with_room(self._last_us, int(slots.max()) + 1, NEVER)
        order = np.argsort(slots, kind="stable")
        times, heads = ts_us[order], heads_of(slots[order])
        before = np.empty_like(times)
        before[1:] = times[:-1]
        before[heads] = self._last_us[slots[order][heads]]
        silent = np.sort(order[(before != NEVER) & (before < times - self._silence_us)])
        last_of = np.empty_like(times)
        last_of[order] = before
        lasts = np.append(np.flatnonzero(heads)[1:], len(times)) - 1
        self._last_us[slots[order][lasts]] = times[lasts]
        places, passed_us = [0], int(ts_us[0])
        for place in silent.tolist():
            # One step of the clock ends the windows of all that are silent by then.
            if last_of[place] >= passed_us - self._silence_us:
                places.append(place)
                passed_us = int(ts_us[place])
        ends = [*places[1:], len(batch)]
        return [batch.take(slice(begin, end)) for begin, end in zip(places, ends, strict=True) if begin < end]
