"""What needs the order of the readings: a counter's increase, its rate, and the mean weighted by time.

A partial covers a stretch of event time. Stretches of one row do not overlap; readings of the same time are
taken in the order they come in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from headrace.batch import Float64s, Int64s
from headrace.pipeline.model import Aggregate
from headrace.pipeline.tables import ORDERED_AGGREGATES
from processors.windows.aggregates.halves import listed_quotients, listed_totals, split
from processors.windows.aggregates.measure import Measure
from processors.windows.aggregates.parts import (
    NEVER_SINCE,
    NEVER_YET,
    Array,
    Family,
    Part,
    Partials,
    Readings,
    Segments,
    listed,
    value_part,
)
from processors.windows.column import Bools

_US = 1_000_000


class Gaps(NamedTuple):
    """From one reading to the next, n times: values and times (µs) on either side, and which have both."""

    before: Array
    before_ts: Int64s
    after: Array
    after_ts: Int64s
    is_step: Bools


class Counters(Family):
    """``begin``, ``begin_ts``, ``end``, ``end_ts``; ``increase`` (of whole numbers two halves); ``area`` (value · µs).

    From one reading to the next the value grows by their difference or, if it falls, by the new value: the counter
    began again at 0. The area between them is that of the straight line.
    """

    gives = ORDERED_AGGREGATES

    def __init__(self, measure: Measure) -> None:
        super().__init__(measure)
        self.begin, self.begin_ts = self.name("begin"), self.name("begin_ts")
        self.end, self.end_ts = self.name("end"), self.name("end_ts")
        self.increase, self.increase_high = self.name("increase"), self.name("increase_high")
        self.area = self.name("area")
        self.parts = {
            self.begin: value_part(measure),
            self.begin_ts: Part(np.int64, NEVER_YET),
            self.end: value_part(measure),
            self.end_ts: Part(np.int64, NEVER_SINCE),
        }
        self.steps: list[tuple[tuple[str, ...], Callable[[Gaps], tuple[Array, ...]]]] = []
        """Columns that add up over the steps from reading to reading, and what a step adds to them."""
        if measure.asks("delta", "rate"):
            columns = (self.increase, self.increase_high) if measure.whole else (self.increase,)
            self.steps.append((columns, _whole_increase if measure.whole else _increase))
            self.parts |= {name: Part(np.int64 if measure.whole else np.float64, 0) for name in columns}
        if measure.asks("time_weighted_mean"):
            self.steps.append(((self.area,), _area))
            self.parts[self.area] = Part(np.float64, 0.0)

    def fold(self, partials: Partials, readings: Readings, values: Array) -> None:
        """Go on from each row's end, which is earlier than the readings."""
        order, begins, rows = readings.order, readings.begins, readings.at_rows
        values, ts_us = values[order], readings.ts_us[order]
        kept_end, kept_end_ts = partials[self.end], partials[self.end_ts]
        before, before_ts = np.empty_like(values), np.empty_like(ts_us)
        before[1:], before_ts[1:] = values[:-1], ts_us[:-1]
        before[begins], before_ts[begins] = kept_end[rows], kept_end_ts[rows]
        for name, added in self._added(Gaps(before, before_ts, values, ts_us, before_ts != NEVER_SINCE)):
            partials[name][rows] += readings.sums(added)
        new = partials[self.begin_ts][rows] == NEVER_YET
        fresh, first = rows[new], begins[new]
        partials[self.begin][fresh], partials[self.begin_ts][fresh] = values[first], ts_us[first]
        last = begins + readings.counts - 1
        kept_end[rows], kept_end_ts[rows] = values[last], ts_us[last]

    def reduce(self, partials: Partials, segments: Segments) -> Partials:
        """Put each segment's stretches in the order of time, rows without values last, and bridge the gaps."""
        begins = segments.begins
        order = np.lexsort((partials[self.end_ts], partials[self.begin_ts], segments.owner))
        begin, begin_ts, end, end_ts = (
            partials[name][order] for name in (self.begin, self.begin_ts, self.end, self.end_ts)
        )
        has_values = begin_ts != NEVER_YET
        before, before_ts = np.roll(end, 1), np.roll(end_ts, 1)
        is_step = has_values.copy()
        is_step[begins] = False
        last = begins + np.maximum(np.add.reduceat(has_values.astype(np.int64), begins), 1) - 1
        merged = {
            self.begin: begin[begins],
            self.begin_ts: begin_ts[begins],
            self.end: end[last],
            self.end_ts: end_ts[last],
        }
        for name, added in self._added(Gaps(before, before_ts, begin, begin_ts, is_step)):
            merged[name] = np.add.reduceat(partials[name][order] + added, begins)
        return merged

    def pair(self, left: Partials, right: Partials) -> Partials:
        """Bridge the gap between two each."""
        before, before_ts, after, after_ts = left[self.end], left[self.end_ts], right[self.begin], right[self.begin_ts]
        left_has, right_has = before_ts != NEVER_SINCE, after_ts != NEVER_YET
        merged = {
            self.begin: np.where(left_has, left[self.begin], after),
            self.begin_ts: np.where(left_has, left[self.begin_ts], after_ts),
            self.end: np.where(right_has, right[self.end], before),
            self.end_ts: np.where(right_has, right[self.end_ts], before_ts),
        }
        for name, added in self._added(Gaps(before, before_ts, after, after_ts, left_has & right_has)):
            merged[name] = left[name] + right[name] + added
        return merged

    def result(self, aggregate: Aggregate, partials: Partials) -> list[Any]:
        """None where there is no value; the rate also where no time has passed.

        Where none has, the mean is the middle between the first value and the last: a lone reading's own.
        """
        begin_ts, end_ts = partials[self.begin_ts], partials[self.end_ts]
        seen = begin_ts != NEVER_YET
        spans = np.where(seen, end_ts - begin_ts, 0)
        passed = spans > 0
        if aggregate == "time_weighted_mean":
            middle = partials[self.begin] * 0.5 + partials[self.end] * 0.5
            return listed(np.where(passed, partials[self.area] / np.maximum(spans, 1), middle), seen)
        if not self.measure.whole:
            increase = partials[self.increase]
            if aggregate == "delta":
                return listed(increase, seen)
            return listed(increase / (np.maximum(spans, 1) / _US), passed)
        low, high = partials[self.increase], partials[self.increase_high]
        return listed_totals(low, high, seen) if aggregate == "delta" else listed_quotients(low, high, _US, spans)

    def _added(self, gaps: Gaps) -> Iterator[tuple[str, Array]]:
        """What each of the columns that add up gets from the gaps; 0 where one of the ends is missing."""
        all_steps = gaps.is_step.all()
        for columns, step in self.steps:
            for name, added in zip(columns, step(gaps), strict=True):
                yield name, added if all_steps else np.where(gaps.is_step, added, added.dtype.type(0))


def _increase(gaps: Gaps) -> tuple[Float64s]:
    return (np.where(gaps.after < gaps.before, gaps.after, gaps.after - gaps.before),)


def _whole_increase(gaps: Gaps) -> tuple[Int64s, Int64s]:
    goes_from = np.where(gaps.after < gaps.before, 0, gaps.before)
    (low, high), (low_from, high_from) = split(gaps.after), split(goes_from)
    return low - low_from, high - high_from


def _area(gaps: Gaps) -> tuple[Float64s]:
    return ((gaps.before * 0.5 + gaps.after * 0.5) * (gaps.after_ts - gaps.before_ts),)
