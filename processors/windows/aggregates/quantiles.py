"""Quantiles, from KLL sketches: mergeable, of bounded size, exact for up to 200 values.

Beyond that, the value's rank is off by no more than 1.33 % of the values (at 99 % confidence, k = 200). Which of
the values near the rank is given then depends on chance, and so may differ from one run to the next.
"""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np
from datasketches import kll_doubles_sketch  # type: ignore[import-untyped]

from headrace.pipeline.model import Aggregate
from processors.windows.aggregates.parts import Array, Cells, Partials

K = 200

RANKS: dict[Aggregate, float] = {
    "p01": 0.01,
    "p05": 0.05,
    "p10": 0.1,
    "p25": 0.25,
    "p50": 0.5,
    "p75": 0.75,
    "p90": 0.9,
    "p95": 0.95,
    "p99": 0.99,
    "p999": 0.999,
}
"""The share of the values that are no greater than the quantile, at least."""


class Quantiles(Cells[Any]):
    """``kll``: a sketch of the values as float64."""

    gives = tuple(RANKS)
    part = "kll"

    def fresh(self) -> Any:
        """An empty sketch."""
        return kll_doubles_sketch(K)

    def update(self, cell: Any, values: Array) -> None:
        """Add values."""
        cell.update(values.astype(np.float64, copy=False))

    def merge(self, cell: Any, other: Any) -> None:
        """Add another sketch."""
        cell.merge(other)

    def to_bytes(self, cell: Any) -> bytes:
        """The library's own format."""
        data: bytes = cell.serialize()
        return data

    def of_bytes(self, data: bytes) -> Any:
        """From the library's own format."""
        return kll_doubles_sketch.deserialize(data)

    def result(self, aggregate: Aggregate, partials: Partials) -> list[Any]:
        """None where there is no value."""
        rank, cells = RANKS[aggregate], partials[self.column].tolist()
        return [None if cell is None else cell.get_quantile(rank, True) for cell in cells]


def exact_quantile(aggregate: Aggregate, values: Array) -> float | None:
    """The least of the values that so many are no greater than; None of none. As a sketch says it of few values."""
    if not len(values):
        return None
    place = max(ceil(RANKS[aggregate] * len(values)), 1) - 1
    return float(np.partition(values, place)[place])
