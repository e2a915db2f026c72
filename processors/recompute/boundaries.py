"""From which reading on a group's windows can be computed: where nothing before it can change them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from headrace.batch import Batch, Int64s
from headrace.pipeline.model import Session, Sliding
from processors.recompute.in_time import InTime
from processors.windows.arrays import with_room
from processors.windows.spec import WindowSpec

Scan = Callable[[int, int], Iterator[Batch]]
"""The stored readings of start <= time < end, in order of time, in batches: ``scan(start_us, end_us)``."""


def chain_us(spec: WindowSpec) -> int | None:
    """How long a group must be without a reading for what comes then to owe nothing to what came before.

    None where windows are fixed by time, or reach back so far and no further.
    """
    if isinstance(spec.window, Session):
        return int(spec.window.gap)
    return spec.idle_us + spec.grace_us if spec.ends_in_silence else None


def reach_us(spec: WindowSpec, start_us: int, end_us: int) -> tuple[int, int]:
    """The span of the readings in the windows that have one, or could have one, of start <= time < end.

    Of windows that readings make the span itself: :class:`Chains` finds how much further it goes.
    """
    if spec.alignment is not None:
        longest = spec.alignment.longest
        edges = np.array([start_us - longest, start_us, end_us - 1], np.int64)
        which, starts, ends = spec.alignment.windows(
            spec.alignment.panes(edges[1:]), edges[1:] - 2 * longest, edges[1:] + 2 * longest
        )
        return int(starts[which == 0].min()), int(ends[which == 1].max())
    if isinstance(spec.window, Sliding):
        return start_us - int(spec.window.size), end_us + int(spec.window.size)
    return start_us, end_us


class Chains:
    """The readings before a span that its windows owe something to: of each group those without a long gap."""

    def __init__(self, windows: InTime, scan: Scan, start_us: int, *, gap_us: int, first_us: int) -> None:
        """``first_us``: no reading is older."""
        self._windows, self._gap_us, self._start_us = windows, gap_us, start_us
        self._begins_us: Int64s = np.empty(0, np.int64)
        upto_us, span_us = start_us, max(gap_us, 1)
        while upto_us > first_us and self._extend(list(scan(upto_us - span_us, upto_us))):
            upto_us -= span_us

    @property
    def begin_us(self) -> int:
        """Where the first of them begins."""
        return min(self._start_us, int(self._begins_us.min(initial=self._start_us)))

    def of(self, batch: Batch) -> Batch:
        """Those of a batch that belong to a chain or to the span."""
        begins_us = self._begins(self._windows.groups_of(batch))
        inside = batch.ts_us >= begins_us
        return batch if inside.all() else batch.take(np.flatnonzero(inside))

    def _extend(self, batches: list[Batch]) -> bool:
        """Take the readings of the span before; whether any chain goes on in it, so that it may go on before it."""
        longer = False
        for batch in reversed(batches):
            named = self._windows.named(batch)
            slots = self._windows.groups_of(named)
            begins_us = self._begins(slots)
            # Backwards in time, one of each group after the other.
            remaining = np.flatnonzero(batch.ts_us >= begins_us - self._gap_us)
            while len(remaining):
                newest = remaining[::-1]
                _, first = np.unique(slots[newest], return_index=True)
                places = newest[first]
                linked = places[batch.ts_us[places] >= self._begins_us[slots[places]] - self._gap_us]
                if not len(linked):
                    break
                longer = True
                self._begins_us[slots[linked]] = batch.ts_us[linked]
                alive = np.isin(slots[remaining], slots[linked]) & ~np.isin(remaining, places)
                remaining = remaining[alive]
        return longer

    def _begins(self, slots: Int64s) -> Int64s:
        self._begins_us = with_room(self._begins_us, int(slots.max()) + 1, self._start_us)
        return self._begins_us[slots]
