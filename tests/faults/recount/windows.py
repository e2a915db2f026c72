"""Which windows there must be: every reading of a partition, one after the other, as the documents say it.

Nothing closes for silence here (the line declares an ``idle`` of an hour), so what is late follows from the order of
a partition alone: a device's own progress for windows of devices, the slowest device's for windows of several.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from faults.recount.declared import Stream
from faults.recount.readings import Reading

NEVER = -(2**62)

Key = tuple[str, int]
"""A window: its device or group, and its start in µs."""
Kept = tuple[int, str, float, int]
"""A reading that waits for its place in the order: time, device, values."""


@dataclass(slots=True)
class Window:
    """What a window must say."""

    end: int
    count: int = 0
    least: float = 0.0
    greatest: float = 0.0
    total: float = 0.0
    volts: int = 0

    def add(self, current: float, voltage: int) -> None:
        """Take a reading."""
        if not self.count or current < self.least:
            self.least = current
        if not self.count or current > self.greatest:
            self.greatest = current
        self.count += 1
        self.total += current
        self.volts += voltage

    def says(self) -> tuple[int, int, float, float, float, int]:
        """End, count, and the aggregates, as they are compared."""
        return self.end, self.count, self.least, self.greatest, self.total, self.volts


@dataclass
class Clock:
    """How far a partition's devices are; moved by every reading that was accepted."""

    progress: dict[str, int] = field(default_factory=dict)
    slowest: int = NEVER
    _slowest_device: str = ""

    def move(self, device: str, ts: int) -> None:
        """Take a reading's time."""
        before = self.progress.get(device, NEVER)
        if ts <= before:
            return
        self.progress[device] = ts
        if before == NEVER or device == self._slowest_device or not self._slowest_device:
            self._slowest_device = min(self.progress, key=self.progress.__getitem__)
            self.slowest = max(self.slowest, self.progress[self._slowest_device])


class Expected:
    """What one stream must say of its topic: partitions are taken one after the other, each from its beginning."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.windows: dict[Key, Window] = {}
        self.waiting: dict[str, list[Kept]] = {}
        self.letters: Counter[tuple[str, int, float, str]] = Counter()
        self.counts: dict[int, Counter[str]] = {}
        self.progress: dict[str, int] = {}
        self.least = 2**62
        """How far all partitions are that have readings, of groups of several devices."""
        self._tags: dict[str, str | None] = {}

    def partition(self, number: int) -> Taking:
        """Begin a partition."""
        counts = self.counts[number] = Counter()
        return Taking(self, counts)

    def passed(self, group: str) -> int:
        """How far event time is for a group at the end."""
        horizon = self.least if self.stream.by_tag else self.progress[group]
        return horizon - self.stream.grace_us

    def finish(self) -> tuple[dict[Key, Window], set[Key]]:
        """The windows that must be there and final, and those that are still open."""
        if self.stream.kind in ("session", "sliding"):
            return self._ordered()
        over = {key: window for key, window in self.windows.items() if window.end <= self.passed(key[0])}
        return over, set(self.windows) - set(over)

    def _ordered(self) -> tuple[dict[Key, Window], set[Key]]:
        over: dict[Key, Window] = {}
        still: set[Key] = set()
        for group, kept in self.waiting.items():
            passed = self.passed(group)
            ready = sorted(one for one in kept if (one[0] < passed if self.stream.by_tag else one[0] <= passed))
            if self.stream.kind == "sliding":
                self._slide(group, ready, over)
            else:
                self._sessions(group, ready, passed, over, still)
        return over, still

    def _slide(self, group: str, ready: list[Kept], over: dict[Key, Window]) -> None:
        size, first = self.stream.size_us, 0
        for last, (ts, _, _, _) in enumerate(ready):
            while ready[first][0] <= ts - size:
                first += 1
            window = over[group, ts - size] = Window(ts)
            for _, _, current, voltage in ready[first : last + 1]:
                window.add(current, voltage)

    def _sessions(self, group: str, ready: list[Kept], passed: int, over: dict[Key, Window], still: set[Key]) -> None:
        gap, longest = self.stream.gap_us, self.stream.longest_us
        start, window = 0, None
        for ts, _, current, voltage in ready:
            if window is None or ts - window.end > gap or (longest and ts - start >= longest):
                start, window = ts, Window(ts)
                over[group, start] = window
            window.end = ts
            window.add(current, voltage)
        if window is not None and window.end + gap >= passed:
            still.add((group, start))
            del over[group, start]


class Taking:
    """One partition of one stream while it is read."""

    def __init__(self, expected: Expected, counts: Counter[str]) -> None:
        self._of = expected
        self._stream = expected.stream
        self._counts = counts
        self._seen: dict[tuple[str, int], tuple[float, int]] = {}
        self._ordered = expected.stream.kind in ("session", "sliding")

    def take(self, reading: Reading, own: int, slowest: int, tag: str) -> None:
        """Take a reading; ``own`` and ``slowest`` are how far its device and the slowest one were before it."""
        stream = self._stream
        passed = (slowest if stream.by_tag else own) - stream.grace_us
        ts = reading.ts
        last = ts // stream.step_us * stream.step_us if not self._ordered else ts
        late = ts < passed if self._ordered else last + stream.size_us <= passed
        says = (reading.current, reading.voltage)
        before = None if late else self._seen.setdefault((reading.device, ts), says)
        if late:
            self._leave_out(reading, "late")
        elif before is not says:
            self._leave_out(reading, "repeated" if before == says else "corrected")
        else:
            self._counts["windowed"] += 1
            group = tag if stream.by_tag else reading.device
            if self._ordered:
                self._of.waiting.setdefault(group, []).append((ts, reading.device, *says))
                return
            windows, start = self._of.windows, last
            while start > ts - stream.size_us and start + stream.size_us > passed:
                window = windows.get((group, start))
                if window is None:
                    window = windows[group, start] = Window(start + stream.size_us)
                window.add(*says)
                start -= stream.step_us

    def _leave_out(self, reading: Reading, why: str) -> None:
        self._counts[why] += 1
        if self._stream.letters and why != "repeated":
            self._of.letters[reading.device, reading.ts, reading.current, why] += 1

    def end(self, clock: Clock) -> None:
        """The partition is read to its end."""
        self._of.progress.update(clock.progress)
        if clock.progress:
            self._of.least = min(self._of.least, clock.slowest)
