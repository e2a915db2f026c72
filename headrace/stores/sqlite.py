"""The store in one SQLite file: one writer at a time, readers in other processes beside it (WAL).

A supertable is two tables and a view: ``meters:rows`` (arrival, device, time, columns), ``meters:devices``
(device, tags), and ``meters``, which joins them for people. ``_arrival`` is the time of arrival in µs, made
unique: it only ever grows, and a row that changes gets a new one, so it is the high-water mark of the tails.
"""

# ruff: noqa: S608 - every name that stands in a statement is quoted, every value is a parameter

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from headrace.batch import Batch
from headrace.duration import Duration
from headrace.errors import DataFolderError, SettingsError, StoreError, StoreUnavailable
from headrace.exhaustion import check_file_handles, is_full, may_not_grow
from headrace.pipeline.tables import Table
from headrace.stores.file_writes import FileWrites
from headrace.stores.port import SCANNED_ROWS, TOO_OLD, Columns, Position, Progress
from headrace.stores.rows import DUPLICATE, STORED, UPDATED, added, check_whole, kept
from headrace.stores.scanned import chosen
from headrace.stores.sqlite_scan import scan
from headrace.stores.sqlite_tables import Plan, as_columns, check_case, devices_of, joined, make, quoted, rows_of

SCHEME = "sqlite:///"
BUSY_S = 5.0
LOG_PAGES_LEAST = 256
LOG_PAGES_MOST = 8_000
LOG_SHARE = 4
"""The write-ahead log is taken over into the file, and cut, at a fourth of the file's pages, within these bounds."""
LOG_EVERY_S = 1.0
CACHE_KIB = 64 * 1024
EXPIRE_EVERY_S = 60.0
EXPIRE_ROWS = 20_000


class SQLiteStore:
    """A store port on one file. See :class:`headrace.stores.port.Store`."""

    def __init__(self, url: str, *, readonly: bool = False) -> None:
        name = url.removeprefix(SCHEME)
        if not url.startswith(SCHEME) or not name:
            raise SettingsError(f"--store is {url!r}", hint="write sqlite:///PATH, as sqlite:///.headrace/store.db")
        self._path = Path(name)
        self._readonly = readonly
        self._retention_us: int | None = None
        self._plans: dict[Table, Plan] = {}
        self._expired_s: dict[str, float] = {}
        self._version = -1
        self._opened = 0
        self._writes = FileWrites(self._path)
        self._together = False
        self._undone = False
        self._log_bounded_s = 0.0
        self._connection = self._open()

    def prepare(self, tables: Sequence[Table], retention: Duration) -> None:
        """See the port. Names that differ only in case are refused: SQLite takes them for the same."""
        check_case("topic", [table.name for table in tables], "topics")
        with self._writing() as connection:
            connection.execute(
                'CREATE TABLE IF NOT EXISTS ":progress" (topic TEXT NOT NULL, partition INTEGER NOT NULL,'
                " next_offset INTEGER NOT NULL, counts TEXT NOT NULL, PRIMARY KEY (topic, partition)) WITHOUT ROWID"
            )
            for table in tables:
                make(connection, table)
        self._retention_us = int(retention)

    def write(self, table: Table, batch: Batch, position: Position) -> Progress:
        """See the port: rows, tags, offset and counts are one transaction."""
        self._writable()
        if self._retention_us is None:
            raise StoreError("the store was not prepared", hint="call prepare() before write()")
        rows, expired = kept(batch, time.time_ns() // 1_000 - self._retention_us)
        plan = self._plans.get(table)
        if plan is None:
            plan = self._plans[table] = Plan(table)
        with self._writing() as connection:
            before = self._before(connection, position)
            check_whole(position, before)
            if position.next_offset <= before.next_offset:
                # Rows and counts are one transaction, so all of it is there; a writer that wakes too late has nothing
                # to add, and older values than those that were written since.
                return before
            position.still_ours()
            new, updated = plan.write(connection, rows) if len(rows) else (0, 0)
            self._expire(connection, table)
            own = {STORED: new, UPDATED: updated, DUPLICATE: len(rows) - new - updated, TOO_OLD: expired}
            progress = Progress(position.next_offset, added(before.counts, position, own))
            connection.execute(
                'INSERT OR REPLACE INTO ":progress" VALUES (?, ?, ?, ?)',
                (position.topic, position.partition, progress.next_offset, json.dumps(progress.counts)),
            )
            return progress

    @contextmanager
    def together(self) -> Iterator[None]:
        """See the port: the writes inside are one transaction, undone as a whole when one fails."""
        if self._together:
            raise StoreError("together() stands in another together()", hint="use one around all the writes")
        self._together, self._undone = True, False
        try:
            yield
            if self._undone:
                raise StoreError("a write within together() has failed", hint="let its error out of the block")
            if self._connection.in_transaction:
                self._connection.execute("COMMIT")
        except BaseException as error:
            self._undo()
            if isinstance(error, sqlite3.Error):
                raise self._error(error) from error
            raise
        finally:
            self._together = False

    def progress(self) -> dict[tuple[str, int], Progress]:
        """See the port."""
        with self._reading() as connection:
            found = connection.execute('SELECT topic, partition, next_offset, counts FROM ":progress"').fetchall()
        return {(topic, partition): Progress(offset, json.loads(counts)) for topic, partition, offset, counts in found}

    def version(self) -> tuple[int, int]:
        """See the port. SQLite's own count of commits is each connection's, so another file is told from this one."""
        with self._reading() as connection:
            return self._opened, int(connection.execute("PRAGMA data_version").fetchone()[0])

    def wait(self, seconds: float, stop: int) -> bool:
        """See the port. A commit is written to the log, synced and only then seen, and the first of these is told."""
        return self._writes.wait(seconds, stop)

    def latest(self, table: Table, limit: int) -> Columns:
        """See the port."""
        newest = f"{joined(table)} ORDER BY r.{quoted(table.time)} DESC, r._arrival DESC LIMIT ?"
        return as_columns(table, self._select(table, newest, limit)[::-1])

    def last_values(self, table: Table) -> Columns:
        """See the port."""
        rows = rows_of(table)
        newest = (
            f"FROM {devices_of(table)} d CROSS JOIN {rows} r ON r._arrival ="
            f" (SELECT _arrival FROM {rows} WHERE _device = d._id ORDER BY {quoted(table.time)} DESC LIMIT 1)"
        )
        return as_columns(table, self._select(table, newest))

    def between(self, table: Table, device: str, start_us: int, end_us: int) -> Columns:
        """See the port."""
        t = f"r.{quoted(table.time)}"
        chosen = (
            f"FROM {devices_of(table)} d CROSS JOIN {rows_of(table)} r ON r._device = d._id"
            f" WHERE d.{quoted(table.key)} = ? AND {t} >= ? AND {t} < ? ORDER BY {t}"
        )
        return as_columns(table, self._select(table, chosen, device, start_us, end_us))

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
        """See the port. Most of it is read by another connection: also inside `snapshot` it is not of one moment."""
        return scan(self._reading, self._path, table, chosen(table, names), (start_us, end_us), devices, rows)

    def span(self, table: Table) -> tuple[int, int] | None:
        """See the port."""
        t, rows = quoted(table.time), rows_of(table)
        with self._reading() as connection:
            found = connection.execute(f"SELECT (SELECT min({t}) FROM {rows}), (SELECT max({t}) FROM {rows})")
            least_us, greatest_us = found.fetchone()
        return None if least_us is None else (least_us, greatest_us)

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """See the port: the reads inside are one transaction."""
        with self._reading() as connection:
            connection.execute("BEGIN")
        try:
            yield
        finally:
            with self._reading() as connection:
                if connection.in_transaction:
                    connection.execute("COMMIT")

    def count(self, table: Table, since_us: int | None = None) -> int:
        """See the port."""
        counted = f"SELECT count(*) FROM {rows_of(table)} r"
        with self._reading() as connection:
            if since_us is None:
                found = connection.execute(counted)
            else:
                found = connection.execute(f"{counted} WHERE r.{quoted(table.time)} >= ?", (since_us,))
            return int(found.fetchone()[0])

    def total(self, table: Table, column: str, since_us: int | None = None) -> int:
        """See the port."""
        summed = f"SELECT sum(r.{quoted(column)}) FROM {rows_of(table)} r WHERE r.final"
        with self._reading() as connection:
            if since_us is None:
                found = connection.execute(summed)
            else:
                found = connection.execute(f"{summed} AND r.{quoted(table.time)} >= ?", (since_us,))
            return int(found.fetchone()[0] or 0)

    def tail(self, table: Table, *, backlog: int) -> SQLiteTail:
        """See the port."""
        with self._reading() as connection:
            found = connection.execute(
                f"SELECT _arrival FROM {rows_of(table)} ORDER BY _arrival DESC LIMIT 1 OFFSET ?", (backlog,)
            ).fetchone()
        return SQLiteTail(self, table, found[0] if found else 0)

    def after(self, table: Table, mark: int, limit: int) -> tuple[Columns, int]:
        """At most ``limit`` rows that arrived after ``mark``, in order of arrival, and the new mark."""
        chosen = f"{joined(table)} WHERE r._arrival > ? ORDER BY r._arrival LIMIT ?"
        found = self._select(table, chosen, mark, limit, extra=", r._arrival")
        return (as_columns(table, found), found[-1][-1]) if found else ({}, mark)

    def reset(self) -> None:
        """See the port. Tails go on with what comes after: arrivals only ever grow."""
        with self._writing() as connection:
            ours = connection.execute("SELECT type, name FROM sqlite_master WHERE name LIKE '%:%' OR type = 'view'")
            for kind, name in sorted(ours.fetchall(), reverse=True):
                if kind in ("table", "view"):
                    connection.execute(f"DROP {kind} IF EXISTS {quoted(name)}")
        self._plans.clear()
        self._retention_us = None

    def close(self) -> None:
        """See the port."""
        self._writes.close()
        self._connection.close()

    def _select(self, table: Table, chosen: str, *parameters: Any, extra: str = "") -> list[tuple[Any, ...]]:
        names = [f"d.{quoted(table.key)}", f"r.{quoted(table.time)}"]
        names += [f"r.{quoted(c.name)}" for c in table.columns] + [f"d.{quoted(c.name)}" for c in table.tags]
        with self._reading() as connection:
            return connection.execute(f"SELECT {', '.join(names)}{extra} {chosen}", parameters).fetchall()

    def _before(self, connection: sqlite3.Connection, position: Position) -> Progress:
        version = connection.execute("PRAGMA data_version").fetchone()[0]
        if version != self._version:
            # Another process has written: what this one remembers of devices and tags may be old.
            self._version = version
            for plan in self._plans.values():
                plan.forget()
        found = connection.execute(
            'SELECT next_offset, counts FROM ":progress" WHERE topic = ? AND partition = ?',
            (position.topic, position.partition),
        ).fetchone()
        return Progress(found[0], json.loads(found[1])) if found else Progress(-1, {})

    def _expire(self, connection: sqlite3.Connection, table: Table) -> None:
        """Now and then, and not too many at once, delete the rows that are older than the retention."""
        now_s = time.monotonic()
        if self._retention_us is None or now_s < self._expired_s.get(table.name, 0.0):
            return
        t = quoted(table.time)
        deleted = connection.execute(
            f"DELETE FROM {rows_of(table)} WHERE _arrival IN"
            f" (SELECT _arrival FROM {rows_of(table)} WHERE {t} < ? ORDER BY {t} LIMIT ?)",
            (time.time_ns() // 1_000 - self._retention_us, EXPIRE_ROWS),
        ).rowcount
        self._expired_s[table.name] = now_s + (0.0 if deleted == EXPIRE_ROWS else EXPIRE_EVERY_S)

    def _open(self) -> sqlite3.Connection:
        self._opened += 1
        self._writes.close()
        try:
            if self._readonly:
                self._inode = self._path.stat().st_ino
                uri = f"file:{quote(str(self._path))}?mode=ro"
                return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=BUSY_S, check_same_thread=False)
            self._path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self._path, isolation_level=None, timeout=BUSY_S, check_same_thread=False)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            self._log_bounded_s = 0.0
            self._bound_log(connection)
            return connection
        except FileNotFoundError:
            raise self._absent() from None
        except OSError as error:
            raise self._unwritable(error.strerror or str(error)) from None
        except sqlite3.Error as error:
            raise self._error(error) from error

    def _bound_log(self, connection: sqlite3.Connection) -> None:
        """Now and then, set where the write-ahead log ends: in proportion to the file, so it never dwarfs the data.

        Readers do not hold it up for long: each look of theirs is a transaction of its own.
        """
        now_s = time.monotonic()
        if now_s < self._log_bounded_s:
            return
        self._log_bounded_s = now_s + LOG_EVERY_S
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        wanted = min(max(pages // LOG_SHARE, LOG_PAGES_LEAST), LOG_PAGES_MOST)
        (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
        connection.execute(f"PRAGMA wal_autocheckpoint = {wanted}")
        connection.execute(f"PRAGMA journal_size_limit = {wanted * page_bytes}")

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it or nothing."""
        self._writable()
        connection = self._connection
        try:
            if not connection.in_transaction:
                self._bound_log(connection)
                connection.execute("BEGIN IMMEDIATE")
            yield connection
            if not self._together:
                connection.execute("COMMIT")
        except BaseException as error:
            self._undo()
            if isinstance(error, sqlite3.Error):
                raise self._error(error) from error
            raise

    def _undo(self) -> None:
        """Roll back the transaction if one is still open: what is read next must be what is durable."""
        # Devices that were numbered in it may be gone again.
        self._plans.clear()
        self._undone = True
        if self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
            except sqlite3.Error:
                self._connection.close()
                self._connection = self._open()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            if self._readonly and self._path.stat().st_ino != self._inode:
                # The file was removed and made again (start over): the open one would never change again.
                self._connection.close()
                self._connection = self._open()
            yield self._connection
        except FileNotFoundError:
            raise self._absent() from None
        except sqlite3.Error as error:
            raise self._error(error) from error

    def _writable(self) -> None:
        if self._readonly:
            raise StoreError("the store was opened for reading", hint="only a sink writes: open it without readonly")

    def _absent(self) -> StoreUnavailable:
        return StoreUnavailable(f"there is no store at {self._path} yet", hint="start a sink: it makes the store")

    def _unwritable(self, why: str) -> DataFolderError:
        return DataFolderError(
            f"the store {self._path} cannot be written: {why}",
            hint="choose another place with --store, or give yourself the right to write there",
        )

    def _error(self, error: sqlite3.Error) -> StoreError | DataFolderError:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            hint = "stop the other program that writes to it: it has held the lock for long"
            return StoreUnavailable(f"the store {self._path} is locked by a second writer", hint=hint)
        if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR):
            check_file_handles()
        if code == sqlite3.SQLITE_CANTOPEN and self._readonly:
            return self._absent()
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            return self._unwritable(str(error))
        if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            hint = "choose another file with --store, or move this one away"
            return StoreError(f"the store {self._path} cannot be read: {error}", hint=hint)
        no_room = code == sqlite3.SQLITE_IOERR and (is_full(self._path.parent) or may_not_grow())
        if code == sqlite3.SQLITE_FULL or no_room:
            hint = "make room on its disk: nothing is lost, and it goes on by itself"
            return StoreUnavailable(f"there is no room left for the store {self._path}", hint=hint)
        if code == sqlite3.SQLITE_IOERR:
            hint = "look after the disk, then start again: nothing that was stored is lost"
            return StoreError(f"the store {self._path} cannot be read or written: {error}", hint=hint)
        if str(error).startswith(("no such table", "no such column")):
            hint = "start a sink with this pipeline file: it makes what is missing"
            return StoreUnavailable(f"the store {self._path} does not hold that yet: {error}", hint=hint)
        return StoreError(f"the store {self._path} refuses: {error}", hint="run with --debug to see where")


class SQLiteTail:
    """What is new in a table, by its arrival. See :class:`headrace.stores.port.Tail`."""

    def __init__(self, store: SQLiteStore, table: Table, mark: int) -> None:
        self._store = store
        self._table = table
        self._mark = mark

    def read(self, limit: int) -> Columns:
        """See the port."""
        columns, self._mark = self._store.after(self._table, self._mark, limit)
        return columns

    def close(self) -> None:
        """A mark holds nothing in the store."""
