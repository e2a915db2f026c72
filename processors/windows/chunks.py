"""Readings that were seen, in sorted chunks of which there are few: what repeats are searched in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np

from headrace.batch import Int64s
from processors.windows.digest import Digests

PIECE_BYTES = 256 * 1024
ENTRY_BYTES = 12
MOST = (PIECE_BYTES - 128) // ENTRY_BYTES
"""The most entries of a chunk: a piece of state has room for these and its header."""
FULL = 16_000
"""Chunks that would not fit together with the one before them are merged once they have so many."""
FACTOR = 16
"""How many chunks of a size are merged into one of the next."""


@dataclass(slots=True)
class Chunk:
    """Some entries, sorted by key; their times lie within ``low`` and ``high`` (counted from the era's start)."""

    keys: Int64s
    digests: Digests
    low: int
    high: int
    name: int = -1
    """The number of the piece that holds it; -1 if none does."""

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def level(self) -> int:
        """How large it is, in factors of sixteen."""
        return len(self.keys).bit_length() >> 2

    @classmethod
    def merged(cls, chunks: Sequence[Chunk]) -> Chunk:
        """One chunk of several."""
        keys = np.concatenate([chunk.keys for chunk in chunks])
        # The stable sort finds the runs that are there, and merges these.
        order = np.argsort(keys, kind="stable")
        said = np.concatenate([chunk.digests for chunk in chunks])
        return cls(keys[order], said[order], min(c.low for c in chunks), max(c.high for c in chunks))


@dataclass(slots=True)
class Era:
    """The chunks of an era, the oldest first."""

    chunks: list[Chunk] = field(default_factory=list)
    reach: list[int] = field(default_factory=list)
    """For each chunk the greatest ``high`` up to it: what lies beyond it need not be searched from there down."""

    def append(self, chunk: Chunk) -> None:
        """Add what is newest."""
        self.chunks.append(chunk)
        self.reach.append(max(self.reach[-1], chunk.high) if self.reach else chunk.high)

    def replace(self, chunks: list[Chunk]) -> None:
        """Have these chunks instead."""
        self.chunks = chunks
        self.reach = list(accumulate((chunk.high for chunk in chunks), max))

    def merge_from(self, first: int) -> list[int]:
        """Make one chunk of those from ``first`` on; the names of the pieces that are of no more use."""
        old = self.chunks[first:]
        del self.chunks[first:], self.reach[first:]
        self.append(Chunk.merged(old))
        return [chunk.name for chunk in old if chunk.name >= 0]

    def due(self) -> int | None:
        """From which chunk on they should be merged into one, or None.

        Levels never rise along the chunks: smaller ones join a larger one that follows them. Of one level there
        are at most fifteen, or as many as fit into a chunk. So there are few, and a reading is merged once a level
        and once when a larger chunk comes.
        """
        chunks = self.chunks
        first = len(chunks) - 1
        level, total = chunks[first].level, len(chunks[first])
        last = first
        while first and chunks[first - 1].level < level and total + len(chunks[first - 1]) <= MOST:
            first -= 1
            total += len(chunks[first])
        if first < last:
            return first
        while first and chunks[first - 1].level == level:
            if total + len(chunks[first - 1]) > MOST:
                return first if first < last and total >= FULL else None
            first -= 1
            total += len(chunks[first])
        return first if last - first >= FACTOR - 1 else None
