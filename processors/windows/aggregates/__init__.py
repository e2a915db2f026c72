"""Aggregates of a stream as columns that are folded, merged and read: in any order, in any grouping."""

from processors.windows.aggregates.aggregates import Aggregates, exact, exact_results
from processors.windows.aggregates.family import Array, Partials
from processors.windows.aggregates.measure import Measure

__all__ = ["Aggregates", "Array", "Measure", "Partials", "exact", "exact_results"]
