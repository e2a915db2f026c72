"""Panes of groups that span partitions, in parts: one for each window that readings of the pane came in time for first.

A reading that comes when the first windows of its pane have closed in its partition counts in the others alone.
So the pane's readings are kept apart by the end of the first window that they count in. Which part a reading
belongs to follows from the readings before it in its partition, and a part is whole when its partition has passed
that end: whoever folds the same partition again, cut into batches anywhere, makes the same parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from headrace.batch import Int64s
from headrace.column import Bools, Column
from processors.windows.aggregates import Aggregates, Partials
from processors.windows.arrays import with_room
from processors.windows.input.readings import Readings
from processors.windows.kinds.time_windows import TimeWindows
from processors.windows.spec import WindowSpec
from processors.windows.time.alignment import Alignment
from processors.windows.time.closed_up_to import ClosedUpTo
from processors.windows.time.watermark import NEVER


class SplitPanes(TimeWindows):
    """Tumbling or hopping windows over the parts of panes; ``first`` is where the first window of a part ends."""

    def __init__(self, alignment: Alignment, aggregates: Aggregates, *, unit: int) -> None:
        super().__init__(alignment, aggregates, unit=unit)
        self.first: Int64s = np.empty(0, np.int64)
        """By row."""
        self._later: dict[int, dict[tuple[int, int], int]] = {}
        """For each group the rows of parts that lack windows of their pane, by pane and first."""

    def find(self, slots: Int64s, panes: Int64s, firsts: Int64s) -> Int64s:
        """The row of each part, or -1 where it is not open."""
        rows = self._open.find(slots, panes)
        for place in np.flatnonzero(self._is_later(panes, firsts)).tolist():
            later = self._later.get(int(slots[place]), {})
            rows[place] = later.get((int(panes[place]), int(firsts[place])), -1)
        return rows

    def _is_later(self, panes: Int64s, firsts: Int64s) -> Bools:
        later: Bools = firsts > self.alignment.first_end(panes, panes)
        return later

    def _take_rows(self, slots: Int64s, panes: Int64s, firsts: Int64s) -> Int64s:
        """Fresh rows for parts (each once) that are not open."""
        rows = self.rows.take(slots, panes)
        self._place(slots, panes, firsts, rows)
        return rows

    def _place(self, slots: Int64s, panes: Int64s, firsts: Int64s, rows: Int64s) -> None:
        self.first = with_room(self.first, len(self.rows.live), 0)
        self.first[rows] = firsts
        later = self._is_later(panes, firsts)
        if later.any():
            for place in np.flatnonzero(later).tolist():
                key = int(panes[place]), int(firsts[place])
                self._later.setdefault(int(slots[place]), {})[key] = int(rows[place])
            whole = ~later
            self._open.add(slots[whole], panes[whole], rows[whole])
        else:
            self._open.add(slots, panes, rows)
        self._await(slots, panes, rows)

    def _opened(self, slots: Int64s, panes: Int64s, rows: Int64s) -> None:
        self._place(slots, panes, self.alignment.first_end(panes, panes), rows)

    def fold_parts(
        self, slots: Int64s, panes: Int64s, firsts: Int64s, ts_us: Int64s, columns: Mapping[str, Column]
    ) -> None:
        """Add each of n readings to its part."""
        every = np.column_stack([slots, panes, firsts])
        different, inverse = np.unique(every, axis=0, return_inverse=True)
        inverse = inverse.reshape(-1)
        of, at, first = (np.ascontiguousarray(different[:, column]) for column in range(3))
        rows = self.find(of, at, first)
        fresh = np.flatnonzero(rows < 0)
        if len(fresh):
            rows[fresh] = self._take_rows(of[fresh], at[fresh], first[fresh])
        self.rows.aggregates.fold(self.rows.partials, rows[inverse], ts_us, columns)
        self.changed.append(rows)

    def take_parts(self, readings: Readings, firsts: Int64s) -> None:
        """Add n readings, each to the part that counts in the windows which end at ``firsts`` or later."""
        of = self.alignment.panes(readings.ts_us)
        later = self._is_later(of, firsts)
        if later.any():
            rest = readings.take(np.flatnonzero(later))
            self.fold_parts(rest.slots, of[later], firsts[later], rest.ts_us, rest.columns)
            readings = readings.take(np.flatnonzero(~later))
        if len(readings):
            self.take(readings)

    def _after(self, rows: Int64s, closed: Int64s) -> Int64s:
        return np.maximum(closed, self.first[rows] - 1)

    def _rows_of(self, slots: Int64s) -> tuple[Int64s, Int64s]:
        rows, places = self._open.rows_of(slots)
        if not self._later:
            return rows, places
        further = [
            (row, place)
            for place, slot in enumerate(slots.tolist())
            if slot in self._later
            for row in self._later[slot].values()
        ]
        if not further:
            return rows, places
        rows = np.concatenate([rows, np.array([row for row, _ in further], np.int64)])
        places = np.concatenate([places, np.array([place for _, place in further], np.int64)])
        order = np.argsort(places, kind="stable")
        return rows[order], places[order]

    def _forget(self, rows: Int64s) -> None:
        later = self._is_later(self.rows.pane[rows], self.first[rows])
        whole = rows[~later]
        self._open.remove(self.rows.slot[whole], self.rows.pane[whole])
        for row in rows[later].tolist():
            slot = int(self.rows.slot[row])
            of_group = self._later[slot]
            del of_group[int(self.rows.pane[row]), int(self.first[row])]
            if not of_group:
                del self._later[slot]
        self.rows.give_back(rows)

    def holds(self, groups: Int64s, unknown_us: int) -> Bools:
        """Of which of n groups a part is open."""
        held = super().holds(groups, unknown_us)
        if self._later:
            held |= np.fromiter(map(self._later.__contains__, groups.tolist()), np.bool_, len(groups))
        return held

    def packed(self, first: int, last: int) -> dict[str, Any]:
        """The open parts of the groups from ``first`` up to ``last``, for MessagePack."""
        rows = self.rows_of(np.arange(first, last))
        return {**self.rows.packed(rows), "first": self.first[rows].astype("<i8").tobytes()}

    def unpack(self, packed: dict[str, Any], dtypes: dict[str, Any]) -> None:  # noqa: ARG002 - as the other kinds
        """Take up what was packed; :attr:`closed` must be known."""
        rows = self.rows.unpack(packed)
        if len(rows):
            firsts = np.frombuffer(packed["first"], "<i8").astype(np.int64)
            self._place(self.rows.slot[rows], self.rows.pane[rows], firsts, rows)
            self.changed.append(rows)


Parts = tuple[Int64s, Int64s, Int64s, Partials]
"""Parts to be forwarded: of which groups (slots) and panes, their firsts, what they hold."""


class LocalPanes(SplitPanes):
    """The open parts of one partition. They are not emitted but forwarded: when they are whole, or before."""

    def __init__(self, spec: WindowSpec) -> None:
        alignment = spec.alignment
        assert alignment is not None  # noqa: S101 - only made of windows along event time
        super().__init__(alignment, spec.aggregates, unit=spec.unit_us)
        self.forwarded: list[Parts] = []
        self._unsent = np.empty(0, np.bool_)
        """By row, whether it has changed since it was forwarded."""

    def forward(self, closed_up_to_us: int, *, early: bool) -> Int64s:
        """Forward the parts that are whole, and let go of them; the groups that these were of.

        ``early``: what has changed and is not whole is forwarded, too, and stays: for provisional results, in silence.
        """
        if self.changed:
            self._unsent = with_room(self._unsent, len(self.rows.live), fill=False)
            for rows in self.changed:
                self._unsent[rows] = True
            self.changed.clear()
        groups = self.overdue(closed_up_to_us)
        if len(groups):
            rows, places = self._rows_of(groups)
            self._forward(rows[self.first[rows] <= closed_up_to_us])
            self.drop(groups, rows, np.full(len(places), closed_up_to_us, np.int64))
        if early:
            self._forward(np.flatnonzero(self._unsent))
        return groups

    def _forward(self, rows: Int64s) -> None:
        """Forward those of these rows that have not been forwarded as they are."""
        rows = rows[self._unsent[rows]]
        if len(rows):
            partials = self.rows.aggregates.take(self.rows.partials, rows)
            self.forwarded.append((self.rows.slot[rows], self.rows.pane[rows], self.first[rows], partials))
            self._unsent[rows] = False

    def _over(self, rows: Int64s, upto: Int64s) -> Bools:
        over: Bools = self.first[rows] <= upto
        return over


class MergedPanes(SplitPanes):
    """The parts that the partitions have forwarded; each slot is one partition's part of a group."""

    def __init__(self, spec: WindowSpec) -> None:
        alignment = spec.alignment
        assert alignment is not None  # noqa: S101 - only made of windows along event time
        super().__init__(alignment, spec.aggregates, unit=spec.unit_us)
        self.source: Int64s = np.empty(0, np.int64)
        """For each slot the number of the source that its parts are of."""
        self._forwarded_us: Int64s = np.empty(0, np.int64)
        """For each source its watermark: what it forwards of parts up to there it has forwarded before."""
        self._kept: set[int] = set()
        """Rows whose windows have closed before their partition had forwarded all of them: they may come again."""

    def add_groups(self, groups: int) -> None:
        """Know so many groups in all."""
        super().add_groups(groups)
        self.source = with_room(self.source, groups, 0)

    def add_sources(self, sources: int) -> None:
        """Know so many sources in all."""
        self._forwarded_us = with_room(self._forwarded_us, sources, NEVER)

    def begin(self, groups: Int64s, closed_up_to: ClosedUpTo) -> None:
        """Know how far these groups are before parts of theirs are taken."""
        self.closed[groups] = np.maximum(self.closed[groups], closed_up_to.of(groups))

    def put(self, slots: Int64s, panes: Int64s, firsts: Int64s, partials: Partials) -> tuple[int, int, int]:
        """Take n parts (each once), in the place of what their partition forwarded of them before.

        The readings that are new; those that are new and too late for all of their windows; and those that have
        been forwarded before. A part only grows while it is not whole, so one that holds no more is the same again.
        """
        counted = partials["count"]
        rows = self.find(slots, panes, firsts)
        before = np.zeros(len(rows), np.int64)
        known = np.flatnonzero(rows >= 0)
        before[known] = self.rows.partials["count"][rows[known]]
        over = self.alignment.last_end(panes) <= self.closed[slots]
        # What is over, whole, and not there has been there.
        fresh = (counted > before) & ~((rows < 0) & over & (firsts <= self._forwarded_us[self.source[slots]]))
        again = int(counted[~fresh].sum() + before[fresh].sum())
        more = (counted - before)[fresh]
        if not fresh.any():
            return 0, 0, again
        rows, over = rows[fresh], over[fresh]
        opened = np.flatnonzero(rows < 0)
        if len(opened):
            rows[opened] = self._take_rows(slots[fresh][opened], panes[fresh][opened], firsts[fresh][opened])
        for name, column in self.rows.aggregates.take(partials, np.flatnonzero(fresh)).items():
            self.rows.partials[name][rows] = column
        self._kept.update(rows[over].tolist())
        self.changed.append(rows[~over])
        return int(more[~over].sum()), int(more[over].sum()), again

    def note_progress(self, source: int, watermark_us: int) -> Int64s:
        """Know the watermark of a source; the slots that this changes."""
        self._forwarded_us[source] = max(int(self._forwarded_us[source]), watermark_us)
        if not self._kept:
            return np.empty(0, np.int64)
        kept = np.array(sorted(self._kept), np.int64)
        done = kept[self.first[kept] <= self._forwarded_us[self.source[self.rows.slot[kept]]]]
        self._kept.difference_update(done.tolist())
        changed = np.unique(self.rows.slot[done])
        self._forget(done)
        return changed

    def _over(self, rows: Int64s, upto: Int64s) -> Bools:
        over = super()._over(rows, upto)
        early = over & (self.first[rows] > self._forwarded_us[self.source[self.rows.slot[rows]]])
        if early.any():
            self._kept.update(rows[early].tolist())
            over &= ~early
        return over

    def holds(self, groups: Int64s, unknown_us: int) -> Bools:
        """Of which of n groups' parts one is open, of any of its partitions, or is not among these: all go at once."""
        assert self.owner is not None  # noqa: S101 - each slot is a partition's part
        busy = self.owner >= 0
        busy[groups] = super().holds(groups, unknown_us)
        owners = np.zeros(len(self.owner), np.bool_)
        owners[self.owner[busy]] = True
        held: Bools = owners[self.owner[groups]]
        return held

    def open_windows(self) -> int:
        """How many parts are open."""
        return len(self.rows) - len(self._kept)

    def open_readings(self) -> int:
        """How many readings these hold."""
        return self.rows.readings() - int(self.rows.partials["count"][sorted(self._kept)].sum())

    def unpack(self, packed: dict[str, Any], dtypes: dict[str, Any]) -> None:
        """Take up what was packed; :attr:`closed` must be known."""
        super().unpack(packed, dtypes)
        rows = np.flatnonzero(self.rows.live)
        over = self.alignment.last_end(self.rows.pane[rows]) <= self.closed[self.rows.slot[rows]]
        self._kept = set(rows[over].tolist())
