"""What windows should say, written plainly: one reading after the other, no batches, no columns, no state to keep.

Also how the tests drive the real windows with the same events, cut into batches anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any
from zoneinfo import ZoneInfo

from window_readings import (
    EPOCH_NOON,
    FIELDS,
    FOR_EVER_US,
    NUMBERS,
    SECOND,
    Happening,
    Reading,
    Tick,
    aggregates_of,
    at,
    batch_of,
    spec_of,
    summary,
)

from headrace.pipeline.model import Count, Event, Hopping, Session, Sliding, State, Tumbling
from processors.windows import Outcome, WindowOperator, WindowSpec
from processors.windows.input.groups import group_name

__all__ = [
    "EPOCH_NOON",
    "FIELDS",
    "FOR_EVER_US",
    "NUMBERS",
    "SECOND",
    "Driver",
    "Happening",
    "Oracle",
    "Reading",
    "Results",
    "Tick",
    "Where",
    "aggregates_of",
    "always",
    "at",
    "batch_of",
    "sound",
    "spec_of",
    "summary",
]

Results = dict[tuple[str, int], dict[str, Any]]
"""Windows by device (or group) and start."""


Where = Callable[[Reading], bool]
NOTHING: Mapping[str, Any] = MappingProxyType({})


def always(_: Reading) -> bool:
    """What a stream without a condition lets through."""
    return True


class Oracle:
    """One reading at a time, as the documents say it.

    ``where``, ``starts``, ``ends``: the conditions in Python; ``computed``: the computed fields.
    """

    def __init__(
        self,
        spec: WindowSpec,
        where: Where = always,
        starts: Where = always,
        ends: Where = always,
        computed: Mapping[str, Callable[[Reading], Any]] = NOTHING,
    ) -> None:
        self.spec, self.window = spec, spec.window
        self.where, self.starts, self.ends, self.computed = where, starts, ends, computed
        self.progress: dict[str, int] = {}
        self.clock: int | None = None
        self.furthest = -math.inf
        self.slowest = -math.inf
        self.seen: dict[tuple[Any, ...], int] = {}
        """Of each group the greatest time."""
        self.tags: dict[str, Any] = {}
        self.said: dict[tuple[str, int], tuple[Any, ...]] = {}
        self.waiting: list[tuple[tuple[Any, ...], Reading]] = []
        self.device_of: dict[tuple[Any, ...], str] = {}
        self.open: dict[tuple[Any, ...], list[Reading]] = {}
        """The readings of open windows; by group and bounds, or by group where there is one at most."""
        self.counted: dict[tuple[Any, ...], int] = {}
        self.past: dict[tuple[Any, ...], list[Reading]] = {}
        self.closed: Results = {}
        names = ("read", "windowed", "late", "filtered", "repeated", "corrected", "outside", "closed", "in_closed")
        self.counts = dict.fromkeys(names, 0)

    # ---- event time

    def silent(self) -> float:
        return -math.inf if self.clock is None else self.clock - self.spec.idle_us

    def reached(self, group: tuple[Any, ...]) -> float:
        """How far event time is for a group."""
        if self.spec.follows == "device":
            own = self.progress.get(self.device_of.get(group, ""), -math.inf)
        else:
            own = self.slowest if self.spec.follows == "slowest" else self.furthest
        return max(own, self.silent())

    def passed(self, group: tuple[Any, ...]) -> float:
        return self.reached(group) - self.spec.grace_us

    def _find_slowest(self) -> None:
        awake = [us for us in self.progress.values() if us > self.silent()]
        self.slowest = max(self.slowest, min(awake, default=self.silent()))

    def group_of(self, reading: Reading) -> tuple[Any, ...]:
        if self.spec.by is None:
            return (reading.device,)
        room = reading.values.get("room") or self.tags.get(reading.device)
        parts = {"device": reading.device, "room": room}
        return tuple(parts[name] if name in parts else reading.values.get(name) for name in self.spec.by)

    # ---- readings and silence

    def take(self, happening: Happening) -> None:
        """Take a reading, or a tick (which moves the clock by the time that was silent)."""
        if isinstance(happening, Tick):
            if self.clock is not None:
                self.clock += happening.silent_us
        else:
            self._read(happening)
        self._find_slowest()
        self._release()
        self._close_what_is_over()

    def _read(self, reading: Reading) -> None:
        self.counts["read"] += 1
        made = {name: of(reading) for name, of in self.computed.items()}
        reading = replace(reading, values={**reading.values, **made})
        if self.is_forgotten(reading.device):
            self.tags.pop(reading.device, None)
        group = self.group_of(reading)
        self.device_of.setdefault(group, reading.device)
        self.tags[reading.device] = reading.values.get("room") or self.tags.get(reading.device)
        if self._is_kept(reading, group):
            if self.spec.ordered:
                self.waiting.append((group, reading))
            else:
                self.counts["windowed"] += 1
                for start, end in self._bounds(reading.ts_us):
                    if not self._is_over(group, end):
                        self.open.setdefault((group, start, end), []).append(reading)
        self.progress[reading.device] = max(self.progress.get(reading.device, reading.ts_us), reading.ts_us)
        self.seen[group] = max(self.seen.get(group, reading.ts_us), reading.ts_us)
        self.clock = max(self.clock or reading.ts_us, reading.ts_us)
        self.furthest = max(self.furthest, reading.ts_us)

    def is_forgotten(self, device: str) -> bool:
        """Whether a device has been silent for so long. All that changes is that its tags are not known any more."""
        if self.clock is None or device not in self.progress:
            return False
        return self.progress[device] + self.spec.forget_us <= self.clock

    def _is_kept(self, reading: Reading, group: tuple[Any, ...]) -> bool:
        if self.spec.ordered:
            late = reading.ts_us < self.passed(group)
        else:
            late = all(self._is_over(group, end) for _, end in self._bounds(reading.ts_us))
        says = tuple(reading.values.get(name) for name in self.spec.used)
        key = (reading.device, reading.ts_us)
        repeated = corrected = False
        if self.spec.drop_repeats and not late:
            before = self.said.get(key)
            if self.where(reading):
                self.said.setdefault(key, says)
            repeated, corrected = before == says, before is not None and before != says
        if corrected:
            self.counts["corrected"] += 1
        elif not self.where(reading):
            self.counts["filtered"] += 1
        elif late:
            self.counts["late"] += 1
        elif repeated:
            self.counts["repeated"] += 1
        else:
            return True
        return False

    # ---- windows along event time

    def _bounds(self, ts_us: int) -> list[tuple[int, int]]:
        """Start and end of the windows that hold a time, the last one first; of those of a zone, days alone."""
        window = self.window
        assert isinstance(window, Tumbling | Hopping)
        if window.zone is not None:
            day = datetime.fromtimestamp(ts_us // SECOND, ZoneInfo(window.zone)).replace(hour=0, minute=0, second=0)
            next_day = day + timedelta(days=1)
            return [(int(day.timestamp()) * SECOND, int(next_day.timestamp()) * SECOND)]
        step = int(window.step if isinstance(window, Hopping) else window.size)
        last = (ts_us - window.offset) // step * step + window.offset
        starts = range(last, last - window.size, -step)
        return [(start, start + window.size) for start in starts if ts_us < start + window.size]

    def _is_over(self, group: tuple[Any, ...], end: int) -> bool:
        return end <= self.passed(group)

    # ---- windows that readings make, in order

    def _release(self) -> None:
        several = not self.spec.of_one_device
        # Only when a time has been passed are all of its readings there, which a sliding window is to hold.
        ties = several or (isinstance(self.window, Sliding) and not self.spec.drop_repeats)
        ready = [
            (group, reading)
            for group, reading in self.waiting
            if (reading.ts_us < self.passed(group) if ties else reading.ts_us <= self.passed(group))
        ]
        self.waiting = [held for held in self.waiting if held not in ready] if ready else self.waiting
        for group, reading in sorted(ready, key=lambda r: (r[1].ts_us, r[1].device if several else "")):
            self._in_order(group, reading)

    def _in_order(self, group: tuple[Any, ...], reading: Reading) -> None:
        window, inside = self.window, True
        if isinstance(window, Tumbling | Hopping):
            for start, end in self._bounds(reading.ts_us):
                self.open.setdefault((group, start, end), []).append(reading)
        elif isinstance(window, Sliding):
            past = self.past.setdefault(group, [])
            past.append(reading)
            held = [one for one in past if one.ts_us > reading.ts_us - window.size]
            if len(past) > 1 and past[-2].ts_us == reading.ts_us:
                # This window holds what the one before holds, and stands for both.
                self.counts["closed"] -= 1
                self.counts["in_closed"] -= len(held) - 1
            self._speak(group, reading.ts_us - window.size, reading.ts_us, held)
        elif isinstance(window, Count):
            n = self.counted[group] = self.counted.get(group, 0) + 1
            step = window.step or window.count
            for start in range(0, n, step):
                if n - 1 < start + window.count:
                    self.open.setdefault((group, start), []).append(reading)
                    if n == start + window.count:
                        self._end((group, start))
        elif isinstance(window, Event):
            inside = group in self.open or self.starts(reading)
            if inside:
                self.open.setdefault(group, []).append(reading)
                if self.ends(reading):
                    self._end(group)
        else:
            inside = self._continued(group, reading)
        self.counts["windowed" if inside else "outside"] += 1

    def _continued(self, group: tuple[Any, ...], reading: Reading) -> bool:
        window, held = self.window, self.open.get(group)
        if isinstance(window, State):
            value = self.value(window.field, reading)
            if value is None:
                return False
            if held and self.value(window.field, held[-1]) != value:
                self._end(group)
        elif isinstance(window, Session) and held:
            too_long = window.longest is not None and reading.ts_us - held[0].ts_us >= window.longest
            if reading.ts_us - held[-1].ts_us > window.gap or too_long:
                self._end(group)
        self.open.setdefault(group, []).append(reading)
        return True

    @staticmethod
    def value(name: str, reading: Reading) -> Any:
        return reading.values.get(name)

    # ---- windows close

    def _close_what_is_over(self) -> None:
        for key in list(self.open):
            if isinstance(self.window, Tumbling | Hopping):
                if self._is_over(key[0], key[2]):
                    self._end(key)
                continue
            group = key[0] if isinstance(self.window, Count) else key
            if isinstance(self.window, Session):
                over = self.open[key][-1].ts_us + self.window.gap < self.passed(group)
            else:
                over = self.seen[group] < self.silent() - self.spec.grace_us
            if over:
                self._end(key)
                self.counted.pop(group, None)

    def _end(self, key: tuple[Any, ...]) -> None:
        held = self.open.pop(key)
        if isinstance(self.window, Tumbling | Hopping):
            self._speak(key[0], key[1], key[2], held)
        else:
            group = key[0] if isinstance(self.window, Count) else key
            self._speak(group, held[0].ts_us, held[-1].ts_us, held)

    def _speak(self, group: tuple[Any, ...], start: int, end: int, held: Sequence[Reading]) -> None:
        name = group[0] if self.spec.by is None else group_name(group)
        said = {"end": end, **summary(held, self.spec), "revision": 0, "final": True}
        self.closed[name, start] = said
        self.counts["closed"] += 1
        self.counts["in_closed"] += len(held)


class Driver:
    """The real windows, driven with events; ``closed`` has what they gave at last, each window once."""

    def __init__(self, windowed: WindowOperator) -> None:
        self.windowed = windowed
        self.now_us = EPOCH_NOON
        self.closed: Results = {}
        self.provisional: list[tuple[tuple[str, int], dict[str, Any]]] = []
        self.late: list[tuple[str, str, int, int]] = []
        """Group, reason, start and end of windows that lack a reading."""
        self.tags: dict[tuple[str, int], dict[str, Any]] = {}

    def read(self, readings: Sequence[Reading]) -> Results:
        """A batch, a second after the one before; the windows that it closes."""
        self.now_us += SECOND
        return self._note(self.windowed.add(batch_of(readings, self.windowed.spec), self.now_us))

    def tick(self, tick: Tick) -> Results:
        """Silence; the windows that it closes."""
        self.now_us += tick.silent_us
        return self._note(self.windowed.tick(self.now_us))

    def run(self, events: Sequence[Happening], cuts: Iterable[int] = ()) -> Driver:
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
        for late in outcome.late:
            which, starts, ends = (column.tolist() for column in late.windows)
            for place, start, end in zip(which, starts, ends, strict=True):
                self.late.append((late.groups[place], late.reasons[place], start, end))
        batch = outcome.results
        if batch is None:
            return {}
        spec = self.windowed.spec
        names = ["end", "count", "revision", "final"]
        names += [f"{m.field}_{aggregate}" for m in spec.measures for aggregate in m.aggregates]
        columns = {name: batch.column(name) for name in names}
        tags = {name: batch.column(name) for name in (spec.tags or spec.by or ())}
        fresh: Results = {}
        for place, key in enumerate(zip(batch.devices, batch.ts_us.tolist(), strict=True)):
            said = {name: values[place] for name, values in columns.items()}
            one_partition = spec.of_one_device and not spec.devices_span
            if one_partition and (spec.drop_repeats or isinstance(spec.window, Sliding)):
                assert key not in self.closed, "a window emitted again"
                assert key not in fresh, "a window emitted again"
            if not said["final"]:
                self.provisional.append((key, said))
                continue
            fresh[key] = said
            self.tags[key] = {name: values[place] for name, values in tags.items()}
        self.closed.update(fresh)
        return fresh


def sound(windowed: WindowOperator) -> bool:
    """Whether every reading is accounted for."""
    counts = windowed.counts
    kept = counts["windowed"] + counts["outside"] + windowed.gauges["waiting"]
    left_out = counts["late"] + counts["filtered"] + counts["repeated"] + counts["corrected"]
    return counts["read"] == kept + left_out
