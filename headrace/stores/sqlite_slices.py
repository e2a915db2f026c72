"""Which statements a scan of a SQLite store consists of: slices of event time, each a read of its own.

A slice is as long as it takes to hold the wanted number of rows, and found by an index alone. Nothing is open
between two of them, so that no scan, however long, keeps the write-ahead log from being taken over into the file.
"""

# ruff: noqa: S608 - every name that stands in a statement is quoted, every value is an int

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from headrace.field_types import FieldType
from headrace.pipeline.tables import Column, Table
from headrace.stores.sqlite_tables import devices_of, quoted, rows_of

WIDER = 8

Answer_co = TypeVar("Answer_co", covariant=True)


class Reader(Protocol[Answer_co]):
    """What answers the statements of a scan."""

    def row(self, statement: str) -> tuple[Any, ...]:
        """The first row of the answer."""
        ...

    def columns(self, statement: str, types: Sequence[FieldType], rows: int) -> Answer_co:
        """The answer in columns of these types; ``rows`` are about as many as it has."""
        ...


class Slices:
    """The statements that read the rows of a table, slice by slice: (device's number, time, columns)."""

    def __init__(self, table: Table, columns: Sequence[Column], devices: Collection[int] | None, *, few: bool) -> None:
        self._t = t = quoted(table.time)
        self._rows = rows_of(table)
        self._few = few
        self.types: list[FieldType] = ["int", "time", *(column.type for column in columns)]
        self._select = f"SELECT {', '.join(['_device', t, *(quoted(column.name) for column in columns)])}"
        self._listed = "" if devices is None else ", ".join(map(str, sorted(devices)))
        index = f"sqlite_autoindex_{table.name}:rows_1" if few else f"{table.name}:time"
        self._from = f"FROM {self._rows} INDEXED BY {quoted(index)} WHERE"
        self._devices = devices_of(table)

    def read(self, reader: Reader[Answer_co], start_us: int, end_us: int, rows: int) -> Iterator[tuple[Answer_co, int]]:
        """The slices from ``start_us`` to ``end_us``, each with the time up to which it reaches."""
        bounds = self._by_devices if self._few else self._by_time
        rest = f" AND _device IN ({self._listed})" if self._listed else ""
        if not self._few:
            rest += f" ORDER BY {self._t}"
        for first_us, next_us in bounds(reader, start_us, end_us, rows):
            statement = f"{self._select} {self._from} {self._t} >= {first_us} AND {self._t} < {next_us}{rest}"
            yield reader.columns(statement, self.types, rows), next_us

    def _by_time(self, reader: Reader[object], start_us: int, end_us: int, rows: int) -> Iterator[tuple[int, int]]:
        t = self._t
        while start_us < end_us:
            (last_us,) = reader.row(
                f"SELECT (SELECT {t} {self._from} {t} >= {start_us} AND {t} < {end_us}"
                f" ORDER BY {t} LIMIT 1 OFFSET {rows - 1})"
            )
            # All rows of one time are in one slice: there is one of each device at the most.
            next_us = end_us if last_us is None else last_us + 1
            yield start_us, next_us
            start_us = next_us

    def _by_devices(self, reader: Reader[object], start_us: int, end_us: int, rows: int) -> Iterator[tuple[int, int]]:
        t, width_us = self._t, end_us - start_us
        among = f"_device IN ({self._listed})"
        while start_us < end_us:
            width_us = min(width_us, end_us - start_us)
            (count,) = reader.row(
                f"SELECT count(*) FROM (SELECT 1 {self._from} {among} AND {t} >= {start_us}"
                f" AND {t} < {start_us + width_us} LIMIT {2 * rows})"
            )
            if count == 2 * rows and width_us > 1:
                width_us = max(width_us // 2, 1)
                continue
            if count:
                yield start_us, start_us + width_us
            start_us += width_us
            width_us = min(max(width_us * rows // max(count, 1), 1), width_us * WIDER)
            if not count:
                # There may be nothing for long: where it goes on is asked once of each device.
                (least_us,) = reader.row(
                    f"SELECT min((SELECT {t} FROM {self._rows} r WHERE r._device = d._id AND r.{t} >= {start_us}"
                    f" AND r.{t} < {end_us} ORDER BY r.{t} LIMIT 1)) FROM {self._devices} d WHERE d._id IN"
                    f" ({self._listed})"
                )
                start_us = end_us if least_us is None else least_us
