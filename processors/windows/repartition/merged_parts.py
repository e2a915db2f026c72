"""Whose parts of panes the merged stage has: each slot is what one source partition has forwarded of one group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from headrace.batch import Int64s
from processors.windows.input.groups import Groups
from processors.windows.repartition.pane_parts import MergedPanes
from processors.windows.repartition.update import Panes, Update, times_of
from processors.windows.spec import WindowSpec
from processors.windows.time.source_clocks import SourceProgress

SOURCE = " source"
"""Beside a group's values: the partition whose part of it this is. No field is called so."""


class MergedParts:
    """The parts of panes that the partitions have forwarded, by group and partition."""

    def __init__(self, spec: WindowSpec, groups: Groups) -> None:
        self.panes = MergedPanes(spec)
        self._groups = groups
        self._owners: dict[tuple[Any, ...], int] = {}
        """The groups themselves, each with the slot that stands for the whole of it."""
        self._owner: list[int] = []
        """For each slot the one that stands for its whole group."""
        self._sources: dict[str, list[int]] = {}
        """Of each source, as it was begun, the slots that are its parts of groups."""

    def slots_of(self, panes: Panes, update: Update, devices: list[int]) -> Int64s:
        """The slot of this partition's part of each group in a message; new ones get theirs."""
        begun = _begun(update.source, update.since)
        pairs = zip(panes.groups, devices, strict=True)
        return np.array([self._slot((*values, begun), device) for values, device in pairs], np.int64)

    def _slot(self, values: tuple[Any, ...], device: int) -> int:
        slot = self._groups.slots.get(values)
        return self._groups.add(values, device) if slot is None else slot

    def put(self, panes: Panes, of: Int64s) -> tuple[int, int, int]:
        """Take a message's parts, ``of`` these slots, in the place of what their partition forwarded of them before.

        How many readings are new, new and too late for all of their windows, and forwarded before.
        """
        partials = self.panes.rows.aggregates.unpacked(panes.partials)
        return self.panes.put(of[times_of(panes.group)], times_of(panes.pane), times_of(panes.first), partials)

    def note_sources(self, progress: Mapping[int, SourceProgress]) -> None:
        """Let the windows know which slots are parts of one group, and how far the partitions of new ones are."""
        known = len(self._owner)
        if known == len(self._groups):
            return
        for slot, values in enumerate(self._groups.values[known:], known):
            self._owner.append(self._owners.setdefault(values[:-1], slot))
            self._sources.setdefault(values[-1], []).append(slot)
        self.panes.owner = np.array(self._owner, np.int64)
        for source, one in progress.items():
            slots = self._slots_of_source(source, one.since)
            self.panes.note_progress(slots[slots >= known], one.watermark_us)

    def note_progress(self, source: int, since: int, watermark_us: int) -> Int64s:
        """Know how far a partition is; the slots that this changes."""
        return self.panes.note_progress(self._slots_of_source(source, since), watermark_us)

    def _slots_of_source(self, source: int, since: int) -> Int64s:
        return np.array(self._sources.get(_begun(source, since), ()), np.int64)


def _begun(source: int, since: int) -> str:
    """What names a source partition and where it began: one that starts over adds to what it forwarded before."""
    return f"{source}@{since}"
