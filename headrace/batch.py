"""Readings as columns: what everything inside a stage works on. One reading is a batch of one."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

Int64s = NDArray[np.int64]
Float64s = NDArray[np.float64]

_NO_COLUMNS: Mapping[str, list[Any]] = {}
_NO_LISTS: Mapping[str, list[list[Any]]] = {}


class Batch:
    """``n`` readings: ``devices`` (list of n str), ``ts_us`` (n int64, event time in µs since the epoch), columns.

    Columns are made from the decoded messages (``rows``, a reading each, or ``lists``, the parts of each
    column) when first asked for, so that a stage pays only for the fields it uses. A missing value is None in
    :meth:`column` and NaN in :meth:`floats`.
    """

    __slots__ = ("_columns", "_lists", "_rows", "devices", "ts_us")

    def __init__(
        self,
        devices: list[str],
        ts_us: Int64s,
        columns: Mapping[str, list[Any]] = _NO_COLUMNS,
        *,
        rows: Sequence[Any] | None = None,
        lists: Mapping[str, list[list[Any]]] = _NO_LISTS,
    ) -> None:
        self.devices = devices
        self.ts_us = ts_us
        self._columns = dict(columns)
        self._rows = rows
        self._lists = lists

    def __len__(self) -> int:
        return len(self.devices)

    def column(self, name: str) -> list[Any]:
        """The field's or tag's n values, None where missing. KeyError for a name the topic does not have."""
        values = self._columns.get(name)
        if values is None:
            if name in self._lists:
                values = self._columns[name] = list(chain.from_iterable(self._lists[name]))
                return values
            if self._rows is None:
                raise KeyError(name)
            values = self._columns[name] = list(map(attrgetter(name), self._rows))
        return values

    def has(self, name: str) -> bool:
        """Whether the batch was given such a column, or has made it."""
        return name in self._columns

    def put(self, name: str, values: list[Any]) -> None:
        """Give the batch a further column of n values, or another in its place."""
        self._columns[name] = values

    def value(self, name: str, index: int) -> Any:
        """One value of a field or tag, without making its whole column."""
        if self._rows is not None and name not in self._columns:
            return getattr(self._rows[index], name)
        return self.column(name)[index]

    def floats(self, name: str) -> Float64s:
        """The field's n values as float64, NaN where missing."""
        values = self.column(name)
        floats = np.empty(len(values), np.float64)
        try:
            # Less than half of what numpy's own conversion takes.
            struct.pack_into(f"={len(values)}d", floats.data, 0, *values)
        except struct.error:
            return np.array(values, dtype=np.float64)
        return floats

    def take(self, indices: Int64s) -> Batch:
        """The readings at these places, in this order."""
        places = indices.tolist()
        rows = self._rows
        for name in self._lists:
            self.column(name)
        return Batch(
            [self.devices[i] for i in places],
            self.ts_us[indices],
            {name: [values[i] for i in places] for name, values in self._columns.items()},
            rows=None if rows is None else [rows[i] for i in places],
        )

    @classmethod
    def joined(cls, batches: Sequence[Batch], names: Sequence[str]) -> Batch:
        """The batches one after the other, with the named columns."""
        if len(batches) == 1:
            return batches[0]
        if not batches:
            return cls([], np.empty(0, np.int64), {name: [] for name in names})
        return cls(
            [device for batch in batches for device in batch.devices],
            np.concatenate([batch.ts_us for batch in batches]),
            {name: [value for batch in batches for value in batch.column(name)] for name in names},
        )
