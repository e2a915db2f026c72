"""The second stage of groups that span partitions: what the partitions forward, merged, and the windows of it.

A window closes when every source partition is past it, but for those that have fallen silent. What counts in a
window was judged where it was read. Only what a partition forwards when it was silent for too long can be too late
here.
"""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

import numpy as np

from headrace.batch import Batch, Int64s
from processors.windows.column import heads_of
from processors.windows.input.deduplication import Deduplication
from processors.windows.input.groups import Devices, EachDevice, Groups
from processors.windows.input.newest_tags import NewestTags
from processors.windows.input.readings import Readings
from processors.windows.kinds.pane_windows import FOR_EVER
from processors.windows.operator import Collected, Judged, Outcome, WindowOperator
from processors.windows.repartition.pane_parts import MergedPanes, SplitPanes
from processors.windows.repartition.update import FIRST, Kept, Panes, Update, batch_of, times_of
from processors.windows.spec import WindowSpec
from processors.windows.time.closed_up_to import ClosedUpTo
from processors.windows.time.source_clocks import SourceClocks, SourceProgress
from processors.windows.time.watermark import NEVER

SOURCE = " source"
"""Beside a group's values: the partition whose part of it this is. No field is called so."""


class Merged(WindowOperator):
    """The groups of a stream that come together in one partition of its repartition topic."""

    def __init__(self, spec: WindowSpec) -> None:
        super().__init__(spec)
        self.role = "merged"
        self.clocks: SourceClocks = SourceClocks("slowest", spec.idle_us)
        self._owners: dict[tuple[Any, ...], int] = {}
        """The groups themselves, where each slot is one partition's part of a group."""
        self._owner: list[int] = []
        """For each slot the one that stands for its whole group."""
        self._sources: dict[str, list[int]] = {}
        """Of each source, as it was begun, the slots that are its parts of groups."""
        self._had: dict[int, tuple[int, int]] = {}
        """Of each source partition since when its readings are numbered, and the number of the next one."""
        # Readings have been left out where they were read that their own partition had before.
        self.deduplication = Deduplication() if spec.devices_span and spec.drop_repeats else None
        # Which group a reading belongs to was collected there, too.
        self.devices = Devices(()) if spec.by is not None else NewestTags(spec.tags)
        self._parts: MergedPanes | None = None
        self._folding: SplitPanes | None = None
        """Where readings come that are folded here."""
        if not spec.forwards_readings:
            self.engine = self._parts = MergedPanes(spec)
            self.groups = Groups((*((spec.key,) if spec.by is None else spec.by), SOURCE), spec.key)
            return
        if spec.by is None:
            self.groups = EachDevice(spec.key)
        if not spec.ordered:
            assert self.alignment is not None  # noqa: S101 - all other kinds are ordered
            self.engine = self._folding = SplitPanes(self.alignment, spec.aggregates, unit=spec.unit_us)

    def take(self, part: Update, now_us: int) -> Outcome:
        """Take what a source partition forwards, and how far it is after that."""
        collected = Collected()
        if part.kept is not None:
            fresh = self._fresh(part.kept, part)
            if len(fresh):
                self._add(fresh, now_us, collected)
        if part.panes is not None:
            self._merge(part.panes, part)
        self.clocks.update(part, now_us)
        if self._parts is not None:
            slots = np.array(self._sources.get(_begun(part.source, part.since), ()), np.int64)
            self.touched.append(self._parts.note_progress(slots, part.horizon_us - self.spec.grace_us))
        self._advance(np.empty(0, np.int64), collected)
        return self._outcome(collected, now_us)

    def tick(self, now_us: int) -> Outcome:
        """No partition hands anything on at ``now_us`` (and none is behind here): what is open may close by silence."""
        if not self._is_open:
            self.clocks.wait(now_us)
            return self._outcome(Collected(), now_us)
        return super().tick(now_us)

    def _fresh(self, kept: Kept, part: Update) -> Batch:
        """The readings that were not forwarded before, by a partition that is read again since its last checkpoint."""
        batch, numbers = batch_of(kept, self.spec.key), times_of(kept.numbers)
        since, following = self._had.get(part.source, (part.since, 0))
        if since != part.since:  # it has started over
            following = 0
        self._had[part.source] = part.since, max(following, int(numbers[-1]) + 1)
        again = numbers < following
        if not again.any():
            return batch
        self.counts["read"] += int(again.sum())
        self.counts["repeated"] += int(again.sum())
        return batch.take(np.flatnonzero(~again))

    def _merge(self, panes: Panes, part: Update) -> None:
        """Put parts of panes in the place of what their partition collected of them before."""
        engine, groups = self._parts, self.groups
        assert engine is not None and groups is not None  # noqa: S101 - what the first stage made
        begun, devices = _begun(part.source, part.since), self._devices_of(panes)
        pairs = zip(panes.groups, devices, strict=True)
        of = np.array([self._slot((*values, begun), device) for values, device in pairs], np.int64)
        self._own()
        self.begin(of)
        partials = engine.rows.aggregates.unpacked(panes.partials)
        fresh, late, again = engine.put(
            of[times_of(panes.group)], times_of(panes.pane), times_of(panes.first), partials
        )
        self.counts["read"] += fresh + late + again
        self.counts["windowed"] += fresh
        self.counts["late"] += late
        self.counts["repeated"] += again
        self.touched.append(of)

    def _devices_of(self, panes: Panes) -> list[int]:
        """The slot of the device that each group is, with what it collected of its tags; 0 where groups are none."""
        if not isinstance(self.devices, NewestTags):
            return [0] * len(panes.groups)
        pairs = zip(panes.groups, panes.tags, strict=True)
        slots = [self.devices.merge(name, collected) for (name,), collected in pairs]
        self.clocks.add_devices(len(self.devices))
        self.moved.append(np.array(slots, np.int64))
        return slots

    def _slot(self, values: tuple[Any, ...], device: int) -> int:
        groups = self.groups
        assert groups is not None  # noqa: S101 - there are groups in both stages
        slot = groups.slots.get(values)
        return groups.add(values, device) if slot is None else slot

    def _where_closed(self, devices: Int64s, batch: Batch, before_us: Int64s) -> int:  # noqa: ARG002 - as WindowOperator
        """Nowhere: no window closes between the readings of a message."""
        return 0

    def _keep(self, batch: Batch, slots: Int64s, devices: Int64s, judged: Judged, collected: Collected) -> None:
        """Give the readings that are kept to the windows that they counted in where they were read."""
        if self._folding is None or not batch.has(FIRST):
            super()._keep(batch, slots, devices, judged, collected)
            return
        places = np.flatnonzero(judged.keep)
        if not len(places):
            return
        readings = Readings(slots, devices, batch.ts_us, self.spec.columns(batch)).take(places)
        self._folding.take_parts(readings, np.array(batch.column(FIRST), np.int64)[places])
        self.counts["windowed"] += len(places)
        self.touched.append(np.unique(readings.slots))

    def _own(self) -> None:
        """Let the windows know which slots are parts of one group, and which are of one partition."""
        self._add_groups()
        known = len(self._owner)
        if self._parts is None or self.groups is None or known == len(self.groups):
            return
        for slot, values in enumerate(self.groups.values[known:], known):
            self._owner.append(self._owners.setdefault(values[:-1], slot))
            self._sources.setdefault(values[-1], []).append(slot)
        self._parts.owner = np.array(self._owner, np.int64)
        for source, progress in self.clocks.progress.items():
            slots = np.array(self._sources.get(_begun(source, progress.since), ()), np.int64)
            self._parts.note_progress(slots[slots >= known], progress.horizon_us - self.spec.grace_us)

    def add_groups(self) -> None:
        """Make room for all groups that there are, and know up to where they are closed."""
        self._own()
        super().add_groups()

    # ---- windows that silence ends: by the order of a group's readings, not by when they were forwarded

    def _where_silent(self, slots: Int64s, ts_us: Int64s) -> int:  # noqa: ARG002 - as WindowOperator
        return 0

    def _note_seen(self, slots: Int64s, ts_us: Int64s) -> None:
        """Nothing: what waits has not been seen yet."""

    def _window(self, readings: Readings, collected: Collected) -> None:
        """Give readings, sorted by group and time, to the windows; those before a silence end with it."""
        if not self._silence_ends:
            super()._window(readings, collected)
            return
        slots, ts_us = readings.slots, readings.ts_us
        heads = heads_of(slots)
        before = np.empty_like(ts_us)
        before[1:] = ts_us[:-1]
        before[heads] = self._seen[slots[heads]]
        after_silence = (before != NEVER) & (ts_us - before > self.spec.idle_us + self.spec.grace_us)
        times = np.cumsum(after_silence)
        first = np.flatnonzero(heads)
        # How many silences there are in a group before each of its readings.
        times -= np.repeat(times[first] - after_silence[first], np.diff(first, append=len(slots)))
        for nth in range(int(times.max()) + 1):
            part = readings.take(np.flatnonzero(times == nth)) if times.any() else readings
            ended = slots[after_silence & (times == nth)]
            if len(ended):
                self._end(ended, collected)
            if len(part):
                super()._window(part, collected)
                np.maximum.at(self._seen, part.slots, part.ts_us)

    def _end(self, slots: Int64s, collected: Collected) -> None:
        """End the windows of these groups."""
        seen = np.full(len(self._seen_us), FOR_EVER, np.int64)
        seen[slots] = NEVER
        collected.emitted.append(
            self.engine.advance(slots, ClosedUpTo(lambda groups: np.full(len(groups), NEVER), 0, None, seen))
        )

    def _closed_up_to(self) -> ClosedUpTo:
        closed_up_to, clocks = super()._closed_up_to(), self.clocks
        if not self._silence_ends:
            return closed_up_to
        seen_us = closed_up_to.seen_us.copy()
        if self.reorder is not None:
            self.reorder.note_latest(seen_us)
        silent_us = closed_up_to.silent_us
        if not (self._is_open and clocks.all_silent(clocks.arrived_us)):
            # No reading comes any more that would be less than this after one that is older.
            silent_us = clocks.slowest_us - self.spec.idle_us - 2 * self.spec.grace_us
        return ClosedUpTo(closed_up_to.of, silent_us, closed_up_to.common_us, seen_us)

    @property
    def _is_open(self) -> bool:
        """Whether there is anything that time could close."""
        return self.engine.open_windows() > 0 or (self.reorder is not None and len(self.reorder) > 0)

    # ---- state

    @property
    def extra(self) -> dict[str, Any]:
        """What the state has beside that of all windows."""
        clocks = self.clocks
        progress = [[source, *astuple(progress)] for source, progress in clocks.progress.items()]
        return {
            "sources": clocks.sources,
            "progress": progress,
            "had": [[source, *had] for source, had in self._had.items()],
        }

    def take_extra(self, extra: dict[str, Any]) -> None:
        """Take up what :attr:`extra` was."""
        self.clocks.sources = extra["sources"]
        self._had = {source: (since, following) for source, since, following in extra["had"]}
        self.clocks.progress = {source: SourceProgress(*progress) for source, *progress in extra["progress"]}


def _begun(source: int, since: int) -> str:
    """What names a source partition and where it began: one that starts over adds to what it forwarded before."""
    return f"{source}@{since}"
