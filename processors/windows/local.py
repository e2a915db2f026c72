"""The first stage of groups that span partitions: one partition's readings, judged, and folded as far as they can be.

Nothing speaks here. Where readings may be folded in any order (tumbling, hopping), panes are handed on as partial
aggregates when their first window has closed here, and again should they change after that; where order matters,
the readings themselves are handed on.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from headrace.batch import Batch, Int64s
from processors.windows.aggregates import Partials
from processors.windows.column import Bools
from processors.windows.groups import group_name
from processors.windows.parts import NUMBER, Kept, Panes, Part, kept_of, packed_times
from processors.windows.passed import Passed
from processors.windows.spec import WindowSpec
from processors.windows.spoken import Spoken
from processors.windows.time_windows import TimeWindows
from processors.windows.windowed import Outcome, Said, Windowed

MOST_PANES = 1_000
"""The most panes, or readings, of one message."""


class PanesToHandOn(TimeWindows):
    """Open panes that do not speak but are handed on."""

    def __init__(self, spec: WindowSpec) -> None:
        alignment = spec.alignment
        assert alignment is not None  # noqa: S101 - only made of windows along event time
        super().__init__(alignment, spec.aggregates, unit=spec.unit_us)
        self.handed: list[tuple[Int64s, Int64s, Partials]] = []
        self.early = False
        """Whether all that has changed is to be handed on, for windows that speak provisionally."""

    def advance(self, touched: Int64s, passed: Passed) -> Spoken:  # noqa: ARG002 - all groups move alike here
        """Hand on the panes whose first window ends now, or has ended; let go of those whose last one has."""
        assert passed.common_us is not None  # noqa: S101 - groups of several devices
        upto = passed.common_us
        if self.changed:
            rows = np.unique(np.concatenate(self.changed))
            rows = rows[self.rows.live[rows]]
            panes = self.rows.pane[rows]
            due = self.alignment.first_end(panes, panes) <= upto
            due |= self.early
            self.early = False
            self.changed = [rows[~due]]
            ready = rows[due]
            if len(ready):
                partials = self.rows.aggregates.take(self.rows.partials, ready)
                self.handed.append((self.rows.slot[ready].copy(), panes[due], partials))
        groups = self.overdue(upto)
        if len(groups):
            over = self.rows_of(groups)
            limits = np.full(len(over), upto, np.int64)
            self.closed[groups] = upto
            self.drop(groups, over, limits)
        return Spoken(groups, groups, groups, {}) if len(groups) else Spoken.none()

    def forget_changes(self) -> None:
        """Nothing: what has changed is still to be handed on."""


class Local(Windowed):
    """One partition's part of a stream's groups."""

    def __init__(self, spec: WindowSpec) -> None:
        super().__init__(spec)
        self.role = "local"
        self.waiting = None
        self._panes = None if spec.ordered else PanesToHandOn(spec)
        if self._panes is not None:
            self.engine = self._panes
        self._kept: list[Batch] = []
        self._made_by = spec.digest
        self.since = -1
        """The offset that the first message had of which this knows."""

    def _add(self, batch: Batch, now_us: int, said: Said) -> None:
        if self._panes is None:
            read = self.counts["read"]
            batch.put(NUMBER, list(range(read, read + len(batch))))
        super()._add(batch, now_us, said)

    def _keep(self, batch: Batch, slots: Int64s, devices: Int64s, keep: Bools, said: Said) -> None:
        if self._panes is not None:
            super()._keep(batch, slots, devices, keep, said)
            return
        assert self.groups is not None  # noqa: S101 - a group of its own device needs no second stage
        places = np.flatnonzero(keep)
        self.counts["windowed"] += len(places)
        kept = batch.take(places)
        for place, name in enumerate(self.groups.by):
            kept.put(name, [self.groups.values[slot][place] for slot in slots[places].tolist()])
        self._kept.append(kept)

    def tick(self, now_us: int) -> Outcome:
        """The partition is silent: it holds nobody up from now on, so it keeps nothing back either."""
        outcome = super().tick(now_us)
        if self._panes is not None:
            self._panes.early = True
            super()._advance(np.empty(0, np.int64), Said())
        return outcome

    def _advance(self, groups: Int64s, said: Said) -> None:
        if self._panes is not None:
            super()._advance(groups, said)
            said.spoken.clear()

    def _outcome(self, said: Said, now_us: int) -> Outcome:
        emit_us = self.spec.emit_us
        if self._panes is not None and emit_us is not None and now_us - self._said_us >= emit_us:
            self._said_us, self._panes.early = now_us, True
            super()._advance(np.empty(0, np.int64), said)
        return Outcome(None, said.late)

    def handed_on(self, targets: int) -> Iterator[tuple[int, Panes | Kept]]:
        """What there is to be handed on since the last call, with the partition that its groups come together in."""
        assert self.groups is not None  # noqa: S101 - a group of its own device needs no second stage
        if self._panes is not None:
            for slots, panes, partials in self._panes.handed:
                of = self._targets(slots, targets)
                for target in np.unique(of).tolist():
                    mine = np.flatnonzero(of == target)
                    for begin in range(0, len(mine), MOST_PANES):
                        part = mine[begin : begin + MOST_PANES]
                        yield target, self._packed(slots[part], panes[part], partials, part)
            self._panes.handed.clear()
        for batch in self._kept:
            columns = {name: batch.column(name) for name in self.spec.said}
            for name in self.groups.by:
                columns[name] = batch.column(name)
            columns.pop(self.spec.key, None)
            keys = list(zip(*(batch.column(name) for name in self.groups.by), strict=True)) or [()] * len(batch)
            of = np.array([target_of(key, targets) for key in keys], np.int64)
            for target in np.unique(of).tolist():
                mine = np.flatnonzero(of == target)
                for begin in range(0, len(mine), MOST_PANES):
                    part = mine[begin : begin + MOST_PANES]
                    chosen = part.tolist()
                    taken = {name: [values[place] for place in chosen] for name, values in columns.items()}
                    yield target, kept_of(batch.take(part), taken, self.since)
        self._kept.clear()

    def _targets(self, slots: Int64s, targets: int) -> Int64s:
        assert self.groups is not None  # noqa: S101 - a group of its own device needs no second stage
        return np.array([target_of(self.groups.values[slot], targets) for slot in slots.tolist()], np.int64)

    def _packed(self, slots: Int64s, panes: Int64s, partials: Partials, part: Int64s) -> Panes:
        assert self.groups is not None and self._panes is not None  # noqa: S101 - asked by handed_on() alone
        different, group = np.unique(slots, return_inverse=True)
        aggregates = self._panes.rows.aggregates
        return Panes(
            groups=[list(self.groups.values[slot]) for slot in different.tolist()],
            group=packed_times(group),
            pane=packed_times(panes),
            partials=aggregates.packed(aggregates.take(partials, part)),
        )

    def part(self, source: int, sources: int, *, silent: bool) -> Part:
        """How far this partition is, as a message that hands nothing on yet."""
        clocks = self.clocks
        return Part(source, sources, clocks.common_us, clocks.clock_us, silent, made_by=self._made_by)

    @property
    def extra(self) -> dict[str, Any]:
        """What the state has beside that of all windows."""
        return {"since": self.since}

    def take_extra(self, extra: dict[str, Any]) -> None:
        """Take up what :attr:`extra` was."""
        self.since = extra["since"]


def target_of(values: tuple[object, ...], targets: int) -> int:
    """The partition in which a group comes together: the same from wherever it is asked."""
    return zlib.crc32(group_name(values).encode()) % targets
