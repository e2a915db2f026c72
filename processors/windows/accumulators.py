"""The partial aggregates of open windows, as columns: one row a device and open window.

Rows are taken from a pool and given back when their window closes. Folding a batch into them and merging
are the same operation, and their order does not matter (exactly for integers, up to rounding for floats):
first and last go by event time, then by value. The sum of whole numbers is kept in two halves, so that a
mean is right even where the sum itself is beyond 64 bits (and then is None).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.batch import Batch, Int64s
from headrace.pipeline.model import Aggregate, FieldType

Array = NDArray[Any]

_GROWTH = 64
_HALF = 32
_INT64 = np.iinfo(np.int64)


@dataclass(frozen=True)
class Measure:
    """What is aggregated of one field."""

    field: str
    type: FieldType
    aggregates: tuple[Aggregate, ...]

    @property
    def dtype(self) -> Any:
        """The numpy type that the field's values are kept in."""
        return {"float": np.float64, "int": np.int64, "time": np.int64, "bool": np.bool_}.get(self.type, object)


class Accumulators:
    """Rows of partial aggregates. Columns are named ``field.part``; ``count`` counts the readings."""

    def __init__(self, measures: Sequence[Measure]) -> None:
        self.measures = tuple(measures)
        self.columns: dict[str, Array] = {
            "slot": np.empty(0, np.int64),
            "window": np.empty(0, np.int64),
            "count": np.empty(0, np.int64),
        }
        for measure in self.measures:
            for part, dtype in _parts(measure).items():
                self.columns[f"{measure.field}.{part}"] = np.empty(0, dtype)
        self._parts = {measure.field: _parts(measure) for measure in self.measures}
        self.live = np.empty(0, np.bool_)
        self._free: list[int] = []

    def __len__(self) -> int:
        """How many rows are open."""
        return len(self.live) - len(self._free)

    def readings(self) -> int:
        """How many readings the open rows hold."""
        return int(self.columns["count"][self.live].sum())

    def take(self, slots: Sequence[int], windows: Sequence[int]) -> list[int]:
        """Fresh rows for these devices and windows."""
        n = len(slots)
        if len(self._free) < n:
            self._grow(n - len(self._free))
        rows = self._free[-n:]
        del self._free[-n:]
        self.columns["slot"][rows] = slots
        self.columns["window"][rows] = windows
        self.columns["count"][rows] = 0
        for measure in self.measures:
            for part in self._parts[measure.field]:
                self.columns[f"{measure.field}.{part}"][rows] = _neutral(measure, part)
        self.live[rows] = True
        return rows

    def give_back(self, rows: Sequence[int]) -> None:
        """Free the rows of closed windows."""
        self.live[rows] = False
        self._free.extend(rows)

    def _grow(self, least: int) -> None:
        old = len(self.live)
        more = max(least, _GROWTH, old // 2)
        for name, column in self.columns.items():
            self.columns[name] = np.concatenate([column, np.zeros(more, column.dtype)])
        self.live = np.concatenate([self.live, np.zeros(more, np.bool_)])
        self._free.extend(range(old + more - 1, old - 1, -1))

    def fold(self, rows: Int64s, batch: Batch) -> None:
        """Add each reading of the batch to its row."""
        np.add.at(self.columns["count"], rows, 1)
        for measure in self.measures:
            values, present = _values(batch, measure)
            if present is None:
                self._fold_field(measure, rows, values, batch.ts_us)
            else:
                places = np.flatnonzero(present)
                self._fold_field(measure, rows[places], values[places], batch.ts_us[places])

    def _fold_field(self, measure: Measure, rows: Int64s, values: Array, ts_us: Int64s) -> None:
        if not len(rows):
            return
        columns, name = self.columns, measure.field
        np.add.at(columns[f"{name}.n"], rows, 1)
        parts = self._parts[name]
        if "sum" in parts:
            if "sum_high" in parts:
                np.add.at(columns[f"{name}.sum_high"], rows, values >> _HALF)
                values_low = values & ((1 << _HALF) - 1)
                np.add.at(columns[f"{name}.sum"], rows, values_low)
            else:
                np.add.at(columns[f"{name}.sum"], rows, values)
        if "min" in parts:
            np.minimum.at(columns[f"{name}.min"], rows, values)
        if "max" in parts:
            np.maximum.at(columns[f"{name}.max"], rows, values)
        for part, ascending in (("first", True), ("last", False)):
            if part in parts:
                self._fold_edge(f"{name}.{part}", rows, values, ts_us, ascending=ascending)

    def _fold_edge(self, name: str, rows: Int64s, values: Array, ts_us: Int64s, *, ascending: bool) -> None:
        """The first (or last) value of each row by event time, then by value."""
        ranks = np.array(sorted_ranks(values), np.int64) if values.dtype == object else values
        order = np.lexsort((ranks, ts_us, rows))
        chosen = order[_edges(rows[order], first=ascending)]
        at, times, found = rows[chosen], ts_us[chosen], values[chosen]
        kept_times, kept = self.columns[f"{name}_ts"], self.columns[name]
        earlier, later = (times, kept_times[at]) if ascending else (kept_times[at], times)
        better = earlier < later
        for place in np.flatnonzero(times == kept_times[at]).tolist():
            old, new = kept[at[place]], found[place]
            better[place] = new < old if ascending else new > old
        kept_times[at[better]] = times[better]
        kept[at[better]] = found[better]

    def results(self, rows: Int64s) -> dict[str, list[Any]]:
        """The aggregates of these rows, as the result's columns; None where no value was seen."""
        results: dict[str, list[Any]] = {"count": self.columns["count"][rows].tolist()}
        for measure in self.measures:
            seen = self.columns[f"{measure.field}.n"][rows]
            for aggregate in measure.aggregates:
                results[f"{measure.field}_{aggregate}"] = self._result(measure, aggregate, rows, seen)
        return results

    def _result(self, measure: Measure, aggregate: Aggregate, rows: Int64s, seen: Int64s) -> list[Any]:
        listed: list[Any]
        if aggregate == "count":
            counted: list[Any] = seen.tolist()
            return counted
        if aggregate in ("sum", "mean") and measure.type == "int":
            listed = self._of_whole_sum(measure, aggregate, rows, seen)
        elif aggregate == "mean":
            listed = (self.columns[f"{measure.field}.sum"][rows] / np.maximum(seen, 1)).tolist()
        else:
            listed = self.columns[f"{measure.field}.{aggregate}"][rows].tolist()
        if (seen == 0).any():
            return [value if n else None for value, n in zip(listed, seen.tolist(), strict=True)]
        return listed

    def _of_whole_sum(self, measure: Measure, aggregate: Aggregate, rows: Int64s, seen: Int64s) -> list[Any]:
        high, low = (self.columns[f"{measure.field}.{part}"][rows].tolist() for part in ("sum_high", "sum"))
        sums = [(above << _HALF) + below for above, below in zip(high, low, strict=True)]
        if aggregate == "mean":
            return [total / max(n, 1) for total, n in zip(sums, seen.tolist(), strict=True)]
        return [total if _INT64.min <= total <= _INT64.max else None for total in sums]


def sorted_ranks(values: Array) -> list[int]:
    """For each of n texts its place in their sorted order, equal texts sharing one."""
    places = {text: rank for rank, text in enumerate(sorted(set(values.tolist())))}
    return [places[text] for text in values.tolist()]


def _parts(measure: Measure) -> Mapping[str, Any]:
    """The columns that a field's aggregates need."""
    parts: dict[str, Any] = {"n": np.int64}
    for aggregate in measure.aggregates:
        if aggregate == "count":
            continue
        part = "sum" if aggregate == "mean" else aggregate
        parts[part] = measure.dtype
        if part == "sum" and measure.type == "int":
            parts["sum_high"] = np.int64
        if part in ("first", "last"):
            parts[f"{part}_ts"] = np.int64
    return parts


def _neutral(measure: Measure, part: str) -> Any:
    """The value of a column before the first reading."""
    if part == "first_ts":
        return np.iinfo(np.int64).max
    if part == "last_ts":
        return np.iinfo(np.int64).min
    if part == "min":
        return np.inf if measure.type == "float" else np.iinfo(np.int64).max
    if part == "max":
        return -np.inf if measure.type == "float" else np.iinfo(np.int64).min
    return "" if measure.dtype is object and part != "n" else 0


def _values(batch: Batch, measure: Measure) -> tuple[Array, Array | None]:
    """The field's values, and which are present (None: all of them)."""
    if measure.type == "float":
        values = batch.floats(measure.field)
        present = ~np.isnan(values)
        return values, (None if present.all() else present)
    listed = batch.column(measure.field)
    if None in listed:
        present = np.array([value is not None for value in listed], np.bool_)
        filler: Any = "" if measure.dtype is object else 0
        return np.array([filler if value is None else value for value in listed], measure.dtype), present
    return np.array(listed, measure.dtype), None


def _edges(rows: Int64s, *, first: bool) -> Array:
    """Where each run of equal values begins (or ends)."""
    edge = np.empty(len(rows), np.bool_)
    if first:
        edge[0] = True
        np.not_equal(rows[1:], rows[:-1], out=edge[1:])
    else:
        edge[-1] = True
        np.not_equal(rows[1:], rows[:-1], out=edge[:-1])
    return edge
