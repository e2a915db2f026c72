"""The sink as a process: rows and counts in the store, dead letters beside, through kills and outages."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from confluent_kafka import Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from warm_start import Program, run

from headrace.broker.embedded import EmbeddedBroker
from headrace.errors import StoreUnavailable
from headrace.ledger import LedgerReader, add_up, of_store
from headrace.pipeline import Pipeline, all_tables, parse
from headrace.settings import Settings
from headrace.stores import Store, open_store
from headrace.topics import CLIENT, ensure_topics, reader
from headrace.verify import verify
from servers.kafka import KafkaPart
from servers.tdengine import TDenginePart

pytestmark = pytest.mark.slow

PATIENCE_S = 60.0
BEGIN_MS = 1_767_225_600_000
DECLARED = """
name = "{name}"
[topics.{name}]
partitions = 2
max_bytes = 400
max_text = 100
tags = {{ room = "text" }}
[topics.{name}.fields]
current = {{ type = "float", unit = "A" }}
voltage = {{ type = "int", optional = true }}
"""
BAD: dict[str, bytes] = {
    "not_json": b"{",
    "wrong_type": b'{"device":"a","ts":1767225600000,"current":"x"}',
    "missing_field": b'{"device":"a","ts":1767225600000}',
    "nan": b'{"device":"a","ts":1767225600000,"current":NaN}',
    "bad_time": b'{"device":"a","ts":"yesterday","current":1}',
    "future": b'{"device":"a","ts":4102444800000,"current":1}',
    "too_large": b'{"device":"a","ts":1767225600000,"current":1,"note":"' + b"x" * 400 + b'"}',
    "too_long": b'{"device":"a","ts":1767225600000,"current":1,"room":"' + b"x" * 101 + b'"}',
    "unknown_shape": b"[1,2,3]",
}


@dataclass
class Line:
    """A topic on a broker, a store, and the sink between them."""

    pipeline: Pipeline
    settings: Settings
    folder: Path
    process: Program | None = None

    @property
    def topic(self) -> str:
        return self.pipeline.name

    def start(self, *arguments: str) -> None:
        with (self.folder / "sinks.log").open("ab") as log:
            environment = {**os.environ, **self.settings.environment()}
            self.process = Program("sinks", *arguments, env=environment, stdout=log, stderr=log)

    def end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)

    def log(self) -> str:
        return (self.folder / "sinks.log").read_text(errors="replace")

    def produce(self, values: list[tuple[str, bytes]]) -> None:
        producer = Producer({**CLIENT, "bootstrap.servers": self.settings.broker})
        for key, value in values:
            producer.produce(self.topic, value, key)
        assert producer.flush(PATIENCE_S) == 0

    def store(self) -> Store:
        return open_store(self.settings.store, readonly=True)

    def counts(self) -> dict[str, int]:
        """The counts of the topic so far; {} while the store is away or not made."""
        try:
            store = self.store()
        except StoreUnavailable:
            return {}
        try:
            (line,) = add_up(of_store(store.progress()), {})
        except (StoreUnavailable, ValueError):
            return {}
        finally:
            store.close()
        return line.counts

    def rows(self) -> int:
        """How many rows the store has; -1 while it is not made."""
        store = self.store()
        try:
            return store.count(all_tables(self.pipeline)[self.topic])
        except StoreUnavailable:
            return -1
        finally:
            store.close()

    def until_read(self, messages: int) -> dict[str, int]:
        self.until(lambda: self.counts().get("messages", 0) >= messages, f"{messages} messages in the ledger")
        return self.counts()

    def until(self, holds: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            assert self.process is None or self.process.poll() is None, self.log()[-3_000:]
            assert time.monotonic() < deadline, f"never came: {what}\n{self.log()[-3_000:]}"
            time.sleep(0.05)

    def verdict(self) -> list[str]:
        store, consumer = self.store(), reader(self.settings.broker)
        ledger = LedgerReader(reader(self.settings.broker), self.pipeline)
        try:
            return verify(consumer, self.pipeline, ledger, store).faults
        finally:
            ledger.close()
            consumer.close()
            store.close()

    def dead_letters(self) -> list[Message]:
        consumer = reader(self.settings.broker)
        try:
            consumer.subscribe([f"{self.topic}.dlq"])
            letters: list[Message] = []
            deadline = time.monotonic() + PATIENCE_S
            while time.monotonic() < deadline:
                message = consumer.poll(1.0)
                if message is not None and message.error() is not None:
                    return letters
                if message is not None:
                    letters.append(message)
            return letters
        finally:
            consumer.close()


@pytest.fixture
def opened(broker: KafkaPart, name: str, tmp_path: Path) -> Iterator[Line]:
    settings = Settings(broker=broker.address, store=f"sqlite:///{tmp_path / 'store.db'}", data=tmp_path / "data")
    yield from _line(settings, name, tmp_path)


def _line(settings: Settings, name: str, folder: Path) -> Iterator[Line]:
    path = folder / "pipeline.toml"
    path.write_text(DECLARED.format(name=name))
    line = Line(parse(path.read_text()), replace(settings, pipeline=path), folder)
    ensure_topics(AdminClient({**CLIENT, "bootstrap.servers": settings.broker}), line.pipeline)
    try:
        yield line
    finally:
        if line.process is not None and line.process.poll() is None:
            line.process.kill()
            line.process.wait()


def readings(count: int, first: int = 0) -> list[tuple[str, bytes]]:
    """``count`` different readings of five devices."""
    made = []
    for n in range(first, first + count):
        device = f"meter-{n % 5}"
        reading = {"device": device, "ts": BEGIN_MS + n * 10, "current": n / 10, "voltage": 220, "room": "hall"}
        made.append((device, json.dumps(reading).encode()))
    return made


def test_readings_become_rows_and_repeated_ones_are_counted(opened: Line) -> None:
    opened.produce([*readings(500), *readings(20)])
    opened.start()
    counts = opened.until_read(520)
    assert (counts["read"], counts["stored"], counts["duplicate"]) == (520, 500, 20)
    store = opened.store()
    table = all_tables(opened.pipeline)[opened.topic]
    assert store.count(table) == 500
    rows = store.between(table, "meter-3", BEGIN_MS * 1_000, (BEGIN_MS + 100) * 1_000)
    store.close()
    assert rows["current"] == [0.3, 0.8]
    assert rows["room"] == ["hall", "hall"]
    assert opened.verdict() == []


def test_every_kind_of_bad_message_is_a_dead_letter_with_its_bytes_and_nothing_else_is_lost(opened: Line) -> None:
    values = readings(50)
    for place, value in enumerate(BAD.values()):
        values.insert(place * 5, ("a", value))
    opened.produce(values)
    opened.start()
    counts = opened.until_read(len(values))
    assert {reason: counts.get(f"refused:{reason}") for reason in BAD} == dict.fromkeys(BAD, 1)
    assert counts["stored"] == 50
    assert opened.end(signal.SIGTERM) == 0
    letters = {dict(letter.headers())["reason"].decode(): letter for letter in opened.dead_letters()}
    assert len(letters) == len(BAD)
    assert {reason: letter.value() for reason, letter in letters.items()} == BAD
    headers = dict(letters["nan"].headers())
    assert headers["topic"].decode() == opened.topic
    assert int(headers["partition"]) in (0, 1)
    assert int(headers["offset"]) >= 0
    assert headers["time"].decode().endswith("+00:00")
    assert letters["nan"].key() == b"a"
    assert opened.verdict() == []


def test_killed_over_and_over_it_loses_and_counts_twice_nothing(opened: Line) -> None:
    opened.produce(readings(3_000))
    for _ in range(3):
        before = opened.counts().get("messages", 0)
        opened.start()
        opened.until(lambda before=before: opened.counts().get("messages", 0) > before, "some progress")
        opened.end(signal.SIGKILL)
        opened.produce(readings(1_000, first=3_000 + before))
    produced = 6_000
    opened.start()
    counts = opened.until_read(produced)
    assert counts["messages"] == produced
    assert counts["stored"] + counts["updated"] + counts["duplicate"] == produced
    assert opened.verdict() == []


def test_a_store_that_is_locked_for_long_is_waited_for(opened: Line) -> None:
    opened.produce(readings(100))
    opened.start()
    opened.until_read(100)
    blocker = sqlite3.connect(opened.settings.store.removeprefix("sqlite:///"), isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    opened.produce([*readings(400, first=100), ("a", BAD["nan"])])
    opened.until(lambda: "the store is away" in opened.log(), "the warning that the store is away")
    assert opened.counts()["messages"] == 100
    blocker.execute("ROLLBACK")
    blocker.close()
    counts = opened.until_read(501)
    assert (counts["stored"], counts["refused:nan"]) == (500, 1)
    assert opened.end(signal.SIGTERM) == 0
    assert opened.verdict() == []


def test_the_recount_notices_a_row_that_is_gone(opened: Line) -> None:
    opened.produce(readings(100))
    opened.start()
    opened.until_read(100)
    assert opened.end(signal.SIGTERM) == 0
    assert opened.verdict() == []
    with sqlite3.connect(opened.settings.store.removeprefix("sqlite:///")) as connection:
        assert connection.execute(f'DELETE FROM "{opened.topic}:rows" WHERE _arrival % 2 = 0').rowcount > 0
    connection.close()
    (fault,) = opened.verdict()
    assert "100 rows are stored" in fault


def test_a_new_store_on_an_old_broker_is_filled_and_says_so(opened: Line) -> None:
    opened.produce([*readings(500), ("a", BAD["nan"])])
    opened.start()
    opened.until_read(501)
    assert opened.end(signal.SIGTERM) == 0
    assert "reading them again" not in opened.log()
    for path in opened.folder.glob("store.db*"):
        path.unlink()
    opened.start()
    counts = opened.until_read(501)
    assert (counts["stored"], counts["refused:nan"], counts.get("gaps", 0)) == (500, 1, 0)
    assert opened.log().count("reading them again") == 2  # a line for each partition
    opened.produce(readings(100, first=500))
    assert opened.until_read(601)["stored"] == 600
    assert opened.end(signal.SIGTERM) == 0
    assert opened.verdict() == []


def test_a_store_restored_from_an_older_copy_gets_what_it_lacks(opened: Line) -> None:
    path = Path(opened.settings.store.removeprefix("sqlite:///"))
    opened.produce(readings(200))
    opened.start()
    opened.until_read(200)
    assert opened.end(signal.SIGTERM) == 0
    copy = path.read_bytes()
    opened.produce(readings(300, first=200))
    opened.start()
    opened.until_read(500)
    assert opened.end(signal.SIGTERM) == 0
    path.write_bytes(copy)
    opened.produce(readings(100, first=500))
    opened.start()
    counts = opened.until_read(600)
    assert (counts["stored"], counts["duplicate"], counts.get("gaps", 0)) == (600, 0, 0)
    assert opened.end(signal.SIGTERM) == 0
    assert opened.verdict() == []


def test_a_new_store_takes_what_the_broker_still_has(opened: Line) -> None:
    opened.produce(readings(500))
    opened.start()
    opened.until_read(500)
    assert opened.end(signal.SIGTERM) == 0
    admin = AdminClient({**CLIENT, "bootstrap.servers": opened.settings.broker})
    cut = [TopicPartition(opened.topic, partition, 50) for partition in (0, 1)]
    for deleted in admin.delete_records(cut).values():
        deleted.result(PATIENCE_S)
    for path in opened.folder.glob("store.db*"):
        path.unlink()
    opened.start()
    counts = opened.until_read(400)
    assert (counts["stored"], counts["expired"]) == (400, 100)
    assert opened.end(signal.SIGTERM) == 0
    assert opened.verdict() == []


def test_a_store_is_rebuilt_when_asked_but_not_under_another_sink(opened: Line) -> None:
    opened.produce(readings(300))
    opened.start()
    opened.until_read(300)
    environment = {**os.environ, **opened.settings.environment()}
    refused = run("sinks", "--rebuild", "--instance", "other", env=environment)
    assert refused.returncode == 2
    assert "stop every service of this group" in refused.stderr
    assert opened.end(signal.SIGTERM) == 0
    with sqlite3.connect(opened.settings.store.removeprefix("sqlite:///")) as connection:
        connection.execute(f'DELETE FROM "{opened.topic}:rows" WHERE _arrival % 2 = 0')
    connection.close()
    opened.start("--rebuild")
    opened.until(lambda: opened.rows() == 300, "all rows")
    assert opened.end(signal.SIGTERM) == 0
    assert opened.verdict() == []


def test_a_store_that_has_counted_another_broker_is_refused(opened: Line) -> None:
    opened.produce(readings(100))
    opened.start()
    opened.until_read(100)
    assert opened.end(signal.SIGTERM) == 0
    admin = AdminClient({**CLIENT, "bootstrap.servers": opened.settings.broker})
    admin.delete_topics([opened.topic])[opened.topic].result()
    consumer = reader(opened.settings.broker)
    opened.until(lambda: opened.topic not in consumer.list_topics().topics, "the topic's end")
    consumer.close()
    opened.start()
    assert opened.process is not None
    assert opened.process.wait(PATIENCE_S) == 2
    assert "it was filled from another broker" in opened.log()


def test_a_broker_that_is_killed_and_comes_back_is_waited_for(name: str, tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path / "broker") as broker:
        settings = Settings(broker=broker.address, store=f"sqlite:///{tmp_path / 'store.db'}", data=tmp_path / "data")
        for line in _line(settings, name, tmp_path):
            line.produce(readings(500))
            line.start()
            line.until_read(500)
            broker.kill()
            line.until(lambda line=line: "brokers are down" in line.log(), "the warning that the broker is away")
            broker.start()
            line.produce(readings(500, first=500))
            counts = line.until_read(1_000)
            assert (counts["messages"], counts["stored"]) == (1_000, 1_000)
            assert line.end(signal.SIGTERM) == 0
            assert line.verdict() == []


@pytest.fixture
def on_tdengine(embedded_broker: KafkaPart, tdengine: TDenginePart, name: str, tmp_path: Path) -> Iterator[Line]:
    database = f"sinks_{name.rpartition('-')[2]}"
    settings = Settings(broker=embedded_broker.address, store=tdengine.database(database), data=tmp_path / "data")
    yield from _line(settings, f"line-{database}", tmp_path)
    open_store(settings.store).reset()


def test_tdengine_holds_the_same_through_a_kill(on_tdengine: Line) -> None:
    on_tdengine.produce([*readings(2_000), *readings(50)])
    on_tdengine.start()
    on_tdengine.until(lambda: on_tdengine.counts().get("messages", 0) > 0, "some progress")
    on_tdengine.end(signal.SIGKILL)
    on_tdengine.start()
    counts = on_tdengine.until_read(2_050)
    assert (counts["stored"], counts["duplicate"]) == (2_000, 50)
    assert on_tdengine.verdict() == []


def test_a_new_tdengine_on_an_old_broker_is_filled(on_tdengine: Line) -> None:
    on_tdengine.produce(readings(1_000))
    on_tdengine.start()
    on_tdengine.until_read(1_000)
    assert on_tdengine.end(signal.SIGTERM) == 0
    open_store(on_tdengine.settings.store).reset()
    on_tdengine.start()
    assert on_tdengine.until_read(1_000)["stored"] == 1_000
    assert on_tdengine.end(signal.SIGTERM) == 0
    assert on_tdengine.verdict() == []
