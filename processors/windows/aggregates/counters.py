"""What needs the order of the readings: a counter's increase, its rate, and the mean weighted by time.

A partial covers a stretch of event time. Stretches of one row do not overlap; readings of the same time are
taken in the order they come in.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from headrace.batch import Int64s
from headrace.column import Bools, Column
from headrace.pipeline.model import Aggregate
from headrace.pipeline.tables import ORDERED_AGGREGATES
from processors.windows.aggregates.exact_sums import PRODUCT_UNITS, ExactSum
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
from processors.windows.aggregates.wide_sums import floats, given_quotients, given_totals, split

_US = 1_000_000


class Gaps(NamedTuple):
    """From one reading to the next, n times: values and times (µs) on either side, and which have both."""

    before: Array
    before_ts: Int64s
    after: Array
    after_ts: Int64s
    is_step: Bools

    def at(self, places: Int64s) -> Gaps:
        """Those at these places."""
        before, before_ts, after, after_ts, is_step = self
        return Gaps(before[places], before_ts[places], after[places], after_ts[places], is_step[places])


class Counters(Family):
    """``begin``, ``begin_ts``, ``end``, ``end_ts``; ``increase`` (of whole numbers two halves); twice the ``area``.

    From one reading to the next the value grows by their difference or, if it falls, by the new value: the counter
    began again at 0. The area between them is that of the straight line. Both are added up without rounding.
    """

    gives = ORDERED_AGGREGATES

    def __init__(self, measure: Measure) -> None:
        super().__init__(measure)
        self.begin, self.begin_ts = self.name("begin"), self.name("begin_ts")
        self.end, self.end_ts = self.name("end"), self.name("end_ts")
        self.increase, self.increase_high = self.name("increase"), self.name("increase_high")
        self.area = self.name("area")
        self.parts = {
            self.begin: value_column(measure),
            self.begin_ts: PartialColumn(np.int64, NEVER_YET),
            self.end: value_column(measure),
            self.end_ts: PartialColumn(np.int64, NEVER_SINCE),
        }
        self.summed: list[ExactSum] = []
        """Exact sums over the steps from reading to reading."""
        if measure.asks("delta", "rate"):
            if measure.whole:
                self.parts |= {name: PartialColumn(np.int64, 0) for name in (self.increase, self.increase_high)}
            else:
                self.summed.append(ExactSum(self.increase))
        if measure.asks("time_weighted_mean"):
            self.summed.append(ExactSum(self.area, PRODUCT_UNITS))
        for summed in self.summed:
            self.parts |= summed.parts

    def fold(self, partials: Partials, readings: Readings, values: Array) -> None:
        """Go on from each row's end, which is earlier than the readings."""
        order, begins, rows = readings.order, readings.begins, readings.at_rows
        values, ts_us = values[order], readings.ts_us[order]
        kept_end, kept_end_ts = partials[self.end], partials[self.end_ts]
        before, before_ts = np.empty_like(values), np.empty_like(ts_us)
        before[1:], before_ts[1:] = values[:-1], ts_us[:-1]
        before[begins], before_ts[begins] = kept_end[rows], kept_end_ts[rows]
        self._step(partials, readings.rows[order], Gaps(before, before_ts, values, ts_us, before_ts != NEVER_SINCE))
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
        for name in self._halves:
            merged[name] = np.add.reduceat(partials[name], begins)
        for summed in self.summed:
            merged |= summed.reduce(partials, segments)
        self._step(merged, segments.owner, Gaps(before, before_ts, begin, begin_ts, is_step))
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
        for name in self._halves:
            merged[name] = left[name] + right[name]
        for summed in self.summed:
            merged |= summed.pair(left, right)
        gaps = Gaps(before, before_ts, after, after_ts, left_has & right_has)
        self._step(merged, np.arange(len(before)), gaps)
        return merged

    def result(self, aggregate: Aggregate, partials: Partials) -> Column:
        """None where there is no value; the rate also where no time has passed.

        Where none has, the mean is the middle between the first value and the last: a lone reading's own.
        """
        begin_ts, end_ts = partials[self.begin_ts], partials[self.end_ts]
        seen = begin_ts != NEVER_YET
        spans = np.where(seen, end_ts - begin_ts, 0)
        passed = spans > 0
        if aggregate == "time_weighted_mean":
            middle = partials[self.begin] * 0.5 + partials[self.end] * 0.5
            over_time = self.summed[-1].over(partials, 2 * np.maximum(spans, 1))
            return given(np.where(passed, over_time, middle), seen)
        if not self.measure.whole:
            if aggregate == "delta":
                return given(self.summed[0].over(partials, np.ones_like(spans)), seen)
            # A second has 1,000,000 µs, and so has what a rate is over.
            return given(self.summed[0].over(partials, np.maximum(spans, 1), _US), passed)
        low, high = partials[self.increase], partials[self.increase_high]
        return given_totals(low, high, seen) if aggregate == "delta" else given_quotients(low, high, _US, spans)

    @property
    def _halves(self) -> tuple[str, ...]:
        return (self.increase, self.increase_high) if self.increase_high in self.parts else ()

    def _step(self, partials: Partials, rows: Int64s, gaps: Gaps) -> None:
        """Add to each row, in place, what the n gaps that are steps add to it."""
        steps = np.flatnonzero(gaps.is_step)
        if not len(steps):
            return
        rows, gaps = rows[steps], gaps.at(steps)
        goes_from = np.where(gaps.after < gaps.before, gaps.before.dtype.type(0), gaps.before)
        if self._halves:
            for name, there, here in zip(self._halves, split(gaps.after), split(goes_from), strict=True):
                np.add.at(partials[name], rows, there - here)
        for summed in self.summed:
            if summed.name == self.area:
                passed = (gaps.after_ts - gaps.before_ts).astype(np.float64)
                for side in (gaps.before, gaps.after):
                    for part in floats(side):
                        summed.add_products(partials, rows, part, passed)
            else:
                summed.add(partials, rows, gaps.after)
                summed.add(partials, rows, -goes_from)
