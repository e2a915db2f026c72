"""What is made of the sums of the values and of their squares, both exact; and the results that are counts."""

from __future__ import annotations

import numpy as np

from headrace.batch import Float64s, Int64s
from headrace.column import Column
from headrace.pipeline.model import Aggregate
from processors.windows.aggregates.exact_sums import PRODUCT_UNITS, ExactSum, ratio, root, variances
from processors.windows.aggregates.family import (
    MISSING,
    Array,
    Family,
    PartialColumn,
    Partials,
    Readings,
    Segments,
    given,
)
from processors.windows.aggregates.measure import Measure
from processors.windows.aggregates.whole_squares import WholeSquares
from processors.windows.aggregates.wide_sums import given_quotients, given_totals, low_half, split, totals

_EXACT = 2.0**53
"""Up to here each whole number is a float64 too."""


class Sums(Family):
    """Of whole numbers ``sum`` and ``sum_high``, of floats an exact sum; the like of ``squares`` for the variance."""

    gives = ("count", "missing", "sum", "mean", "variance", "stddev")

    def __init__(self, measure: Measure) -> None:
        super().__init__(measure)
        self.sum, self.sum_high = self.name("sum"), self.name("sum_high")
        spread = measure.asks("variance", "stddev")
        summed = spread or measure.asks("sum", "mean")
        self.sums = ExactSum(self.sum) if summed and not measure.whole else None
        self.squares = ExactSum(self.name("squares"), PRODUCT_UNITS) if spread and not measure.whole else None
        self.whole_squares = WholeSquares(self.name("squares")) if spread and measure.whole else None
        self._halves: tuple[str, ...] = (self.sum, self.sum_high) if summed and measure.whole else ()
        self.parts = {name: PartialColumn(np.int64, 0) for name in self._halves}
        for of in (self.sums, self.squares, self.whole_squares):
            if of is not None:
                self.parts |= of.parts

    def fold(self, partials: Partials, readings: Readings, values: Array) -> None:
        """Add up."""
        rows = readings.rows
        if self.sums is not None:
            self.sums.add(partials, rows, values)
        if self.squares is not None:
            self.squares.add_products(partials, rows, values, values)
        if self._halves:
            low, all_low = low_half(values)
            np.add.at(partials[self.sum], rows, low)
            if not all_low:
                np.add.at(partials[self.sum_high], rows, split(values)[1])
        if self.whole_squares is not None:
            self.whole_squares.add(partials, rows, values)

    def reduce(self, partials: Partials, segments: Segments) -> Partials:
        """Add up."""
        merged: Partials = {name: np.add.reduceat(partials[name], segments.begins) for name in self._halves}
        for of in (self.sums, self.squares, self.whole_squares):
            if of is not None:
                merged |= of.reduce(partials, segments)
        return merged

    def pair(self, left: Partials, right: Partials) -> Partials:
        """Add up."""
        merged: Partials = {name: left[name] + right[name] for name in self._halves}
        for of in (self.sums, self.squares, self.whole_squares):
            if of is not None:
                merged |= of.pair(left, right)
        return merged

    def result(self, aggregate: Aggregate, partials: Partials) -> Column:
        """Count and missing are numbers always; the others None where there is no value."""
        if aggregate == "missing":
            return Column(partials[self.name(MISSING)])
        n = self.values(partials)
        if aggregate == "count":
            return Column(n)
        seen = n > 0
        if aggregate in ("variance", "stddev"):
            variance, deviation = self._spread(partials, n)
            return given(variance if aggregate == "variance" else deviation, seen)
        if self.sums is not None:
            divisors = np.ones_like(n) if aggregate == "sum" else np.maximum(n, 1)
            return given(self.sums.over(partials, divisors), seen)
        low, high = partials[self.sum], partials[self.sum_high]
        return given_totals(low, high, seen) if aggregate == "sum" else given_quotients(low, high, 1, n)

    def _spread(self, partials: Partials, n: Int64s) -> tuple[Float64s, Float64s]:
        """Variance of the population and standard deviation."""
        if self.sums is not None and self.squares is not None:
            return variances(self.sums, self.squares, partials, n)
        assert self.whole_squares is not None  # noqa: S101 - one of both is there if it is asked for
        low, high = partials[self.sum], partials[self.sum_high]
        squares, small = self.whole_squares.small(partials)
        small &= (high == 0) & (squares.astype(np.float64) * n < _EXACT) & (n < 2**26)
        # Where both are below 2**53 as whole numbers, their quotient is rounded once.
        variance: Float64s = (n * squares - low * low) / np.maximum(n * n, 1)
        deviation: Float64s = np.sqrt(np.maximum(variance, 0.0))
        others = np.flatnonzero(~small & (n > 0))
        if len(others):
            of_others = self.whole_squares.totals(partials, others)
            summed = zip(others.tolist(), totals(low[others], high[others]), of_others, n[others].tolist(), strict=True)
            for row, total, squared, count in summed:
                numerator, denominator = count * squared - total * total, count * count
                variance[row], deviation[row] = ratio(numerator, denominator), root(numerator, denominator)
        return variance, deviation
