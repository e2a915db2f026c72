"""Tumbling and hopping windows, along event time or along the ordinals of a group's readings.

Readings are folded into panes, the stretches between the bounds of windows, and windows are merged from the
panes that they contain; so a reading costs the same however many windows it is in (stream slicing: Traub et
al., Scotty, 2019/2021).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from headrace.batch import Int64s
from headrace.column import Bools, Column
from processors.windows.aggregates import Aggregates
from processors.windows.arrays import with_room
from processors.windows.kinds.emitted import Emitted
from processors.windows.kinds.open_panes import OpenPanes
from processors.windows.kinds.rows import Rows
from processors.windows.time.alignment import Alignment
from processors.windows.time.watermark import NEVER

FOR_EVER = 2**62


class Pairs:
    """The different pairs of group and pane among n readings, and which of them each reading belongs to.

    ``unit``: a length that all panes begin at multiples of, from the first; 1 if none is known.
    """

    __slots__ = ("inverse", "panes", "slots")

    def __init__(self, slots: Int64s, panes: Int64s, unit: int) -> None:
        lowest, greatest = int(panes.min()), int(panes.max())
        if lowest == greatest:
            numbers, span = None, 1
        else:
            numbers, span = (panes - lowest) // unit, (greatest - lowest) // unit + 1
        reach = (int(slots.max()) + 1) * span
        if reach > 8 * len(slots) and numbers is not None:
            # Far apart, or of odd lengths: by rank they are dense again.
            levels, numbers = np.unique(panes, return_inverse=True)
            span = len(levels)
            reach = (int(slots.max()) + 1) * span
        else:
            levels = None
        keys = slots if numbers is None else slots * span + numbers
        if reach <= 8 * len(slots):
            # Few groups and panes: a table is some four times as fast as sorting.
            table = np.zeros(reach, np.int64)
            table[keys] = 1
            found = np.flatnonzero(table)
            table[found] = np.arange(len(found))
            self.inverse: Int64s = table[keys]
        else:
            found, self.inverse = np.unique(keys, return_inverse=True)
        self.slots: Int64s = found // span
        number = found % span
        self.panes: Int64s = lowest + number * unit if levels is None else levels[number]


class PaneWindows:
    """The open panes of one stream over one partition, and the windows that are merged from them.

    ``along_time``: the axis is event time, and a window's bounds are its own; otherwise it is the ordinal of
    a group's readings, and a window reaches from its first reading to its last.
    """

    def __init__(
        self, alignment: Alignment, aggregates: Aggregates, *, unit: int, along_time: bool, before_all: int = NEVER
    ) -> None:
        self.alignment = alignment
        self._before_all = before_all
        """Windows that end by this there are not, in any group."""
        self.rows = Rows(aggregates)
        self._unit = unit
        self._along_time = along_time
        self._open = OpenPanes()
        self.closed: Int64s = np.empty(0, np.int64)
        """For each group the place up to which its windows have closed."""
        self._next_end: Int64s = np.empty(0, np.int64)
        self._earliest = FOR_EVER
        """No group's next window ends before this."""
        self.owner: Int64s | None = None
        """Where a slot is one partition's part of a group: the slot that stands for the whole group."""
        self.changed: list[Int64s] = []
        """The rows that have been folded into since they last emitted."""

    def add_groups(self, groups: int) -> None:
        """Know so many groups in all."""
        self.closed = with_room(self.closed, groups, self._before_all)
        self._next_end = with_room(self._next_end, groups, FOR_EVER)
        self._open.add_groups(groups)

    def fold(self, slots: Int64s, at: Int64s, ts_us: Int64s, columns: Mapping[str, Column]) -> Int64s:
        """Add each of n readings to the pane that lies ``at`` its place on the axis; the groups that it touches."""
        pairs = Pairs(slots, self.alignment.panes(at), self._unit)
        rows = self._rows(pairs)
        self.rows.aggregates.fold(self.rows.partials, rows[pairs.inverse], ts_us, columns)
        self.changed.append(rows)
        return pairs.slots

    def _rows(self, pairs: Pairs) -> Int64s:
        """The row of each pair, opened where there was none."""
        rows = self._open.find(pairs.slots, pairs.panes)
        fresh = np.flatnonzero(rows < 0)
        if len(fresh):
            slots, panes = pairs.slots[fresh], pairs.panes[fresh]
            rows[fresh] = self.rows.take(slots, panes)
            self._opened(slots, panes, rows[fresh])
        return rows

    def _opened(self, slots: Int64s, panes: Int64s, rows: Int64s) -> None:
        self._open.add(slots, panes, rows)
        self._await(slots, panes, rows)

    def _await(self, slots: Int64s, panes: Int64s, rows: Int64s) -> None:
        """Know when the first windows of these rows end."""
        ends = self.alignment.first_end(panes, self._after(rows, self.closed[slots]))
        np.minimum.at(self._next_end, slots, ends)
        self._earliest = min(self._earliest, int(ends.min()))

    def _after(self, rows: Int64s, closed: Int64s) -> Int64s:  # noqa: ARG002 - rows may have bounds of their own
        """The place that a window of each row must end beyond, given that windows have closed so far."""
        return closed

    def due(self, slots: Int64s, upto: Int64s) -> Int64s:
        """Which of these groups have windows that end by ``upto`` (for each of them)."""
        return slots[self._next_end[slots] <= upto]

    def overdue(self, upto: int) -> Int64s:
        """All groups that have windows which end by ``upto``."""
        if self._earliest > upto:
            return np.empty(0, np.int64)
        self._earliest = int(self._next_end.min())
        return np.flatnonzero(self._next_end <= upto)

    def close(self, slots: Int64s, upto: Int64s) -> Emitted:
        """The windows of these (different) groups that end by ``upto``, for each; they are open no longer."""
        rows, places = self._rows_of(slots)
        if not len(rows):
            return Emitted.none()
        limits = upto[places]
        emitted = self._merged(rows, self._after_closed(rows), limits)
        self.closed[slots] = np.maximum(self.closed[slots], upto)
        self.drop(slots, rows, limits)
        return emitted

    def rows_of(self, slots: Int64s) -> Int64s:
        """All rows of these groups."""
        return self._rows_of(slots)[0]

    def _rows_of(self, slots: Int64s) -> tuple[Int64s, Int64s]:
        """All rows of these groups, in the order of the groups, and of which of the n groups each is."""
        return self._open.rows_of(slots)

    def _after_closed(self, rows: Int64s) -> Int64s:
        return self._after(rows, self.closed[self.rows.slot[rows]])

    def _merged(self, rows: Int64s, after: Int64s, upto: Int64s, only: set[tuple[int, int]] | None = None) -> Emitted:
        """The windows of these panes that end beyond ``after`` and by ``upto``; of them ``only`` (group, start)."""
        which, starts, ends = self.alignment.windows(self.rows.pane[rows], after, upto)
        if only is not None:
            pairs = zip(self._owners(self.rows.slot[rows[which]]).tolist(), starts.tolist(), strict=True)
            wanted = np.array([pair in only for pair in pairs], np.bool_)
            which, starts, ends = which[wanted], starts[wanted], ends[wanted]
        if not len(which):
            return Emitted.none()
        chosen = rows[which]
        slots = self._owners(self.rows.slot[chosen])
        aggregates = self.rows.aggregates
        if self.alignment.overlapping or self.owner is not None:
            order = np.lexsort((self.rows.pane[chosen], slots, starts))
            slots, starts, ends = slots[order], starts[order], ends[order]
            heads = np.ones(len(order), np.bool_)
            heads[1:] = (slots[1:] != slots[:-1]) | (starts[1:] != starts[:-1])
            begins = np.flatnonzero(heads)
            partials = aggregates.reduce(aggregates.take(self.rows.partials, chosen[order]), begins)
            slots, starts, ends = slots[begins], starts[begins], ends[begins]
        else:
            order = np.lexsort((slots, starts))
            slots, starts, ends = slots[order], starts[order], ends[order]
            partials = aggregates.take(self.rows.partials, chosen[order])
        if not self._along_time:
            starts, ends = partials["from_us"], partials["upto_us"]
        return Emitted(slots, starts, ends, aggregates.results(partials))

    def drop(self, slots: Int64s, rows: Int64s, upto: Int64s) -> None:
        """Let go of the panes whose last window has closed, and know when the next one does."""
        panes, of = self.rows.pane[rows], self.rows.slot[rows]
        over = self._over(rows, upto)
        self._forget(rows[over])
        self._next_end[slots] = FOR_EVER
        left = ~over
        if left.any():
            ends = self.alignment.first_end(panes[left], self._after(rows[left], upto[left]))
            np.minimum.at(self._next_end, of[left], ends)
            self._earliest = min(self._earliest, int(ends.min()))

    def _over(self, rows: Int64s, upto: Int64s) -> Bools:
        """Which rows are of no more use when windows have closed up to ``upto`` (for each of them)."""
        over: Bools = self.alignment.last_end(self.rows.pane[rows]) <= upto
        return over

    def _forget(self, rows: Int64s) -> None:
        """Let go of rows."""
        self._open.remove(self.rows.slot[rows], self.rows.pane[rows])
        self.rows.give_back(rows)

    def close_all(self, slots: Int64s) -> Emitted:
        """All windows of these groups, whole or not; nothing of them is open any more."""
        return self.close(slots, np.full(len(slots), FOR_EVER - 1, np.int64))

    def provisional(self) -> Emitted:
        """The open windows that have changed since they last emitted, as they are now."""
        if not self.changed:
            return Emitted.none()
        rows = np.unique(np.concatenate(self.changed))
        self.changed = []
        rows = rows[self.rows.live[rows]]
        if not len(rows):
            return Emitted.none()
        for_ever = np.full(len(rows), FOR_EVER, np.int64)
        if not self.alignment.overlapping and self.owner is None:
            return self._merged(rows, self._after_closed(rows), for_ever)
        # A window is all of its panes, those too that have not changed.
        slots = self.rows.slot[rows]
        which, starts, _ = self.alignment.windows(self.rows.pane[rows], self._after_closed(rows), for_ever)
        changed = set(zip(self._owners(slots)[which].tolist(), starts.tolist(), strict=True))
        every = self.rows_of(self._parts(np.unique(self._owners(slots))))
        return self._merged(every, self._after_closed(every), np.full(len(every), FOR_EVER, np.int64), only=changed)

    def forget_changes(self) -> None:
        """Count no window as changed."""
        self.changed.clear()

    @property
    def oldest_open_us(self) -> int | None:
        """The time of the oldest reading in an open window, of windows that readings fill; None without any."""
        return self.rows.oldest_us

    def open_windows(self) -> int:
        """How many panes are open."""
        return len(self.rows)

    def open_readings(self) -> int:
        """How many readings these hold."""
        return self.rows.readings()

    def holds(self, groups: Int64s, unknown_us: int) -> Bools:  # noqa: ARG002 - as the other kinds
        """Of which of n groups a pane is open."""
        return self._open.any_of(groups)

    def forget(self, groups: Int64s) -> None:
        """Know nothing of up to where the windows of these groups have closed: whoever gets a slot begins anew."""
        self.closed[groups] = self._before_all

    def _owners(self, slots: Int64s) -> Int64s:
        """The slots that stand for the whole groups that these are, or are parts of."""
        return slots if self.owner is None else self.owner[slots]

    def _parts(self, owners: Int64s) -> Int64s:
        return owners if self.owner is None else np.flatnonzero(np.isin(self.owner, owners))

    def packed(self, first: int, last: int) -> dict[str, Any]:
        """The open panes of the groups from ``first`` up to ``last``, for MessagePack."""
        return self.rows.packed(self.rows_of(np.arange(first, last)))

    def unpack(self, packed: dict[str, Any], dtypes: dict[str, Any]) -> None:  # noqa: ARG002 - as the other kinds
        """Take up what was packed; :attr:`closed` must be known."""
        rows = self.rows.unpack(packed)
        if len(rows):
            self._opened(self.rows.slot[rows], self.rows.pane[rows], rows)
            self.changed.append(rows)
