"""The first and the last value by event time; of several at that time the least and the greatest, respectively.

So the outcome does not depend on the order in which readings come.
"""

from __future__ import annotations

import numpy as np

from headrace.batch import Int64s
from headrace.column import Bools, Column
from headrace.pipeline.model import Aggregate
from processors.windows.aggregates.family import (
    NEVER_SINCE,
    NEVER_YET,
    Array,
    Family,
    PartialColumn,
    Partials,
    Readings,
    Segments,
    given,
    value_column,
)
from processors.windows.aggregates.measure import Measure


class FirstLast(Family):
    """``first`` and ``first_ts``, ``last`` and ``last_ts`` (µs), each pair only if it is asked for."""

    gives = ("first", "last")

    def __init__(self, measure: Measure) -> None:
        super().__init__(measure)
        self.edges: list[tuple[str, str, np.ufunc, np.ufunc]] = []
        """For each edge its columns of values and times, which is nearer the edge, and the comparison for it."""
        for part, ufunc, nearer, never in (
            ("first", np.minimum, np.less, NEVER_YET),
            ("last", np.maximum, np.greater, NEVER_SINCE),
        ):
            if part in measure.aggregates:
                name, times = self.name(part), self.name(f"{part}_ts")
                self.parts[name] = value_column(measure)
                self.parts[times] = PartialColumn(np.int64, never)
                self.edges.append((name, times, ufunc, nearer))

    def fold(self, partials: Partials, readings: Readings, values: Array) -> None:
        """Move the edges outwards: first the times, then the values of the readings that have them."""
        rows, ts_us = readings.rows, readings.ts_us
        for name, times, ufunc, _ in self.edges:
            kept, kept_ts = partials[name], partials[times]
            before = kept_ts[rows]
            ufunc.at(kept_ts, rows, ts_us)
            there = np.flatnonzero(ts_us == kept_ts[rows])
            at, found = rows[there], values[there]
            moved = before[there] != ts_us[there]
            kept[at[moved]] = found[moved]
            ufunc.at(kept, at, found)

    def reduce(self, partials: Partials, segments: Segments) -> Partials:
        """The outermost time of each segment, and the value there."""
        merged: Partials = {}
        for name, times, ufunc, _ in self.edges:
            ts_us = partials[times]
            outermost: Int64s = ufunc.reduceat(ts_us, segments.begins)
            there = np.flatnonzero(ts_us == outermost[segments.owner])
            begins = np.searchsorted(segments.owner[there], np.arange(len(segments)))
            merged[name] = ufunc.reduceat(partials[name][there], begins)
            merged[times] = outermost
        return merged

    def pair(self, left: Partials, right: Partials) -> Partials:
        """The outer of two each."""
        merged: Partials = {}
        for name, times, ufunc, nearer in self.edges:
            mine, other, mine_ts, other_ts = left[name], right[name], left[times], right[times]
            outer: Bools = nearer(other_ts, mine_ts)
            level = np.flatnonzero(other_ts == mine_ts)
            outer[level] = nearer(other[level], mine[level])
            merged[name] = np.where(outer, other, mine)
            merged[times] = ufunc(mine_ts, other_ts)
        return merged

    def result(self, aggregate: Aggregate, partials: Partials) -> Column:
        """None where there is no value."""
        return given(partials[self.name(aggregate)], self.values(partials) > 0)
