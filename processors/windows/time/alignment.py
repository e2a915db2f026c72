"""Which panes and windows there are on an axis: what every alignment says, and the one that counts from 0.

The axis is event time (µs since the epoch, UTC) or the ordinal of a reading in its group. A window is a
stretch of it, ``start <= place < end``; a pane is a stretch whose places are all in the same windows. Readings
are folded into panes, windows are merged from panes (stream slicing: Traub et al., Scotty, 2019/2021), so
that what windows share is computed once. A pane and a window are named by where they start.

>>> hopping = Fixed(size=10, step=4)
>>> hopping.panes(np.array([0, 1, 2, 9, 10, -1])).tolist()
[0, 0, 2, 8, 10, -2]
>>> [found.tolist() for found in hopping.windows(np.array([8]), np.array([-99]), np.array([99]))]
[[0, 0, 0], [0, 4, 8], [10, 14, 18]]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from headrace.batch import Int64s

NO_END = 2**62
"""The end of a window that there is not."""


class Alignment(Protocol):
    """The panes and windows of an axis. All methods are pure, and vectorised over n places or panes.

    Every place is in exactly one pane, and panes leave no gap. A pane that lies in a window lies in it
    wholly. Of two windows, the one that starts later never ends earlier. Panes given to a method must be such
    as :meth:`panes` names. Places are within ±2**62.
    """

    @property
    def overlapping(self) -> bool:
        """Whether a pane may be in several windows; otherwise a pane is a window."""
        ...

    @property
    def longest(self) -> int:
        """No window is longer than this."""
        ...

    def panes(self, at: Int64s) -> Int64s:
        """The pane that each of n places falls into."""
        ...

    def last_end(self, panes: Int64s) -> Int64s:
        """For each of n panes the end (exclusive) of the last window that it is in."""
        ...

    def first_end(self, panes: Int64s, after: Int64s) -> Int64s:
        """For each of n panes the end of the first window that it is in and that ends beyond ``after`` (n places).

        :data:`NO_END` if there is none.
        """
        ...

    def windows(self, panes: Int64s, after: Int64s, upto: Int64s) -> tuple[Int64s, Int64s, Int64s]:
        """All pairs of a pane and a window that it is in, where ``after < end <= upto`` (n places each).

        Gives for each pair the pane's place in ``panes``, and the window's start and end; by that place, then by
        the end. The cost goes with the panes and pairs, not with all windows that the panes are in.
        """
        ...


@dataclass(frozen=True)
class Fixed:
    """Windows ``[offset + k * step, offset + k * step + size)`` for every whole ``k``: tumbling if step = size.

    Panes are the steps, if the size is a multiple of the step; otherwise they are cut where a window starts
    and where one ends, two a step. Raises ValueError unless 0 < step <= size.
    """

    size: int
    step: int
    offset: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.step <= self.size:
            raise ValueError(f"windows of {self.size} every {self.step}: the step is to be above 0, at most the size")

    @property
    def overlapping(self) -> bool:
        """Whether a pane may be in several windows."""
        return self.step < self.size

    @property
    def longest(self) -> int:
        """The length of every window."""
        return self.size

    def panes(self, at: Int64s) -> Int64s:
        """The pane that each of n places falls into."""
        steps = self._steps(at)
        cut = self.size % self.step
        if cut:
            steps += cut * (at - steps >= cut)
        return steps

    def last_end(self, panes: Int64s) -> Int64s:
        """For each of n panes the end (exclusive) of the last window that it is in."""
        if self.size % self.step == 0:
            return panes + self.size
        return self._steps(panes) + self.size

    def first_end(self, panes: Int64s, after: Int64s) -> Int64s:
        """For each of n panes the end of the first window that it is in and that ends beyond ``after``."""
        last = self.last_end(panes)
        if not self.overlapping:
            return np.where(last > after, last, NO_END)
        return self._first_end(panes, after, last)

    def windows(self, panes: Int64s, after: Int64s, upto: Int64s) -> tuple[Int64s, Int64s, Int64s]:
        """All pairs of a pane and a window that it is in, where ``after < end <= upto``: which, starts, ends."""
        last = self.last_end(panes)
        if not self.overlapping:
            which = np.flatnonzero((last > after) & (last <= upto))
            return which, panes[which], last[which]
        first = self._first_end(panes, after, last)
        which, nth = spread((_held(upto, panes, last) - first) // self.step + 1)
        ends = first[which] + nth * self.step
        return which, ends - self.size, ends

    def _steps(self, at: Int64s) -> Int64s:
        """Where the last window that each place is in starts."""
        if not self.offset:
            return at // self.step * self.step
        return (at - self.offset) // self.step * self.step + self.offset

    def _first_end(self, panes: Int64s, after: Int64s, last: Int64s) -> Int64s:
        # All places of a pane are in the same windows, so what ends beyond its start ends beyond all of it.
        beyond = _held(after, panes, last) - (self.size + self.offset)
        first = (beyond // self.step + 1) * self.step + (self.size + self.offset)
        return np.where(first <= last, first, NO_END)


def _held(bounds: Int64s, panes: Int64s, last: Int64s) -> Int64s:
    """The bounds, held between a pane's start and its last end: that changes no answer, and nothing overflows."""
    return np.minimum(np.maximum(bounds, panes), last)


def spread(counts: Int64s) -> tuple[Int64s, Int64s]:
    """For each of n panes ``counts`` pairs (none if below 1): the pane's place, and 0, 1, ... within the pane.

    >>> [found.tolist() for found in spread(np.array([2, -1, 3]))]
    [[0, 0, 2, 2, 2], [0, 1, 0, 1, 2]]
    """
    some = np.flatnonzero(counts > 0)
    if len(some) == 0:
        return some, some
    counts = counts[some]
    greatest = int(counts.max())
    if greatest == 1:
        return some, np.zeros(len(some), np.int64)
    before = np.cumsum(counts)
    nth = np.arange(int(before[-1]), dtype=np.int64) - np.repeat(before - counts, counts)
    return np.repeat(some, counts), nth
