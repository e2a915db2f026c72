"""Which panes of each group are open, and in which row each is kept."""

from __future__ import annotations

import numpy as np

from headrace.batch import Int64s
from headrace.column import Bools
from processors.windows.arrays import with_room

_NONE = -1


class OpenPanes:
    """For each group its newest pane in arrays, the others, which few groups have, in dictionaries.

    So finding the rows of a batch takes a few array operations, however many groups there are.
    """

    def __init__(self) -> None:
        self._pane: Int64s = np.empty(0, np.int64)
        self._row: Int64s = np.empty(0, np.int64)
        self._older: dict[int, dict[int, int]] = {}

    def add_groups(self, groups: int) -> None:
        """Make room for so many groups in all."""
        self._pane = with_room(self._pane, groups, 0)
        self._row = with_room(self._row, groups, _NONE)

    def find(self, slots: Int64s, panes: Int64s) -> Int64s:
        """The row of each pane, or -1 where it is not open."""
        rows = np.where(self._pane[slots] == panes, self._row[slots], _NONE)
        if self._older:
            for place in np.flatnonzero(rows == _NONE).tolist():
                older = self._older.get(int(slots[place]))
                if older is not None:
                    rows[place] = older.get(int(panes[place]), _NONE)
        return rows

    def add(self, slots: Int64s, panes: Int64s, rows: Int64s) -> None:
        """Know panes that were not open before (each once) by their rows."""
        newest = self._row[slots] == _NONE
        if newest.all() and len(np.unique(slots)) == len(slots):
            self._pane[slots], self._row[slots] = panes, rows
            return
        for slot, pane, row in zip(slots.tolist(), panes.tolist(), rows.tolist(), strict=True):
            known = int(self._row[slot])
            if known != _NONE and pane < self._pane[slot]:
                self._older.setdefault(slot, {})[pane] = row
                continue
            if known != _NONE:
                self._older.setdefault(slot, {})[int(self._pane[slot])] = known
            self._pane[slot], self._row[slot] = pane, row

    def remove(self, slots: Int64s, panes: Int64s) -> None:
        """Forget panes that are open."""
        newest = (self._row[slots] != _NONE) & (self._pane[slots] == panes)
        self._row[slots[newest]] = _NONE
        for slot, pane in zip(slots[~newest].tolist(), panes[~newest].tolist(), strict=True):
            older = self._older[slot]
            del older[pane]
            if not older:
                del self._older[slot]

    def any_of(self, slots: Int64s) -> Bools:
        """Of which of n groups a pane is open."""
        found: Bools = self._row[slots] != _NONE
        if self._older:
            found |= np.fromiter(map(self._older.__contains__, slots.tolist()), np.bool_, len(slots))
        return found

    def rows_of(self, slots: Int64s) -> tuple[Int64s, Int64s]:
        """All rows of these groups, in the order of the groups, and of which of the n groups each is."""
        rows = self._row[slots]
        places = np.flatnonzero(rows != _NONE)
        found = rows[places]
        if not self._older:
            return found, places
        further = [
            (row, place)
            for place, slot in enumerate(slots.tolist())
            if slot in self._older
            for row in self._older[slot].values()
        ]
        if not further:
            return found, places
        found = np.concatenate([found, np.array([row for row, _ in further], np.int64)])
        places = np.concatenate([places, np.array([place for _, place in further], np.int64)])
        order = np.argsort(places, kind="stable")
        return found[order], places[order]
