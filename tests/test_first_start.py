"""The first start of a whole line on a broker that is as new as the line, and goes away in the middle of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, KafkaException
from processor_line import until

from headrace.broker.embedded import EmbeddedBroker
from headrace.errors import BrokerError, StoreUnavailable
from headrace.pipeline import Pipeline, all_tables, load
from headrace.runtime import start, supervision
from headrace.settings import Settings
from headrace.stores import open_store
from headrace.topics import reaches, reader
from servers.absent import ServerAbsent
from servers.jars import jars
from servers.kafka import POM, NativeKafka, which_kafka

pytestmark = pytest.mark.slow

SERVICES = ("producers", "processors", "sinks")
PIPELINE = """
name = "new"
[topics.meters]
partitions = 4
fields = { current = "float" }
tags = { site = "text" }
[streams.meters_1s]
from = "meters"
window = { kind = "tumbling", size = "1s" }
aggregates = { current = ["max"] }
[streams.sites_1s]
from = "meters"
by = ["site"]
window = { kind = "tumbling", size = "1s" }
aggregates = { current = ["max"] }
[producers.meters]
kind = "simulate"
topic = "meters"
devices = 8
rate = 400
[producers.meters.curves]
site = { choices = ["hall", "yard"] }
"""


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[NativeKafka]:
    """An Apache Kafka that was never started."""
    if not which_kafka().startswith("native"):
        pytest.skip(f"a Kafka of its own needs Java and Maven on PATH; there is {which_kafka()}")
    try:
        made = NativeKafka(tmp_path / "kafka", jars(POM))
    except ServerAbsent as absent:
        pytest.skip(f"no real broker: {absent}")
    (tmp_path / "kafka").mkdir()
    yield made
    made.stop()
    shutil.rmtree(tmp_path / "kafka")


def test_services_started_before_their_first_broker_survive_its_death_in_the_middle(
    kafka: NativeKafka, tmp_path: Path
) -> None:
    file = tmp_path / "pipeline.toml"
    file.write_text(PIPELINE)
    pipeline = load(file)
    settings = Settings(file, kafka.address, f"sqlite:///{tmp_path / 'store.db'}", tmp_path / "data")
    with ExitStack() as stack:
        running = {name: stack.enter_context(_service(name, settings, tmp_path)) for name in SERVICES}

        def all_run() -> bool:
            for name, process in running.items():
                assert process.poll() is None, (tmp_path / f"{name}.log").read_text()[-3_000:]
            return True

        until(lambda: all_run() and "waiting" in (tmp_path / "sinks.log").read_text(), "a word of waiting")
        kafka.start()
        until(lambda: all_run() and _has_topics(kafka.address, pipeline), "the topics")
        kafka.stop()
        until(all_run, "the services")
        kafka.start()
        until(lambda: all_run() and all(n > 3 for n in _rows(settings, pipeline).values()), "rows of every table", 120)


def test_a_start_is_tried_again_until_the_broker_is_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "FIRST_PAUSE_S", 0.01)
    tries: list[int] = []

    def begin() -> str:
        tries.append(1)
        if len(tries) < 4:
            raise KafkaException(KafkaError(KafkaError.NOT_LEADER_FOR_PARTITION))
        return "begun"

    with EmbeddedBroker(tmp_path / "broker") as broker:
        assert start(broker.address, begin) == "begun"
    assert len(tries) == 4


def test_a_broker_that_is_never_ready_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "FIRST_PAUSE_S", 0.01)

    def begin() -> None:
        raise KafkaException(KafkaError(KafkaError.NOT_LEADER_FOR_PARTITION))

    with EmbeddedBroker(tmp_path / "broker") as broker, pytest.raises(BrokerError, match="failed 6 times"):
        start(broker.address, begin)


class _service:  # noqa: N801 - a context manager that reads as a function
    """A service as a process; killed at the end."""

    def __init__(self, name: str, settings: Settings, folder: Path) -> None:
        with (folder / f"{name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", name],
                env={**os.environ, **settings.environment()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def __enter__(self) -> subprocess.Popen[bytes]:
        return self._process

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def _has_topics(address: str, pipeline: Pipeline) -> bool:
    consumer = reader(address)
    try:
        return bool(reaches(consumer, "meters"))
    except KafkaException:
        return False
    finally:
        consumer.close()


def _rows(settings: Settings, pipeline: Pipeline) -> dict[str, int]:
    try:
        store = open_store(settings.store, readonly=True)
    except StoreUnavailable:
        return {"": 0}
    try:
        return {name: store.count(table) for name, table in all_tables(pipeline).items()}
    except StoreUnavailable:
        return {"": 0}
    finally:
        store.close()
