"""A line of one topic and one stream on a broker, for the tests of processors: readings in, windows out, the ledger."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from window_oracle import Oracle, Reading, Results

from headrace.event_time import parser
from headrace.ledger import LedgerReader, Line, add_up
from headrace.pipeline import Pipeline, parse
from headrace.pipeline.model import Time
from headrace.settings import Settings
from headrace.topics import CLIENT, ensure_topics, reaches, reader
from processors.windows import WindowSpec

PATIENCE_S = 60.0
BASE_MS = 1_704_067_200_000
"""2024-01-01: where the readings of these tests begin, as the broker's own time is always beyond it."""
DECLARED = """
name = "{name}"
[topics.{topic}]
partitions = {partitions}
max_bytes = 600
tags = {{ room = "text", since = "time" }}
[topics.{topic}.fields]
current = "float"
energy = "int"
door = {{ type = "bool", optional = true }}
note = {{ type = "text", optional = true }}
checked = {{ type = "time", optional = true }}
[streams.{stream}]
from = "{topic}"
window = {{ kind = "tumbling", size = "10s" }}
grace = "{grace}"
idle = "{idle}"
aggregates = {{ current = ["count", "min", "max", "mean"], energy = ["sum", "last"], note = ["first"] }}
"""
Found = TypeVar("Found")


def until(condition: Callable[[], Found], what: str, patience_s: float = PATIENCE_S) -> Found:
    """What the condition gives once that is true."""
    deadline = time.monotonic() + patience_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.02)
    return found


class Processor:
    """``python -m processors`` as a process of its own."""

    def __init__(self, settings: Settings, log: Path, *arguments: str) -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "processors", *arguments],
                env={**os.environ, **settings.environment()},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def check(self) -> None:
        """That it runs."""
        assert self.process.poll() is None, self.log.read_text(errors="replace")[-3_000:]

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait()

    def stop(self, number: signal.Signals = signal.SIGTERM, *, within_s: float = 5.0) -> int:
        """End it by a signal; its exit code. Fails if it takes longer."""
        self.check()
        self.process.send_signal(number)
        return self.process.wait(within_s)


class ProcessorLine:
    """One topic, one stream, and what came of them."""

    def __init__(
        self, address: str, name: str, folder: Path, *, partitions: int = 4, grace: str = "2s", idle: str = "10m"
    ) -> None:
        self.address = address
        self.topic, self.stream = f"{name}-in", f"{name}-out"
        declared = DECLARED.format(
            name=name, topic=self.topic, stream=self.stream, partitions=partitions, grace=grace, idle=idle
        )
        self.pipeline: Pipeline = parse(declared)
        self.folder = folder
        (folder / "pipeline.toml").write_text(declared, encoding="utf-8")
        self.settings = Settings(pipeline=folder / "pipeline.toml", broker=address, data=folder / "data")
        self.spec = WindowSpec.of(self.pipeline, self.stream)
        self.arrived: dict[int, list[Reading]] = {n: [] for n in range(partitions)}
        self.sent = 0
        self._producer = Producer(
            {
                **CLIENT,
                "bootstrap.servers": address,
                "enable.idempotence": True,  # else a retry can put readings out of order
                "linger.ms": 5,
                "queue.buffering.max.messages": 1_000_000,
            }
        )
        self._windows: Consumer | None = None
        self._entries: LedgerReader | None = None
        self.said: list[tuple[tuple[str, int], dict[str, Any]]] = []
        """Every result that a reader of committed messages has seen, repeated ones too."""

    def make_topics(self) -> None:
        """Make the topics, as the first service would."""
        ensure_topics(AdminClient({**CLIENT, "bootstrap.servers": self.address}), self.pipeline)

    # ---- in

    def send(self, readings: Iterable[Reading]) -> None:
        """Send readings, a device always into the same partition, and wait until the broker has them."""
        readings = list(readings)
        for reading in readings:
            self.arrived[self.partition_of(reading.device)].append(reading)
        self.send_messages((r.device.encode(), message_of(r), self.partition_of(r.device)) for r in readings)

    def send_messages(self, messages: Iterable[tuple[bytes | None, bytes | None, int]]) -> None:
        """Send keys and values as they are, each to its partition."""
        failed: list[object] = []
        for key, value, partition in messages:
            self._producer.produce(
                self.topic, value, key, partition, on_delivery=lambda error, _: error and failed.append(error)
            )
            self.sent += 1
            if not self.sent % 10_000:
                self._producer.poll(0)
        assert self._producer.flush(PATIENCE_S) == 0
        assert not failed

    def partition_of(self, device: str) -> int:
        """Where a device's readings go: by the number at the end of its name."""
        return int(device.rpartition("-")[2]) % len(self.arrived)

    # ---- the processor

    @contextmanager
    def processor(
        self, *arguments: str, instance: str = "1", guarantee: str = "at-least-once", commit_s: float = 0.2
    ) -> Iterator[Processor]:
        """A processor for as long as it is needed; killed at the end if it still runs."""
        settings = replace(self.settings, instance=instance, guarantee=guarantee)  # type: ignore[arg-type]
        log = self.folder / f"processor-{instance}.log"
        running = Processor(settings, log, "--commit", str(commit_s), *arguments)
        try:
            yield running
        finally:
            running.kill()

    def state(self, instance: str = "1") -> Path:
        """The state folder of an instance."""
        return self.settings.data / "state" / f"processors-{instance}"

    # ---- out

    def expected(self) -> Results:
        """The windows that the readings' own times close, by the plain oracle."""
        closed: Results = {}
        for readings in self.arrived.values():
            oracle = Oracle(self.spec)
            for reading in readings:
                oracle.take(reading)
            assert not closed.keys() & oracle.closed.keys()
            closed |= oracle.closed
        return closed

    def counts(self) -> dict[str, int]:
        """What the ledger must say of the readings."""
        total: dict[str, int] = {}
        for readings in self.arrived.values():
            oracle = Oracle(self.spec)
            for reading in readings:
                oracle.take(reading)
            for name, n in oracle.counts.items():
                total[name] = total.get(name, 0) + n
        return total

    def results(self) -> Results:
        """All windows so far, upserted (at most 10,000 more a call). Fails if two results for a window differ."""
        if self._windows is None:
            self._windows = reader(self.address, **{"isolation.level": "read_committed"})
            if not (found := reaches(self._windows, self.stream)):
                self._windows.close()
                self._windows = None
                return {}
            self._windows.assign([TopicPartition(self.stream, n, 0) for n in found])
        messages = self._windows.consume(10_000, 0.05)
        self.said += [window_of(message) for message in messages if message.error() is None]
        windows: Results = {}
        for key, window in self.said:
            assert windows.setdefault(key, window) == window, f"two results for {key}"
        return windows

    def await_windows(self, processors: Sequence[Processor], wanted: Results | None = None) -> None:
        """Wait until every expected window is there, and see that each is right and none is too many."""
        wanted = self.expected() if wanted is None else wanted

        def all_there() -> bool:
            for processor in processors:
                processor.check()
            return len(self.results()) >= len(wanted)

        until(all_there, "the last window")
        self.drain()
        assert self.results() == wanted

    def drain(self) -> None:
        """Read what there is of windows."""
        before = -1
        while len(self.said) > before:
            before = len(self.said)
            self.results()

    def line(self) -> Line | None:
        """The stream's line of the ledger, as it is now."""
        if self._entries is None:
            self._entries = LedgerReader(reader(self.address, **{"isolation.level": "read_committed"}))
        entries = [entry for entry in self._entries.refresh(1.0) if entry.name == self.stream]
        consumer = reader(self.address)
        try:
            ends = {(self.topic, n): reach.end for n, reach in reaches(consumer, self.topic).items()}
        finally:
            consumer.close()
        lines = add_up(entries, ends)
        return lines[0] if lines else None

    def await_ledger(self, processors: Sequence[Processor]) -> Line:
        """Wait until the ledger reaches to the end of the topic, and see that it adds up."""

        def whole() -> Line | None:
            for processor in processors:
                processor.check()
            line = self.line()
            return line if line is not None and line.messages == self.sent and not line.behind else None

        line = until(whole, "the ledger's end")
        assert line.sound
        return line

    def committed(self) -> dict[int, int]:
        """The group's committed offsets, by partition."""
        consumer = reader(self.address, group=f"{self.pipeline.name}-processors")
        try:
            found = consumer.committed([TopicPartition(self.topic, n) for n in self.arrived], timeout=10)
        finally:
            consumer.close()
        return {where.partition: where.offset for where in found}

    def close(self) -> None:
        """Let go of the readers."""
        if self._windows is not None:
            self._windows.close()
        if self._entries is not None:
            self._entries.close()


def message_of(reading: Reading) -> bytes:
    """A reading as its device would send it."""
    return json.dumps({"device": reading.device, "ts": reading.ts_us // 1_000, **reading.values}).encode()


_time = parser(Time(format="iso8601"))


def window_of(message: Message) -> tuple[tuple[str, int], dict[str, Any]]:
    """A result as (device, start) and its values, without the tags."""
    window: dict[str, Any] = json.loads(message.value())
    device = window.pop("device")
    assert message.key() == device.encode()
    assert (window.pop("room"), window.pop("since")) == (None, None)
    start_us, window["end"] = _time([window.pop("start"), window["end"]]).tolist()
    return (device, start_us), window


def readings(
    devices: int, each: int, *, from_s: float = 0.0, every_ms: int = 100, disorder_ms: int = 1_500
) -> list[Reading]:
    """``each`` readings of every device, in turn, some out of order by less than the grace."""
    made = []
    for n in range(each):
        for device in range(devices):
            late_ms = (n * 7919 + device * 104_729) % disorder_ms if n % 3 else 0
            ts_ms = BASE_MS + round(from_s * 1_000) + n * every_ms - late_ms
            values: Mapping[str, Any] = {
                "current": (n * 31 + device) % 1_000 / 8,
                "energy": n,
                "note": f"n{n}" if n % 5 else None,
            }
            made.append(Reading(f"meter-{device}", ts_ms * 1_000, dict(values)))
    return made


def last_readings(devices: int, at_s: float) -> list[Reading]:
    """One more reading of every device, far enough on to close all windows before."""
    return [
        Reading(f"meter-{n}", (BASE_MS + round(at_s * 1_000)) * 1_000, {"current": 0.0, "energy": 0})
        for n in range(devices)
    ]
