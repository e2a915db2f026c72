"""The first stage of groups that span partitions: one partition's readings, judged, and folded as far as they can be.

Nothing speaks here. Where readings may be folded in any order (tumbling, hopping), panes are handed on as partial
aggregates when their first window has closed here, and what comes for their other windows after that apart from it;
where order matters, the readings themselves are handed on.

All of it follows from the readings of the partition alone: the wall clock plays no part, as the second stage closes
what has fallen silent. So a partition that is read again since its last checkpoint hands on the same again.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import msgspec
import numpy as np

from headrace.batch import Batch, Int64s
from processors.windows.aggregates import Partials
from processors.windows.groups import group_name
from processors.windows.pane_parts import PartsToHandOn
from processors.windows.parts import NUMBER, Kept, Panes, Part, kept_of, packed_times
from processors.windows.spec import WindowSpec
from processors.windows.waiting import Readings
from processors.windows.watermark import NEVER
from processors.windows.windowed import Judged, Outcome, Said, Windowed

Handed = TypeVar("Handed", Panes, Kept)

PART_BYTES = 500_000
"""The most bytes of a message: sketches and texts can make a thousand panes more than a broker takes."""

MOST_PANES = 1_000
"""The most panes, or readings, of one message."""


@dataclass(frozen=True)
class Source:
    """Which of the topic's partitions it is, how many there are, and up to which offset it is read."""

    partition: int
    partitions: int
    next_offset: int


class Local(Windowed):
    """One partition's part of a stream's groups."""

    def __init__(self, spec: WindowSpec) -> None:
        super().__init__(spec)
        self.role = "local"
        self.waiting = None
        self._silence_ends = False  # the second stage knows when all of a group is silent
        self._panes = None if spec.ordered else PartsToHandOn(spec)
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

    def _where_closed(self, devices: Int64s, batch: Batch, before_us: Int64s) -> int:  # noqa: ARG002 - as Windowed
        """Nowhere: parts of panes tell the readings apart that came before a window closed from those after."""
        return 0

    def _keep(self, batch: Batch, slots: Int64s, devices: Int64s, judged: Judged, said: Said) -> None:  # noqa: ARG002 - as Windowed
        places = np.flatnonzero(judged.keep)
        if self._panes is not None:
            if len(places):
                readings = Readings(slots, devices, batch.ts_us, self.spec.columns(batch))
                self._fold(readings, places, judged.before_us)
            return
        assert self.groups is not None  # noqa: S101 - a group of its own device needs no second stage
        self.counts["windowed"] += len(places)
        kept = batch.take(places)
        for place, name in enumerate(self.groups.by):
            kept.put(name, [self.groups.values[slot][place] for slot in slots[places].tolist()])
        self._kept.append(kept)

    def _fold(self, readings: Readings, places: Int64s, before_us: Int64s | None) -> None:
        """Fold the readings at these places, those that have missed a window apart from those in time for all."""
        panes, alignment = self._panes, self.alignment
        assert panes is not None and alignment is not None  # noqa: S101 - only asked for windows along event time
        self.counts["windowed"] += len(places)
        self.touched.append(np.unique(readings.slots[places]))
        in_time = places
        if before_us is not None and alignment.overlapping:
            of = alignment.panes(readings.ts_us[places])
            firsts = alignment.first_end(of, before_us[places] - self.spec.grace_us)
            later = firsts > alignment.first_end(of, of)
            if later.any():
                in_time, rest = places[~later], readings.take(places[later])
                panes.fold_parts(rest.slots, of[later], firsts[later], rest.ts_us, rest.columns)
        if len(in_time):
            panes.take(readings if len(in_time) == len(readings) else readings.take(in_time))

    def tick(self, now_us: int) -> Outcome:  # noqa: ARG002 - as Windowed
        """The partition is silent: it holds nobody up for long from now on, so it keeps nothing back either."""
        if self._panes is not None:
            self._panes.early = True
            super()._advance(np.empty(0, np.int64), Said())
        return Outcome()

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

    def handed_on(self, targets: int, most: int = PART_BYTES) -> Iterator[tuple[int, Panes | Kept]]:
        """What there is to be handed on since the last call, with the partition that its groups come together in.

        Each is of ``most`` bytes at the most, but for a single pane or reading that has more.
        """
        assert self.groups is not None  # noqa: S101 - a group of its own device needs no second stage
        if self._panes is not None:
            for slots, panes, firsts, partials in self._panes.handed:
                of = self._targets(slots, targets)
                for target in np.unique(of).tolist():
                    mine = np.flatnonzero(of == target)
                    packed = partial(self._packed, slots, panes, firsts, partials)
                    yield from ((target, what) for what in _pieces(mine, packed, most))
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
                yield from ((target, what) for what in _pieces(mine, partial(_kept, batch, columns), most))
        self._kept.clear()

    def _targets(self, slots: Int64s, targets: int) -> Int64s:
        assert self.groups is not None  # noqa: S101 - a group of its own device needs no second stage
        return np.array([target_of(self.groups.values[slot], targets) for slot in slots.tolist()], np.int64)

    def _packed(self, slots: Int64s, panes: Int64s, firsts: Int64s, partials: Partials, part: Int64s) -> Panes:
        assert self.groups is not None and self._panes is not None  # noqa: S101 - asked by handed_on() alone
        different, group = np.unique(slots[part], return_inverse=True)
        aggregates = self._panes.rows.aggregates
        return Panes(
            groups=[list(self.groups.values[slot]) for slot in different.tolist()],
            group=packed_times(group),
            pane=packed_times(panes[part]),
            first=packed_times(firsts[part]),
            partials=aggregates.packed(aggregates.take(partials, part)),
        )

    def part(self, source: Source, silent_since_us: int | None = None) -> Part:
        """How far this partition is, as a message that hands nothing on yet.

        ``silent_since_us``: the wall time at which it is silent, if it is: its clock has moved on with that.
        """
        clocks = self.clocks
        clock_us, silent = clocks.clock_us, silent_since_us is not None
        if silent_since_us is not None and clock_us != NEVER:
            clock_us += max(0, silent_since_us - clocks.arrived_us)
        return Part(
            source.partition,
            source.partitions,
            self.since,
            source.next_offset,
            clocks.common_us,
            clock_us,
            silent,
            made_by=self._made_by,
        )

    @property
    def extra(self) -> dict[str, Any]:
        """What the state has beside that of all windows."""
        return {"since": self.since}

    def take_extra(self, extra: dict[str, Any]) -> None:
        """Take up what :attr:`extra` was."""
        self.since = extra["since"]


def _kept(batch: Batch, columns: dict[str, list[Any]], places: Int64s) -> Kept:
    chosen = places.tolist()
    return kept_of(batch.take(places), {name: [values[place] for place in chosen] for name, values in columns.items()})


def _pieces(places: Int64s, made: Callable[[Int64s], Handed], most: int) -> Iterator[Handed]:
    """What is made of these places, in as many pieces as it takes for each to fit into a message."""
    for begin in range(0, len(places), MOST_PANES):
        part = places[begin : begin + MOST_PANES]
        what = made(part)
        if len(part) > 1 and len(msgspec.msgpack.encode(what)) > most:
            half = len(part) // 2
            yield from _pieces(part[:half], made, most)
            yield from _pieces(part[half:], made, most)
        else:
            yield what


def target_of(values: tuple[object, ...], targets: int) -> int:
    """The partition in which a group comes together: the same from wherever it is asked."""
    return zlib.crc32(group_name(values).encode()) % targets
