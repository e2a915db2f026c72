"""What both stores do with a batch before it is written: leave out what is not kept, see what its tags say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from headrace.batch import Batch
from headrace.errors import WriteConflict
from headrace.pipeline.tables import Table
from headrace.stores.port import Position, Progress

STORED = "stored"
UPDATED = "updated"
DUPLICATE = "duplicate"

LATEST_US = 31_556_995_199_999_999
"""The last time that every store can hold, in the year 2970."""

Tags = tuple[Any, ...]

RANKING = ("revision", "final", "count")
"""The columns that say which of two rows of a window is the newer one, whichever came last."""


def ranked(table: Table) -> bool:
    """Whether a table's rows are of windows, so that none goes back behind another of the same window."""
    return table.kind == "windows" and {column.name for column in table.columns}.issuperset(RANKING)


def rank(revision: int | None, final: bool | None, count: int | None) -> tuple[int, bool, int]:
    """What orders the rows of a window: none replaces one of a higher rank, be it the last to come.

    The higher revision goes first, then the final result, then, of provisional ones, that of more readings.
    """
    return revision or 0, bool(final), 0 if final else count or 0


def kept(batch: Batch, oldest_us: int) -> tuple[Batch, int]:
    """The batch without the rows before ``oldest_us`` or beyond what a store can hold, and how many those were."""
    ts_us = batch.ts_us
    if not len(ts_us) or (int(ts_us.min()) >= oldest_us and int(ts_us.max()) <= LATEST_US):
        return batch, 0
    inside = np.flatnonzero((ts_us >= oldest_us) & (ts_us <= LATEST_US))
    return batch.take(inside), len(ts_us) - len(inside)


def check_whole(position: Position, before: Progress) -> None:
    """Raise WriteConflict when some of the messages are counted already and others are not."""
    if position.first_offset < before.next_offset < position.next_offset:
        raise WriteConflict(
            f"the store has counted {position.topic}[{position.partition}] up to offset {before.next_offset}, and is"
            f" asked to count {position.first_offset} to {position.next_offset} together",
            hint="read the store's progress again, and write what lies below it and above it apart",
        )


def added(counts: Mapping[str, int], position: Position, own: Mapping[str, int]) -> dict[str, int]:
    """The partition's counts after a write: those before, what the messages add, and what the store adds itself."""
    total = {STORED: 0, UPDATED: 0, DUPLICATE: 0, **counts}
    for more in (position.counts, own):
        for name, count in more.items():
            if count:
                total[name] = total.get(name, 0) + count
    return total


class SaidTags:
    """What a batch says about its devices: the last value of each tag, None where it says nothing."""

    def __init__(self, batch: Batch, names: Sequence[str]) -> None:
        self._batch = batch
        self._names = names
        self._last: dict[str, dict[str, Any]] = {}

    def of(self, device: str, place: int, before: Tags | None) -> Tags:
        """The device's tags after the batch: said there (``place`` is its last row), else as they were before."""
        batch, names = self._batch, self._names
        said = tuple([batch.value(name, place) for name in names])
        if None in said:
            said = tuple([self._earlier(name, device) if v is None else v for name, v in zip(names, said, strict=True)])
            if before is not None:
                said = tuple([known if v is None else v for v, known in zip(said, before, strict=True)])
        return said

    def _earlier(self, name: str, device: str) -> Any:
        last = self._last.get(name)
        if last is None:
            pairs = zip(self._batch.devices, self._batch.column(name), strict=True)
            last = self._last[name] = {device: value for device, value in pairs if value is not None}
        return last.get(device)
