"""Quantiles, from KLL sketches: mergeable, of bounded size, exact for up to 200 values.

Beyond that, the value's rank is off by no more than 1.33 % of the values (at 99 % confidence, k = 200). Which of
the values near the rank is given then depends on chance, and so may differ from one run to the next. Sketches are of
float64, so of more than 200 whole numbers one beyond 2**53 in size is given to the nearest float64.
"""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np
from datasketches import kll_doubles_sketch  # type: ignore[import-untyped]

from headrace.column import Column
from headrace.pipeline.model import Aggregate
from processors.windows.aggregates.family import Array, Cells, Partials, packed_column

K = 200
_VALUES, _SKETCH = b"v", b"k"
_GREATEST = int(np.iinfo(np.int64).max)

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


class Some:
    """Values: themselves up to K of them, then a sketch of them as float64."""

    __slots__ = ("sketch", "values")

    def __init__(self) -> None:
        self.values: Array | None = None
        self.sketch: Any = None

    def update(self, values: Array) -> None:
        """Add values (at least one)."""
        if self.sketch is not None:
            self.sketch.update(values.astype(np.float64, copy=False))
            return
        self.values = values.copy() if self.values is None else np.concatenate([self.values, values])
        if len(self.values) > K:
            self.sketch = kll_doubles_sketch(K)
            self.sketch.update(self.values.astype(np.float64, copy=False))
            self.values = None

    def merge(self, other: Some) -> None:
        """Add the values of another one, which stays as it is."""
        if other.values is not None:
            self.update(other.values)
        elif other.sketch is not None:
            if self.sketch is None:
                self.sketch = kll_doubles_sketch(K)
                if self.values is not None:
                    self.sketch.update(self.values.astype(np.float64, copy=False))
                    self.values = None
            self.sketch.merge(other.sketch)


class Quantiles(Cells[Some]):
    """``kll``: the values while they are few, then a sketch of them."""

    gives = tuple(RANKS)
    part = "kll"

    def fresh(self) -> Some:
        """Nothing."""
        return Some()

    def update(self, cell: Some, values: Array) -> None:
        """Add values."""
        cell.update(values)

    def merge(self, cell: Some, other: Some) -> None:
        """Add another one's values."""
        cell.merge(other)

    def to_bytes(self, cell: Some) -> bytes:
        """A byte that says which, and the values in little-endian bytes or the sketch in the library's format."""
        if cell.values is not None:
            return _VALUES + bytes(packed_column(cell.values))
        return _SKETCH + bytes(cell.sketch.serialize())

    def of_bytes(self, data: bytes) -> Some:
        """The reverse of :meth:`to_bytes`."""
        cell = Some()
        if data[:1] == _VALUES:
            cell.values = np.frombuffer(data, np.dtype(self.measure.dtype).newbyteorder("<"), offset=1).astype(
                self.measure.dtype
            )
        elif data[:1] == _SKETCH:
            cell.sketch = kll_doubles_sketch.deserialize(data[1:])
        else:
            raise ValueError("neither values nor a sketch of them")
        return cell

    def result(self, aggregate: Aggregate, partials: Partials) -> Column:
        """One of the values, of their own type; None where there is none."""
        cells = partials[self.column].tolist()
        found = [None if cell is None else self._quantile(aggregate, cell) for cell in cells]
        return Column.of(found, self.measure.type)

    def _quantile(self, aggregate: Aggregate, cell: Some) -> float | int | None:
        if cell.values is not None:
            return exact_quantile(aggregate, cell.values)
        found: float = cell.sketch.get_quantile(RANKS[aggregate], True)
        # The greatest int64 is 2**63 as a float.
        return min(int(found), _GREATEST) if self.measure.whole else found + 0.0


def exact_quantile(aggregate: Aggregate, values: Array) -> float | int | None:
    """The least of the values that so many are no greater than; None of none."""
    if not len(values):
        return None
    place = max(ceil(RANKS[aggregate] * len(values)), 1) - 1
    found: float | int = np.partition(values, place)[place].item()
    return found + 0  # and 0.0 of -0.0, which of both it is being the order's affair
