"""The store port on TDengine.

Nothing here is a transaction, so the order of writing keeps the counts right: first the partition's new
offset and counts, then the rows. After a crash in between the messages come again, are found below the stored
offset, and are upserted without being counted.
"""

# ruff: noqa: S608 - every name and text that stands in a statement is quoted

from __future__ import annotations

import json
import select
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import taosws

from headrace.batch import Batch
from headrace.duration import Duration
from headrace.errors import StoreError
from headrace.pipeline.tables import Column, Table
from headrace.stores.port import SCANNED_ROWS, TOO_OLD, Columns, Position, Progress
from headrace.stores.rows import DUPLICATE, STORED, UPDATED, added, check_whole, kept
from headrace.stores.scanned import chosen
from headrace.stores.tdengine.connection import Connection
from headrace.stores.tdengine.names import (
    PROGRESS,
    literal,
    progress_subtable,
    quoted,
    subtable,
    supertable,
)
from headrace.stores.tdengine.scan import scan
from headrace.stores.tdengine.schema import LONGEST_US, make_database, make_progress, make_supertable
from headrace.stores.tdengine.subtables import selected
from headrace.stores.tdengine.tail import TDengineTail
from headrace.stores.tdengine.writer import Writer

TOO_LONG = "dropped:too_long"

PROGRESS_AT_US = 7_258_118_400_000_000
"""The time of a partition's counts is this, in the year 2200, and their next offset: no retention takes them away."""

PRUNE_EVERY = 1_000
"""After so many writes of a partition its older counts are deleted."""


class TDengineStore:
    """A store port on one database. See :class:`headrace.stores.port.Store`.

    Beyond the port: a text longer than TDengine can hold is not stored but counted as ``dropped:too_long``,
    and the smallest int64 reads as None (TDengine's own mark for nothing).
    """

    def __init__(self, url: str, *, readonly: bool = False) -> None:
        self._connection = Connection(url)
        self._readonly = readonly
        self._retention_us: int | None = None
        self._writers: dict[Table, Writer] = {}
        self._written: dict[tuple[str, int], int] = {}
        self._intended: dict[tuple[str, int], int] = {}
        """How many counts of each partition were written since older ones were deleted."""
        self._tails: list[TDengineTail] = []
        if readonly:
            self._connection.query(f"SELECT COUNT(*) FROM {quoted(PROGRESS)}")
        else:
            self._connection.query_on_server("SELECT SERVER_VERSION()")

    def prepare(self, tables: Sequence[Table], retention: Duration) -> None:
        """See the port."""
        self._writable()
        seen: dict[str, str] = {}
        for table in tables:
            other = seen.setdefault(supertable(table.name), table.name)
            if other != table.name:
                raise StoreError(f"{table.name} and {other} would be one supertable", hint="give one another name")
        make_database(self._connection, retention)
        make_progress(self._connection)
        for table in tables:
            make_supertable(self._connection, table)
        self._writers.clear()
        self._retention_us = min(int(retention), LONGEST_US)

    def write(self, table: Table, batch: Batch, position: Position) -> Progress:
        """See the port."""
        self._writable()
        if self._retention_us is None:
            raise StoreError("the store was not prepared", hint="call prepare() before write()")
        rows, expired = kept(batch, time.time_ns() // 1_000 - self._retention_us)
        partition = (position.topic, position.partition)
        try:
            before = self._before(partition)
            check_whole(position, before)
            if self._written.get(partition, -1) != before.next_offset:
                # Another writer had the partition before, or in between: what is remembered of its devices is old.
                self._writers.pop(table, None)
            writer = self._writers.get(table)
            if writer is None:
                writer = self._writers[table] = Writer(self._connection, table)
            planned = writer.plan(rows)
            progress = before
            if position.next_offset > before.next_offset:
                own = {
                    STORED: planned.new,
                    UPDATED: planned.updated,
                    DUPLICATE: planned.duplicate,
                    TOO_OLD: expired,
                    TOO_LONG: planned.too_long,
                }
                progress = Progress(position.next_offset, added(before.counts, position, own))
                self._intend(partition, progress, position.still_ours)
            writer.run(planned, position.still_ours)
        except BaseException:
            # Whatever was half done is found out again, from the server.
            self._writers.pop(table, None)
            self._written.pop(partition, None)
            raise
        self._written[partition] = progress.next_offset
        return progress

    @contextmanager
    def together(self) -> Iterator[None]:
        """See the port: here each write is durable when it returns."""
        yield

    def progress(self) -> dict[tuple[str, int], Progress]:
        """See the port."""
        found = self._connection.query(
            "SELECT `topic`, `partition`, LAST_ROW(`next_offset`), LAST_ROW(`counts`)"
            f" FROM {quoted(PROGRESS)} PARTITION BY `topic`, `partition`"
        )
        return {(topic, partition): Progress(offset, json.loads(counts)) for topic, partition, offset, counts in found}

    def version(self) -> None:
        """See the port. A tail costs nothing while nothing comes: its follower is told of rows, and passes them on."""

    def wait(self, seconds: float, stop: int) -> bool:
        """See the port: until a follower has passed rows on."""
        deadline_s = time.monotonic() + seconds
        while True:
            told = {tail.descriptor: tail for tail in self._tails if tail.descriptor is not None}
            ready = select.select([stop, *told], [], [], max(deadline_s - time.monotonic(), 0.0))[0]
            if not ready or stop in ready:
                return False
            # Once a second each says that it is still there: that is no reason to look.
            come = [told[descriptor].has_come() for descriptor in ready]
            if any(come):
                return True

    def latest(self, table: Table, limit: int) -> Columns:
        """See the port."""
        found = self._connection.query(f"{_select(table)} ORDER BY {quoted(table.time)} DESC LIMIT {limit}")
        return _columns(table, found[::-1])

    def last_values(self, table: Table) -> Columns:
        """See the port."""
        t = quoted(table.time)
        last = [f"CAST(LAST_ROW({t}) AS BIGINT)"]
        for column in table.columns:
            value = f"LAST_ROW({quoted(column.name)})"
            last.append(f"CAST({value} AS BIGINT)" if column.type == "time" else value)
        key, tags = quoted(table.key), [quoted(tag.name) for tag in table.tags]
        given = [selected(tag) for tag in table.tags]
        found = self._connection.query(
            f"SELECT {', '.join([key, *last, *given])} FROM {quoted(supertable(table.name))}"
            f" PARTITION BY {', '.join(['tbname', key, *tags])}"
        )
        return _columns(table, found)

    def between(self, table: Table, device: str, start_us: int, end_us: int) -> Columns:
        """See the port."""
        t = quoted(table.time)
        found = self._connection.query(
            f"{_select(table)} WHERE tbname = {literal(subtable(table.name, device))}"
            f" AND {t} >= {start_us} AND {t} < {end_us} ORDER BY {t}"
        )
        return _columns(table, found)

    def scan(
        self,
        table: Table,
        start_us: int,
        end_us: int,
        *,
        names: Sequence[str] | None = None,
        devices: Collection[str] | None = None,
        rows: int = SCANNED_ROWS,
    ) -> Iterator[Batch]:
        """See the port."""
        return scan(self._connection, table, chosen(table, names), (start_us, end_us), devices, rows)

    def span(self, table: Table) -> tuple[int, int] | None:
        """See the port."""
        t = quoted(table.time)
        found = self._connection.query(
            f"SELECT CAST(FIRST({t}) AS BIGINT), CAST(LAST({t}) AS BIGINT) FROM {quoted(supertable(table.name))}"
        )
        return (found[0][0], found[0][1]) if found and found[0][0] is not None else None

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """See the port: here each read sees its own moment."""
        yield

    def count(self, table: Table, since_us: int | None = None) -> int:
        """See the port."""
        since = "" if since_us is None else f" WHERE {quoted(table.time)} >= {since_us}"
        found = self._connection.query(f"SELECT COUNT(*) FROM {quoted(supertable(table.name))}{since}")
        return int(found[0][0]) if found else 0

    def total(self, table: Table, column: str, since_us: int | None = None) -> int:
        """See the port."""
        name, since = quoted(supertable(table.name)), ""
        if since_us is not None:
            since = f" AND {quoted(table.time)} >= {since_us}"
        found = self._connection.query(
            f"SELECT SUM({quoted(column)}) FROM {name} WHERE {quoted('final')} = true{since}"
        )
        return int(found[0][0] or 0) if found else 0

    def tail(self, table: Table, *, backlog: int) -> TDengineTail:
        """See the port. What comes first are the ``backlog`` rows with the greatest times.

        Rows are in order of arrival within a device; over all devices, too, in a database with one vgroup, as
        ``prepare`` makes it.
        """
        tail = TDengineTail(self, self._connection, table, backlog=backlog)
        self._tails.append(tail)
        return tail

    def reset(self) -> None:
        """See the port: the whole database is dropped, and its subscriptions before."""
        self._writable()
        database = self._connection.address.database
        topics = self._connection.query_on_server(
            f"SELECT topic_name FROM information_schema.ins_topics WHERE db_name = {literal(database)}"
        )
        for (topic,) in topics:
            self._connection.execute_on_server(f"DROP TOPIC IF EXISTS FORCE {quoted(topic)}")
        self._connection.execute_on_server(f"DROP DATABASE IF EXISTS {quoted(database)}")
        self._connection.close()
        self._writers.clear()
        self._written.clear()
        self._retention_us = None

    def close(self) -> None:
        """See the port. Tails that are still open are closed, all at once."""
        for tail in self._tails:
            tail.hang_up()
        for tail in self._tails:
            tail.close()
        self._connection.close()

    def _before(self, partition: tuple[str, int]) -> Progress:
        found = self._connection.query(
            f"SELECT `next_offset`, `counts` FROM {quoted(PROGRESS)}"
            f" WHERE tbname = {literal(progress_subtable(*partition))} ORDER BY `at` DESC LIMIT 1"
        )
        return Progress(found[0][0], json.loads(found[0][1])) if found else Progress(-1, {})

    def _intend(self, partition: tuple[str, int], progress: Progress, still_ours: Callable[[], None]) -> None:
        """Write the counts, beside those of lower offsets: a writer that wakes too late must not replace newer ones."""
        topic, number = partition
        at_us = PROGRESS_AT_US + progress.next_offset
        tags = [taosws.varchar_to_tag(topic), taosws.big_int_to_tag(number)]
        row = [
            taosws.micros_timestamps_to_column([at_us]),
            taosws.big_ints_to_column([progress.next_offset]),
            taosws.varchar_to_column([json.dumps(progress.counts)]),
        ]
        self._connection.insert(
            f"INSERT INTO ? USING {quoted(PROGRESS)} (`topic`, `partition`) TAGS (?, ?)"
            " (`at`, `next_offset`, `counts`) VALUES (?, ?, ?)",
            [taosws.stmt2_bind_param_view(progress_subtable(topic, number), tags, row)],
            still_ours,
        )
        self._intended[partition] = self._intended.get(partition, 0) + 1
        if self._intended[partition] >= PRUNE_EVERY:
            self._connection.execute(f"DELETE FROM {quoted(progress_subtable(topic, number))} WHERE `at` < {at_us}")
            self._intended[partition] = 0

    def _writable(self) -> None:
        if self._readonly:
            raise StoreError("the store was opened for reading", hint="only a sink writes: open it without readonly")


def _select(table: Table) -> str:
    names = [quoted(table.key), f"CAST({quoted(table.time)} AS BIGINT)"]
    names += [selected(column) for column in (*table.columns, *table.tags)]
    return f"SELECT {', '.join(names)} FROM {quoted(supertable(table.name))}"


def _columns(table: Table, found: Sequence[tuple[Any, ...]]) -> Columns:
    if not found:
        return {}
    declared = [Column(table.key, "text"), Column(table.time, "time"), *table.columns, *table.tags]
    return {column.name: list(values) for column, values in zip(declared, zip(*found, strict=True), strict=True)}
