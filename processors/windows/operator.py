"""The window operator: a stream's windows over one partition. Readings in, results, late readings and counts out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headrace.batch import Batch, Int64s
from headrace.pipeline.model import Count, Event, State
from processors.windows.column import Bools, with_room
from processors.windows.input.deduplication import CORRECTED, REPEATED, Deduplication
from processors.windows.input.digest import digests
from processors.windows.input.groups import Devices, Groups, different, group_name
from processors.windows.input.held_readings import HeldReadings
from processors.windows.input.late import LateReadings, Reason, late_readings
from processors.windows.input.readings import Readings
from processors.windows.input.reorder_buffer import ReorderBuffer
from processors.windows.kinds.emitted import Emitted
from processors.windows.kinds.engine import engine_of
from processors.windows.kinds.sliding_windows import SlidingWindows
from processors.windows.spec import WindowSpec, until_us
from processors.windows.time.closed_up_to import ClosedUpTo
from processors.windows.time.watermark import NEVER, Clocks, before_each, late, running_max_before

COUNTS = ("read", "windowed", "late", "filtered", "repeated", "corrected", "outside", "closed", "in_closed")


@dataclass
class Outcome:
    """What a batch or a tick brings.

    ``results``: what windows emit (ts = start; columns end, aggregates, tags or ``by``, revision, final),
    or None. ``late``: the readings that came too late for a window or correct one, where the stream asks for
    them.
    """

    results: Batch | None = None
    late: list[LateReadings] = field(default_factory=list)


@dataclass
class Judged:
    """What became of the readings of a batch, before any window saw them."""

    keep: Bools
    late: Bools | None = None
    corrected: Bools | None = None
    before_us: Int64s | None = None


@dataclass
class Collected:
    """What has been brought so far."""

    emitted: list[Emitted] = field(default_factory=list)
    late: list[LateReadings] = field(default_factory=list)


class WindowOperator:
    """The windows of one stream over one partition."""

    def __init__(self, spec: WindowSpec) -> None:
        self.spec = spec
        self.role = ""
        """which stage this is, where there are two"""
        self.alignment = spec.alignment
        remembered = spec.tags if spec.by is None else tuple(name for name in spec.by if name in spec.topic_tags)
        self.devices = Devices(remembered)
        self.groups = None if spec.by is None else Groups(spec.by, spec.key)
        self.clocks = Clocks(spec.follows, spec.idle_us)
        self.engine = engine_of(spec)
        self.reorder = ReorderBuffer(ties=spec.ties) if spec.ordered else None
        self.deduplication = Deduplication() if spec.drop_repeats else None
        self.counts: dict[str, int] = dict.fromkeys(COUNTS, 0)
        self._silence_ends = isinstance(spec.window, State | Event | Count)
        self._seen: Int64s = np.empty(0, np.int64)
        self.touched: list[Int64s] = []
        """The groups whose windows have changed since the state was last written, and the devices that moved."""
        self.moved: list[Int64s] = []
        self._emitted_us = NEVER
        """The wall time of the last provisional results."""

    # ---- readings and time come

    def add(self, batch: Batch, now_us: int) -> Outcome:
        """Take the readings of a batch that arrived at ``now_us``, in their order; what that brings."""
        if not len(batch):
            return Outcome()
        collected = Collected()
        self._add(batch, now_us, collected)
        return self._outcome(collected, now_us)

    def _add(self, batch: Batch, now_us: int, collected: Collected) -> None:
        self.counts["read"] += len(batch)
        self.spec.compute(batch)
        rest: Batch | None = batch
        while rest is not None:
            rest = self._take(rest, now_us, collected)

    def tick(self, now_us: int) -> Outcome:
        """The partition is silent (not behind) at ``now_us``: its clock moves on with the wall clock."""
        collected = Collected()
        if self.clocks.tick(now_us):
            self._advance(np.empty(0, np.int64), collected)
        return self._outcome(collected, now_us)

    def _take(self, batch: Batch, now_us: int, collected: Collected) -> Batch | None:
        """Take the batch, or its beginning; the rest of it."""
        spec, clocks = self.spec, self.clocks
        devices = self.devices.slots_of(batch)
        clocks.add_devices(len(self.devices))
        slots = devices if self.groups is None else self.groups.slots_of(batch, self.devices, devices)
        self._add_groups()
        until = until_us(spec, self.alignment, batch.ts_us)
        before = clocks.before(devices, batch.ts_us, until if not self._overlapping else self._first_end(batch.ts_us))
        rest, place = None, 0
        if self._overlapping and before is not None:
            place = self._where_closed(devices, batch, before)
        elif self._silence_ends:
            place = self._where_silent(slots, batch.ts_us)
        if place:
            every = np.arange(len(batch))
            batch, rest = batch.take(every[:place]), batch.take(every[place:])
            slots, devices, until = slots[:place], devices[:place], until[:place]
            before = None if before is None else before[:place]
        self.devices.note_tags(batch, devices)
        judged = self._judge(batch, devices, until, before)
        groups = different(slots)
        self.begin(groups)
        if spec.late != "drop":
            self._note_late(batch, slots, judged, collected)
        clocks.move(devices, batch.ts_us, now_us)
        if self.groups is None:
            self.moved.append(groups)
        else:
            self.moved.append(different(devices))
            if self._silence_ends:
                self._note_seen(slots, batch.ts_us)
        self._keep(batch, slots, devices, judged, collected)
        if self.groups is not None and clocks.follows == "device":
            groups = self.groups.of_devices(devices)
        self._advance(groups, collected)
        if self.deduplication is not None and self.deduplication.wants_pruning:
            self.deduplication.prune(self._still)
        return rest

    def _add_groups(self) -> None:
        count = len(self.groups if self.groups is not None else self.devices)
        self.engine.add_groups(count)
        if self.groups is not None and self._silence_ends:
            self._seen = with_room(self._seen, count, NEVER)

    def _note_seen(self, slots: Int64s, ts_us: Int64s) -> None:
        """Know the greatest time of each group."""
        np.maximum.at(self._seen, slots, ts_us)
        self.touched.append(different(slots))

    @property
    def _seen_us(self) -> Int64s:
        """For each group the greatest time of its readings."""
        if self.groups is None:
            return self.clocks.progress_us[: len(self.devices)]
        return self._seen[: len(self.groups)]

    def packed(self, first: int, last: int) -> dict[str, Any]:
        """What is open of the groups from ``first`` up to ``last``, for MessagePack."""
        packed = self.engine.packed(first, last)
        if len(self._seen):
            packed["seen_us"] = self._seen[first:last].astype("<i8").tobytes()
        return packed

    def unpack(self, packed: dict[str, Any], first: int, dtypes: dict[str, Any]) -> None:
        """Take up what was packed of the groups from ``first`` on."""
        if "seen_us" in packed:
            seen = np.frombuffer(packed["seen_us"], "<i8")
            self._seen[first : first + len(seen)] = seen
        self.engine.unpack(packed, dtypes)

    @property
    def held(self) -> list[HeldReadings]:
        """The readings that are held, each in pieces of state of its own."""
        held = [] if self.reorder is None else [self.reorder.held]
        if isinstance(self.engine, SlidingWindows):
            held.append(self.engine.tail)
        return held

    def add_groups(self) -> None:
        """Make room for all groups that there are, and know up to where they are closed."""
        self._add_groups()
        count = len(self.groups if self.groups is not None else self.devices)
        if count:
            self.begin(np.arange(count))

    def begin(self, groups: Int64s) -> None:
        """Know up to where these groups are closed before readings of theirs are taken."""
        self.engine.begin(groups, self._closed_up_to())

    @property
    def _overlapping(self) -> bool:
        return self.alignment is not None and self.alignment.overlapping and not self.spec.ordered

    def _first_end(self, ts_us: Int64s) -> Int64s:
        """The horizon at which the first window of each reading has closed."""
        assert self.alignment is not None  # noqa: S101 - only asked where windows overlap along event time
        return self.alignment.first_end(self.alignment.panes(ts_us), ts_us) + self.spec.grace_us

    def _where_closed(self, devices: Int64s, batch: Batch, before_us: Int64s) -> int:
        """The first reading that is too late for a window which other readings of the batch are to close; or 0.

        Panes do not tell the readings apart that came before their first window closed from those that came
        after, so that window must have emitted by then.
        """
        assert self.alignment is not None  # noqa: S101 - only asked where windows overlap along event time
        grace_us = self.spec.grace_us
        closed = self.clocks.horizon_us(devices) - grace_us
        ends = self.alignment.first_end(self.alignment.panes(batch.ts_us), closed)
        missed = ends + grace_us <= before_us
        return int(np.argmax(missed)) if missed.any() else 0

    def _where_silent(self, slots: Int64s, ts_us: Int64s) -> int:
        """The first reading of a group that was silent before it, so that its window must end first; or 0."""
        clocks, wait_us = self.clocks, self.spec.idle_us + self.spec.grace_us
        seen = self._seen_us
        silent = max(clocks.clock_us, int(ts_us.max())) - wait_us
        earlier = seen[slots]
        if not ((ts_us < silent) | ((earlier < silent) & (earlier != NEVER))).any():
            return 0
        before = running_max_before(slots, ts_us, seen)
        ended = (before != NEVER) & (before < before_each(np.maximum.accumulate(ts_us), clocks.clock_us) - wait_us)
        ended[0] = False
        return int(np.argmax(ended))

    def _judge(self, batch: Batch, devices: Int64s, until: Int64s, before: Int64s | None) -> Judged:
        """Tell late, repeated, corrected and filtered readings from those to be kept, and count them."""
        counts, n = self.counts, len(batch)
        is_late = late(until, before)
        passes = self.spec.where.mask(batch) if self.spec.where is not None else None
        judged = Judged(np.ones(n, np.bool_) if is_late is None else ~is_late, is_late, None, before)
        if self.deduplication is not None:
            self._sift(batch, devices, judged, passes)
        if passes is not None:
            filtered = ~passes
            if judged.corrected is not None:
                filtered &= ~judged.corrected
            counts["filtered"] += int(np.count_nonzero(filtered))
            judged.keep &= passes
            if judged.late is not None:
                judged.late = judged.late & passes
        if judged.late is not None:
            counts["late"] += int(np.count_nonzero(judged.late))
        return judged

    def _sift(self, batch: Batch, devices: Int64s, judged: Judged, passes: Bools | None) -> None:
        assert self.deduplication is not None  # noqa: S101 - only asked where repeats are dropped
        digest = digests(self.spec.used_columns(batch), len(batch))
        progress = self.clocks.progress_us[: self.clocks.devices]
        if judged.late is None:
            verdicts = self.deduplication.sift(devices, batch.ts_us, digest, progress, passes)
            if not verdicts.any():
                return
            repeated, corrected = verdicts == REPEATED, verdicts == CORRECTED
        else:
            places = np.flatnonzero(judged.keep)
            used = None if passes is None else passes[places]
            verdicts = self.deduplication.sift(devices[places], batch.ts_us[places], digest[places], progress, used)
            if not verdicts.any():
                return
            repeated, corrected = np.zeros(len(batch), np.bool_), np.zeros(len(batch), np.bool_)
            repeated[places], corrected[places] = verdicts == REPEATED, verdicts == CORRECTED
        judged.keep &= ~(repeated | corrected)
        judged.corrected = corrected
        if passes is not None:
            repeated &= passes
        self.counts["repeated"] += int(np.count_nonzero(repeated))
        self.counts["corrected"] += int(np.count_nonzero(corrected))

    def _keep(self, batch: Batch, slots: Int64s, devices: Int64s, judged: Judged, collected: Collected) -> None:
        """Give the readings that are kept to the windows, or let them wait."""
        keep = judged.keep
        kept = int(np.count_nonzero(keep))
        if not kept:
            return
        readings = Readings(slots, devices, batch.ts_us, self.spec.columns(batch))
        if kept < len(batch):
            readings = readings.take(np.flatnonzero(keep))
        if self.reorder is None:
            self._window(readings, collected)
        else:
            self.reorder.put(readings)
            self.touched.append(different(readings.slots))

    def _window(self, readings: Readings, collected: Collected) -> None:
        emitted, outside = self.engine.take(readings)
        self.counts["windowed"] += len(readings) - outside
        self.counts["outside"] += outside
        self.touched.append(different(readings.slots))
        collected.emitted.append(emitted)

    def _advance(self, groups: Int64s, collected: Collected) -> None:
        """Take from what waits what may be taken now, and close what is over."""
        closed_up_to = self._closed_up_to()
        if self.reorder is not None and len(self.reorder):
            every = closed_up_to.of(np.arange(len(self.groups if self.groups is not None else self.devices)))
            released = self.reorder.release(every, self.devices.names)
            if released is not None:
                self._window(released, collected)
                groups = np.union1d(groups, different(released.slots))
        emitted = self.engine.advance(groups, closed_up_to)
        if len(emitted):
            self.touched.append(emitted.slots)
            collected.emitted.append(emitted)

    def _closed_up_to(self) -> ClosedUpTo:
        clocks, grace_us = self.clocks, self.spec.grace_us
        device = None if self.groups is None else self.groups.device
        shared = clocks.follows != "device"

        def of(groups: Int64s) -> Int64s:
            devices = groups if device is None or shared else np.array(device, np.int64)[groups]
            return clocks.horizon_us(devices) - grace_us

        return ClosedUpTo(
            of, clocks.silent_us - grace_us, clocks.common_us - grace_us if shared else None, self._seen_us
        )

    def _still(self, devices: Int64s, ts_us: Int64s) -> Bools:
        still: Bools = until_us(self.spec, self.alignment, ts_us) > self.clocks.horizon_us(devices)
        return still

    def prune(self) -> None:
        """Forget the repeats of readings whose windows have closed."""
        if self.deduplication is not None:
            self.deduplication.prune(self._still)

    # ---- results are emitted

    def _note_late(self, batch: Batch, slots: Int64s, judged: Judged, collected: Collected) -> None:
        chosen: dict[Reason, Bools] = {}
        if judged.corrected is not None:
            chosen["corrected"] = judged.corrected
        if judged.late is not None:
            chosen["late"] = judged.late
        if self.spec.late == "heal" and self._overlapping and judged.before_us is not None:
            # What is in time for some of its windows is missing from the others all the same.
            missing = judged.keep & (self._first_end(batch.ts_us) <= judged.before_us)
            chosen["late"] = missing if judged.late is None else missing | judged.late
        if any(mask.any() for mask in chosen.values()):
            names = self.group_names(slots)
            collected.late.append(late_readings(self.spec, self.alignment, batch, names, chosen, judged.before_us))

    def _outcome(self, collected: Collected, now_us: int) -> Outcome:
        final = Emitted.joined(collected.emitted)
        if len(final):
            self.counts["closed"] += len(final)
            self.counts["in_closed"] += sum(final.results["count"])
        provisional = Emitted.none()
        emit_us = self.spec.emit_us
        if emit_us is None:
            self.engine.forget_changes()
        elif now_us - self._emitted_us >= emit_us:
            provisional = self.engine.provisional()
            if len(provisional) or emit_us:
                self._emitted_us = now_us
        results = None
        if len(final) or len(provisional):
            results = self._results(Emitted.joined([final, provisional]), len(final))
        return Outcome(results, collected.late)

    def _results(self, emitted: Emitted, final: int) -> Batch:
        columns: dict[str, list[Any]] = dict(emitted.results)
        slots = emitted.slots.tolist()
        columns["end"] = emitted.ends_us.tolist()
        columns["revision"] = [0] * len(slots)
        columns["final"] = [True] * final + [False] * (len(slots) - final)
        groups = self.groups
        if self.spec.by is None:
            devices = slots if groups is None else [groups.device[slot] for slot in slots]
            for place, tag in enumerate(self.spec.tags):
                columns[tag] = [self.devices.tags[slot][place] for slot in devices]
        elif groups is not None:
            for place, name in enumerate(self.spec.by):
                columns[name] = [groups.values[slot][place] for slot in slots]
        return Batch(self.group_names(emitted.slots), emitted.starts_us, columns)

    def group_names(self, slots: Int64s) -> list[str]:
        """What results call these groups."""
        if self.groups is None:
            return [self.devices.names[slot] for slot in slots.tolist()]
        if self.spec.by is None:
            return [self.groups.values[slot][0] for slot in slots.tolist()]
        return [group_name(self.groups.values[slot][: len(self.spec.by or ())]) for slot in slots.tolist()]

    @property
    def extra(self) -> dict[str, Any]:
        """What the state has beside that of all windows."""
        return {}

    def take_extra(self, extra: dict[str, Any]) -> None:
        """Take up what :attr:`extra` was."""

    @property
    def gauges(self) -> Mapping[str, int]:
        """What is open now, beside the counts of what was."""
        return {
            "open": self.engine.open_windows(),
            "in_open": self.engine.open_readings(),
            "waiting": 0 if self.reorder is None else len(self.reorder),
            "devices": len(self.devices),
            "remembered": 0 if self.deduplication is None else len(self.deduplication),
        }
