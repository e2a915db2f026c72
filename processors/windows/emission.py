"""What a stage brings: results as a batch, final ones when windows close and provisional ones when they are due."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from headrace.batch import Batch
from headrace.column import Column
from processors.windows.input.intake import Intake
from processors.windows.input.late import LateReadings
from processors.windows.kinds.emitted import Emitted
from processors.windows.kinds.engine import Engine
from processors.windows.time.watermark import NEVER


@dataclass
class Outcome:
    """What a batch or a tick brings.

    ``results``: what windows emit (ts = start; columns end, aggregates, tags or ``by``, revision, final),
    or None. ``late``: the readings that came too late for a window or correct one, where the stream asks for
    them.
    """

    results: Batch | None = None
    late: list[LateReadings] = field(default_factory=list)


class DueProvisional:
    """When what has changed is due without being final: ``emit_us`` after the last time, by the wall clock."""

    def __init__(self, emit_us: int | None) -> None:
        self.emit_us = emit_us
        self._last_us = NEVER

    def is_due(self, now_us: int) -> bool:
        """Whether it is due at ``now_us``."""
        return self.emit_us is not None and now_us - self._last_us >= self.emit_us

    def note(self, now_us: int) -> None:
        """It was emitted at ``now_us``."""
        self._last_us = now_us


class Emission:
    """The results of one stream over one partition."""

    def __init__(self, intake: Intake, engine: Engine) -> None:
        self._intake = intake
        self._engine = engine
        self._provisional = DueProvisional(intake.spec.emit_us)

    def outcome(self, closed: list[Emitted], late: list[LateReadings], now_us: int) -> Outcome:
        """The windows that have closed, the provisional results that are due, and the late readings."""
        counts, due = self._intake.counts, self._provisional
        final = Emitted.joined(closed)
        if len(final):
            counts["closed"] += len(final)
            counts["in_closed"] += int(final.results["count"].values.sum())
        provisional = Emitted.none()
        if due.emit_us is None:
            self._engine.forget_changes()
        elif due.is_due(now_us):
            provisional = self._engine.provisional()
            if len(provisional) or due.emit_us:
                due.note(now_us)
        results = None
        if len(final) or len(provisional):
            results = self._results(Emitted.joined([final, provisional]), len(final))
        return Outcome(results, late)

    def _results(self, emitted: Emitted, final: int) -> Batch:
        spec, devices, groups = self._intake.spec, self._intake.devices, self._intake.groups
        columns = dict(emitted.results)
        columns["end"] = Column(emitted.ends_us)
        columns["revision"] = Column(np.zeros(len(emitted), np.int64))
        columns["final"] = Column(np.arange(len(emitted)) < final)
        if spec.by is None:
            of = emitted.slots if groups is None else groups.device[emitted.slots]
            for tag in spec.tags:
                columns[tag] = Column.of(devices.tags_of(of, tag), spec.types[tag])
        elif groups is not None:
            values = list(groups.values_of(emitted.slots))
            for place, name in enumerate(spec.by):
                columns[name] = Column.of([of_group[place] for of_group in values], spec.types[name])
        return Batch(self._intake.group_names(emitted.slots), emitted.starts_us, columns)
