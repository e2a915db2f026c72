"""Readings that were seen, in sorted runs of which there are few: what repeats are searched in."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np

from headrace.batch import Int64s
from processors.windows.input.digest import Digests

PIECE_BYTES = 256 * 1024
ENTRY_BYTES = 12
MOST = (PIECE_BYTES - 128) // ENTRY_BYTES
"""The most entries of a run: a piece of state has room for these and its header."""
FULL = 16_000
"""Chunks that would not fit together with the one before them are merged once they have so many."""
FACTOR = 16
"""How many runs of a size are merged into one of the next."""


@dataclass(slots=True)
class SortedRun:
    """Some entries, sorted by key; their times lie within ``low`` and ``high`` (counted from the level's start)."""

    keys: Int64s
    digests: Digests
    low: int
    high: int
    pieces: range = range(0)
    """The number of the piece of state that holds it; none if it was never written."""

    def __len__(self) -> int:
        return len(self.keys)

    @classmethod
    def merged(cls, runs: Sequence[SortedRun]) -> SortedRun:
        """One run of several."""
        keys = np.concatenate([run.keys for run in runs])
        # The stable sort finds the runs that are there, and merges these.
        order = np.argsort(keys, kind="stable")
        of_digests = np.concatenate([run.digests for run in runs])
        return cls(keys[order], of_digests[order], min(c.low for c in runs), max(c.high for c in runs))


@dataclass(slots=True)
class Level:
    """The runs of a level, the oldest first."""

    runs: list[SortedRun] = field(default_factory=list)
    reach: list[int] = field(default_factory=list)
    """For each run the greatest ``high`` up to it: what lies beyond it need not be searched from there down."""

    def append(self, run: SortedRun) -> None:
        """Add what is newest."""
        self.runs.append(run)
        self.reach.append(max(self.reach[-1], run.high) if self.reach else run.high)

    def replace(self, runs: list[SortedRun]) -> None:
        """Have these runs instead."""
        self.runs = runs
        self.reach = list(accumulate((run.high for run in runs), max))

    def merge_from(self, first: int) -> list[range]:
        """Make one run of those from ``first`` on; the pieces that are of no more use."""
        old = self.runs[first:]
        del self.runs[first:], self.reach[first:]
        self.append(SortedRun.merged(old))
        return [run.pieces for run in old]


def due(runs: Sequence[Sized], most: int, full: int) -> int | None:
    """From which run on they should be merged into one of ``most`` at the most, or None.

    Sizes, in factors of sixteen, never rise along the runs: smaller ones join a larger one that follows them. Of one
    size there are at most fifteen, or as many as fit into a run: these are merged once they have ``full``. So there are
    few, and a reading is merged once a factor and once when a larger run comes.
    """
    first = len(runs) - 1
    size, total = _size(runs[first]), len(runs[first])
    last = first
    while first and _size(runs[first - 1]) < size and total + len(runs[first - 1]) <= most:
        first -= 1
        total += len(runs[first])
    if first < last:
        return first
    while first and _size(runs[first - 1]) == size:
        if total + len(runs[first - 1]) > most:
            return first if first < last and total >= full else None
        first -= 1
        total += len(runs[first])
    return first if last - first >= FACTOR - 1 else None


def _size(run: Sized) -> int:
    """How large a run is, in factors of sixteen."""
    return len(run).bit_length() >> 2
