"""The sum of the values, and the results that are counts."""

from __future__ import annotations

from typing import Any

import numpy as np

from headrace.pipeline.model import Aggregate
from processors.windows.aggregates.halves import listed_quotients, listed_totals, low_half, split
from processors.windows.aggregates.measure import Measure
from processors.windows.aggregates.parts import (
    MISSING,
    Array,
    Family,
    Part,
    Partials,
    Readings,
    Segments,
    listed,
)


class Tally(Family):
    """``sum`` if it is asked for (of whole numbers its low half, beside ``sum_high``)."""

    gives = ("count", "missing", "sum", "mean")

    def __init__(self, measure: Measure) -> None:
        super().__init__(measure)
        self.sum, self.sum_high = self.name("sum"), self.name("sum_high")
        if measure.asks("sum", "mean"):
            self.parts[self.sum] = Part(np.int64 if measure.whole else np.float64, 0)
            if measure.whole:
                self.parts[self.sum_high] = Part(np.int64, 0)

    def fold(self, partials: Partials, readings: Readings, values: Array) -> None:
        """Add up."""
        if not self.parts:
            return
        rows = readings.rows
        if not self.measure.whole:
            np.add.at(partials[self.sum], rows, values)
            return
        low, all_low = low_half(values)
        np.add.at(partials[self.sum], rows, low)
        if not all_low:
            np.add.at(partials[self.sum_high], rows, split(values)[1])

    def reduce(self, partials: Partials, segments: Segments) -> Partials:
        """Add up."""
        return {name: np.add.reduceat(partials[name], segments.begins) for name in self.parts}

    def pair(self, left: Partials, right: Partials) -> Partials:
        """Add up."""
        return {name: left[name] + right[name] for name in self.parts}

    def result(self, aggregate: Aggregate, partials: Partials) -> list[Any]:
        """Count and missing are numbers always; sum and mean None where there is no value."""
        if aggregate == "missing":
            missing: list[Any] = partials[self.name(MISSING)].tolist()
            return missing
        n = self.values(partials)
        if aggregate == "count":
            counts: list[Any] = n.tolist()
            return counts
        seen = n > 0
        if not self.measure.whole:
            sums = partials[self.sum]
            return listed(sums if aggregate == "sum" else sums / np.maximum(n, 1), seen)
        low, high = partials[self.sum], partials[self.sum_high]
        return listed_totals(low, high, seen) if aggregate == "sum" else listed_quotients(low, high, 1, n)
