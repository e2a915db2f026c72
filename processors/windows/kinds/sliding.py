"""Sliding windows over ordered blocks: each new reading closes one over the last so much time of its slot.

The windows of neighbouring readings share nearly all of what they hold, so they are not folded one by one. Each is
split at a reading that many of them have in common: what lies before it are the readings from some place up to it,
what lies after it those from it up to some place, and both are had for all places at once, by merging neighbours,
then neighbours of neighbours, and so on. So a block of n readings whose runs have at most m new ones costs about
n + 2 * n_new * log2(m) merges, however long the windows are, and no Python loop over readings. Sums are exact, so it
changes nothing in which grouping they are added up, which depends on where blocks begin.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace.batch import Int64s
from headrace.column import Bools, Column
from processors.windows.aggregates import Aggregates, Partials, exact_results
from processors.windows.arrays import ranges

_LONG = 400
"""Runs longer than this, on average, are searched one by one; shorter ones all at once."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The k windows that a block's new readings close, in the block's order.

    A window holds readings after its start, up to and with its end; both in µs. ``results`` has ``count`` and
    FIELD_AGGREGATE.
    """

    starts_us: Int64s
    ends_us: Int64s
    results: dict[str, Column]


class Sliding:
    """Windows over the last ``size_us`` (above 0), aggregated by ``aggregates``, which is without sketches.

    Quantiles and distinct are exact, at the cost of going over each window's values again.
    """

    def __init__(self, size_us: int, aggregates: Aggregates) -> None:
        self.size_us = size_us
        self.aggregates = aggregates

    def results(self, slots: Int64s, ts_us: Int64s, columns: Mapping[str, Column], fresh: Bools) -> Closed:
        """The windows over ``(ts - size, ts]`` that the new readings of n close.

        The readings are sorted by (slot, ts), those of the same slot and time as they arrived; ``columns`` has
        each measured field. In each slot the ``fresh`` ones come last, and before them stand at least those older ones
        that :meth:`tail` keeps. A window holds its own reading and those before it, but none that stands behind it,
        be its time the same. ValueError if an older reading stands behind a new one.
        """
        rights = np.flatnonzero(fresh)
        if (fresh[:-1] & ~fresh[1:] & (slots[:-1] == slots[1:])).any():
            raise ValueError("in each slot the new readings must stand behind the older ones")
        lefts = self._lefts(slots, ts_us, rights)
        merged = self.aggregates.results(self._merged(slots, ts_us, columns, lefts, rights))
        results = {"count": merged["count"]}
        for measure in self.aggregates.measures:
            for aggregate in measure.aggregates:
                name = f"{measure.field}_{aggregate}"
                if name in merged:
                    results[name] = merged[name]
                    continue
                values, begins, ends = _of_present(columns[measure.field], lefts, rights + 1)
                slices = zip(begins.tolist(), ends.tolist(), strict=True)
                parts = (values[begin:end] for begin, end in slices)
                results[name] = exact_results(measure, aggregate, parts)
        ends_us = ts_us[rights]
        return Closed(ends_us - self.size_us, ends_us, results)

    def tail(self, slots: Int64s, ts_us: Int64s, frontier_us: Int64s | None = None) -> Bools:
        """Which of n readings, sorted by (slot, ts), may be in windows of readings still to come.

        Those will not be before their slot's last reading; nor, if it is given, before the slot's ``frontier_us`` (an
        element a run).
        """
        if not len(slots):
            return np.zeros(0, np.bool_)
        begins = _run_begins(slots)
        ends = np.append(begins[1:], len(slots))
        earliest_us = ts_us[ends - 1] if frontier_us is None else np.maximum(ts_us[ends - 1], frontier_us)
        kept: Bools = ts_us > np.repeat(earliest_us - self.size_us, ends - begins)
        return kept

    def _lefts(self, slots: Int64s, ts_us: Int64s, rights: Int64s) -> Int64s:
        """For each new reading the place of the first one in its window."""
        if not len(rights):
            return np.empty(0, np.int64)
        n, begins = len(slots), _run_begins(slots)
        least_us = int(ts_us.min())
        # Apart from each other by one more than a slot's times can be, so that a window stays in its slot.
        stride = int(ts_us.max()) - least_us + 2
        after_us = ts_us[rights] - self.size_us
        if n >= _LONG * len(begins) or stride * len(begins) >= 2**62:
            return _searched_by_run(begins, ts_us, rights, after_us)
        runs = np.repeat(np.arange(len(begins)), np.diff(begins, append=n)) * stride
        after = np.maximum(after_us - least_us, -1) + runs[rights]
        lefts: Int64s = np.searchsorted(ts_us - least_us + runs, after, side="right")
        return lefts

    def _merged(
        self, slots: Int64s, ts_us: Int64s, columns: Mapping[str, Column], lefts: Int64s, rights: Int64s
    ) -> Partials:
        """The readings from each left to its right, that one included, as one partial."""
        aggregates, k = self.aggregates, len(rights)
        if not k:
            return aggregates.empty(0)
        splits = _splits(slots[rights], lefts, rights)
        lengths = np.diff(splits, append=k)
        at, places = rights[splits], np.arange(k)
        # Row i has the readings from the i-th left up to the next one's, or up to the split; row k + i the i-th right.
        nexts = np.append(lefts[1:], 0)
        nexts[splits + lengths - 1] = at
        rows = np.concatenate([ranges(lefts[splits], at - lefts[splits]), rights])
        folded = aggregates.empty(2 * k)
        aggregates.fold(
            folded,
            np.concatenate([np.repeat(places, nexts - lefts), places + k]),
            ts_us[rows],
            {measure.field: columns[measure.field].take(rows) for measure in aggregates.measures},
        )
        ahead = places - np.repeat(splits, lengths)
        up_to = {name: column[k:] for name, column in folded.items()}
        self._merge_forwards(up_to, ahead)
        if len(rows) == k:
            return up_to
        before = {name: column[:k] for name, column in folded.items()}
        self._merge_backwards(before, np.repeat(lengths - 1, lengths) - ahead)
        return aggregates.pair(before, up_to)

    def _merge_forwards(self, partials: Partials, ahead: Int64s) -> None:
        """Merge into each row, in place, the rows of its part that stand ahead of it; ``ahead`` is how many."""
        step, longest = 1, int(ahead.max())
        while step <= longest:
            earlier, later = _apart(partials, step)
            merged, reaches = self.aggregates.pair(earlier, later), ahead[step:] >= step
            for name, column in later.items():
                np.copyto(column, merged[name], where=reaches if column.ndim == 1 else reaches[:, np.newaxis])
            step *= 2

    def _merge_backwards(self, partials: Partials, behind: Int64s) -> None:
        """Merge into each row, in place, the rows of its part that stand behind it; ``behind`` is how many."""
        step, longest = 1, int(behind.max())
        while step <= longest:
            earlier, later = _apart(partials, step)
            merged, reaches = self.aggregates.pair(earlier, later), behind[:-step] >= step
            for name, column in earlier.items():
                np.copyto(column, merged[name], where=reaches if column.ndim == 1 else reaches[:, np.newaxis])
            step *= 2


def _apart(partials: Partials, step: int) -> tuple[Partials, Partials]:
    """All rows but the last ``step``, and the rows so many further on."""
    earlier = {name: column[:-step] for name, column in partials.items()}
    return earlier, {name: column[step:] for name, column in partials.items()}


def _run_begins(slots: Int64s) -> Int64s:
    """The places where a slot's run begins; there is at least one reading."""
    begins = np.empty(len(slots), np.bool_)
    begins[0] = True
    np.not_equal(slots[1:], slots[:-1], out=begins[1:])
    return np.flatnonzero(begins)


def _searched_by_run(begins: Int64s, ts_us: Int64s, rights: Int64s, after_us: Int64s) -> Int64s:
    """For each right the place of the first reading of its run whose time is after ``after_us``."""
    lefts = np.empty(len(rights), np.int64)
    bounds = np.append(np.searchsorted(rights, begins), len(rights)).tolist()
    ends = [*begins[1:].tolist(), len(ts_us)]
    for run, (begin, end) in enumerate(zip(begins.tolist(), ends, strict=True)):
        of_run = slice(bounds[run], bounds[run + 1])
        if bounds[run] < bounds[run + 1]:
            lefts[of_run] = begin + np.searchsorted(ts_us[begin:end], after_us[of_run], side="right")
    return lefts


def _splits(slots: Int64s, lefts: Int64s, rights: Int64s) -> Int64s:
    """Which of the windows end at a reading where they and those after them, up to the next such, are split.

    All of these hold it. The first is a slot's first window; the next is the first that no longer holds that one's
    end, and so on: found one after the other, by jumps, where a slot's new readings go over more than a window.
    """
    begins = _run_begins(slots)
    ends = np.append(begins[1:], len(slots))
    more = lefts[ends - 1] > rights[begins]
    if not more.any():
        return begins
    listed, last, found = lefts.tolist(), rights.tolist(), []
    for begin, end in zip(begins[more].tolist(), ends[more].tolist(), strict=True):
        split = bisect_left(listed, last[begin] + 1, begin, end)
        while split < end:
            found.append(split)
            split = bisect_left(listed, last[split] + 1, split, end)
    return np.sort(np.concatenate([begins, np.array(found)]))


def _of_present(column: Column, begins: Int64s, ends: Int64s) -> tuple[Any, Int64s, Int64s]:
    """The values present, and the places among them that correspond to those among all."""
    if column.valid is None:
        return column.values, begins, ends
    before = np.concatenate([[0], np.cumsum(column.valid)])
    return column.values[column.valid], before[begins], before[ends]
