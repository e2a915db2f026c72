"""How a supertable lies in SQLite: its tables, its statements, how rows and tags get into it."""

# ruff: noqa: S608 - every name that stands in a statement is quoted by `quoted`, every value is a parameter

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from typing import Any

from headrace.batch import Batch
from headrace.errors import StoreError
from headrace.field_types import FieldType
from headrace.pipeline.tables import Column, Table
from headrace.stores.port import Columns
from headrace.stores.rows import RANKING, SaidTags, Tags, ranked

# Each has the affinity that keeps its values as they are, and a name that tells the types apart.
_TYPES: dict[FieldType, str] = {
    "float": "REAL",
    "int": "INTEGER",
    "bool": "BOOLEAN",
    "text": "TEXT",
    "time": "INTEGER_US",
}
_NAMES = {written: name for name, written in _TYPES.items()}
_OTHER_NAME = "give the field another name, or start over with --reset"


class Plan:
    """How rows get into one supertable: its statements, and what is known of its devices."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._names = [column.name for column in table.columns]
        self._tags = [column.name for column in table.tags]
        self._ids: dict[str, int] = {}
        self._known: dict[str, Tags] = {}
        columns = [quoted(name) for name in self._names]
        into = f"INTO {rows_of(table)} (_arrival, _device, {quoted(table.time)}{''.join(f', {c}' for c in columns)})"
        values = ", ".join(f"?{i}" for i in range(1, len(columns) + 4))
        changed = " OR ".join(f"r.{c} IS NOT ?{i}" for i, c in enumerate(columns, start=4)) or "0"
        where = f"r._device = ?2 AND r.{quoted(table.time)} = ?3 AND ({changed})"
        if ranked(table):
            revision, final, count = (f"?{self._names.index(name) + 4}" for name in RANKING)
            forward = f"{final} OR (NOT coalesce(r.final, 0) AND {count} >= coalesce(r.count, 0))"
            where += f" AND (r.revision < {revision} OR (r.revision = {revision} AND ({forward})))"
        self._insert = f"INSERT OR IGNORE {into} VALUES ({values})"
        self._correct = (
            f"INSERT OR REPLACE {into} SELECT {values} WHERE EXISTS (SELECT 1 FROM {rows_of(table)} r WHERE {where})"
        )
        tags = [quoted(name) for name in self._tags]
        key, devices = quoted(table.key), devices_of(table)
        self._find = f"SELECT {', '.join(['_id', *tags])} FROM {devices} WHERE {key} = ?"
        self._add = f"INSERT INTO {devices} ({', '.join([key, *tags])}) VALUES ({', '.join('?' * (len(tags) + 1))})"
        self._describe = f"UPDATE {devices} SET {', '.join(f'{tag} = ?' for tag in tags)} WHERE _id = ?"

    def forget(self) -> None:
        """Look the devices up again when they next come."""
        self._ids.clear()
        self._known.clear()

    def write(self, connection: sqlite3.Connection, batch: Batch) -> tuple[int, int]:
        """Upsert the rows within the open transaction; how many of them were new, and how many replaced another."""
        self._devices(connection, batch)
        devices = batch.devices.looked_up(self._ids).tolist()
        columns = [batch.column(name).tolist() for name in self._names]
        newest = connection.execute(f"SELECT max(_arrival) FROM {rows_of(self._table)}").fetchone()[0] or 0
        first, n = max(time.time_ns() // 1_000, newest + 1), len(devices)
        ts_us = batch.ts_us.tolist()
        arrivals = range(first, first + n)
        new = connection.executemany(self._insert, zip(arrivals, devices, ts_us, *columns, strict=True)).rowcount
        if new == n:
            return new, 0
        # Some were there. Which ones differ from what is stored is asked row by row: repeats are rare.
        arrivals = range(first + n, first + 2 * n)
        updated = connection.executemany(self._correct, zip(arrivals, devices, ts_us, *columns, strict=True)).rowcount
        return new, updated

    def _devices(self, connection: sqlite3.Connection, batch: Batch) -> None:
        """Give every device of the batch its number, and keep its tags."""
        said = SaidTags(batch, self._tags)
        for device, place in dict(zip(batch.devices, range(len(batch)), strict=True)).items():
            before = self._known.get(device)
            if before is None:
                found = connection.execute(self._find, (device,)).fetchone()
                if found is None:
                    tags = said.of(device, place, None)
                    added_row = connection.execute(self._add, (device, *tags))
                    self._ids[device], self._known[device] = int(added_row.lastrowid or 0), tags
                    continue
                self._ids[device], before = found[0], found[1:]
                self._known[device] = found[1:]
            tags = said.of(device, place, before)
            if tags != before:
                connection.execute(self._describe, (*tags, self._ids[device]))
                self._known[device] = tags


def make(connection: sqlite3.Connection, table: Table) -> None:
    """Make a supertable, or add its new columns and tags."""
    used = [table.key, table.time, *(c.name for c in (*table.columns, *table.tags)), "_arrival", "_device", "_id"]
    check_case("field", used, f"fields of {table.name}")
    key, t = quoted(table.key), quoted(table.time)
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {devices_of(table)} (_id INTEGER PRIMARY KEY, {key} TEXT NOT NULL UNIQUE)"
    )
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {rows_of(table)} (_arrival INTEGER PRIMARY KEY, _device INTEGER NOT NULL,"
        f" {t} INTEGER_US NOT NULL, UNIQUE (_device, {t}))"
    )
    added_any = _extend(connection, f"{table.name}:devices", table, [Column(table.key, "text"), *table.tags])
    added_any |= _extend(connection, f"{table.name}:rows", table, [Column(table.time, "time"), *table.columns])
    connection.execute(f"CREATE INDEX IF NOT EXISTS {quoted(table.name + ':time')} ON {rows_of(table)} ({t})")
    there = connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'view' AND name = ?", (table.name,)).fetchone()
    if added_any or not there:
        names = [f"d.{key}", f"r.{t}", *(f"r.{quoted(c.name)}" for c in table.columns)]
        names += [f"d.{quoted(c.name)}" for c in table.tags]
        connection.execute(f"DROP VIEW IF EXISTS {quoted(table.name)}")
        connection.execute(f"CREATE VIEW {quoted(table.name)} AS SELECT {', '.join(names)} {joined(table)}")


def _extend(connection: sqlite3.Connection, name: str, table: Table, wanted: Sequence[Column]) -> bool:
    """Add the columns that are not there yet; whether there were any."""
    there = {row[1].lower(): row[2] for row in connection.execute(f"PRAGMA table_info({quoted(name)})")}
    missing = [column for column in wanted if column.name.lower() not in there]
    for column in wanted:
        stored = there.get(column.name.lower(), _TYPES[column.type])
        if stored != _TYPES[column.type]:
            raise StoreError(
                f"{table.name}.{column.name}: the store holds it as {_NAMES.get(stored, stored)},"
                f" the pipeline file says {column.type}",
                hint=_OTHER_NAME,
            )
    if wanted[0] in missing:
        raise StoreError(
            f"{table.name}: the store was made with another name for {wanted[0].name}",
            hint="give the key and the time their old names, or start over with --reset",
        )
    for column in missing:
        connection.execute(f"ALTER TABLE {quoted(name)} ADD COLUMN {quoted(column.name)} {_TYPES[column.type]}")
    return bool(missing)


def check_case(what: str, names: Sequence[str], where: str) -> None:
    """Refuse names that SQLite cannot tell apart."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.lower(), name)
        if other is not name:
            raise StoreError(
                f"{where}: SQLite cannot tell {name} from {other}",
                hint=f"give one {what} another name; names may not differ in case alone",
            )


def as_columns(table: Table, found: Sequence[tuple[Any, ...]]) -> Columns:
    """Rows of (key, time, columns, tags) as the columns that a reader gets."""
    if not found:
        return {}
    declared = [Column(table.key, "text"), Column(table.time, "time"), *table.columns, *table.tags]
    result: Columns = {}
    for column, values in zip(declared, zip(*found, strict=True), strict=False):
        if column.type == "bool":
            result[column.name] = [None if value is None else bool(value) for value in values]
        else:
            result[column.name] = list(values)
    return result


def joined(table: Table) -> str:
    """The rows ``r`` with their devices ``d``, found from the rows."""
    return f"FROM {rows_of(table)} r CROSS JOIN {devices_of(table)} d ON d._id = r._device"


def rows_of(table: Table) -> str:
    """The table of the rows, quoted."""
    return quoted(f"{table.name}:rows")


def devices_of(table: Table) -> str:
    """The table of the devices, quoted."""
    return quoted(f"{table.name}:devices")


def quoted(name: str) -> str:
    """A name as it may stand in a statement."""
    return '"' + name.replace('"', '""') + '"'
