"""What is new in the store, into the engine's tables: one thread that reads and shapes, and never lags.

It begins with the newest rows of each table, then follows the store's tails. When more comes than it can
show, it jumps to the newest rows and says so; when the store is away, it waits and goes on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any

from headrace.errors import StoreUnavailable
from headrace.pipeline import Table
from headrace.redaction import redacted
from headrace.stores import Columns, Store, Tail, open_store
from headrace.waiting import NotYet, Waiting
from viewer.engine import Engine
from viewer.engine_tables import EngineTable
from viewer.look import Look, Stop
from viewer.positions import Series
from viewer.shaping import Shaping

log = logging.getLogger(__name__)

INTERVAL_S = 0.025
"""The store is looked at this often while rows come."""
READ_ROWS = 4_000
"""Rows a read: short enough that a store client that holds the interpreter does not hold up the pages."""
BACKLOG_ROWS = 20_000
BEHIND_READS = 20
"""So many full reads one after the other mean that more comes than can be shown."""
RETRY_S = 0.25
REOPEN_AFTER_S = 5.0
"""A store that stays away this long is opened again: its client may hold a dead connection."""
RATE_S = 5.0


@dataclass
class _Source:
    """A table of the store, the shapes that it is shown in, and what has been seen of it."""

    table: Table
    shapings: list[Shaping]
    backlog: int
    tail: Tail | None = None
    caught_up: bool = False
    full_reads: int = 0
    jumps: int = 0
    updated_at: float | None = None
    newest_us: int | None = None
    too_old: int = 0
    """rows that the store did not keep, being older than its retention"""
    seen: deque[tuple[float, int]] = field(default_factory=deque)

    def count(self, columns: Columns) -> None:
        now, rows = time.monotonic(), len(columns[self.table.key])
        self.updated_at = now
        self.newest_us = max(self.newest_us or 0, *columns[self.table.time])
        if self.caught_up:
            self.seen.append((now, rows))
            while self.seen[0][0] < now - RATE_S:
                self.seen.popleft()

    def status(self) -> dict[str, Any]:
        now = time.monotonic()
        recent = sum(rows for at, rows in list(self.seen) if at >= now - RATE_S)
        return {
            "rows": max((shaping.positions.used for shaping in self.shapings), default=0),
            "rows_per_s": round(recent / RATE_S, 1),
            "age_ms": None if self.updated_at is None else round((now - self.updated_at) * 1000),
            "newest_us": self.newest_us,
            "behind": self.full_reads >= BEHIND_READS // 2,
            "jumps": self.jumps,
            "too_old": self.too_old,
            "shown": {
                shaping.table.name: {
                    "rows": shaping.positions.used,
                    "hidden_devices": shaping.positions.hidden_devices,
                }
                for shaping in self.shapings
            },
        }


class Feed:
    """Follows a store into an engine. ``on_failure`` is called, in the feed's thread, if it cannot go on."""

    def __init__(
        self,
        url: str,
        tables: Sequence[EngineTable],
        engine: Engine,
        *,
        on_failure: Callable[[BaseException], None],
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._url = url
        self._engine = engine
        self._on_failure = on_failure
        self._interval_s = interval_s
        self._sources: dict[str, _Source] = {}
        for table in tables:
            source = self._sources.setdefault(table.source.name, _Source(table.source, [], BACKLOG_ROWS))
            source.shapings.append(Shaping(table))
        self._store = Waiting("the store is there", tell=log.warning)
        self._waiting: str | None = f"opening the store {redacted(url)}"
        self._stop = Stop()
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)

    def start(self) -> None:
        """Make the engine's tables and begin to follow the store. Returns when pages may connect."""
        for source in self._sources.values():
            for shaping in source.shapings:
                self._engine.create(shaping.table.name, shaping.table.schema())
        self._thread.start()

    def stop(self, timeout_s: float = 1.0) -> None:
        """Stop following; waits for a read under way for ``timeout_s`` at the most."""
        self._stop.ask()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        if not self._thread.is_alive():
            self._stop.close()

    def status(self) -> dict[str, Any]:
        """What is shown: for each table of the store its rows, rows/s, age, jumps; and what is waited for."""
        return {
            "waiting": self._waiting,
            "tables": {name: source.status() for name, source in self._sources.items()},
        }

    def _run(self) -> None:
        try:
            while not self._stop.asked:
                try:
                    with closing(open_store(self._url, readonly=True)) as store:
                        self._follow(store)
                except StoreUnavailable as away:
                    self._wait(away)
        except BaseException as failure:
            if not self._stop.asked:
                self._on_failure(failure)

    def _wait(self, away: StoreUnavailable) -> None:
        self._store.missing(NotYet(f"the store: {away.message}"), time.monotonic())
        self._waiting = f"waiting for the store: {away.message}"
        self._stop.wait(RETRY_S)

    def _follow(self, store: Store) -> None:
        with ExitStack() as tails:
            for source in self._sources.values():
                self._begin(store, source)
                tails.callback(_close, source)
            away_since: float | None = None
            look = Look(store, read_rows=READ_ROWS, interval_s=self._interval_s)
            while not self._stop.asked:
                begun = time.monotonic()
                try:
                    if look.is_due():
                        look.found([self._read(store, source) for source in self._sources.values()])
                    if (dropped := look.dropped()) is not None:
                        for name, source in self._sources.items():
                            source.too_old = dropped.get(name, 0)
                except StoreUnavailable as away:
                    away_since = away_since or begun
                    if begun - away_since > REOPEN_AFTER_S:
                        raise
                    self._wait(away)
                    continue
                away_since = None
                self._resume()
                look.wait(self._stop)

    def _resume(self) -> None:
        self._store.found()
        self._waiting = None

    def _begin(self, store: Store, source: _Source) -> None:
        """The newest rows of a table: the last values of all devices, then a new tail."""
        _close(source)
        shown = {shaping.table.shape for shaping in source.shapings}
        if shown & {"last", "series"}:
            last = store.last_values(source.table)
            if last:
                devices = last[source.table.key]
                for shaping in source.shapings:
                    if isinstance(shaping.positions, Series):
                        shaping.positions.choose(devices)
                    elif shaping.table.shape == "last":
                        self._push(shaping, last)
        source.tail = store.tail(source.table, backlog=source.backlog)
        source.full_reads = 0

    def _read(self, store: Store, source: _Source) -> int:
        """Show what is new in a table, READ_ROWS at the most; how many rows that were."""
        assert source.tail is not None  # noqa: S101
        columns = source.tail.read(READ_ROWS)
        rows = len(columns[source.table.key]) if columns else 0
        if rows:
            for shaping in source.shapings:
                self._push(shaping, columns)
            source.count(columns)
        if rows < READ_ROWS:
            source.full_reads = 0
            source.caught_up = True
            return rows
        source.full_reads += 1
        if source.full_reads >= BEHIND_READS:
            source.jumps += 1
            source.caught_up = True
            log.info("more comes in than can be shown: going on with the newest", extra={"table": source.table.name})
            self._begin(store, source)
        return rows

    def _push(self, shaping: Shaping, columns: Columns) -> None:
        rows = shaping.rows(columns)
        if rows is not None:
            self._done(self._engine.update(shaping.table.name, rows))

    def _done(self, update: Future[None]) -> None:
        """Wait for an update, so that the engine is never given more than it can do."""
        while not self._stop.asked:
            try:
                update.result(timeout=0.2)
            except TimeoutError:
                if update.done():
                    raise
            else:
                return


def _close(source: _Source) -> None:
    tail, source.tail = source.tail, None
    if tail is not None:
        tail.close()
