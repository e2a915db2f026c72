"""The least and the greatest value, and how far they are apart."""

from __future__ import annotations

import numpy as np

from headrace.column import Column
from headrace.pipeline.model import Aggregate
from processors.windows.aggregates.family import Array, Family, PartialColumn, Partials, Readings, Segments, given
from processors.windows.aggregates.measure import Measure

_INT64 = np.iinfo(np.int64)


class MinMax(Family):
    """``min`` and ``max``, each only if it is asked for, or the range."""

    gives = ("min", "max", "range")

    def __init__(self, measure: Measure) -> None:
        super().__init__(measure)
        self.min, self.max = self.name("min"), self.name("max")
        least, greatest = (_INT64.min, _INT64.max) if measure.whole else (-np.inf, np.inf)
        self.ufuncs: dict[str, np.ufunc] = {}
        if measure.asks("min", "range"):
            self.parts[self.min] = PartialColumn(measure.dtype, greatest)
            self.ufuncs[self.min] = np.minimum
        if measure.asks("max", "range"):
            self.parts[self.max] = PartialColumn(measure.dtype, least)
            self.ufuncs[self.max] = np.maximum

    def fold(self, partials: Partials, readings: Readings, values: Array) -> None:
        """Move the extremes outwards."""
        for name, ufunc in self.ufuncs.items():
            ufunc.at(partials[name], readings.rows, values)

    def reduce(self, partials: Partials, segments: Segments) -> Partials:
        """The extremes of the extremes."""
        return {name: ufunc.reduceat(partials[name], segments.begins) for name, ufunc in self.ufuncs.items()}

    def pair(self, left: Partials, right: Partials) -> Partials:
        """The extremes of the extremes."""
        return {name: ufunc(left[name], right[name]) for name, ufunc in self.ufuncs.items()}

    def result(self, aggregate: Aggregate, partials: Partials) -> Column:
        """None where there is no value; the range of whole numbers None beyond 64 bits."""
        seen = self.values(partials) > 0
        if aggregate != "range":
            return given(partials[self.name(aggregate)], seen)
        apart = partials[self.max] - partials[self.min]
        # Beyond 64 bits it comes round to a negative number.
        return given(apart, seen & (apart >= 0) if self.measure.whole else seen)
