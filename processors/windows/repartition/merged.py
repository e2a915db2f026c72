"""The second stage of groups that span partitions: what the partitions forward, merged, and the windows of it.

A window closes when every source partition is past it, but for those that have fallen silent. What counts in a
window was judged where it was read. Only what a partition forwards when it was silent for too long can be too late
here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, replace
from typing import Any

import numpy as np

from headrace.batch import Int64s
from processors.windows.emission import Emission, Outcome
from processors.windows.input.forgetting import Forgetting, Holder
from processors.windows.input.groups import Devices, Groups, different
from processors.windows.input.intake import Intake, Judged, Placed, kept_readings
from processors.windows.input.last_seen import LastSeen
from processors.windows.input.late import LateReadings, late_of
from processors.windows.input.newest_tags import NewestTags
from processors.windows.input.reorder_buffer import ReorderBuffer
from processors.windows.kinds.emitted import Emitted
from processors.windows.kinds.engine import Engine, engine_of
from processors.windows.repartition.merged_parts import SOURCE, MergedParts
from processors.windows.repartition.numbered import Numbered
from processors.windows.repartition.pane_parts import SplitPanes
from processors.windows.repartition.silences import EndedBySilence
from processors.windows.repartition.source_clocks import SourceClocks, SourceProgress
from processors.windows.repartition.update import FIRST, Kept, Panes, Update, times_of
from processors.windows.spec import WindowSpec
from processors.windows.stage import gauges_of
from processors.windows.time.closed_up_to import ClosedUpTo
from processors.windows.windowing import Windowing


class Merged:
    """The groups of a stream that come together in one partition of its repartition topic."""

    role = "merged"

    def __init__(self, spec: WindowSpec) -> None:
        self.spec = spec
        self.clocks = SourceClocks("slowest", spec.idle_us, spec.grace_us)
        self.intake = Intake(
            spec,
            self.clocks,
            # Which group a reading belongs to was judged where it was read.
            Devices(()) if spec.by is not None else NewestTags(spec.tags),
            _groups_of(spec),
            # Readings have been left out where they were read that their own partition had before.
            deduplicates=spec.devices_span and spec.drop_repeats,
        )
        self.counts = self.intake.counts
        self._parts: MergedParts | None = None
        self._folding: SplitPanes | None = None
        """Where readings come that are folded here."""
        self._silences: EndedBySilence | None = None
        engine = self._engine()
        reorder = ReorderBuffer(ties=spec.ties) if spec.ordered else None
        self.windows = Windowing(engine, reorder, self.intake)
        self.touched, self.held = self.windows.touched, self.windows.held
        self._emission = Emission(self.intake, engine)
        self._numbered = Numbered()
        self._last_seen = LastSeen() if self.intake.groups is not None else None
        holder: Holder = self.windows if self._parts is None else self._parts
        self._forgetting = Forgetting(self.intake, [holder], self._last_seen, self.touched)

    def _engine(self) -> Engine:
        spec = self.spec
        if not spec.forwards_readings:
            assert self.intake.groups is not None  # noqa: S101 - there are groups in both stages
            self._parts = MergedParts(spec, self.intake.groups)
            return self._parts.panes
        if not spec.ordered:
            assert spec.alignment is not None  # noqa: S101 - all other kinds are ordered
            self._folding = SplitPanes(spec.alignment, spec.aggregates, unit=spec.unit_us)
            return self._folding
        if spec.ends_in_silence:
            self._silences = EndedBySilence(engine_of(spec), self.clocks.silence_us)
            return self._silences
        return engine_of(spec)

    def take(self, update: Update, now_us: int) -> Outcome:
        """Take what a source partition forwards, and how far it is after that."""
        closed: list[Emitted] = []
        late: list[LateReadings] = []
        if update.kept is not None:
            self._take_readings(update, update.kept, now_us, closed, late)
        if update.panes is not None:
            self._take_panes(update, update.panes)
        self.clocks.update(update, now_us)
        if self._parts is not None:
            self.touched.append(self._parts.note_progress(update.source, update.since, update.watermark_us))
        closed += self.windows.advance(np.empty(0, np.int64), self._closed_up_to())
        return self._outcome(closed, late, now_us)

    def tick(self, now_us: int) -> Outcome:
        """No partition forwards anything at ``now_us`` (and none is behind here): what is open may close by silence."""
        closed: list[Emitted] = []
        if not self.windows.is_open:
            self.clocks.wait(now_us)
        elif self.clocks.tick(now_us):
            closed = self.windows.advance(np.empty(0, np.int64), self._closed_up_to())
        return self._outcome(closed, [], now_us)

    def _outcome(self, closed: list[Emitted], late: list[LateReadings], now_us: int) -> Outcome:
        outcome = self._emission.outcome(closed, late, now_us)
        # What has closed is named by what is known of it.
        self._forgetting.forget()
        return outcome

    def _take_readings(
        self, update: Update, kept: Kept, now_us: int, closed: list[Emitted], late: list[LateReadings]
    ) -> None:
        batch, again = self._numbered.fresh(update, kept, self.spec)
        self.counts["read"] += again + len(batch)
        self.counts["repeated"] += again
        if not len(batch):
            return
        batch = self.spec.compute(batch)
        placed = self.intake.place(batch)
        self._make_room()
        self.windows.engine.begin(placed.groups, self._closed_up_to())
        judged = self.intake.take(placed, now_us)
        if self._last_seen is not None:
            self._last_seen.note(placed.slots, placed.batch.ts_us)
        if (missing := late_of(self.intake, placed, judged)) is not None:
            late.append(missing)
        closed += self._keep(placed, judged)
        closed += self.windows.advance(placed.groups, self._closed_up_to())
        self.intake.prune(when_due=True)

    def _keep(self, placed: Placed, judged: Judged) -> list[Emitted]:
        """Give the readings that are kept to the windows that they counted in where they were read."""
        readings = kept_readings(self.spec, placed, judged)
        if readings is None:
            return []
        if self._folding is None or not placed.batch.has(FIRST):
            return self.windows.keep(readings)
        firsts = placed.batch.column(FIRST).values[judged.keep]
        self._folding.take_parts(readings, firsts)
        self.counts["windowed"] += len(readings)
        self.touched.append(different(readings.slots))
        return []

    def _take_panes(self, update: Update, panes: Panes) -> None:
        """Put parts of panes in the place of what their partition collected of them before."""
        parts = self._parts
        assert parts is not None  # noqa: S101 - what the first stage forwards
        group, seen_us = times_of(panes.group), times_of(panes.first)
        of = parts.slots_of(panes, update, self._devices_of(panes, group, seen_us))
        self._make_room()
        if self._last_seen is not None:
            self._last_seen.note(of[group], seen_us)
        self.windows.engine.begin(of, self._closed_up_to())
        fresh, late, again = parts.put(panes, of)
        self.counts["read"] += fresh + late + again
        self.counts["windowed"] += fresh
        self.counts["late"] += late
        self.counts["repeated"] += again
        self.touched.append(of)

    def _devices_of(self, panes: Panes, group: Int64s, seen_us: Int64s) -> list[int]:
        """The slot of the device that each group is, with what it has sent of its tags; 0 where groups are none.

        ``group``, ``seen_us``: of each pane the place of its group, and when that has sent something at the latest.
        """
        devices, clocks = self.intake.devices, self.clocks
        if not isinstance(devices, NewestTags):
            return [0] * len(panes.groups)
        listed = [devices.slot_of(name) for (name,) in panes.groups]
        clocks.add_devices(len(devices))
        slots = np.array(listed, np.int64)
        returned = clocks.returned(slots[group], seen_us, self.spec.forget_us)
        if returned is not None:
            devices.drop_tags(slots[group[returned]])
        clocks.note(slots[group], seen_us)
        for slot, sent in zip(listed, panes.tags, strict=True):
            devices.merge(slot, sent)
        self.intake.moved.append(slots)
        return listed

    def _closed_up_to(self) -> ClosedUpTo:
        if self._silences is None:
            return self.intake.closed_up_to(np.empty(0, np.int64))
        clocks = self.clocks
        seen_us = self._silences.seen_us[: self.intake.group_count].copy()
        if self.windows.reorder is not None:
            self.windows.reorder.note_latest(seen_us)
        closed_up_to = self.intake.closed_up_to(seen_us)
        if self.windows.is_open and clocks.all_silent(clocks.arrived_us):
            return closed_up_to
        # No reading comes any more that would be less than this after one that is older.
        return replace(closed_up_to, silent_us=clocks.common_us - clocks.silence_us)

    def _make_room(self) -> None:
        self.windows.engine.add_groups(self.intake.group_count)
        if self._last_seen is not None:
            self._last_seen.add_groups(self.intake.group_count)
        if self._parts is not None:
            self._parts.note_sources(self.clocks.progress)

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
        return packed if self._last_seen is None else {**packed, "last_seen_us": self._last_seen.packed(first, last)}

    def unpack(self, packed: dict[str, Any], first: int, dtypes: dict[str, Any]) -> None:
        """Take up what was packed of the groups from ``first`` on."""
        if self._last_seen is not None:
            self._last_seen.unpack(packed["last_seen_us"], first)
        self.windows.engine.unpack(packed, dtypes)

    @property
    def extra(self) -> dict[str, Any]:
        """What the state has beside that of all stages."""
        progress = [[source, *astuple(progress)] for source, progress in self.clocks.progress.items()]
        return {
            "sources": self.clocks.sources,
            "progress": progress,
            "numbered": [[source, *following] for source, following in self._numbered.following.items()],
        }

    def take_extra(self, extra: dict[str, Any]) -> None:
        """Take up what :attr:`extra` was."""
        self.clocks.sources = extra["sources"]
        self.clocks.progress = {source: SourceProgress(*progress) for source, *progress in extra["progress"]}
        self._numbered.following = {source: (since, following) for source, since, following in extra["numbered"]}


def _groups_of(spec: WindowSpec) -> Groups | None:
    if not spec.forwards_readings:
        return Groups((*((spec.key,) if spec.by is None else spec.by), SOURCE))
    return None if spec.by is None else Groups(spec.by)
