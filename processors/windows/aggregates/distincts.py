"""How many different values, from theta sketches: mergeable, of bounded size, exact for up to 4,096 values.

Beyond that it is an estimate with a standard error of 1.6 %. What it says depends on which values there were and
on nothing else, neither their order nor how partials were merged.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from datasketches import compact_theta_sketch, theta_union, update_theta_sketch  # type: ignore[import-untyped]

from headrace.column import Column
from headrace.pipeline.model import Aggregate
from processors.windows.aggregates.family import Array, Cells, Partials

LG_K = 12

_EMPTY_TEXT = 0x48656164
"""Stands for the empty text, which the library leaves out: a number, so that it is no other text's."""


class Distinct:
    """Values, and sketches that were merged in: the library's sketches take one or the other."""

    __slots__ = ("merged", "values")

    def __init__(self) -> None:
        self.values: Any = None
        self.merged: Any = None

    def update(self, values: list[Any]) -> None:
        """Add values, all of one type."""
        if self.values is None:
            self.values = update_theta_sketch(LG_K)
        update = self.values.update
        for value in set(values):
            update(value if value != "" else _EMPTY_TEXT)

    def merge(self, other: Distinct) -> None:
        """Add the values of another one."""
        if self.merged is None:
            self.merged = theta_union(LG_K)
        if other.values is not None:
            self.merged.update(other.values)
        if other.merged is not None:
            self.merged.update(other.merged.get_result(False))

    def compact(self) -> Any:
        """All values in one sketch that is only read, trimmed to the library's size so that it is always the same."""
        if self.merged is None:
            if self.values is None:
                self.values = update_theta_sketch(LG_K)
            self.values.trim()
            return self.values.compact()
        if self.values is not None:
            self.merged.update(self.values)
            self.values = None
        return self.merged.get_result()

    def estimate(self) -> int:
        """How many different values there were."""
        return round(float(self.compact().get_estimate()))


class Distincts(Cells[Distinct]):
    """``theta``: a sketch of the values."""

    gives = ("distinct",)
    part = "theta"

    def fresh(self) -> Distinct:
        """No values."""
        return Distinct()

    def update(self, cell: Distinct, values: Array) -> None:
        """Add values."""
        cell.update(values.tolist())

    def merge(self, cell: Distinct, other: Distinct) -> None:
        """Add another one's values."""
        cell.merge(other)

    def to_bytes(self, cell: Distinct) -> bytes:
        """The library's own format."""
        data: bytes = cell.compact().serialize()
        return data

    def of_bytes(self, data: bytes) -> Distinct:
        """From the library's own format."""
        cell = Distinct()
        cell.merged = theta_union(LG_K)
        cell.merged.update(compact_theta_sketch.deserialize(data))
        return cell

    def result(self, aggregate: Aggregate, partials: Partials) -> Column:  # noqa: ARG002 - there is but one
        """0 where there is no value."""
        estimates = [0 if cell is None else cell.estimate() for cell in partials[self.column].tolist()]
        return Column.of(estimates, "int", whole=True)


def exact_distinct(values: Array) -> int:
    """How many different values there are."""
    return len(set(values.tolist())) if values.dtype == object else len(np.unique(values))
