"""Writes that fail at any statement: after the next try, rows and counts are those of a run without failure."""

from __future__ import annotations

import contextlib
import itertools
import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from test_stores import (
    METERS,
    SECOND_US,
    T0,
    YEARS,
    Place,
    everything,
    meters,
    place,  # noqa: F401 - a fixture
)

import sinks.tables
from headrace.errors import StoreUnavailable, WriteConflict, WriterReplaced
from headrace.ledger import add_up, of_store
from headrace.pipeline import all_tables, all_topics, parse
from headrace.pipeline.tables import Table
from headrace.runtime import Consumption, MicroBatch, MicroBatchApplication
from headrace.runtime.supervision import QuixException  # type: ignore[attr-defined]  # Quix's own
from headrace.stores import Position, Store
from headrace.stores.sqlite import SQLiteStore
from headrace.stores.tdengine import TDengineStore, writer
from headrace.topics import CLIENT, ensure_topics
from servers.kafka import KafkaPart
from sinks.tables import TableSink

pytestmark = pytest.mark.slow

PATIENCE_S = 60.0


@dataclass
class Trap:
    """Stands before a store's connection: the statement with the number ``at`` fails, before or after it is done."""

    store: Store
    at: int = 0
    done_first: bool = False
    passed: int = 0
    sprung: bool = False
    calls: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        if isinstance(self.store, TDengineStore):
            connection = self.store._connection
            for name in ("query", "execute", "insert"):
                setattr(connection, name, self._guarded(getattr(connection, name), self._tdengine_away))
        else:
            assert isinstance(self.store, SQLiteStore)
            self.store._connection = _Watched(self.store._connection, self)  # type: ignore[assignment]

    def set(self, at: int, *, done_first: bool) -> None:
        self.at, self.done_first, self.passed, self.sprung = at, done_first, 0, False

    def _guarded(self, statement: Callable[..., Any], away: Callable[[], Exception]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            self.passed += 1
            fails = not self.sprung and self.passed == self.at
            if not fails:
                return statement(*arguments)
            self.sprung = True
            if self.done_first:
                statement(*arguments)
            raise away()

        return run

    def _tdengine_away(self) -> Exception:
        assert isinstance(self.store, TDengineStore)
        self.store._connection.close()
        return self.store._connection.away("the network went")

    @staticmethod
    def sqlite_away() -> Exception:
        error = sqlite3.OperationalError("database is locked")
        error.sqlite_errorcode = sqlite3.SQLITE_BUSY
        return error


class _Watched:
    """A SQLite connection whose statements pass a trap."""

    def __init__(self, connection: sqlite3.Connection, trap: Trap) -> None:
        self._connection = connection
        self.execute = trap._guarded(connection.execute, trap.sqlite_away)
        self.executemany = trap._guarded(connection.executemany, trap.sqlite_away)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


@pytest.fixture(autouse=True)
def small_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a write of a few rows is several calls to TDengine."""
    monkeypatch.setattr(writer, "CALL_BYTES", 160)


@dataclass(frozen=True)
class Write:
    """What one write brings."""

    partition: int
    first: int
    rows: list[tuple[str, int, float]]
    location: str

    def do(self, store: Store, table: Table) -> None:
        batch = meters(*self.rows, location=[self.location] * len(self.rows))
        position = Position(table.name, self.partition, self.first, self.first + len(batch), {"read": len(batch)})
        store.write(table, batch, position)


# Known and new devices, a repeat, a correction, another tag; and two partitions, so that one may be durable alone.
BEFORE = [
    Write(0, 0, [("a", 0, 1.0), ("a", 1, 2.0), ("b", 0, 1.0)], "hall"),
    Write(1, 0, [("c", 0, 1.0)], "hall"),
]
WRITES = [
    Write(0, 3, [("a", 1, 2.0), ("b", 0, 9.0), ("b", 2, 1.0), ("a", 3, 3.0), ("d", 0, 4.0)], "attic"),
    Write(1, 1, [("c", 1, 1.0), ("c", 1, 1.5), ("e", 0, 1.0), ("c", 0, 1.0)], "cellar"),
]


def filled(store: Store, name: str) -> Table:
    """A table of its own with what was there before."""
    table = replace(METERS, name=name)
    store.prepare([table], YEARS)
    for write in BEFORE:
        write.do(store, table)
    return table


def seen(store: Store, table: Table) -> tuple[Any, Any]:
    """All rows, and the progress of the partitions."""
    progress = {number: kept for (topic, number), kept in store.progress().items() if topic == table.name}
    return everything(store, table), progress


def together(store: Store, table: Table) -> None:
    with store.together():
        for write in WRITES:
            write.do(store, table)


def again(store: Store, table: Table) -> None:
    """As a sink does after a failure: read the progress, then write what comes again from the last commit."""
    store.progress()
    together(store, table)


@pytest.mark.parametrize("done_first", [False, True], ids=["not done", "done, and not heard of"])
def test_a_write_that_fails_at_any_statement_leaves_no_trace_after_the_next(place: Place, done_first: bool) -> None:  # noqa: F811
    plain = place.prepared()
    expected = seen(plain, table := filled(plain, "sound"))
    together(plain, table)
    before, expected = expected, seen(plain, table)
    assert expected[1][0].counts == {"stored": 6, "updated": 1, "duplicate": 1, "read": 8}
    assert expected[1][1].counts == {"stored": 3, "updated": 1, "duplicate": 1, "read": 5}
    for at in itertools.count(1):
        store, reader = place.prepared(), place.open(readonly=True)
        table = filled(store, f"at-{at}")
        assert seen(reader, table) == before
        trap = Trap(store)
        trap.set(at, done_first=done_first)
        try:
            together(store, table)
        except StoreUnavailable:
            assert trap.sprung
        else:
            assert not trap.sprung, "a failure was swallowed"
            break
        # What the store says is what is durable: another process sees the same.
        assert store.progress() == reader.progress()
        again(store, table)
        assert seen(reader, table) == expected, f"after a failure at statement {at}"
        store.close()
    assert at > 10


def test_messages_that_are_counted_in_part_are_refused_whole(place: Place) -> None:  # noqa: F811
    store = place.prepared()
    Write(0, 0, [("a", n, 1.0) for n in range(10)], "hall").do(store, METERS)
    before = seen(store, METERS)
    grown = Write(0, 0, [("a", n, 1.0) for n in range(15)], "hall")
    with pytest.raises(WriteConflict, match=r"meters\[0\] up to offset 10"):
        grown.do(store, METERS)
    assert seen(store, METERS) == before
    with pytest.raises(WriteConflict), store.together():
        grown.do(store, METERS)
    assert seen(store, METERS) == before
    Write(0, 10, grown.rows[10:], "hall").do(store, METERS)
    assert store.progress()["meters", 0].counts == {"stored": 15, "updated": 0, "duplicate": 0, "read": 15}


DECLARED = """
name = "{name}"
[topics.{name}]
partitions = 3
tags = {{ location = "text" }}
fields = {{ current = "float" }}
"""


@dataclass
class Rounds:
    """Brings messages to every partition, has one statement fail while they are written, and looks at what came out."""

    name: str
    address: str
    app: MicroBatchApplication
    trap: Trap
    reader: Store
    at: int = -1
    sent: int = 0
    failures: int = 0
    deadline: float = field(default_factory=lambda: time.monotonic() + PATIENCE_S)

    def look(self) -> None:
        """Called when a poll has brought nothing: begin the next round when this one is through."""
        assert time.monotonic() < self.deadline, f"never came: {self.sent} messages, now {self.reader.progress()}"
        progress = self.reader.progress()
        if sum(kept.counts.get("messages", 0) for kept in progress.values()) < self.sent:
            return
        self._check()
        if self.at > 0 and not self.trap.sprung:
            self.app.stop()
            return
        self.failures += self.trap.sprung
        self.at += 2
        self.deadline = time.monotonic() + PATIENCE_S
        self.trap.set(self.at, done_first=self.at % 4 == 3)
        self._send()

    def _check(self) -> None:
        lines = add_up(of_store(self.reader.progress()), {})
        counts = {name: n for line in lines for name, n in line.counts.items() if n}
        assert counts == (dict.fromkeys(("messages", "read", "stored"), self.sent) if self.sent else {}), self.at

    def _send(self) -> None:
        producer = Producer({**CLIENT, "bootstrap.servers": self.address, "linger.ms": 20})
        for n in range(30):
            reading = {"device": f"m{n}", "ts": (T0 + self.at * SECOND_US) // 1_000, "current": 1.0, "location": "hall"}
            producer.produce(self.name, json.dumps(reading).encode(), f"m{n}", n % 3)
        self.sent += 30
        assert producer.flush(PATIENCE_S) == 0


@pytest.fixture(params=[0.0, 3_600.0], ids=["written as they come", "written when committed"])
def rounds(
    request: pytest.FixtureRequest,
    place: Place,  # noqa: F811
    embedded_broker: KafkaPart,
    name: str,
    tmp_path: Path,
) -> Iterator[Rounds]:
    """A sink of a topic with three partitions, not yet running."""
    pipeline = parse(DECLARED.format(name=name))
    ensure_topics(AdminClient({**CLIENT, "bootstrap.servers": embedded_broker.address}), pipeline)
    store = place.prepared(*all_tables(pipeline).values())
    app = MicroBatchApplication(
        broker=embedded_broker.address,
        group=name,
        instance="1",
        state=tmp_path / "state",
        consumes=Consumption(commit_s=0.05),
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sinks.tables, "RETRY_S", 0.01)
        patched.setattr(sinks.tables, "WRITE_EVERY_S", request.param)
        TableSink(app, store, all_topics(pipeline), all_tables(pipeline), line=pipeline.name)
        yield Rounds(name, embedded_broker.address, app, Trap(store), place.open(readonly=True))


def test_a_sink_whose_store_fails_at_any_statement_counts_everything_once(rounds: Rounds) -> None:
    rounds.app.on_quiet(rounds.look)
    rounds.app.run()
    assert rounds.failures > 5
    table = replace(METERS, name=rounds.name)
    assert rounds.reader.count(table) == rounds.sent


def test_nothing_is_written_once_another_writer_is_there(place: Place) -> None:  # noqa: F811 - the fixture
    """A writer that was suspended between comparing and writing: what it holds is older than what is stored."""
    store = place.prepared(METERS)
    rows = meters(*[("a", second, 1.0) for second in range(6)])
    for at in range(1, 10):

        def still_ours(asked: list[int] = [], at: int = at) -> None:  # noqa: B006 - counts over its calls
            asked.append(1)
            if len(asked) == at:
                raise WriterReplaced("another's", hint="read again")

        before = everything(store, METERS)
        try:
            store.write(METERS, rows, Position("meters", 0, 0, 6, {"messages": 6}, still_ours))
        except WriterReplaced:
            # Some of it may be there, in order: nothing that comes after the question.
            assert len(everything(store, METERS)) < len(rows)
            assert len(everything(store, METERS)) >= len(before)
        else:
            break
    assert at > 1
    assert len(everything(store, METERS)) == len(rows)
    assert store.progress()["meters", 0].counts["stored"] == 6


def test_what_is_written_late_again_brings_no_older_value_back(place: Place) -> None:  # noqa: F811 - the fixture
    store = place.prepared(METERS)
    if isinstance(store, TDengineStore):
        pytest.skip("TDengine keeps counts before rows: what is below them must be written again after a crash")
    store.write(METERS, meters(("a", 1, 1.0)), Position("meters", 0, 0, 1, {"messages": 1}))
    store.write(METERS, meters(("a", 1, 2.0)), Position("meters", 0, 1, 2, {"messages": 1}))
    store.write(METERS, meters(("a", 1, 1.0)), Position("meters", 0, 0, 1, {"messages": 1}))
    assert store.latest(METERS, 10)["current"] == [2.0]


def test_a_sink_knows_when_its_partitions_are_another_s(broker: KafkaPart, name: str, tmp_path: Path) -> None:
    pipeline = parse(f'name = "{name}"\n[topics."{name}"]\nfields = {{ current = "float" }}\n')
    client = {**CLIENT, "bootstrap.servers": broker.address}
    ensure_topics(AdminClient(client), pipeline)
    app = MicroBatchApplication(broker=broker.address, group=name, instance="1", state=tmp_path / "state")
    deadline, found = time.monotonic() + PATIENCE_S, []

    def take(batch: MicroBatch) -> None:
        if found:
            return
        app.assure(name, batch.partition, batch.next_offset)
        app.consumer.asked_s = float("-inf")  # as after a long suspension
        app.assure(name, batch.partition, batch.next_offset)
        other = Consumer(
            {**client, "group.id": name, "group.instance.id": f"{name}-1", "partition.assignment.strategy": "range"}
        )
        other.subscribe([name])
        while not other.assignment():
            assert time.monotonic() < deadline
            other.poll(0.1)
        app.consumer.asked_s = float("-inf")
        with pytest.raises(WriterReplaced, match="may be another's by now"):
            app.assure(name, batch.partition, batch.next_offset)
        found.append(batch.partition)
        other.close()
        app.stop()

    app.batches(name).update(take)
    with contextlib.suppress(KafkaException, QuixException):
        app.run()
    assert found
