"""What windows should say, written plainly: one reading after the other, no batches, no columns, no state to keep.

Also how the tests drive the real windows with the same events, cut into batches anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headrace.batch import Batch
from headrace.pipeline import parse
from processors.windows import Outcome, Windowed, WindowSpec

SECOND = 1_000_000
FIELDS = {"current": "float", "energy": "int", "door": "bool", "note": "text", "checked": "time"}
NUMBERS = ("current", "energy")
EPOCH_NOON = 1_795_176_000 * SECOND
"""2026-11-20T12:00:00Z: the readable times of the tests are seconds from here."""
FOR_EVER_US = 400 * 365 * 86_400 * SECOND

Results = dict[tuple[str, int], dict[str, Any]]
"""Windows by device and start."""


@dataclass(frozen=True)
class Reading:
    """One reading, as it arrives."""

    device: str
    ts_us: int
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Tick:
    """The partition is silent, and so much time has passed since the last reading."""

    silent_us: int


Event = Reading | Tick


def at(seconds: float) -> int:
    """µs since the epoch of a readable time."""
    return EPOCH_NOON + round(seconds * SECOND)


def spec_of(
    *, size: str = "10s", grace: str = "0s", idle: str = "30s", where: str | None = None, fields: Iterable[str] = FIELDS
) -> WindowSpec:
    """A stream with every aggregate that its fields can have."""
    lines = ["[topics.meters]", 'tags = { room = "text" }', "[topics.meters.fields]"]
    lines += [f'{name} = {{ type = "{FIELDS[name]}", optional = true }}' for name in fields]
    lines += ['[streams.s]\nfrom = "meters"', f'window = {{ kind = "tumbling", size = "{size}" }}']
    lines += [f'grace = "{grace}"', f'idle = "{idle}"', *([f"where = '{where}'"] if where else [])]
    lines += ["[streams.s.aggregates]", *(f"{name} = {list(aggregates_of(name))}" for name in fields)]
    return WindowSpec.of(parse("\n".join(lines)), "s")


def aggregates_of(name: str) -> tuple[str, ...]:
    """All the aggregates of a field."""
    return ("count", *(("sum", "min", "max", "mean") if name in NUMBERS else ()), "first", "last")


class Oracle:
    """One reading at a time, as the documents say it."""

    def __init__(self, spec: WindowSpec, where: Callable[[Reading], bool] = lambda _: True) -> None:
        self.spec = spec
        self.where = where
        self.progress: dict[str, int] = {}
        self.clock: int | None = None
        self.open: dict[tuple[str, int], list[Reading]] = {}
        self.closed: Results = {}
        self.counts = dict.fromkeys(("read", "windowed", "late", "filtered", "closed"), 0)

    def take(self, event: Event) -> None:
        """Take a reading, or a tick (which moves the clock by the time that was silent)."""
        if isinstance(event, Tick):
            if self.clock is not None:
                self.clock += event.silent_us
        else:
            self._read(event)
        for device, number in list(self.open):
            if self._closes(number) <= self._horizon(device):
                self._close(device, number)

    def _read(self, reading: Reading) -> None:
        number = reading.ts_us // self.spec.window.size_us
        self.counts["read"] += 1
        if not self.where(reading):
            self.counts["filtered"] += 1
        elif self._closes(number) <= self._horizon(reading.device):
            self.counts["late"] += 1
        else:
            self.counts["windowed"] += 1
            self.open.setdefault((reading.device, number), []).append(reading)
        self.progress[reading.device] = max(self.progress.get(reading.device, reading.ts_us), reading.ts_us)
        self.clock = max(self.clock or reading.ts_us, reading.ts_us)

    def _closes(self, number: int) -> int:
        return (number + 1) * self.spec.window.size_us + self.spec.grace_us

    def _horizon(self, device: str) -> float:
        """How far event time is for a device: its own, or that of the others less the time that it may be silent."""
        own = self.progress.get(device, float("-inf"))
        return own if self.clock is None else max(own, self.clock - self.spec.idle_us)

    def _close(self, device: str, number: int) -> None:
        readings = self.open.pop((device, number))
        start = number * self.spec.window.size_us
        assert (device, start) not in self.closed
        self.closed[device, start] = summary(readings, self.spec)
        self.counts["closed"] += 1


def summary(readings: Sequence[Reading], spec: WindowSpec) -> dict[str, Any]:
    """The aggregates of a window's readings."""
    start = readings[0].ts_us // spec.window.size_us * spec.window.size_us
    result: dict[str, Any] = {"end": start + spec.window.size_us, "count": len(readings), "revision": 0}
    for measure in spec.measures:
        seen = [(r.ts_us, r.values[measure.field]) for r in readings if r.values.get(measure.field) is not None]
        values = [value for _, value in seen]
        found = {
            "count": lambda v=values: len(v),
            "sum": lambda v=values: sum(v) if v else None,
            "min": lambda v=values: min(v, default=None),
            "max": lambda v=values: max(v, default=None),
            "mean": lambda v=values: sum(v) / len(v) if v else None,
            "first": lambda s=seen: min(s)[1] if s else None,
            "last": lambda s=seen: max(s)[1] if s else None,
        }
        for aggregate in measure.aggregates:
            result[f"{measure.field}_{aggregate}"] = found[aggregate]()
    return result


def batch_of(readings: Sequence[Reading], spec: WindowSpec) -> Batch:
    """Readings as a batch, with all the columns that the spec needs."""
    names = [*(measure.field for measure in spec.measures), *spec.tags]
    return Batch(
        [reading.device for reading in readings],
        np.array([reading.ts_us for reading in readings], np.int64),
        {name: [reading.values.get(name) for reading in readings] for name in names},
    )


class Driver:
    """The real windows, driven with events; ``closed`` has what they gave, each window once."""

    def __init__(self, windowed: Windowed) -> None:
        self.windowed = windowed
        self.now_us = EPOCH_NOON
        self.closed: Results = {}
        self.tags: dict[tuple[str, int], dict[str, Any]] = {}

    def read(self, readings: Sequence[Reading]) -> Results:
        """A batch, a second after the one before; the windows that it closes."""
        self.now_us += SECOND
        return self._note(self.windowed.add(batch_of(readings, self.windowed.spec), self.now_us))

    def tick(self, tick: Tick) -> Results:
        """Silence; the windows that it closes."""
        self.now_us += tick.silent_us
        return self._note(self.windowed.tick(self.now_us))

    def run(self, events: Sequence[Event], cuts: Iterable[int] = ()) -> Driver:
        """All events: readings that follow each other are a batch, unless cut."""
        cuts = set(cuts)
        waiting: list[Reading] = []
        for place, event in enumerate(events):
            if waiting and (place in cuts or isinstance(event, Tick)):
                self.read(waiting)
                waiting = []
            if isinstance(event, Tick):
                self.tick(event)
            else:
                waiting.append(event)
        if waiting:
            self.read(waiting)
        return self

    def _note(self, outcome: Outcome) -> Results:
        batch = outcome.results
        if batch is None:
            return {}
        spec = self.windowed.spec
        names = ["end", "count", "revision"]
        names += [f"{m.field}_{aggregate}" for m in spec.measures for aggregate in m.aggregates]
        columns = {name: batch.column(name) for name in names}
        tags = {name: batch.column(name) for name in spec.tags}
        fresh: Results = {}
        for place, key in enumerate(zip(batch.devices, batch.ts_us.tolist(), strict=True)):
            assert key not in self.closed, "a window spoke twice"
            assert key not in fresh, "a window spoke twice"
            fresh[key] = {name: values[place] for name, values in columns.items()}
            self.tags[key] = {name: values[place] for name, values in tags.items()}
        self.closed.update(fresh)
        return fresh


def sound(windowed: Windowed) -> bool:
    """Whether every reading is accounted for."""
    counts = windowed.counts
    return counts["read"] == counts["windowed"] + counts["late"] + counts["filtered"]
