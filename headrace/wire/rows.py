"""Messages that are one reading each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np

from headrace.batch import Batch, Columns, Int64s
from headrace.column import Column
from headrace.wire.envelope import Envelope, device_of
from headrace.wire.shapes import Shape


class RowColumns(Columns):
    """The columns of decoded messages, each made when it is first asked for: a stage pays for those it uses."""

    __slots__ = ("_made", "_rows", "_shape")

    def __init__(self, shape: Shape, rows: Sequence[Any], made: Mapping[str, Column]) -> None:
        self._shape = shape
        self._rows = rows
        self._made = dict(made)

    def __getitem__(self, name: str) -> Column:
        column = self._made.get(name)
        if column is None:
            if name not in self._shape.declared:
                raise KeyError(name)
            column = self._made[name] = self._shape.column(name, list(map(attrgetter(name), self._rows)))
        return column

    def __iter__(self) -> Iterator[str]:
        return iter({**self._made, **self._shape.declared})

    def __len__(self) -> int:
        return len(self._made.keys() | self._shape.declared.keys())

    def value(self, name: str, place: int) -> Any:
        """One value, without making its whole column."""
        column = self._made.get(name)
        return getattr(self._rows[place], name) if column is None else column[place]

    def take(self, places: Int64s | slice) -> Columns:
        """The columns' values at these places, in this order."""
        rows = self._rows
        chosen = rows[places] if isinstance(places, slice) else [rows[place] for place in places.tolist()]
        return RowColumns(self._shape, chosen, {name: column.take(places) for name, column in self._made.items()})


class RowReader:
    """From messages of one reading each to batches."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._decode_usual = msgspec.json.Decoder(shape.struct(columns=False, usual=True)).decode
        self.decode = msgspec.json.Decoder(shape.struct(columns=False, usual=False)).decode
        """One message of any kind of time; raises one of BAD."""

    def usual(self, values: Sequence[Any]) -> list[Any]:
        """All messages, decoded; raises one of BAD when one is unusual, or none."""
        return list(map(self._decode_usual, values))

    def batch(self, rows: Sequence[Any], places: Sequence[int], envelope: Envelope, *, usual: bool) -> Batch:
        """The readings of decoded messages. Raises one of BAD, or RefusedError, when one of them is none."""
        shape = self._shape
        parse_time = shape.parse_usual if usual else shape.parse_time
        ts_us = parse_time(list(map(attrgetter(shape.time), rows)))
        made = {name: shape.dates(list(map(attrgetter(name), rows))) for name in shape.times}
        if shape.key is not None:
            devices = list(map(attrgetter(shape.key), rows))
        else:
            devices = [device_of(envelope.key(place), shape.topic) for place in places]
        return self._batch(rows, ts_us, devices, made)

    def one(self, value: bytes, place: int, envelope: Envelope) -> Batch:
        """The reading of one message. Raises one of BAD, or RefusedError, when it is none."""
        shape, row = self._shape, self.decode(value)
        device = device_of(envelope.key(place), shape.topic) if shape.key is None else getattr(row, shape.key)
        made = {name: shape.dates_of(name, [getattr(row, name)]) for name in shape.times}
        return self._batch([row], shape.times_of([getattr(row, shape.time)]), [device], made)

    def none(self) -> Batch:
        """No reading, with all columns."""
        made = {name: Column.of([], "time") for name in self._shape.times}
        return self._batch([], np.empty(0, np.int64), [], made)

    def _batch(self, rows: Sequence[Any], ts_us: Int64s, devices: list[str], made: dict[str, Column]) -> Batch:
        # The device is a column too, however it came: a condition may name it.
        named = made[self._shape.topic.key] = Column.of(devices, "text", whole=True)
        return Batch(named, ts_us, RowColumns(self._shape, rows, made))
