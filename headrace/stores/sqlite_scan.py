"""A scan of a SQLite store: its rows in columns, in order of time, with the names and tags of their devices."""

# ruff: noqa: S608 - every name that stands in a statement is quoted

from __future__ import annotations

import logging
import sqlite3
import struct
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from headrace.batch import Batch
from headrace.column import Column as Values
from headrace.field_types import FieldType
from headrace.pipeline.tables import Column, Table
from headrace.stores.scanned import Devices
from headrace.stores.sqlite_reader import Order, ReaderEnded, by_process
from headrace.stores.sqlite_tables import devices_of, quoted

log = logging.getLogger(__name__)

FEW = 4
"""A scan of less than one in so many devices goes by the index over devices, which has them alone."""
LISTED_DEVICES = 50_000
"""More than so many are not named in a statement: what others there are is left out afterwards."""
OWN_ROWS = 100_000
"""A scan of more rows than that is worth a process."""
FETCHED_VALUES = 8_000

Reading = Callable[[], AbstractContextManager[sqlite3.Connection]]


def scan(
    reading: Reading,
    file: Path,
    table: Table,
    chosen: tuple[Sequence[Column], Sequence[Column]],
    span_us: tuple[int, int],
    devices: Collection[str] | None,
    rows: int,
) -> Iterator[Batch]:
    """See the port. ``reading`` gives the store's own connection, and says what is wrong with it in our words.

    What is more than a few rows is read by a process of its own; where that ends before its time, reading goes on
    here, which says why it cannot, if it cannot.
    """
    columns, tags = chosen
    found = ", ".join(["_id", quoted(table.key), *(quoted(tag.name) for tag in tags)])

    def load() -> list[tuple[Any, ...]]:
        with reading() as connection:
            return connection.execute(f"SELECT {found} FROM {devices_of(table)}").fetchall()

    numbered = Numbered(load, tags)
    numbers = None if devices is None else numbered.of(devices)
    if numbers is not None and not numbers:
        return
    left_out = numbers is not None and len(numbers) > LISTED_DEVICES
    few = numbers is not None and not left_out and len(numbers) * FEW <= len(numbered.numbers)
    listed = None if left_out else numbers
    order = Order(str(file), table, tuple(columns), listed, few, *span_us, rows)
    for given in _read(order, OwnReader(reading)):
        kept = given
        if left_out:
            among = np.flatnonzero(np.isin(given[0].values, np.array(numbers)))
            kept = [column.take(among) for column in given]
        if len(kept[0]):
            yield numbered.batch(kept, [column.name for column in columns])


def _read(order: Order, own: OwnReader) -> Iterator[list[Values]]:
    while order.start_us < order.end_us:
        by_own = 0
        for given, start_us in order.slices().read(own, order.start_us, order.end_us, order.rows):
            yield given
            order = replace(order, start_us=start_us)
            by_own += len(given[0])
            if by_own >= OWN_ROWS:
                break
        try:
            if order.start_us < order.end_us:
                for given, start_us in by_process(order):
                    yield given
                    order = replace(order, start_us=start_us)
        except ReaderEnded as error:
            log.warning("the process that reads %s has ended, and it is read without it: %s", order.table.name, error)
        else:
            return


class Numbered:
    """A table's devices by their numbers in the store, looked up again when there is one that is not known."""

    def __init__(self, load: Callable[[], list[tuple[Any, ...]]], tags: Sequence[Column]) -> None:
        """``load`` gives (number, name, tags) of each."""
        self._load = load
        self._tags = tags
        self.look_up()

    def look_up(self) -> None:
        """See what devices there are now."""
        rows = sorted(self._load(), key=lambda row: row[1])
        self.numbers = {row[1]: int(row[0]) for row in rows}
        self._codes = np.full(max(self.numbers.values(), default=0) + 1, -1, np.int64)
        self._codes[[row[0] for row in rows]] = np.arange(len(rows))
        self.devices = Devices(self._tags, [_tagged(self._tags, row[1:]) for row in rows])

    def of(self, names: Collection[str]) -> list[int]:
        """The numbers of the devices of these names that there are."""
        return sorted(self.numbers[name] for name in set(names) & self.numbers.keys())

    def batch(self, columns: list[Values], names: Sequence[str]) -> Batch:
        """The rows of a slice with their devices."""
        numbers, ts_us = columns[0].values, columns[1].values
        if len(numbers) and (int(numbers.max()) >= len(self._codes) or (self._codes[numbers] < 0).any()):
            self.look_up()
        return self.devices.batch(self._codes[numbers], ts_us, dict(zip(names, columns[2:], strict=True)))


def _tagged(tags: Sequence[Column], row: tuple[Any, ...]) -> tuple[Any, ...]:
    truths = {place for place, tag in enumerate(tags, start=1) if tag.type == "bool"}
    return tuple(bool(v) if place in truths and v is not None else v for place, v in enumerate(row))


class OwnReader:
    """Reads by Python's own sqlite3: at once, at a third of the speed of the other reader."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def row(self, statement: str) -> tuple[Any, ...]:
        """See Reader."""
        with self._reading() as connection:
            found: tuple[Any, ...] = connection.execute(statement).fetchone()
        return found

    def columns(self, statement: str, types: Sequence[FieldType], rows: int) -> list[Values]:  # noqa: ARG002 - its list grows
        """See Reader."""
        width = len(types)
        parts: list[list[Values]] = [[] for _ in types]
        # Lists of values cost less than lists of rows: those the garbage collector would look through.
        with self._reading() as connection:
            values = chain.from_iterable(connection.execute(statement))
            while some := list(islice(values, FETCHED_VALUES // width * width)):
                for place, kind in enumerate(types):
                    parts[place].append(_column(some[place::width], kind))
        return [Values.joined(part) if part else Values.of([], kind) for part, kind in zip(parts, types, strict=True)]


def _column(listed: list[Any], kind: FieldType) -> Values:
    if kind == "float":
        floats = np.empty(len(listed), np.float64)
        try:
            struct.pack_into(f"={len(listed)}d", floats.data, 0, *listed)
        except struct.error:
            floats = np.array(listed, np.float64)
        return Values(floats)
    if kind == "bool":
        listed = [None if value is None else bool(value) for value in listed]
    column = Values.of(listed, kind)
    # As arrays, which are a fraction of the size.
    return Values(column.values, column.valid)
