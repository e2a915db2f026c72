"""Whose parts of panes the merged stage has: each slot is what one source partition has forwarded of one group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from headrace.batch import Int64s
from headrace.column import Bools
from processors.windows.arrays import with_room
from processors.windows.input.groups import Groups
from processors.windows.repartition.pane_parts import MergedPanes
from processors.windows.repartition.source_clocks import SourceProgress
from processors.windows.repartition.update import Panes, Update, times_of
from processors.windows.spec import WindowSpec

SOURCE = " source"
"""Beside a group's values: the partition whose part of it this is. No field is called so."""


class MergedParts:
    """The parts of panes that the partitions have forwarded, by group and partition."""

    def __init__(self, spec: WindowSpec, groups: Groups) -> None:
        self.panes = MergedPanes(spec)
        self._groups = groups
        self._owners: dict[tuple[Any, ...], int] = {}
        """The groups themselves, each with the slot that stands for the whole of it."""
        self._owner: Int64s = np.empty(0, np.int64)
        """For each slot the one that stands for its whole group."""
        self._known = 0
        """So many slots have been looked at."""
        self._given: list[int] = []
        """Of them those that have been given to others since."""
        self._sources: dict[str, int] = {}
        """The number of each source, as it was begun."""

    def slots_of(self, panes: Panes, update: Update, devices: list[int]) -> Int64s:
        """The slot of this partition's part of each group in a message; new ones get theirs."""
        begun = _begun(update.source, update.since)
        pairs = zip(panes.groups, devices, strict=True)
        return np.array([self._slot((*values, begun), device) for values, device in pairs], np.int64)

    def _slot(self, values: tuple[Any, ...], device: int) -> int:
        slot = self._groups.slots.get(values)
        if slot is None:
            slot = self._groups.add(values, device)
            if slot < self._known:
                self._given.append(slot)
        return slot

    def holds(self, groups: Int64s, unknown_us: int) -> Bools:
        """Of which of n groups parts are open; as Holder."""
        return self.panes.holds(groups, unknown_us)

    def forget(self, groups: Int64s) -> None:
        """Be as if these groups, of whose parts none is open, had never been."""
        self.panes.forget(groups)
        for values in self._groups.values_of(groups):
            self._owners.pop(values[:-1], None)
        self._owner[groups] = -1

    def put(self, panes: Panes, of: Int64s) -> tuple[int, int, int]:
        """Take a message's parts, ``of`` these slots, in the place of what their partition forwarded of them before.

        How many readings are new, new and too late for all of their windows, and forwarded before.
        """
        partials = self.panes.rows.aggregates.unpacked(panes.partials)
        return self.panes.put(of[times_of(panes.group)], times_of(panes.pane), times_of(panes.first), partials)

    def note_sources(self, progress: Mapping[int, SourceProgress]) -> None:
        """Let the windows know which slots are parts of one group and of one source, and how far new sources are."""
        count = len(self._groups)
        if self._known == count and not self._given:
            return
        self._owner = with_room(self._owner, count, -1)
        sources = len(self._sources)
        for slot in (*self._given, *range(self._known, count)):
            values = self._groups.values[slot]
            if values is not None:
                self._owner[slot] = self._owners.setdefault(values[:-1], slot)
                self.panes.source[slot] = self._source(values[-1])
        self._known = count
        self._given.clear()
        self.panes.owner = self._owner[:count]
        if len(self._sources) > sources:
            for source, one in progress.items():
                self.note_progress(source, one.since, one.watermark_us)

    def note_progress(self, source: int, since: int, watermark_us: int) -> Int64s:
        """Know how far a partition is; the slots that this changes."""
        return self.panes.note_progress(self._source(_begun(source, since)), watermark_us)

    def _source(self, begun: str) -> int:
        number = self._sources.setdefault(begun, len(self._sources))
        self.panes.add_sources(len(self._sources))
        return number


def _begun(source: int, since: int) -> str:
    """What names a source partition and where it began: one that starts over adds to what it forwarded before."""
    return f"{source}@{since}"
