"""How far the partitions are whose groups come together, as they say it themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from headrace.batch import Int64s
from processors.windows.repartition.update import Update
from processors.windows.time.watermark import NEVER, Clocks

AnyUnread = Callable[[int, int], bool]
"""Whether a source partition has messages from an offset on."""


@dataclass
class SourceProgress:
    """How far a source partition is, by its own report."""

    since: int
    next_offset: int
    watermark_us: int
    clock_us: int
    silent: bool


ASK_EVERY_US = 50_000
"""How often the broker is asked, at the most."""


@dataclass
class SourceClocks(Clocks):
    """The common watermark: that of the slowest source partition. The readings that they forward move nothing.

    A partition that has fallen silent holds the others up no longer than a silent device does: ``idle`` behind the
    furthest clock of all. The clock of a silent one goes on with the wall clock. It reported so once, and whoever reads
    it may have died since, while it is written to; so before it is left behind, ``any_unread`` is asked.
    """

    sources: int = 0
    progress: dict[int, SourceProgress] = field(default_factory=dict)
    any_unread: AnyUnread | None = None
    _asked_us: int = NEVER
    _asked: dict[tuple[int, int], bool] = field(default_factory=dict)
    """The wall time at which that was last asked, and what the answers were."""

    def update(self, part: Update, now_us: int) -> None:
        """Take what a source partition says of how far it is."""
        self.sources = max(self.sources, part.sources)
        self.arrived_us = max(self.arrived_us, now_us)
        known, watermark_us = self.progress.get(part.source), part.watermark_us
        if known is not None and known.since == part.since:
            if part.next_offset < known.next_offset:
                return  # it is read again from its last checkpoint, and has forwarded all of this before
            watermark_us = max(watermark_us, known.watermark_us)
        self.progress[part.source] = SourceProgress(
            part.since, part.next_offset, watermark_us, part.clock_us, part.silent
        )
        self._find(now_us)

    def _find(self, now_us: int) -> None:
        """Know how far all are."""
        self.clock_us = max([self.clock_us, *(one.clock_us for one in self.progress.values())])
        if self.clock_us == NEVER or len(self.progress) < self.sources:
            return
        least = self._least()
        if least <= self.slowest_us:
            return
        left_behind = [source for source, one in self.progress.items() if one.silent and one.watermark_us < least]
        self.slowest_us = max(self.slowest_us, self._least(leave_behind=self._ask(left_behind, now_us)))

    def _least(self, *, leave_behind: bool = True) -> int:
        """How far the slowest source is, of those that are not left behind because they are silent."""
        watermarks = [
            max(one.watermark_us, self.silent_us) if leave_behind and one.silent else one.watermark_us
            for one in self.progress.values()
            if not (leave_behind and one.silent and one.clock_us == NEVER)
        ]
        return min(watermarks, default=NEVER)

    def _ask(self, sources: list[int], now_us: int) -> bool:
        """Whether it is known that these sources are silent still; those that are not are no longer taken to be."""
        if self.any_unread is None or not sources:
            return True
        if now_us != self._asked_us:
            if now_us - self._asked_us < ASK_EVERY_US:
                return False
            self._asked_us = now_us
            self._asked.clear()
        for source in sources:
            one = self.progress[source]
            if (source, one.next_offset) not in self._asked:
                self._asked[source, one.next_offset] = self.any_unread(source, one.next_offset)
            one.silent = not self._asked[source, one.next_offset]
        return True

    def all_silent(self, now_us: int) -> bool:
        """Whether no source has anything more for now."""
        if len(self.progress) < self.sources or not all(one.silent for one in self.progress.values()):
            return False
        return self._ask(list(self.progress), now_us) and all(one.silent for one in self.progress.values())

    @property
    def common_us(self) -> int:
        """The watermark of all groups: the sources have taken their grace off."""
        return self.slowest_us

    @property
    def partition_us(self) -> int:
        """The watermark of all that the sources forward."""
        return self.common_us

    def watermark_us(self, devices: Int64s) -> Int64s:
        """The watermark of groups of these devices: the same for all."""
        return np.full(len(devices), self.common_us, np.int64)

    def before(self, devices: Int64s, ts_us: Int64s, until_us: Int64s) -> Int64s | None:  # noqa: ARG002 - as Clocks
        """The watermark that each of n readings meets: the same for all, or None where none can be too late."""
        if not (until_us <= self.slowest_us).any():
            return None
        return np.full(len(ts_us), self.slowest_us, np.int64)

    @property
    def unknown_us(self) -> int:
        """The watermark of a device that is not known: that of all."""
        return self.common_us

    def _clock_before(self, ts_us: Int64s) -> Int64s:
        """The clock before each of n readings, which do not move it."""
        return np.full(len(ts_us), self.clock_us, np.int64)

    def move(self, devices: Int64s, ts_us: Int64s, now_us: int) -> None:
        """Take readings: they tell which are their devices' newest, no more."""
        np.maximum.at(self.progress_us, devices, ts_us)
        self.arrived_us = max(self.arrived_us, now_us)

    def note(self, devices: Int64s, us: Int64s) -> None:
        """Know how far these devices are at the least."""
        np.maximum.at(self.progress_us, devices, us)

    def wait(self, now_us: int) -> bool:
        """Let the clocks of those that are silent move on; whether they did."""
        if self.arrived_us == NEVER or now_us <= self.arrived_us:
            return False
        for one in self.progress.values():
            if one.silent and one.clock_us != NEVER:
                one.clock_us += now_us - self.arrived_us
        self.arrived_us = now_us
        return True

    def tick(self, now_us: int) -> bool:
        """Nothing is forwarded, and nobody is behind with that: time goes on for those that are silent."""
        moved = self.wait(now_us)
        if moved:
            self._find(now_us)
        return moved
