"""What the families of aggregates have in common: columns of parts, readings to fold, segments to merge."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from headrace.batch import Int64s
from headrace.column import BLANKS, Bools, Column
from headrace.pipeline.model import Aggregate
from processors.windows.aggregates.measure import Measure

Array = NDArray[Any]
Partials = dict[str, Array]
"""k partial aggregates: columns of k values, ``field.part`` and, over all fields, ``count`` (and times)."""

COUNT = "count"
"""The column of how many readings there are, with or without values."""
MISSING = "missing"
"""The part of a field that says how many of them have no value."""

NEVER_YET = int(np.iinfo(np.int64).max)
"""The time of the first reading where there is none."""
NEVER_SINCE = int(np.iinfo(np.int64).min)
"""The time of the last reading where there is none."""


@dataclass(frozen=True)
class PartialColumn:
    """A column's numpy type, and its value before the first reading; if ``width`` is above 0, so many a row."""

    dtype: Any
    neutral: Any
    width: int = 0

    def empty(self, n: int) -> Array:
        """n rows without readings."""
        return np.full((n, self.width) if self.width else n, self.neutral, self.dtype)

    def packed(self, column: Array) -> Any:
        """A column as what MessagePack can carry: little-endian bytes; texts as their list."""
        return packed_column(column)

    def unpacked(self, packed: Any, n: int) -> Array:  # noqa: ARG002 - others do not tell how many there are
        """The reverse of :meth:`packed`, n rows in an array that can be written into.

        ValueError, TypeError or IndexError for what it cannot have made.
        """
        if self.dtype is object:
            return as_cells(packed)
        return np.frombuffer(packed, np.dtype(self.dtype).newbyteorder("<")).astype(self.dtype)


def value_column(measure: Measure) -> PartialColumn:
    """A column that keeps one of the field's own values."""
    return PartialColumn(measure.dtype, "" if measure.dtype is object else 0)


class Readings:
    """n readings and the rows they go to; put in order when first asked for, once for all fields.

    The order is by row, then, if ``ordered``, by time; readings that are equal in these keep their places.
    """

    def __init__(self, rows: Int64s, ts_us: Int64s, *, ordered: bool) -> None:
        self.rows = rows
        self.ts_us = ts_us
        self.ordered = ordered

    def __len__(self) -> int:
        return len(self.rows)

    def at(self, places: Int64s) -> Readings:
        """Those at these places."""
        return Readings(self.rows[places], self.ts_us[places], ordered=self.ordered)

    @cached_property
    def order(self) -> Int64s:
        """The places of the readings, row by row."""
        if self.ordered:
            return np.lexsort((self.ts_us, self.rows))
        return self.rows.argsort(kind="stable")

    @cached_property
    def begins(self) -> Int64s:
        """Where, in that order, each row's readings begin."""
        rows = self.rows[self.order]
        begins = np.empty(len(rows), np.bool_)
        begins[0] = True
        np.not_equal(rows[1:], rows[:-1], out=begins[1:])
        return np.flatnonzero(begins)

    @cached_property
    def counts(self) -> Int64s:
        """How many readings each of those rows gets."""
        return np.diff(self.begins, append=len(self.rows))

    def sums(self, ordered: Array) -> Array:
        """For each of those rows the sum of its values, given in that order."""
        if len(self.begins) == len(ordered):
            return ordered
        sums: Array = np.add.reduceat(ordered, self.begins)
        return sums

    @cached_property
    def at_rows(self) -> Int64s:
        """The different rows, as ``begins`` has them."""
        return self.rows[self.order[self.begins]]


class Segments:
    """How partials are merged: rows ``begins[i]`` up to ``begins[i + 1]`` (or n) become one; none is empty."""

    def __init__(self, begins: Int64s, n: int) -> None:
        self.begins = begins
        self.lengths = np.diff(begins, append=n)

    def __len__(self) -> int:
        return len(self.begins)

    @cached_property
    def owner(self) -> Int64s:
        """For each of the n rows the segment it is in."""
        return np.repeat(np.arange(len(self.begins)), self.lengths)


class Family(ABC):
    """Aggregates of one field that are made from the same columns.

    How many values there are follows from ``count`` and ``field.missing``, which are not the family's own: so
    where no value is missing, a fold has nothing to count. In :meth:`fold` both are as they were before.
    """

    gives: ClassVar[tuple[Aggregate, ...]]
    parts: dict[str, PartialColumn]

    def __init__(self, measure: Measure) -> None:
        self.measure = measure
        self.parts = {}

    def name(self, part: str) -> str:
        """A part's column."""
        return f"{self.measure.field}.{part}"

    def values(self, partials: Partials) -> Int64s:
        """How many values each row has."""
        values: Int64s = partials[COUNT] - partials[self.name(MISSING)]
        return values

    @abstractmethod
    def fold(self, partials: Partials, readings: Readings, values: Array) -> None:
        """Add at least one reading, all of them with values, to their rows."""

    @abstractmethod
    def reduce(self, partials: Partials, segments: Segments) -> Partials:
        """The family's columns, each segment's rows merged."""

    @abstractmethod
    def pair(self, left: Partials, right: Partials) -> Partials:
        """The family's columns of left (the earlier) and right, merged row by row."""

    @abstractmethod
    def result(self, aggregate: Aggregate, partials: Partials) -> Column:
        """One of the aggregates it gives, for each row."""

    def take(self, partials: Partials, rows: Int64s) -> Partials:
        """The family's columns at these rows, as copies."""
        return {name: partials[name][rows] for name in self.parts}

    def packed(self, partials: Partials) -> dict[str, Any]:
        """The family's columns as bytes (little-endian) and lists."""
        return {name: part.packed(partials[name]) for name, part in self.parts.items()}

    def unpacked(self, packed: dict[str, Any], n: int) -> Partials:
        """The reverse of :meth:`packed`, n rows; KeyError or ValueError for what it cannot have made."""
        return {name: part.unpacked(packed[name], n) for name, part in self.parts.items()}


_Cell = TypeVar("_Cell")


class Cells(Family, Generic[_Cell]):
    """A family that keeps one column of sketches, None in a row without values. No two rows share a sketch."""

    part: ClassVar[str]

    def __init__(self, measure: Measure) -> None:
        super().__init__(measure)
        self.column = self.name(self.part)
        self.parts[self.column] = PartialColumn(object, None)

    @abstractmethod
    def fresh(self) -> _Cell:
        """A sketch of nothing."""

    @abstractmethod
    def update(self, cell: _Cell, values: Array) -> None:
        """Add values to a sketch."""

    @abstractmethod
    def merge(self, cell: _Cell, other: _Cell) -> None:
        """Add another sketch, which stays as it is, to a sketch."""

    @abstractmethod
    def to_bytes(self, cell: _Cell) -> bytes:
        """A sketch's bytes; never empty."""

    @abstractmethod
    def of_bytes(self, data: bytes) -> _Cell:
        """The sketch of these bytes."""

    def fold(self, partials: Partials, readings: Readings, values: Array) -> None:
        """Add each row's values to its sketch."""
        cells, values = partials[self.column], values[readings.order]
        begins, counts = readings.begins.tolist(), readings.counts.tolist()
        for row, begin, count in zip(readings.at_rows.tolist(), begins, counts, strict=True):
            cell = cells[row]
            if cell is None:
                cell = cells[row] = self.fresh()
            self.update(cell, values[begin : begin + count])

    def reduce(self, partials: Partials, segments: Segments) -> Partials:
        """New sketches, each of a segment's."""
        cells, begin = partials[self.column].tolist(), 0
        merged = []
        for length in segments.lengths.tolist():
            merged.append(self._merged(cells[begin : begin + length]))
            begin += length
        return {self.column: as_cells(merged)}

    def pair(self, left: Partials, right: Partials) -> Partials:
        """New sketches of two each."""
        both = zip(left[self.column].tolist(), right[self.column].tolist(), strict=True)
        return {self.column: as_cells([self._merged(cells) for cells in both])}

    def take(self, partials: Partials, rows: Int64s) -> Partials:
        """New sketches of the same content."""
        return {self.column: as_cells([self._merged([cell]) for cell in partials[self.column][rows].tolist()])}

    def packed(self, partials: Partials) -> dict[str, Any]:
        """A list of bytes, empty ones where there is no sketch."""
        return {self.column: [b"" if cell is None else self.to_bytes(cell) for cell in partials[self.column].tolist()]}

    def unpacked(self, packed: dict[str, Any], n: int) -> Partials:  # noqa: ARG002 - as the other families
        """The reverse of :meth:`packed`."""
        return {self.column: as_cells([self.of_bytes(data) if data else None for data in packed[self.column]])}

    def _merged(self, cells: Sequence[_Cell | None]) -> _Cell | None:
        merged: _Cell | None = None
        for cell in cells:
            if cell is not None:
                if merged is None:
                    merged = self.fresh()
                self.merge(merged, cell)
        return merged


def as_cells(listed: Sequence[Any]) -> Array:
    """Objects as an array of objects, whatever they are."""
    cells = np.empty(len(listed), object)
    cells[:] = listed
    return cells


def packed_column(column: Array) -> Any:
    """A column as little-endian bytes; texts as their list."""
    if column.dtype == object:
        return column.tolist()
    return column.astype(column.dtype.newbyteorder("<"), copy=False).tobytes()


def given(values: Array, seen: Bools) -> Column:
    """Values as a result: missing where none was seen, and a float that is not finite.

    -0.0 is 0.0: both are equal, so which one is least, or first, would be up to the order they came in.
    """
    kind = values.dtype.kind
    if kind == "f":
        values = values + 0.0
        seen = seen & np.isfinite(values)
    if seen.all():
        return Column(values, whole=True)
    return Column(np.where(seen, values, BLANKS[kind]), seen)
