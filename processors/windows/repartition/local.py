"""The first stage of groups that span partitions: one partition's readings, judged, and folded as far as they can be.

Nothing is emitted here. Where readings may be folded in any order (tumbling, hopping), panes are forwarded as partial
aggregates when their first window has closed here, and what comes for their other windows after that apart from it;
where order matters, or a reading and its repeat may be in two partitions, the readings themselves are forwarded.

All of it follows from the readings of the partition alone: the wall clock plays no part, as the second stage closes
what has fallen silent. So a partition that is read again since its last checkpoint forwards the same again.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import msgspec
import numpy as np

from headrace.batch import Batch, Int64s
from headrace.column import Column
from processors.windows.aggregates import Partials
from processors.windows.emission import DueProvisional, Outcome
from processors.windows.input.forgetting import Forgetting
from processors.windows.input.groups import Devices, Groups, different, group_name
from processors.windows.input.held_readings import HeldReadings
from processors.windows.input.intake import Intake, Judged, Placed, kept_readings
from processors.windows.input.last_seen import LastSeen
from processors.windows.input.late import late_of
from processors.windows.input.newest_tags import NewestTags
from processors.windows.repartition.pane_parts import LocalPanes
from processors.windows.repartition.update import NUMBER, Kept, Panes, Update, kept_of, packed_times
from processors.windows.spec import WindowSpec
from processors.windows.stage import gauges_of
from processors.windows.time.watermark import NEVER, Clocks

Forwarded = TypeVar("Forwarded", Panes, Kept)

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


class Local:
    """One partition's part of a stream's groups."""

    role = "local"

    def __init__(self, spec: WindowSpec) -> None:
        self.spec = spec
        self._by = (spec.key,) if spec.by is None else spec.by
        self.intake = Intake(
            spec,
            Clocks(spec.follows, spec.idle_us, spec.grace_us),
            (NewestTags if spec.by is None else Devices)(spec.remembered_tags),
            None if spec.by is None else Groups(spec.by),
            deduplicates=spec.drop_repeats,
        )
        self.counts = self.intake.counts
        self.touched: list[Int64s] = []
        self.held: list[HeldReadings] = []
        self._panes = None if spec.forwards_readings else LocalPanes(spec)
        self._provisional = DueProvisional(spec.emit_us)
        self._last_seen = LastSeen() if self.intake.groups is not None else None
        holders = [] if self._panes is None else [self._panes]
        self._forgetting = Forgetting(self.intake, holders, self._last_seen, self.touched)
        self._kept: list[tuple[Batch, Int64s, Int64s | None]] = []
        """Readings to be forwarded, the slots of their groups, and where the first windows end that they count in."""
        self._made_by = spec.digest
        self.since = -1
        """The offset that the first message had of which this knows."""

    def add(self, batch: Batch, now_us: int) -> Outcome:
        """Take the readings of a batch that arrived at ``now_us``; the late ones, where the stream asks for them.

        Nothing is cut: parts of panes tell the readings apart that came before a window closed from those after.
        """
        if not len(batch):
            return Outcome()
        if not self._kept and not (self._panes is not None and self._panes.forwarded):
            # What is to be forwarded is named by what is known of it.
            self._forgetting.forget()
        read = self.counts["read"]
        self.counts["read"] += len(batch)
        batch = self.spec.compute(batch)
        if self._panes is None:
            batch = batch.with_columns({NUMBER: Column(np.arange(read, read + len(batch)))})
        placed = self.intake.place(batch)
        self._make_room()
        judged = self.intake.take(placed, now_us)
        if self._last_seen is not None:
            self._last_seen.note(placed.slots, batch.ts_us)
        missing = late_of(self.intake, placed, judged)
        if self._panes is None:
            self._keep(placed, judged)
        else:
            self._fold(self._panes, placed, judged)
        if due := self._provisional.is_due(now_us):
            self._provisional.note(now_us)
        self._forward(early=due)
        self.intake.prune(when_due=True)
        return Outcome(None, [] if missing is None else [missing])

    def tick(self, now_us: int) -> Outcome:  # noqa: ARG002 - as Stage
        """The partition is silent: it holds nobody up for long from now on, so it keeps nothing back either."""
        self._forward(early=True)
        return Outcome()

    def _fold(self, panes: LocalPanes, placed: Placed, judged: Judged) -> None:
        """Fold the readings that are kept into parts of panes."""
        readings = kept_readings(self.spec, placed, judged)
        if readings is None:
            return
        self.counts["windowed"] += len(readings)
        self.touched.append(different(readings.slots))
        firsts = self._firsts(placed, np.flatnonzero(judged.keep))
        if firsts is None:
            panes.take(readings)
        else:
            panes.take_parts(readings, firsts)

    def _keep(self, placed: Placed, judged: Judged) -> None:
        """Keep readings to be forwarded."""
        places = np.flatnonzero(judged.keep)
        if not len(places):
            return
        self.counts["windowed"] += len(places)
        of = self._values_of(placed.slots[places])
        by = {
            name: Column.of([values[place] for values in of], self.spec.types[name])
            for place, name in enumerate(self._by)
        }
        readings = placed.batch.take(places).with_columns(by)
        self._kept.append((readings, placed.slots[places], self._firsts(placed, places)))

    def _firsts(self, placed: Placed, places: Int64s) -> Int64s | None:
        """Where the first window ends that each reading is in time for; None if all are for all of theirs."""
        if placed.before_us is None or not self.spec.overlapping:
            return None
        return self.intake.first_end(placed.batch.ts_us[places], placed.before_us[places])

    def _forward(self, *, early: bool) -> None:
        if self._panes is not None:
            groups = self._panes.forward(self.intake.clocks.common_us, early=early)
            if len(groups):
                self.touched.append(groups)

    def forwarded(self, targets: int, most: int = PART_BYTES) -> Iterator[tuple[int, Panes | Kept]]:
        """What there is to be forwarded since the last call, with the partition that its groups come together in.

        Each is of ``most`` bytes at the most, but for a single pane or reading that has more.
        """
        if self._panes is not None:
            for slots, panes, firsts, partials in self._panes.forwarded:
                of = self._targets(slots, targets)
                for target in np.unique(of).tolist():
                    mine = np.flatnonzero(of == target)
                    packed = partial(self._packed, slots, panes, firsts, partials)
                    yield from ((target, what) for what in _pieces(mine, packed, most))
            self._panes.forwarded.clear()
        for batch, groups, in_time in self._kept:
            columns = {name: batch.column(name) for name in (*self.spec.forwarded, *self._by)}
            columns.pop(self.spec.key, None)
            of = self._targets(groups, targets)
            for target in np.unique(of).tolist():
                mine = np.flatnonzero(of == target)
                yield from ((target, what) for what in _pieces(mine, partial(_kept, batch, columns, in_time), most))
        self._kept.clear()

    def _values_of(self, slots: Int64s) -> list[tuple[Any, ...]]:
        """What each of n groups is named by."""
        if self.intake.groups is not None:
            return list(self.intake.groups.values_of(slots))
        return [(self.intake.devices.names[slot],) for slot in slots.tolist()]

    def _targets(self, slots: Int64s, targets: int) -> Int64s:
        each, of = np.unique(slots, return_inverse=True)
        return np.array([target_of(values, targets) for values in self._values_of(each)], np.int64)[of]

    def _packed(self, slots: Int64s, panes: Int64s, firsts: Int64s, partials: Partials, part: Int64s) -> Panes:
        assert self._panes is not None  # noqa: S101 - asked by forwarded() alone
        different, group = np.unique(slots[part], return_inverse=True)
        aggregates, devices = self._panes.rows.aggregates, self.intake.devices
        return Panes(
            groups=[list(values) for values in self._values_of(different)],
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
        clocks = self.intake.clocks
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

    # ---- state

    @property
    def gauges(self) -> Mapping[str, int]:
        """What is open now, beside the counts of what was."""
        panes = self._panes
        held = {"open": 0, "in_open": 0, "waiting": 0}
        if panes is not None:
            held |= {"open": panes.open_windows(), "in_open": panes.open_readings()}
        return gauges_of(self.intake, held)

    def _make_room(self) -> None:
        if self._panes is not None:
            self._panes.add_groups(self.intake.group_count)
        if self._last_seen is not None:
            self._last_seen.add_groups(self.intake.group_count)

    def add_groups(self) -> None:
        """Make room for all groups that there are; how far they are follows from the readings."""
        self._make_room()

    def packed(self, first: int, last: int) -> dict[str, Any]:
        """What is open of the groups from ``first`` up to ``last``, for MessagePack."""
        packed = {} if self._panes is None else self._panes.packed(first, last)
        return packed if self._last_seen is None else {**packed, "last_seen_us": self._last_seen.packed(first, last)}

    def unpack(self, packed: dict[str, Any], first: int, dtypes: dict[str, Any]) -> None:
        """Take up what was packed of the groups from ``first`` on."""
        if self._last_seen is not None:
            self._last_seen.unpack(packed["last_seen_us"], first)
        if self._panes is not None:
            self._panes.unpack(packed, dtypes)

    @property
    def extra(self) -> dict[str, Any]:
        """What the state has beside that of all stages."""
        return {"since": self.since}

    def take_extra(self, extra: dict[str, Any]) -> None:
        """Take up what :attr:`extra` was."""
        self.since = extra["since"]


def _kept(batch: Batch, columns: dict[str, Column], firsts: Int64s | None, places: Int64s) -> Kept:
    mine = {name: column.take(places) for name, column in columns.items()}
    return kept_of(batch.take(places), mine, None if firsts is None else firsts[places])


def _pieces(places: Int64s, made: Callable[[Int64s], Forwarded], most: int) -> Iterator[Forwarded]:
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
