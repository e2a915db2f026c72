"""A stream's windows over one partition: readings in, results and counts out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headrace.batch import Batch, Int64s
from headrace.expression import Expression, parse
from headrace.pipeline.model import Pipeline
from headrace.pipeline.tables import expression_types
from processors.windows.accumulators import Accumulators, Measure
from processors.windows.tumbling import Tumbling
from processors.windows.watermark import NEVER, late

BUCKET = 256
"""How many devices share a piece of state."""

COUNTS = ("read", "windowed", "late", "filtered", "closed")


@dataclass(frozen=True)
class WindowSpec:
    """What a stream asks for, compiled from the pipeline file."""

    stream: str
    window: Tumbling
    measures: tuple[Measure, ...]
    tags: tuple[str, ...]
    where: Expression | None
    grace_us: int
    idle_us: int

    @classmethod
    def of(cls, pipeline: Pipeline, name: str) -> WindowSpec:
        """The spec of a stream of the pipeline file."""
        stream = pipeline.streams[name]
        source = pipeline.topics[stream.source]
        return cls(
            stream=name,
            window=Tumbling(int(stream.window.size)),
            measures=tuple(
                Measure(field, source.fields[field].type, tuple(aggregates))
                for field, aggregates in stream.aggregates.items()
            ),
            tags=tuple(source.tags),
            where=None if stream.where is None else parse(stream.where, expression_types(source)),
            grace_us=int(stream.grace),
            idle_us=int(stream.idle),
        )

    def fingerprint(self) -> str:
        """What a state must have been made with to be of use to this spec."""
        measures = [(m.field, m.type, m.aggregates) for m in self.measures]
        return repr((self.window, measures, self.tags))


@dataclass
class Outcome:
    """The windows that closed: a batch of results (ts = start; columns end, aggregates, tags, revision), or None."""

    results: Batch | None = None


@dataclass
class Devices:
    """The devices that a partition has seen, each in a slot."""

    names: list[str] = field(default_factory=list)
    slots: dict[str, int] = field(default_factory=dict)
    tags: list[tuple[Any, ...]] = field(default_factory=list)
    progress_us: Int64s = field(default_factory=lambda: np.empty(0, np.int64))
    next_close_us: Int64s = field(default_factory=lambda: np.empty(0, np.int64))
    open: list[dict[int, int]] = field(default_factory=list)
    """For each device its open windows: number to accumulator row."""

    def add(self, name: str, tags: tuple[Any, ...]) -> int:
        """A slot for a device that was never seen before."""
        slot = self.slots[name] = len(self.names)
        self.names.append(name)
        self.tags.append(tags)
        self.open.append({})
        if slot >= len(self.progress_us):
            more = max(64, slot // 2)
            self.progress_us = np.concatenate([self.progress_us, np.full(more, NEVER, np.int64)])
            self.next_close_us = np.concatenate([self.next_close_us, np.full(more, 2**62, np.int64)])
        return slot


class Pairs:
    """The different pairs of device and window among n readings, and which of them each reading belongs to."""

    __slots__ = ("inverse", "slots", "windows")

    def __init__(self, slots: Int64s, windows: Int64s) -> None:
        lowest = int(windows.min())
        span = int(windows.max()) - lowest + 1
        keys = slots * span + (windows - lowest)
        reach = int(keys.max()) + 1
        if reach <= 4 * len(keys):
            # Few devices and windows: a table is some four times as fast as sorting.
            table = np.zeros(reach, np.int64)
            table[keys] = 1
            found = np.flatnonzero(table)
            table[found] = np.arange(len(found))
            self.inverse: Int64s = table[keys]
        else:
            found, self.inverse = np.unique(keys, return_inverse=True)
        self.slots: list[int] = (found // span).tolist()
        self.windows: list[int] = (found % span + lowest).tolist()


class Windowed:
    """The open windows of one stream over one partition."""

    def __init__(self, spec: WindowSpec) -> None:
        self.spec = spec
        self.devices = Devices()
        self.accumulators = Accumulators(spec.measures)
        self.counts: dict[str, int] = dict.fromkeys(COUNTS, 0)
        self.clock_us = NEVER
        """The partition's clock: the greatest event time, moved on by the wall clock while it is silent."""
        self.arrived_us = NEVER
        """The wall time at which the clock was last moved."""
        self.rows_of_window: dict[int, list[int]] = {}
        self.changed: set[int] = set()
        self.renamed: set[int] = set()

    def add(self, batch: Batch, now_us: int) -> Outcome:
        """Take the readings of a batch that arrived at ``now_us``, in their order; the windows that close."""
        if not len(batch):
            return Outcome()
        spec, devices, counts = self.spec, self.devices, self.counts
        slots = self._slots(batch)
        windows = spec.window.numbers(batch.ts_us)
        pairs = Pairs(slots, windows)
        closes = spec.window.end_us(windows) + spec.grace_us
        is_late = late(slots, batch.ts_us, closes, devices.progress_us, self.clock_us, spec.idle_us)
        keep = ~is_late
        counts["read"] += len(batch)
        if spec.where is not None:
            passed = spec.where.mask(batch)
            counts["filtered"] += len(batch) - int(np.count_nonzero(passed))
            is_late &= passed
            keep &= passed
        counts["late"] += int(np.count_nonzero(is_late))
        kept = int(np.count_nonzero(keep))
        counts["windowed"] += kept
        # Every reading moves the clocks, the filtered ones too: they say how far event time is.
        np.maximum.at(devices.progress_us, slots, batch.ts_us)
        self.clock_us = max(self.clock_us, int(batch.ts_us.max()))
        self.arrived_us = max(self.arrived_us, now_us)
        touched = np.array(sorted(set(pairs.slots)), np.int64)
        self.changed.update({slot // BUCKET for slot in pairs.slots})
        if kept:
            if kept < len(batch):
                places = np.flatnonzero(keep)
                batch, pairs = batch.take(places), Pairs(slots[places], windows[places])
            self.accumulators.fold(self._rows(pairs), batch)
        due = touched[devices.next_close_us[touched] <= devices.progress_us[touched]]
        return self._close(self._due_by_device(due) + self._due_by_clock())

    def tick(self, now_us: int) -> Outcome:
        """The partition is silent (not behind) at ``now_us``: its clock moves on with the wall clock."""
        if self.clock_us == NEVER or now_us <= self.arrived_us:
            return Outcome()
        self.clock_us += now_us - self.arrived_us
        self.arrived_us = now_us
        return self._close(self._due_by_clock())

    def _slots(self, batch: Batch) -> Int64s:
        devices = self.devices
        try:
            known = list(map(devices.slots.__getitem__, batch.devices))
        except KeyError:
            for name in dict.fromkeys(batch.devices):
                if name not in devices.slots:
                    slot = devices.add(name, (None,) * len(self.spec.tags))
                    self.renamed.add(slot // BUCKET)
            known = list(map(devices.slots.__getitem__, batch.devices))
        slots = np.array(known, np.int64)
        if self.spec.tags:
            self._note_tags(batch, slots)
        return slots

    def _note_tags(self, batch: Batch, slots: Int64s) -> None:
        """Keep what each device last says of its tags."""
        last = len(slots) - 1 - np.unique(slots[::-1], return_index=True)[1]
        carried: dict[str, dict[int, Any]] = {}
        for place in last.tolist():
            slot = int(slots[place])
            known = self.devices.tags[slot]
            said = tuple(batch.value(tag, place) for tag in self.spec.tags)
            if None in said:
                # An earlier reading of the batch may carry what the last one leaves out.
                for tag in self.spec.tags:
                    if tag not in carried:
                        pairs = zip(slots.tolist(), batch.column(tag), strict=True)
                        carried[tag] = {slot: value for slot, value in pairs if value is not None}
                said = tuple(carried[tag].get(slot) for tag in self.spec.tags)
            if said != known:
                merged = tuple(old if new is None else new for old, new in zip(known, said, strict=True))
                if merged != known:
                    self.devices.tags[slot] = merged
                    self.renamed.add(slot // BUCKET)

    def _rows(self, pairs: Pairs) -> Int64s:
        """The accumulator row of each reading, opened where there was none."""
        open_windows = self.devices.open
        rows = [open_windows[s].get(w, -1) for s, w in zip(pairs.slots, pairs.windows, strict=True)]
        fresh = [place for place, row in enumerate(rows) if row < 0]
        if fresh:
            taken = self.accumulators.take([pairs.slots[p] for p in fresh], [pairs.windows[p] for p in fresh])
            for place, row in zip(fresh, taken, strict=True):
                rows[place] = row
                self.open_row(pairs.slots[place], pairs.windows[place], row)
        return np.array(rows, np.int64)[pairs.inverse]

    def open_row(self, slot: int, window: int, row: int) -> None:
        """Know an accumulator row as a device's open window."""
        self.devices.open[slot][window] = row
        self.rows_of_window.setdefault(window, []).append(row)
        closes = int(self._closes(window))
        self.devices.next_close_us[slot] = min(self.devices.next_close_us[slot], closes)

    def _closes(self, window: int) -> int:
        return self.spec.window.end_of(window) + self.spec.grace_us

    def _due_by_device(self, slots: Int64s) -> list[int]:
        """The open rows of these devices that their own progress closes."""
        due = []
        for slot in slots.tolist():
            progress = int(self.devices.progress_us[slot])
            due += [row for window, row in self.devices.open[slot].items() if self._closes(window) <= progress]
        return due

    def _due_by_clock(self) -> list[int]:
        """The open rows of devices that have fallen silent."""
        limit = self.clock_us - self.spec.idle_us
        passed = [window for window in self.rows_of_window if self._closes(window) <= limit]
        columns, due = self.accumulators.columns, []
        for window in passed:
            for row in self.rows_of_window.pop(window):
                # A row may have been closed by its device meanwhile, and even be another window's by now.
                if self.accumulators.live[row] and columns["window"][row] == window:
                    due.append(row)
        return due

    def _close(self, due: Sequence[int]) -> Outcome:
        if not due:
            return Outcome()
        columns, devices = self.accumulators.columns, self.devices
        rows = np.array(list(set(due)), np.int64)
        rows = rows[np.lexsort((columns["slot"][rows], columns["window"][rows]))]
        slots, windows = columns["slot"][rows].tolist(), columns["window"][rows]
        results = self.accumulators.results(rows)
        results["end"] = self.spec.window.end_us(windows).tolist()
        results["revision"] = [0] * len(rows)
        for place, tag in enumerate(self.spec.tags):
            results[tag] = [devices.tags[slot][place] for slot in slots]
        for slot, window in zip(slots, windows.tolist(), strict=True):
            del devices.open[slot][window]
            left = devices.open[slot]
            devices.next_close_us[slot] = self._closes(min(left)) if left else 2**62
            self.changed.add(slot // BUCKET)
        self.accumulators.give_back(rows.tolist())
        self.counts["closed"] += len(rows)
        return Outcome(Batch([devices.names[slot] for slot in slots], self.spec.window.start_us(windows), results))
