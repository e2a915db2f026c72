"""A full disk and too few file handles: one clear line, no traceback, and on it goes when there is room again."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from headrace.broker.embedded import EmbeddedBroker
from headrace.errors import StoreUnavailable
from headrace.exhaustion import exhausted
from headrace.stores import open_store
from headrace.topics import CLIENT, ONCE_IN_ORDER, reaches, reader
from servers.kafka import KafkaPart

pytestmark = pytest.mark.slow

PATIENCE_S = 60.0
PIPELINE = """
name = "{name}"
[topics.{name}]
partitions = 2
[topics.{name}.fields]
current = {{ type = "float" }}
[streams.{name}_1s]
from = "{name}"
window = {{ kind = "tumbling", size = "1s" }}
aggregates = {{ current = ["mean"] }}
[producers.{name}]
kind = "simulate"
topic = "{name}"
devices = 50
rate = 2000
"""


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB."""
    disk = tmp_path / "small"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no small disk: this user cannot mount one")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


class Service:
    """A service of a pipeline as a process; what it says goes to a log."""

    def __init__(self, folder: Path, name: str, **variables: object) -> None:
        self.log = folder / f"{name}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", name],
                cwd=folder,
                env={**os.environ, **{f"HEADRACE_{key.upper()}": str(value) for key, value in variables.items()}},
                stdout=log,
                stderr=log,
            )

    def until(self, holds: Callable[[str], object], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not holds(self.log.read_text()):
            assert time.monotonic() < deadline, f"never came: {what}\n{self.log.read_text()}"
            time.sleep(0.05)

    def ends(self) -> tuple[int, str]:
        return self.process.wait(PATIENCE_S), self.log.read_text()


@pytest.fixture
def flowing(tmp_path: Path, embedded_broker: KafkaPart, name: str) -> Iterator[dict[str, object]]:
    """The settings of a line whose producers run."""
    name = name.replace("-", "_")
    (tmp_path / "pipeline.toml").write_text(PIPELINE.format(name=name))
    common: dict[str, object] = {"broker": embedded_broker.address, "data": tmp_path / "data", "port": 0}
    producers = Service(tmp_path, "producers", **common)
    try:
        yield common
    finally:
        producers.process.kill()
        producers.process.wait()


def end(service: Service) -> None:
    service.process.kill()
    service.process.wait()


def test_state_on_a_full_disk_is_told_in_one_line(tmp_path: Path, small: Path, flowing: dict[str, object]) -> None:
    filler = small / "filler"
    processors = Service(tmp_path, "processors", **{**flowing, "data": small / "data"})
    try:
        processors.until(lambda _: (small / "data" / "state").exists(), "its state")
        fill(filler)
        code, said = processors.ends()
    finally:
        end(processors)
    assert code == 2
    assert "error: there is no room left on the disk for" in said
    assert "hint: make room" in said
    assert "Traceback" not in said


def stored(path: Path) -> int:
    try:
        store = open_store(f"sqlite:///{path}", readonly=True)
        return sum(progress.next_offset for progress in store.progress().values())
    except StoreUnavailable:
        return 0


def fill(path: Path) -> None:
    """Take all the room that is left on a disk."""
    with path.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(1024))
            except OSError:
                return


def test_a_store_on_a_full_disk_waits_for_room(tmp_path: Path, small: Path, flowing: dict[str, object]) -> None:
    sinks = Service(tmp_path, "sinks", **flowing, store=f"sqlite:///{small / 'store.db'}")
    try:
        sinks.until(lambda _: stored(small / "store.db"), "rows")
        filler = small / "filler"
        fill(filler)
        sinks.until(lambda said: "there is no room left for the store" in said, "that the disk is full")
        filler.unlink()
        sinks.until(lambda said: "the store is back" in said, "that it goes on")
        assert sinks.process.poll() is None
        sinks.process.terminate()
        code, said = sinks.ends()
    finally:
        end(sinks)
    assert code == 0, said
    assert "Traceback" not in said


def wait_until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "never came"
        time.sleep(0.05)


def read_up_to(broker: EmbeddedBroker, topic: str = "meters") -> int:
    """How many messages a topic has been given."""
    consumer = reader(broker.address)
    try:
        return sum(reach.end for reach in reaches(consumer, topic).values())
    finally:
        consumer.close()


def held(broker: EmbeddedBroker, topic: str) -> list[bytes | None]:
    """The values of a topic's only partition."""
    consumer = reader(broker.address)
    try:
        (reach,) = reaches(consumer, topic).values()
        consumer.assign([TopicPartition(topic, 0, reach.begin)])
        return [message.value() for message in consumer.consume(reach.end - reach.begin, PATIENCE_S)]
    finally:
        consumer.close()


@pytest.mark.parametrize("killed", [False, True])
def test_a_broker_on_a_full_disk_has_producers_wait_and_keeps_what_it_acknowledged(small: Path, killed: bool) -> None:
    filler, said = small / "filler", small / "broker" / "broker.log"
    filler.write_bytes(bytes(2_500_000))
    sent = [b"%03d" % number + bytes(50_000) for number in range(40)]
    with EmbeddedBroker(small / "broker") as broker:
        admin = AdminClient({**CLIENT, "bootstrap.servers": broker.address})
        admin.create_topics([NewTopic("meters", 1)])["meters"].result(PATIENCE_S)
        producer = Producer(
            {**CLIENT, **ONCE_IN_ORDER, "bootstrap.servers": broker.address, "batch.size": 100_000, "linger.ms": 0}
        )
        reported: list[object] = []
        for value in sent:
            producer.produce("meters", value, on_delivery=lambda error, _: reported.append(error))
        wait_until(lambda: producer.poll(0.05) >= 0 and "there is no room left on the disk" in said.read_text())
        assert 0 < len(producer) < len(sent)
        if killed:
            broker.kill()
            acknowledged = [error for error in reported if error is None]
            broker.start()
            assert len(held(broker, "meters")) >= len(acknowledged)
            wait_until(lambda: producer.poll(0.05) >= 0 and "there is no room left on the disk" in said.read_text())
        filler.unlink()
        assert producer.flush(PATIENCE_S) == 0
        assert reported == [None] * len(sent)
        assert held(broker, "meters") == sent
        assert "there is room on the disk again" in said.read_text()


def test_producers_wait_for_a_broker_on_a_full_disk(tmp_path: Path, small: Path) -> None:
    (tmp_path / "pipeline.toml").write_text(PIPELINE.format(name="meters").replace("rate = 2000", "rate = 200"))
    filler = small / "filler"
    with EmbeddedBroker(small / "broker") as broker:
        producers = Service(tmp_path, "producers", broker=broker.address, data=tmp_path / "data")
        try:
            wait_until(lambda: read_up_to(broker))
            fill(filler)
            producers.until(lambda said: "to take what is sent: its log says why" in said, "that nothing is taken")
            before = read_up_to(broker)
            filler.unlink()
            producers.until(lambda said: "takes what is sent again" in said, "that it goes on")
            producers.process.terminate()
            code, said = producers.ends()
        finally:
            end(producers)
        held = read_up_to(broker)
    assert code == 0, said
    assert before < held
    assert f"in {held:,} messages, delivered {held:,}, failed 0" in said


@pytest.mark.parametrize("service", ["processors", "sinks", "viewer", "producers"])
def test_too_few_file_handles_are_told_as_that(tmp_path: Path, service: str) -> None:
    (tmp_path / "pipeline.toml").write_text(PIPELINE.format(name="few"))
    ended = subprocess.run(
        [sys.executable, "-m", service], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60)),
    )  # fmt: skip
    assert ended.returncode == 2
    assert "error: this process may open 60 files, and needs up to" in ended.stderr
    assert "ulimit -n" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_file_handles_that_the_process_is_allowed_are_taken(tmp_path: Path) -> None:
    (tmp_path / "pipeline.toml").write_text(PIPELINE.format(name="few"))
    ended = subprocess.run(
        [sys.executable, "-m", "headrace.cli", "check"], cwd=tmp_path, capture_output=True, text=True,
        timeout=PATIENCE_S, check=False, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (60, 1_000)),
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("IO error: No space left on device: While appending to file: /s/000004.log: No space left", "/s/000004.log"),
        ("IO error: File too large: While appending to file: /s/000004.log", "/s/000004.log"),
        ("IO error: While open a file for appending: /s/1: Too many open files", "no file handle left"),
    ],
)
def test_what_libraries_say_of_it_is_understood(words: str, said: str) -> None:
    known = exhausted(Exception(words))
    assert known is not None
    assert said in known.message


def test_other_errors_are_no_such_thing() -> None:
    assert exhausted(ValueError("no")) is None
