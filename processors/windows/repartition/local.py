"""The first stage of groups that span partitions: one partition's readings, judged, and folded as far as they can be.

Nothing is emitted here. Where readings may be folded in any order (tumbling, hopping), panes are forwarded as partial
aggregates when their first window has closed here, and what comes for their other windows after that apart from it;
where order matters, or a reading and its repeat may be in two partitions, the readings themselves are forwarded.

All of it follows from the readings of the partition alone: the wall clock plays no part, as the second stage closes
what has fallen silent. So a partition that is read again since its last checkpoint forwards the same again.
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
from processors.windows.input.groups import EachDevice, group_name
from processors.windows.input.newest_tags import NewestTags
from processors.windows.input.readings import Readings
from processors.windows.operator import Collected, Judged, Outcome, WindowOperator
from processors.windows.repartition.pane_parts import LocalPanes
from processors.windows.repartition.update import NUMBER, Kept, Panes, Update, kept_of, packed_times
from processors.windows.spec import WindowSpec
from processors.windows.time.watermark import NEVER

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


class Local(WindowOperator):
    """One partition's part of a stream's groups."""

    def __init__(self, spec: WindowSpec) -> None:
        super().__init__(spec)
        self.role = "local"
        self.reorder = None
        self._silence_ends = False  # the second stage knows when all of a group is silent
        self._panes = None if spec.forwards_readings else LocalPanes(spec)
        if self._panes is not None:
            self.engine = self._panes
        if spec.by is None:
            self.devices = NewestTags(spec.tags)
            self.groups = EachDevice(spec.key)
        self._kept: list[tuple[Batch, Int64s, Int64s | None]] = []
        """Readings to be forwarded, the slots of their groups, and where the first windows end that they count in."""
        self._made_by = spec.digest
        self.since = -1
        """The offset that the first message had of which this knows."""

    def _add(self, batch: Batch, now_us: int, collected: Collected) -> None:
        if self._panes is None:
            read = self.counts["read"]
            batch.put(NUMBER, list(range(read, read + len(batch))))
        super()._add(batch, now_us, collected)

    def _where_closed(self, devices: Int64s, batch: Batch, before_us: Int64s) -> int:  # noqa: ARG002 - as WindowOperator
        """Nowhere: parts of panes tell the readings apart that came before a window closed from those after."""
        return 0

    def _keep(self, batch: Batch, slots: Int64s, devices: Int64s, judged: Judged, collected: Collected) -> None:  # noqa: ARG002 - as WindowOperator
        places = np.flatnonzero(judged.keep)
        if not len(places):
            return
        self.counts["windowed"] += len(places)
        firsts = self._firsts(batch.ts_us[places], None if judged.before_us is None else judged.before_us[places])
        if self._panes is not None:
            self.touched.append(np.unique(slots[places]))
            readings = Readings(slots, devices, batch.ts_us, self.spec.columns(batch))
            readings = readings if len(places) == len(readings) else readings.take(places)
            if firsts is None:
                self._panes.take(readings)
            else:
                self._panes.take_parts(readings, firsts)
            return
        assert self.groups is not None  # noqa: S101 - there are groups in both stages
        kept = batch.take(places)
        for place, name in enumerate(self.groups.by):
            kept.put(name, [self.groups.values[slot][place] for slot in slots[places].tolist()])
        self._kept.append((kept, slots[places], firsts))

    def _firsts(self, ts_us: Int64s, before_us: Int64s | None) -> Int64s | None:
        """Where the first window ends that each reading is in time for; None if all are for all of theirs."""
        if before_us is None or not self._overlapping:
            return None
        assert self.alignment is not None  # noqa: S101 - only windows along event time overlap
        return self.alignment.first_end(self.alignment.panes(ts_us), before_us - self.spec.grace_us)

    def tick(self, now_us: int) -> Outcome:  # noqa: ARG002 - as WindowOperator
        """The partition is silent: it holds nobody up for long from now on, so it keeps nothing back either."""
        if self._panes is not None:
            self._panes.early = True
            super()._advance(np.empty(0, np.int64), Collected())
        return Outcome()

    def _advance(self, groups: Int64s, collected: Collected) -> None:
        if self._panes is not None:
            super()._advance(groups, collected)
            collected.emitted.clear()

    def _outcome(self, collected: Collected, now_us: int) -> Outcome:
        emit_us = self.spec.emit_us
        if self._panes is not None and emit_us is not None and now_us - self._emitted_us >= emit_us:
            self._emitted_us, self._panes.early = now_us, True
            super()._advance(np.empty(0, np.int64), collected)
        return Outcome(None, collected.late)

    def forwarded(self, targets: int, most: int = PART_BYTES) -> Iterator[tuple[int, Panes | Kept]]:
        """What there is to be forwarded since the last call, with the partition that its groups come together in.

        Each is of ``most`` bytes at the most, but for a single pane or reading that has more.
        """
        assert self.groups is not None  # noqa: S101 - there are groups in both stages
        if self._panes is not None:
            for slots, panes, firsts, partials in self._panes.forwarded:
                of = self._targets(slots, targets)
                for target in np.unique(of).tolist():
                    mine = np.flatnonzero(of == target)
                    packed = partial(self._packed, slots, panes, firsts, partials)
                    yield from ((target, what) for what in _pieces(mine, packed, most))
            self._panes.forwarded.clear()
        for batch, groups, in_time in self._kept:
            columns = {name: batch.column(name) for name in (*self.spec.forwarded, *self.groups.by)}
            columns.pop(self.spec.key, None)
            of = self._targets(groups, targets)
            for target in np.unique(of).tolist():
                mine = np.flatnonzero(of == target)
                yield from ((target, what) for what in _pieces(mine, partial(_kept, batch, columns, in_time), most))
        self._kept.clear()

    def _targets(self, slots: Int64s, targets: int) -> Int64s:
        assert self.groups is not None  # noqa: S101 - there are groups in both stages
        values = self.groups.values
        each, of = np.unique(slots, return_inverse=True)
        return np.array([target_of(values[slot], targets) for slot in each.tolist()], np.int64)[of]

    def _packed(self, slots: Int64s, panes: Int64s, firsts: Int64s, partials: Partials, part: Int64s) -> Panes:
        assert self.groups is not None and self._panes is not None  # noqa: S101 - asked by forwarded() alone
        different, group = np.unique(slots[part], return_inverse=True)
        aggregates, devices = self._panes.rows.aggregates, self.devices
        return Panes(
            groups=[list(self.groups.values[slot]) for slot in different.tolist()],
            group=packed_times(group),
            pane=packed_times(panes[part]),
            first=packed_times(firsts[part]),
            partials=aggregates.packed(aggregates.take(partials, part)),
            tags=[devices.sent(slot) for slot in different.tolist()] if isinstance(devices, NewestTags) else [],
        )

    def part(self, source: Source, silent_since_us: int | None = None) -> Update:
        """How far this partition is, as a message that forwards nothing yet.

        ``silent_since_us``: the wall time at which it is silent, if it is: its clock has moved on with that.
        """
        clocks = self.clocks
        clock_us, silent = clocks.clock_us, silent_since_us is not None
        if silent_since_us is not None and clock_us != NEVER:
            clock_us += max(0, silent_since_us - clocks.arrived_us)
        return Update(
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


def _kept(batch: Batch, columns: dict[str, list[Any]], firsts: Int64s | None, places: Int64s) -> Kept:
    chosen = places.tolist()
    mine = {name: [values[place] for place in chosen] for name, values in columns.items()}
    return kept_of(batch.take(places), mine, None if firsts is None else firsts[places])


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
