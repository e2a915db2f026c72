"""Readings as columns: what everything inside a stage works on. One reading is a batch of one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace.column import Column, Float64s, Int64s

__all__ = ["Batch", "Columns", "Float64s", "Int64s", "MadeColumns"]


class Columns(Mapping[str, Column]):
    """The columns of a batch by name; those that nobody has asked for may be yet to be made."""

    def value(self, name: str, place: int) -> Any:
        """One value, where that can be had without making its whole column."""
        return self[name][place]

    def take(self, places: Int64s | slice) -> Columns:
        """The columns' values at these places, in this order."""
        return MadeColumns({name: column.take(places) for name, column in self.items()})


class MadeColumns(Columns):
    """Columns that are there."""

    __slots__ = ("_columns",)

    def __init__(self, columns: Mapping[str, Column]) -> None:
        self._columns = dict(columns)

    def __getitem__(self, name: str) -> Column:
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


@dataclass(frozen=True, slots=True, init=False, eq=False)
class Batch:
    """``n`` readings: ``devices`` (text), ``ts_us`` (int64, event time in µs since the epoch), columns by name.

    Nothing of it changes once it is made: with other columns it is another batch. Columns given as lists, None
    where a value is missing, are of the type that their values are.
    """

    devices: Column
    ts_us: Int64s
    _columns: Columns
    _more: Mapping[str, Column]
    """In addition to the others, or in their place."""

    def __init__(
        self,
        devices: Column | Sequence[str],
        ts_us: Int64s,
        columns: Columns | Mapping[str, Column | Sequence[Any]] = MadeColumns({}),  # noqa: B008 - nothing changes it
        more: Mapping[str, Column] | None = None,
    ) -> None:
        ts_us = ts_us.view()
        ts_us.flags.writeable = False
        if not isinstance(columns, Columns):
            columns = MadeColumns(
                {name: of if isinstance(of, Column) else Column.of(of) for name, of in columns.items()}
            )
        object.__setattr__(self, "devices", devices if isinstance(devices, Column) else Column.of(devices, "text"))
        object.__setattr__(self, "ts_us", ts_us)
        object.__setattr__(self, "_columns", columns)
        object.__setattr__(self, "_more", {} if more is None else dict(more))

    def __len__(self) -> int:
        return len(self.ts_us)

    def column(self, name: str) -> Column:
        """The field's or tag's n values. KeyError for a name that the batch does not have."""
        column = self._more.get(name)
        return self._columns[name] if column is None else column

    def has(self, name: str) -> bool:
        """Whether the batch has such a column."""
        return name in self._more or name in self._columns

    def with_columns(self, columns: Mapping[str, Column]) -> Batch:
        """The same readings with further columns, or others in the place of those of the same names."""
        return Batch(self.devices, self.ts_us, self._columns, {**self._more, **columns}) if columns else self

    def value(self, name: str, place: int) -> Any:
        """One value of a field or tag, None if it is missing, without making its whole column."""
        column = self._more.get(name)
        return self._columns.value(name, place) if column is None else column[place]

    def take(self, places: Int64s | slice) -> Batch:
        """The readings at these places, in this order."""
        more = {name: column.take(places) for name, column in self._more.items()}
        return Batch(self.devices.take(places), self.ts_us[places], self._columns.take(places), more)

    @classmethod
    def joined(cls, batches: Sequence[Batch], names: Sequence[str]) -> Batch:
        """The batches one after the other, with the named columns."""
        if len(batches) == 1:
            return batches[0]
        if not batches:
            return cls([], np.empty(0, np.int64), {name: [] for name in names})
        return cls(
            Column.joined([batch.devices for batch in batches]),
            np.concatenate([batch.ts_us for batch in batches]),
            {name: Column.joined([batch.column(name) for batch in batches]) for name in names},
        )
