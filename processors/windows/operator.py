"""The window operator: a stream's windows over one partition. Readings in, results, late readings and counts out.

It is put together from what it does: the intake places and judges readings, cuts keep results apart from how they came
in batches, windowing takes them into windows, emission makes results of those.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from headrace.batch import Batch, Int64s
from processors.windows.emission import Emission, Outcome
from processors.windows.input.cuts import where_closed, where_silent
from processors.windows.input.forgetting import Forgetting
from processors.windows.input.groups import Devices, Groups
from processors.windows.input.intake import Intake, Placed, kept_readings
from processors.windows.input.last_seen import LastSeen
from processors.windows.input.late import LateReadings, late_of
from processors.windows.input.reorder_buffer import ReorderBuffer
from processors.windows.kinds.emitted import Emitted
from processors.windows.kinds.engine import engine_of
from processors.windows.spec import WindowSpec
from processors.windows.stage import gauges_of
from processors.windows.time.closed_up_to import ClosedUpTo
from processors.windows.time.watermark import Clocks
from processors.windows.windowing import Windowing


class WindowOperator:
    """The windows of one stream over one partition."""

    role = ""

    def __init__(self, spec: WindowSpec) -> None:
        self.spec = spec
        self.intake = Intake(
            spec,
            Clocks(spec.follows, spec.idle_us, spec.grace_us),
            Devices(spec.remembered_tags),
            None if spec.by is None else Groups(spec.by),
            deduplicates=spec.drop_repeats,
        )
        self.counts = self.intake.counts
        reorder = ReorderBuffer(ties=spec.ties) if spec.ordered else None
        self.windows = Windowing(engine_of(spec), reorder, self.intake)
        self.touched, self.held = self.windows.touched, self.windows.held
        self._emission = Emission(self.intake, self.windows.engine)
        self._last_seen = LastSeen() if self.intake.groups is not None else None
        self._forgetting = Forgetting(self.intake, [self.windows], self._last_seen, self.touched)

    def add(self, batch: Batch, now_us: int) -> Outcome:
        """Take the readings of a batch that arrived at ``now_us``, in their order; what that brings."""
        closed: list[Emitted] = []
        late: list[LateReadings] = []
        if not len(batch):
            return Outcome()
        self.counts["read"] += len(batch)
        rest: Batch | None = self.spec.compute(batch)
        while rest is not None:
            placed = self.intake.place(rest)
            self._make_room()
            placed, rest = placed.cut(self._where_to_cut(placed))
            self.windows.engine.begin(placed.groups, self._closed_up_to())
            judged = self.intake.take(placed, now_us)
            if (missing := late_of(self.intake, placed, judged)) is not None:
                late.append(missing)
            if self._last_seen is not None:
                self._last_seen.note(placed.slots, placed.batch.ts_us)
                self.touched.append(placed.groups)
            if (readings := kept_readings(self.spec, placed, judged)) is not None:
                closed += self.windows.keep(readings)
            closed += self.windows.advance(self.intake.moved_on(placed), self._closed_up_to())
            self.intake.prune(when_due=True)
        return self._outcome(closed, late, now_us)

    def tick(self, now_us: int) -> Outcome:
        """The partition is silent (not behind) at ``now_us``: its clock moves on with the wall clock."""
        moves = self.intake.clocks.tick(now_us)
        closed = self.windows.advance(np.empty(0, np.int64), self._closed_up_to()) if moves else []
        return self._outcome(closed, [], now_us)

    def _outcome(self, closed: list[Emitted], late: list[LateReadings], now_us: int) -> Outcome:
        outcome = self._emission.outcome(closed, late, now_us)
        # What has closed is named by what is known of it.
        self._forgetting.forget()
        return outcome

    def pass_to(self, clock_us: int) -> Outcome:
        """Event time is so far without a reading, as the clock of the partition has it; what that brings."""
        moves = self.intake.clocks.pass_to(clock_us)
        closed = self.windows.advance(np.empty(0, np.int64), self._closed_up_to()) if moves else []
        return self._outcome(closed, [], clock_us)

    @property
    def oldest_open_us(self) -> int | None:
        """The time of the oldest reading that is in an open window, of windows that readings make; None without any."""
        return self.windows.engine.oldest_open_us

    def _where_to_cut(self, placed: Placed) -> int:
        if self.spec.overlapping:
            return where_closed(self.intake, placed)
        if self.spec.ends_in_silence:
            return where_silent(self.intake.clocks, self._seen_us, placed.slots, placed.batch.ts_us)
        return 0

    def _closed_up_to(self) -> ClosedUpTo:
        return self.intake.closed_up_to(self._seen_us)

    @property
    def _seen_us(self) -> Int64s:
        """For each group the greatest time of its readings."""
        if self._last_seen is not None:
            return self._last_seen.us[: self.intake.group_count]
        return self.intake.clocks.progress_us[: len(self.intake.devices)]

    def _make_room(self) -> None:
        self.windows.engine.add_groups(self.intake.group_count)
        if self._last_seen is not None:
            self._last_seen.add_groups(self.intake.group_count)

    # ---- state

    @property
    def gauges(self) -> Mapping[str, int]:
        """What is open now, beside the counts of what was."""
        return gauges_of(self.intake, self.windows.gauges)

    def add_groups(self) -> None:
        """Make room for all groups that there are, and know how far they are."""
        self._make_room()
        self.windows.begin_all(self._closed_up_to())

    def packed(self, first: int, last: int) -> dict[str, Any]:
        """What is open of the groups from ``first`` up to ``last``, for MessagePack."""
        packed = self.windows.engine.packed(first, last)
        if self._last_seen is not None:
            packed["seen_us"] = self._last_seen.packed(first, last)
        return packed

    def unpack(self, packed: dict[str, Any], first: int, dtypes: dict[str, Any]) -> None:
        """Take up what was packed of the groups from ``first`` on."""
        if self._last_seen is not None:
            self._last_seen.unpack(packed["seen_us"], first)
        self.windows.engine.unpack(packed, dtypes)

    @property
    def extra(self) -> dict[str, Any]:
        """Nothing beside what all stages have."""
        return {}

    def take_extra(self, extra: dict[str, Any]) -> None:
        """Nothing."""
