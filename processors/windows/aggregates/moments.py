"""Variance and standard deviation of the population, by way of the mean and the squares of the deviations from it.

Two passes over a batch, and Chan's formula to merge: a large offset that all values share costs no digits, which
it would in the sum of squares. Whole numbers are reckoned as float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from headrace.batch import Float64s, Int64s
from headrace.pipeline.model import Aggregate
from processors.windows.aggregates.measure import Measure
from processors.windows.aggregates.parts import (
    COUNT,
    MISSING,
    Array,
    Family,
    Part,
    Partials,
    Readings,
    Segments,
    listed,
)


class Moments(Family):
    """``mean``, and ``m2``: the sum of the squared deviations from it."""

    gives = ("variance", "stddev")

    def __init__(self, measure: Measure) -> None:
        super().__init__(measure)
        self.mean, self.m2 = self.name("mean"), self.name("m2")
        self.parts = {self.mean: Part(np.float64, 0.0), self.m2: Part(np.float64, 0.0)}

    def fold(self, partials: Partials, readings: Readings, values: Array) -> None:
        """The batch's own moments, row by row, merged into the rows."""
        ordered = values[readings.order].astype(np.float64, copy=False)
        counts, rows = readings.counts, readings.at_rows
        mean = readings.sums(ordered) / counts
        deviations = ordered - np.repeat(mean, counts)
        m2 = readings.sums(deviations * deviations)
        kept_mean, kept_m2 = partials[self.mean], partials[self.m2]
        kept = self._values_at(partials, rows), kept_mean[rows], kept_m2[rows]
        kept_mean[rows], kept_m2[rows] = _merged(kept, (counts, mean, m2))

    def reduce(self, partials: Partials, segments: Segments) -> Partials:
        """Each segment's common mean, and the deviations from it: within its rows, and of its rows' means."""
        n, mean, m2 = self.values(partials), partials[self.mean], partials[self.m2]
        begins, owner = segments.begins, segments.owner
        total = np.maximum(np.add.reduceat(n, begins), 1)
        common = np.add.reduceat(mean * (n / total[owner]), begins)
        # A row without values has no mean: the neutral 0 is none, and could overflow.
        apart = np.where(n > 0, mean - common[owner], 0.0)
        return {self.mean: common, self.m2: np.add.reduceat(m2 + apart * apart * n, begins)}

    def pair(self, left: Partials, right: Partials) -> Partials:
        """Chan's formula."""
        of_left, of_right = ((self.values(side), side[self.mean], side[self.m2]) for side in (left, right))
        mean, m2 = _merged(of_left, of_right)
        return {self.mean: mean, self.m2: m2}

    def result(self, aggregate: Aggregate, partials: Partials) -> list[Any]:
        """None where there is no value."""
        n = self.values(partials)
        variance = partials[self.m2] / np.maximum(n, 1)
        return listed(variance if aggregate == "variance" else np.sqrt(variance), n > 0)

    def _values_at(self, partials: Partials, rows: Int64s) -> Int64s:
        values: Int64s = partials[COUNT][rows] - partials[self.name(MISSING)][rows]
        return values


_Moments = tuple[Int64s, Float64s, Float64s]
"""n, mean and m2."""


def _merged(of_a: _Moments, of_b: _Moments) -> tuple[Float64s, Float64s]:
    """Mean and m2 of two groups each; either may be empty."""
    (n_a, mean_a, m2_a), (n_b, mean_b, m2_b) = of_a, of_b
    share = n_b / np.maximum(n_a + n_b, 1)
    apart = mean_b - mean_a
    mean = mean_a + apart * share
    # Between a group and none there is nothing: the neutral 0 is no mean, and could overflow.
    apart = np.where((n_a > 0) & (n_b > 0), apart, 0.0)
    return mean, m2_a + m2_b + apart * apart * (n_a * share)
