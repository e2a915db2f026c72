"""A tail on TDengine: rows in order of arrival, late and rewritten ones too, read by a follower process."""

# ruff: noqa: S608 - every name and text that stands in a statement is quoted

from __future__ import annotations

import logging
import os
import select
import struct
import subprocess
import time
import uuid
from collections import deque
from typing import Any, Protocol

import msgspec

from headrace.children import program
from headrace.pipeline.tables import Column, Table
from headrace.stores.port import Columns
from headrace.stores.tdengine.connection import Connection
from headrace.stores.tdengine.follower import Order
from headrace.stores.tdengine.names import quoted, subscription, supertable
from headrace.stores.tdengine.subtables import selected

log = logging.getLogger(__name__)

START_S = 20.0
STUCK_S = 8.0
LEAVE_S = 4.0
BETWEEN_STARTS_S = (0.0, 0.5, 1.0, 2.0, 4.0)
READ_BYTES = 1 << 20

Row = list[Any]


class _Reader(Protocol):
    def latest(self, table: Table, limit: int) -> Columns: ...


class TDengineTail:
    """See :class:`headrace.stores.port.Tail`.

    The follower is begun again, where it stopped, when it ends or says nothing for long. Rows that were given
    before and come again then are left out. The server keeps its log for an hour: a tail that was away for
    longer misses what it no longer holds.
    """

    def __init__(self, store: _Reader, connection: Connection, table: Table, *, backlog: int) -> None:
        self._table = table
        self._connection = connection
        columns = [Column(table.key, "text"), Column(table.time, "time"), *table.columns, *table.tags]
        self._names = [column.name for column in columns]
        self._values = slice(2, 2 + len(table.columns))
        chosen = ", ".join(f"{selected(column)} AS {quoted(f'c{i}')}" for i, column in enumerate(columns))
        self._topic = subscription(connection.address.database, table.name, [chosen])
        self._create = (
            f"CREATE TOPIC IF NOT EXISTS {quoted(self._topic)} AS SELECT {chosen} FROM {quoted(supertable(table.name))}"
        )
        # Of each vgroup: up to where nothing was left out, where the follower is, and the rows that come again
        # when it begins from the former, with the position behind each message.
        self._sure: dict[int, int] = {}
        self._positions: dict[int, int] = {}
        self._recent: dict[int, list[tuple[int, list[Row]]]] = {}
        # What may come a second time, by (device, time): the columns as they were given, in that order.
        self._given: dict[tuple[str, int], list[Row]] = {}
        self._pending: deque[Row] = deque()
        self._buffer = bytearray()
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0
        self._again_s = 0.0
        self._heard_s = 0.0
        self._why: str | None = None
        self._ready = False
        try:
            self._start()
            self._await_ready()
            if backlog:
                self._begin_with(store.latest(table, backlog))
        except BaseException:
            self.close()
            raise

    def read(self, limit: int) -> Columns:
        """See the port. Never waits: what the follower has passed on until now."""
        if len(self._pending) < limit:
            self._receive(limit)
        if not self._pending:
            if self._process is None and self._why is not None:
                why, self._why = self._why, None
                raise self._connection.away(why)
            return {}
        rows = [self._pending.popleft() for _ in range(min(limit, len(self._pending)))]
        return {name: list(values) for name, values in zip(self._names, zip(*rows, strict=True), strict=True)}

    @property
    def descriptor(self) -> int | None:
        """Can be read when the follower has written something; None while there is no follower."""
        if self._process is None or self._process.stdout is None:
            return None
        return self._process.stdout.fileno()

    def has_come(self) -> bool:
        """Take in what the follower has written: whether a read has something to give, or to raise."""
        self._receive(1)
        return bool(self._pending) or self._process is None

    def hang_up(self) -> None:
        """Tell the follower to end, without waiting for it."""
        if self._process is not None and self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()

    def close(self) -> None:
        """See the port."""
        self.hang_up()
        process, self._process = self._process, None
        if process is None or process.stdout is None:
            return
        # What it still has to say is let go, so that it does not wait for a reader.
        deadline_s = time.monotonic() + LEAVE_S
        while time.monotonic() < deadline_s and select.select([process.stdout], [], [], 0.1)[0]:
            if not os.read(process.stdout.fileno(), READ_BYTES):
                break
        _end(process, deadline_s - time.monotonic())

    def _start(self) -> None:
        order = Order(
            url=self._connection.url,
            topic=self._topic,
            create=self._create,
            group=f"headrace_{uuid.uuid4().hex}",
            counted=self._table.name,
            # Where rows came, one back: the version before the position may have come in part.
            positions={vgroup: at - (vgroup in self._recent) for vgroup, at in self._sure.items()},
        )
        if self._recent:
            log.debug("follow %s again from %s", self._table.name, order.positions)
            self._remember([row for messages in self._recent.values() for _, rows in messages for row in rows])
        self._buffer.clear()
        self._ready = False
        self._starts += 1
        self._heard_s = time.monotonic()
        process = subprocess.Popen(
            program("headrace.stores.tdengine"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # What it has to say comes in its last frame; a panic in taosws would write over the terminal.
            stderr=None if log.isEnabledFor(logging.DEBUG) else subprocess.DEVNULL,
        )
        self._process = process
        if process.stdin is not None and process.stdout is not None:
            process.stdin.write(msgspec.json.encode(order) + b"\n")
            process.stdin.flush()
            os.set_blocking(process.stdout.fileno(), False)

    def _await_ready(self) -> None:
        deadline_s = time.monotonic() + START_S
        while not self._ready:
            if self._process is None or self._process.stdout is None:
                raise self._connection.away(self._why or "its follower ended at once")
            select.select([self._process.stdout], [], [], max(0.0, deadline_s - time.monotonic()))
            if time.monotonic() >= deadline_s:
                raise self._connection.away(f"no subscription to {self._table.name} within {START_S:.0f} s")
            self._receive(1)

    def _begin_with(self, latest: Columns) -> None:
        if not latest:
            return
        rows = [list(values) for values in zip(*latest.values(), strict=True)]
        self._pending.extend(rows)
        # Rows that were written since the follower was ready are in both.
        self._remember(rows)

    def _remember(self, rows: list[Row]) -> None:
        self._given = {}
        for row in rows:
            self._given.setdefault((row[0], row[1]), []).append(row[self._values])

    def _receive(self, limit: int) -> None:
        """Take in what the follower has written, until there are ``limit`` rows to give."""
        if self._process is None:
            if time.monotonic() < self._again_s:
                return
            self._start()
        process = self._process
        if process is None or process.stdout is None:
            return
        while len(self._pending) < limit:
            try:
                more = os.read(process.stdout.fileno(), READ_BYTES)
            except BlockingIOError:
                if time.monotonic() - self._heard_s > (STUCK_S if self._ready else START_S):
                    self._over("the follower says nothing more")
                return
            if not more:
                self._over("the follower ended")
                return
            self._heard_s = time.monotonic()
            self._buffer += more
            if not self._frames():
                return

    def _frames(self) -> bool:
        """Take the whole frames out of the buffer; whether the follower goes on."""
        start = 0
        while len(self._buffer) - start >= 4:
            (length,) = struct.unpack_from("<I", self._buffer, start)
            if len(self._buffer) - start - 4 < length:
                break
            frame = msgspec.msgpack.decode(memoryview(self._buffer)[start + 4 : start + 4 + length], strict=False)
            start += 4 + length
            if frame[0] == "rows":
                self._take(frame[1], frame[2], frame[3])
            elif frame[0] == "sure":
                self._sure = dict(self._positions)
                for vgroup, messages in self._recent.items():
                    self._recent[vgroup] = [m for m in messages if m[0] >= self._sure[vgroup]]
            elif frame[0] == "ready":
                self._ready = True
                self._starts = 0
                self._why = None
                self._positions = {int(vgroup): position for vgroup, position in frame[1].items()}
                self._sure = self._positions | self._sure
            elif frame[0] == "over":
                self._over(frame[1])
                return False
        del self._buffer[:start]
        return True

    def _take(self, vgroup: int, position: int, rows: list[Row]) -> None:
        self._positions[vgroup] = position
        self._recent.setdefault(vgroup, []).append((position, rows))
        if not self._given:
            self._pending.extend(rows)
            return
        for row in rows:
            before = self._given.get((row[0], row[1]))
            if before and before[0] == row[self._values]:
                del before[0]
                continue
            # Another value than what was given then: what was given after it must be given again.
            self._given.pop((row[0], row[1]), None)
            self._pending.append(row)

    def _over(self, why: str) -> None:
        """The follower has ended, or must: begin again after a pause, where it stopped."""
        log.debug("the tail of %s begins again: %s", self._table.name, why)
        process, self._process = self._process, None
        if process is not None:
            if process.stdin is not None:
                process.stdin.close()
            _end(process, 0.0)
        self._buffer.clear()
        # Beginning again at once is nobody's matter; when that fails, the store is away.
        self._why = why if self._starts else None
        self._again_s = time.monotonic() + BETWEEN_STARTS_S[min(self._starts, len(BETWEEN_STARTS_S) - 1)]


def _end(process: subprocess.Popen[bytes], patience_s: float) -> None:
    try:
        process.wait(max(0.0, patience_s))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
