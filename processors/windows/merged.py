"""The second stage of groups that span partitions: what the partitions hand on, merged, and the windows of it.

A window closes when every source partition is past it, but for those that have fallen silent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headrace.batch import Batch, Int64s
from processors.windows.groups import Groups
from processors.windows.parts import Kept, Panes, Part, batch_of, times_of
from processors.windows.spec import WindowSpec
from processors.windows.time_windows import TimeWindows
from processors.windows.watermark import NEVER, Clocks
from processors.windows.windowed import Outcome, Said, Windowed

SOURCE = " source"
"""Beside a group's values: the partition whose part of it this is. No field is called so."""


@dataclass
class SourceClocks(Clocks):
    """How far the source partitions are, as they say it; the readings that they hand on move nothing."""

    sources: int = 0
    said: dict[int, tuple[int, int, bool]] = field(default_factory=dict)
    """of each source partition its horizon, its clock, and whether it is silent"""

    def hear(self, part: Part) -> None:
        """Take what a source partition says of how far it is."""
        self.sources = max(self.sources, part.sources)
        self.said[part.source] = (part.horizon_us, part.clock_us, part.silent)
        self.find()

    def find(self) -> None:
        """Know how far all are."""
        self.clock_us = max([self.clock_us, *(clock for _, clock, _ in self.said.values())])
        if self.clock_us == NEVER or len(self.said) < self.sources:
            return
        # One that is silent holds nobody up longer than a silent device does; one that is behind does.
        awake = [
            max(horizon, self.silent_us) if silent else horizon
            for horizon, clock, silent in self.said.values()
            if not (silent and clock == NEVER)
        ]
        self.slowest_us = max(self.slowest_us, min(awake, default=NEVER))

    @property
    def common_us(self) -> int:
        """The horizon of all groups."""
        return self.slowest_us

    def before(self, devices: Int64s, ts_us: Int64s, until_us: Int64s) -> Int64s | None:  # noqa: ARG002 - as Clocks
        """The horizon that each of n readings meets: the same for all, or None where none can be too late."""
        if not (until_us <= self.slowest_us).any():
            return None
        return np.full(len(ts_us), self.slowest_us, np.int64)

    def move(self, devices: Int64s, ts_us: Int64s, now_us: int) -> None:
        """Take readings: they tell which are their devices' newest, no more."""
        np.maximum.at(self.progress_us, devices, ts_us)
        self.arrived_us = max(self.arrived_us, now_us)

    def tick(self, now_us: int) -> bool:  # noqa: ARG002 - as Clocks
        """Nothing: the sources say how time goes on."""
        return False


class Merged(Windowed):
    """The groups of a stream that come together in one partition of its repartition topic."""

    def __init__(self, spec: WindowSpec) -> None:
        super().__init__(spec)
        self.role = "merged"
        self.clocks: SourceClocks = SourceClocks("slowest", spec.idle_us)
        self._owners: dict[tuple[Any, ...], int] = {}
        """The groups themselves, where each slot is one partition's part of a group."""
        self._owner: list[int] = []
        """For each slot the one that stands for its whole group."""
        self._had: dict[int, tuple[int, int]] = {}
        """Of each source partition since when its readings are numbered, and the number of the next one."""
        # Repeated readings have been left out where they were read.
        self.repeats = None
        if not spec.ordered:
            self.groups = Groups((*(spec.by or ()), SOURCE), spec.key)

    def take(self, part: Part, now_us: int) -> Outcome:
        """Take what a source partition hands on, and how far it is after that."""
        said = Said()
        if part.kept is not None:
            fresh = self._fresh(part.kept, part.source)
            if len(fresh):
                self._add(fresh, now_us, said)
        if part.panes is not None:
            self._merge(part.panes, part.source)
        self.clocks.hear(part)
        self._advance(np.empty(0, np.int64), said)
        return self._outcome(said, now_us)

    def _fresh(self, kept: Kept, source: int) -> Batch:
        """The readings that were not handed on before, by a partition that is read again since its last checkpoint."""
        batch, numbers = batch_of(kept, self.spec.key), times_of(kept.numbers)
        since, following = self._had.get(source, (kept.since, 0))
        if since != kept.since:  # it has begun anew
            following = 0
        self._had[source] = kept.since, max(following, int(numbers[-1]) + 1)
        again = numbers < following
        if not again.any():
            return batch
        self.counts["read"] += int(again.sum())
        self.counts["repeated"] += int(again.sum())
        return batch.take(np.flatnonzero(~again))

    def _merge(self, panes: Panes, source: int) -> None:
        """Put the panes in the place of what their partition said of them before."""
        engine, groups = self.engine, self.groups
        assert isinstance(engine, TimeWindows) and groups is not None  # noqa: S101 - what the first stage made
        slots = np.array([self._slot(tuple(of), source) for of in panes.groups], np.int64)[times_of(panes.group)]
        self._own()
        starts = times_of(panes.pane)
        partials = engine.rows.aggregates.unpacked(panes.partials)
        counted = partials["count"]
        self.counts["read"] += int(counted.sum())
        late = engine.alignment.last_end(starts) <= self._passed().of(slots)
        self.counts["late"] += int(counted[late].sum())
        kept = np.flatnonzero(~late)
        if not len(kept):
            return
        self.begin(np.unique(slots))
        replaced = engine.put(slots[kept], starts[kept], engine.rows.aggregates.take(partials, kept))
        self.counts["repeated"] += replaced
        self.counts["windowed"] += int(counted[kept].sum()) - replaced
        self.touched.append(slots[kept])

    def _slot(self, values: tuple[Any, ...], source: int) -> int:
        groups = self.groups
        assert groups is not None  # noqa: S101 - a group of its own device needs no second stage
        slot = groups.slots.get((*values, source))
        if slot is None:
            slot = groups.add((*values, source), 0)
        return slot

    def _own(self) -> None:
        """Let the windows know which slots are parts of one group."""
        self._add_groups()
        if not self.spec.ordered and isinstance(self.engine, TimeWindows) and self.groups is not None:
            known = len(self._owner)
            if self.engine.owner is None or known < len(self.groups):
                fresh = enumerate(self.groups.values[known:], known)
                self._owner += [self._owners.setdefault(values[:-1], slot) for slot, values in fresh]
                self.engine.owner = np.array(self._owner, np.int64)

    def add_groups(self) -> None:
        """Make room for all groups that there are, and know what they have passed."""
        self._own()
        super().add_groups()

    @property
    def extra(self) -> dict[str, Any]:
        """What the state has beside that of all windows."""
        clocks = self.clocks
        said = [[source, *said] for source, said in clocks.said.items()]
        return {"sources": clocks.sources, "said": said, "had": [[source, *had] for source, had in self._had.items()]}

    def take_extra(self, extra: dict[str, Any]) -> None:
        """Take up what :attr:`extra` was."""
        self.clocks.sources = extra["sources"]
        self._had = {source: (since, following) for source, since, following in extra["had"]}
        self.clocks.said = {source: (horizon, clock, silent) for source, horizon, clock, silent in extra["said"]}
