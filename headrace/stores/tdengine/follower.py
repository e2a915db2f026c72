"""A process that follows a supertable by TMQ and passes on what comes; started and read by a tail.

A process of its own because taosws holds the interpreter in every call, and for ever in some once the adapter
has restarted under a subscription: what hangs here is noticed, ended and begun again by the tail.

It reads one JSON line (what to follow, and from where) and writes frames (length in 4 bytes, then msgpack):
``["ready", {vgroup: position}]``, ``["rows", vgroup, position, rows]``, ``["sure"]`` about once a second, when it
has seen that nothing was left out before, and at last ``["over", why]``. It ends when its input does, and takes
its subscription with it.
"""

# ruff: noqa: S608 - every name and text that stands in a statement is quoted

from __future__ import annotations

import contextlib
import json
import math
import select
import signal
import struct
import sys
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import taosws

from headrace.errors import StoreError, StoreUnavailable
from headrace.stores.tdengine.connection import Connection, code_of
from headrace.stores.tdengine.names import PROGRESS, literal, quoted

POLL_S = 0.1
LOOK_S = 1.0
SILENT_S = 2.0
LEAVE_S = 2.5

# A consumer group or topic is in use: its consumer has not yet been forgotten, or another tail reads it.
_IN_USE = {0x03EC, 0x03EB}


class Order(msgspec.Struct):
    """What to follow: a TMQ topic (made by ``create`` if need be), from these positions or from its end."""

    url: str
    topic: str
    create: str
    group: str
    counted: str
    positions: dict[int, int]


def send(frame: Sequence[Any]) -> None:
    """Write a frame; waits while the tail does not read."""
    body = msgspec.msgpack.encode(frame)
    sys.stdout.buffer.write(struct.pack("<I", len(body)) + body)
    sys.stdout.buffer.flush()


class Follower:
    """One subscription, from making it to leaving it."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._connection = Connection(order.url)
        address = self._connection.address
        self._connection.execute(order.create)
        self._stored = self._count()
        self._heard_s = time.monotonic()
        self._due_s = math.inf
        self._consumer: Any = taosws.Consumer(
            {
                "td.connect.websocket.scheme": "ws",
                "td.connect.ip": address.host,
                "td.connect.port": str(address.port),
                "td.connect.user": address.user,
                "td.connect.pass": address.password,
                "group.id": order.group,
                "client.id": order.group,
                "auto.offset.reset": "latest",
                "enable.auto.commit": "false",
                "session.timeout.ms": "6000",
                "conn_retries": "0",
            }
        )
        self._consumer.subscribe([order.topic])
        positions = self._seek()
        self._made = self._identity()
        send(["ready", positions])

    def follow(self) -> None:
        """Pass rows on until the input ends. Raises StoreUnavailable when nothing comes although there should."""
        looked_s = time.monotonic()
        while not select.select([sys.stdin], [], [], 0)[0]:
            message = self._consumer.poll(POLL_S)
            if message is not None:
                vgroup = int(message.vgroup())
                rows = [row for block in message for row in block.fetchall()]
                # The log is read a version at a time, and a version may come in several messages.
                send(["rows", vgroup, int(self._consumer.position(self._order.topic, vgroup)), rows])
                self._heard_s = time.monotonic()
            now_s = time.monotonic()
            if now_s - looked_s > LOOK_S:
                self._look(looked_s)
                looked_s = now_s

    def _look(self, before_s: float) -> None:
        """See that the subscription is the one that was made.

        Once the adapter has restarted, taosws either makes another behind our back, which begins at the end of
        the log and leaves a gap, or gives nothing more and says nothing.
        """
        stored = self._count()
        if stored != self._stored:
            self._stored, self._due_s = stored, min(self._due_s, before_s)
        if self._heard_s >= self._due_s:
            self._due_s = math.inf
        elif time.monotonic() - self._due_s > SILENT_S + LOOK_S:
            raise StoreUnavailable("rows were stored, and none came", hint="the tail subscribes again")
        if self._identity() != self._made:
            raise StoreUnavailable("the subscription was lost", hint="the tail subscribes again")
        send(["sure"])

    def _identity(self) -> list[tuple[Any, ...]]:
        """The server's number for this subscription."""
        return self._connection.query(
            "SELECT consumer_id FROM performance_schema.perf_consumers"
            f" WHERE consumer_group = {literal(self._order.group)} AND status = 'ready'"
        )

    def leave(self) -> None:
        """Unsubscribe, and take away the group, and the topic if nobody else reads it."""
        self._consumer.unsubscribe()
        self._consumer.close()
        topic = quoted(self._order.topic)
        deadline_s = time.monotonic() + LEAVE_S
        for statement in (
            f"DROP CONSUMER GROUP IF EXISTS {quoted(self._order.group)} ON {topic}",
            f"DROP TOPIC IF EXISTS {topic}",
        ):
            while time.monotonic() < deadline_s:
                try:
                    self._connection.execute(statement)
                    break
                except StoreError as error:
                    if code_of(error.__cause__) not in _IN_USE or statement.startswith("DROP TOPIC"):
                        break
                time.sleep(0.1)

    def _seek(self) -> dict[int, int]:
        """Go to where the order says, or to the end of the log; the positions."""
        positions = {}
        order = self._order
        # `latest` would begin at the first poll, and seek() panics before assignment() was called.
        for assignment in self._consumer.assignment():
            for part in assignment.assignments():
                vgroup, position = int(part.vg_id()), int(part.end())
                if vgroup in order.positions:
                    position = min(max(order.positions[vgroup], int(part.begin())), position)
                self._consumer.seek(order.topic, vgroup, position)
                positions[vgroup] = position
        if not positions:
            raise StoreUnavailable("the subscription was given nothing to read", hint="the tail subscribes again")
        return positions

    def _count(self) -> int:
        """How many rows were ever stored for the topic, by the durable counts."""
        found = self._connection.query(
            f"SELECT LAST_ROW(`counts`) FROM {quoted(PROGRESS)} WHERE `topic` = {literal(self._order.counted)}"
            " PARTITION BY `partition`"
        )
        return sum(json.loads(counts).get("stored", 0) for (counts,) in found)


def main() -> None:
    """Follow what the first line of the input says until the input ends."""
    # An interrupt from the terminal is for the service, which then ends this process in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    follower = None
    try:
        follower = Follower(msgspec.json.decode(sys.stdin.buffer.readline(), type=Order, strict=False))
        follower.follow()
    except BrokenPipeError:
        pass  # whoever reads has gone, and with it the need to follow
    except StoreError as error:
        send(["over", error.message])
        return
    except taosws.Error as error:
        send(["over", str(error)])
        return
    except BaseException as error:
        # What panics inside taosws is no Exception.
        if type(error).__name__ != "PanicException":
            raise
        send(["over", str(error)])
        return
    if follower is not None:
        with contextlib.suppress(taosws.Error):
            follower.leave()
