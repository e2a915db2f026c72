"""What Headrace keeps in TDengine: one database, a supertable a topic, and a table of counts."""

# ruff: noqa: S608 - every name and text that stands in a statement is quoted

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headrace.duration import Duration
from headrace.errors import StoreError
from headrace.field_types import FieldType
from headrace.pipeline.tables import Column, Table
from headrace.stores.tdengine.connection import Connection
from headrace.stores.tdengine.names import PROGRESS, literal, quoted, supertable

DAY_US = 86_400_000_000
LONGEST_KEEP_D = 365_000
LONGEST_US = (LONGEST_KEEP_D - 1) * DAY_US
DURATION_D = 10
WAL_RETENTION_S = 3_600

# Declared widths are limits, not costs: what is stored is as long as the text.
KEY_BYTES = 2_048
TEXT_BYTES = 4_096
TAG_BYTES = 1_024
ROW_BYTES = 60_000
TAGS_BYTES = 15_000
NARROWEST_BYTES = 16
NAME_BYTES = 64

_TYPES: dict[FieldType, str] = {
    "float": "DOUBLE",
    "int": "BIGINT",
    "bool": "BOOL",
    "text": "VARCHAR",
    "time": "TIMESTAMP",
}
_NAMES = {written: name for name, written in _TYPES.items()}


@dataclass(frozen=True)
class Widths:
    """How many bytes (UTF-8) a supertable's texts may have, by the name of column or tag."""

    columns: dict[str, int]
    tags: dict[str, int]


@dataclass
class _Described:
    type: str
    bytes: int
    tag: bool


def make_database(connection: Connection, retention: Duration) -> None:
    """Make the database, or give the one that is there the retention. Raises StoreError when it does not fit."""
    database = connection.address.database
    # A day more than asked for: TDengine refuses a whole statement for one row that is too old by its clock.
    keep_d = min(-(-int(retention) // DAY_US) + 1, LONGEST_KEEP_D)
    duration_h = min(DURATION_D * 24, keep_d * 24 // 3)
    # One vgroup has one log, so that the tails see all devices' rows in order of arrival. Each write is on
    # the disk before it returns.
    connection.execute_on_server(
        f"CREATE DATABASE IF NOT EXISTS {quoted(database)} PRECISION 'us' VGROUPS 1 KEEP {keep_d}d"
        f" DURATION {duration_h}h WAL_LEVEL 2 WAL_FSYNC_PERIOD 0 WAL_RETENTION_PERIOD {WAL_RETENTION_S}"
        " CACHEMODEL 'last_row'"
    )
    found = connection.query(
        f"SELECT `precision`, `keep`, `duration` FROM information_schema.ins_databases WHERE name = {literal(database)}"
    )
    precision, keep, duration = found[0]
    if precision != "us":
        raise StoreError(
            f"the database {database} counts time in {precision}, and event time is in us",
            hint="name another database in --store, or drop this one",
        )
    least_d = -(-3 * _minutes(duration) // 1_440)
    keep_d = max(keep_d, least_d)
    if _minutes(keep.split(",")[0]) != keep_d * 1_440:
        connection.execute(f"ALTER DATABASE {quoted(database)} KEEP {keep_d}d")


def make_progress(connection: Connection) -> None:
    """Make the table of counts: a subtable a partition, whose last row counts, and the others only for a while."""
    connection.execute(
        f"CREATE STABLE IF NOT EXISTS {quoted(PROGRESS)}"
        " (`at` TIMESTAMP, `next_offset` BIGINT, `counts` VARCHAR(16000))"
        " TAGS (`topic` VARCHAR(512), `partition` BIGINT)"
    )


def make_supertable(connection: Connection, table: Table) -> None:
    """Make a topic's supertable, or add its new columns and tags. Raises StoreError when it does not fit."""
    for name in (table.time, table.key, *(c.name for c in (*table.columns, *table.tags))):
        if len(name.encode()) > NAME_BYTES:
            raise StoreError(
                f"{table.name}: TDengine holds names of at most {NAME_BYTES} bytes, and {name} is longer",
                hint="give the field a shorter name",
            )
    name = quoted(supertable(table.name))
    there = _describe(connection, table)
    texts = _texts(table.columns, {n: d for n, d in there.items() if not d.tag}, TEXT_BYTES, ROW_BYTES)
    tag_texts = _texts(table.tags, {n: d for n, d in there.items() if d.tag}, TAG_BYTES, TAGS_BYTES - KEY_BYTES)
    if not there:
        columns = ", ".join(f"{quoted(c.name)} {_declared(c, texts)}" for c in table.columns)
        tags = "".join(f", {quoted(c.name)} {_declared(c, tag_texts)}" for c in table.tags)
        connection.execute(
            f"CREATE STABLE IF NOT EXISTS {name} ({quoted(table.time)} TIMESTAMP, {columns})"
            f" TAGS ({quoted(table.key)} VARCHAR({KEY_BYTES}){tags})"
        )
        return
    _check(table, Column(table.time, "time"), there, tag=False)
    _check(table, Column(table.key, "text"), there, tag=True)
    for column in table.columns:
        if not _check(table, column, there, tag=False, needed=False):
            connection.execute(f"ALTER STABLE {name} ADD COLUMN {quoted(column.name)} {_declared(column, texts)}")
    for column in table.tags:
        if not _check(table, column, there, tag=True, needed=False):
            connection.execute(f"ALTER STABLE {name} ADD TAG {quoted(column.name)} {_declared(column, tag_texts)}")


def widths(connection: Connection, table: Table) -> Widths:
    """How long the texts of a supertable may be."""
    there = _describe(connection, table)
    return Widths(
        {c.name: there[c.name].bytes for c in table.columns if c.type == "text"},
        {c.name: there[c.name].bytes for c in (Column(table.key, "text"), *table.tags) if c.type == "text"},
    )


def _describe(connection: Connection, table: Table) -> dict[str, _Described]:
    """The columns and tags of a supertable, {} when it is not there."""
    name = supertable(table.name)
    known = connection.query(
        "SELECT stable_name FROM information_schema.ins_stables"
        f" WHERE db_name = {literal(connection.address.database)} AND stable_name = {literal(name)}"
    )
    if not known:
        return {}
    found = connection.query(f"DESCRIBE {quoted(name)}")
    return {row[0]: _Described(row[1], int(row[2]), row[3] == "TAG") for row in found}


def _texts(wanted: Sequence[Column], there: dict[str, _Described], usual: int, budget: int) -> dict[str, int]:
    """The widths of the texts that are to be made, so that a row of all of them still fits."""
    new = [column.name for column in wanted if column.type == "text" and column.name not in there]
    taken = sum(described.bytes for described in there.values()) + 8 * len(wanted)
    if not new:
        return {}
    width = min(usual, (budget - taken) // len(new))
    if width < NARROWEST_BYTES:
        raise StoreError(
            f"there is no room left in the row for the text {new[0]}",
            hint="take some text fields or tags out, or start over with --reset",
        )
    return dict.fromkeys(new, width)


def _declared(column: Column, texts: dict[str, int]) -> str:
    return f"VARCHAR({texts[column.name]})" if column.type == "text" else _TYPES[column.type]


def _check(table: Table, column: Column, there: dict[str, _Described], *, tag: bool, needed: bool = True) -> bool:
    """Whether the column is there. Raises StoreError when it is there as something else."""
    stored = there.get(column.name)
    place = f"{table.name}.{column.name}"
    if stored is None:
        if needed:
            raise StoreError(
                f"{place}: the store was made with another name for it",
                hint="give the key and the time their old names, or start over with --reset",
            )
        return False
    if stored.tag != tag:
        was, now = ("tag", "field") if stored.tag else ("field", "tag")
        raise StoreError(
            f"{place}: the store holds it as a {was}, the pipeline file says {now}",
            hint="give it another name, or start over with --reset",
        )
    if stored.type != _TYPES[column.type]:
        was = _NAMES.get(stored.type, stored.type)
        raise StoreError(
            f"{place}: the store holds it as {was}, the pipeline file says {column.type}",
            hint="give the field another name, or start over with --reset",
        )
    return True


def _minutes(text: str) -> int:
    """TDengine's ``10d``, ``240h`` or ``14400m``."""
    return int(text[:-1]) * {"d": 1_440, "h": 60, "m": 1}[text[-1]]
