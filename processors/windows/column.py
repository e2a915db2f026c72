"""A field of a batch as arrays: what windows compute with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.batch import Batch, Int64s
from headrace.field_types import FieldType

Array = NDArray[Any]
Bools = NDArray[np.bool_]

DTYPES: dict[FieldType, Any] = {"float": np.float64, "int": np.int64, "time": np.int64, "bool": np.bool_}
"""The numpy type of each field type; text, which is not here, is kept as objects."""

_BLANKS: dict[FieldType, Any] = {"float": np.nan, "int": 0, "time": 0, "bool": False, "text": ""}


@dataclass(frozen=True, slots=True)
class Column:
    """``n`` values of a field (float64, int64, bool or objects) and which of them are present (None: all).

    Under an absent value stands NaN, 0, False or "".
    """

    values: Array
    present: Bools | None = None

    def __len__(self) -> int:
        return len(self.values)

    def take(self, places: Int64s) -> Column:
        """The values at these places, in this order."""
        return Column(self.values[places], None if self.present is None else self.present[places])

    @classmethod
    def joined(cls, columns: Sequence[Column]) -> Column:
        """The columns one after the other."""
        values = np.concatenate([column.values for column in columns])
        if all(column.present is None for column in columns):
            return cls(values)
        masks = [np.ones(len(c), np.bool_) if c.present is None else c.present for c in columns]
        return cls(values, np.concatenate(masks))


def column_of(batch: Batch, name: str, kind: FieldType) -> Column:
    """A batch's field or tag as arrays. KeyError for a name that the batch does not have."""
    if kind == "float":
        values = batch.floats(name)
        absent = np.isnan(values)
        return Column(values, ~absent if absent.any() else None)
    listed = batch.column(name)
    dtype = DTYPES.get(kind, object)
    if None not in listed:
        return Column(as_array(listed, dtype))
    present = np.array([value is not None for value in listed], np.bool_)
    return Column(as_array([_BLANKS[kind] if value is None else value for value in listed], dtype), present)


def as_array(listed: Sequence[Any], dtype: Any) -> Array:
    """A list as an array; texts stay objects of their own."""
    if dtype is not object:
        return np.array(listed, dtype)
    values = np.empty(len(listed), object)
    values[:] = listed
    return values


def with_room(column: Array, n: int, fill: Any) -> Array:
    """The column itself if it has room for n values, or else a longer one, its new values being ``fill``."""
    if n <= len(column):
        return column
    more = max(64, n - len(column), n // 2)
    return np.concatenate([column, np.full(more, fill, column.dtype)])


def heads_of(sorted_slots: Int64s) -> Bools:
    """Where each run of equal values begins."""
    heads = np.ones(len(sorted_slots), np.bool_)
    np.not_equal(sorted_slots[1:], sorted_slots[:-1], out=heads[1:])
    return heads


def ranges(begins: Int64s, lengths: Int64s) -> Int64s:
    """The numbers from each begin on, as many as its length, one range after the other."""
    offsets = np.cumsum(lengths) - lengths
    numbers: Int64s = np.arange(int(lengths.sum())) + np.repeat(begins - offsets, lengths)
    return numbers
