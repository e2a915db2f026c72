"""Messages of many readings as columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np

from headrace.batch import Batch, Columns, Int64s, MadeColumns
from headrace.column import Column
from headrace.wire.envelope import Envelope, device_of
from headrace.wire.reasons import BAD, RefusedError
from headrace.wire.repeated import Repeated
from headrace.wire.shapes import Shape

Parts = Sequence[Column] | Sequence[list[Any]]
"""What each message has of a column."""


class ListColumns(Columns):
    """The columns of decoded messages, each put together when it is first asked for."""

    __slots__ = ("_made", "_parts", "_shape")

    def __init__(self, shape: Shape, parts: Mapping[str, Parts], made: Mapping[str, Column]) -> None:
        self._shape = shape
        self._parts = parts
        self._made = dict(made)

    def __getitem__(self, name: str) -> Column:
        column = self._made.get(name)
        if column is None:
            column = self._made[name] = self._joined(name, self._parts[name])
        return column

    def __iter__(self) -> Iterator[str]:
        return iter({**self._made, **self._parts})

    def __len__(self) -> int:
        return len(self._made.keys() | self._parts.keys())

    def _joined(self, name: str, parts: Parts) -> Column:
        columns = [part for part in parts if isinstance(part, Column)]
        if columns:
            return Column.joined(columns)
        return self._shape.column(name, list(chain.from_iterable(parts)))


class ListReader:
    """From messages of columns to batches."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        described = [name for name in shape.topic.tags if name not in shape.times]
        self._repeated = {
            name: Repeated(shape.listed(name), shape.declared[name].type, whole=False) for name in described
        }
        if shape.key is not None:
            self._repeated[shape.key] = Repeated(shape.listed(shape.key), "text", whole=True)
        usual = shape.struct(columns=True, usual=True, raw=[*self._repeated])
        self._decode_usual = msgspec.json.Decoder(usual).decode
        self._decode = msgspec.json.Decoder(shape.struct(columns=True, usual=False)).decode
        time_alone = msgspec.defstruct("Timed", [(shape.time, msgspec.Raw, None)])
        self._decode_time = msgspec.json.Decoder(time_alone).decode

    def holds(self, value: bytes) -> bool:
        """Whether a message is columns rather than one reading: its time is a list, or without any its first member."""
        try:
            time = getattr(self._decode_time(value), self._shape.time)
        except BAD:
            return False
        written = value.partition(b":")[2].lstrip() if time is None else bytes(time)
        return written.startswith(b"[")

    def all(self, values: Sequence[Any], places: Sequence[int], envelope: Envelope) -> tuple[Int64s, Batch] | None:
        """The readings of all messages, and the place of each one's message; None if one of them is no columns.

        Raises one of BAD, or RefusedError, if one of them cannot be read.
        """
        shape = self._shape
        try:
            made, parse_time = list(map(self._decode_usual, values)), shape.parse_usual
            parts: dict[str, Parts] = {name: self._described(name, made) for name in self._repeated}
        except msgspec.ValidationError:
            made, parse_time = list(map(self._decode, values)), shape.parse_time
            parts = {name: _members(name, made) for name in self._repeated}
        times = _members(shape.time, made)
        lengths = list(map(len, times))
        parts |= {name: _members(name, made) for name in shape.names if name not in parts}
        for name, of_messages in parts.items():
            if None in of_messages:
                parts[name] = self._filled(name, of_messages, lengths)
            if list(map(len, parts[name])) != lengths:
                return None
        ts_us = parse_time(list(chain.from_iterable(times)))
        columns = {name: shape.dates(list(chain.from_iterable(parts.pop(name)))) for name in shape.times}
        if shape.key is None:
            each = [device_of(envelope.key(place), shape.topic) for place in places]
            devices = Column.coded(each, np.repeat(np.arange(len(each)), lengths))
        else:
            devices = _devices(parts.pop(shape.key))
        columns[shape.topic.key] = devices
        of_message = np.repeat(np.array(places, np.int64), lengths)
        return of_message, Batch(devices, ts_us, ListColumns(shape, parts, columns))

    def one(self, value: bytes, place: int, envelope: Envelope) -> Batch:
        """The readings of one message. Raises one of BAD, or RefusedError, when it is none."""
        shape, made = self._shape, self._decode(value)
        times = getattr(made, shape.time)
        n = len(times)
        listed: dict[str, list[Any]] = {}
        for name in (*shape.names, *(() if shape.key is None else (shape.key,))):
            values = getattr(made, name)
            listed[name] = [None] * n if values is None else values
            if len(listed[name]) != n:
                raise RefusedError("unknown_shape", f"{n} times, and {len(values)} values of {name}")
        devices = listed.pop(shape.key) if shape.key else [device_of(envelope.key(place), shape.topic)] * n
        columns = {name: shape.dates_of(name, listed.pop(name)) for name in shape.times}
        columns |= {name: shape.column(name, values) for name, values in listed.items()}
        named = columns[shape.topic.key] = Column.of(devices, "text", whole=True)
        return Batch(named, shape.times_of(times), MadeColumns(columns))

    def _filled(self, name: str, parts: Sequence[Any], lengths: Sequence[int]) -> Parts:
        """The parts, with columns of missing values in the place of those that there are none of."""
        kind = self._shape.declared[name].type
        absent = [Column.of([None] * n, kind) if of is None else of for of, n in zip(parts, lengths, strict=True)]
        if any(isinstance(of, Column) for of in parts):
            return absent
        return [of.tolist() if isinstance(of, Column) else of for of in absent]

    def _described(self, name: str, made: Sequence[Any]) -> list[Any]:
        column = self._repeated[name].column
        return [None if written is None else column(written) for written in _members(name, made)]


def _members(name: str, made: Sequence[Any]) -> list[Any]:
    return list(map(attrgetter(name), made))


def _devices(parts: Parts) -> Column:
    columns = [part for part in parts if isinstance(part, Column)]
    if columns:
        return Column.joined(columns)
    return Column.of(list(chain.from_iterable(parts)), "text", whole=True)
