"""A line of one topic and one stream on a broker, for the tests of processors: readings in, windows out, the ledger."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from warm_start import Program
from window_oracle import Oracle, Reading, Results, Where, always

from headrace.errors import StoreUnavailable
from headrace.event_time import parser
from headrace.ledger import NO_MESSAGES, LedgerReader, Line, add_up
from headrace.pipeline import Pipeline, parse
from headrace.pipeline.model import Time
from headrace.pipeline.tables import repartition_topic, stream_topic
from headrace.settings import Settings
from headrace.stores import open_store
from headrace.topics import CLIENT, ONCE_IN_ORDER, Ends, ensure_topics, reaches, reader
from headrace.verify import lines_of
from processors.windows import WindowSpec
from processors.windows.input.groups import group_name

PATIENCE_S = float(os.environ.get("HEADRACE_PATIENCE", "60"))
BASE_MS = 1_704_067_200_000
"""2024-01-01: where the readings of these tests begin, as the broker's own time is always beyond it."""
DECLARED = """
name = "{name}"
[topics.{topic}]
partitions = {partitions}
max_bytes = 600
max_text = 100
tags = {{ room = "text", since = "time" }}
[topics.{topic}.fields]
current = "float"
energy = "int"
door = {{ type = "bool", optional = true }}
note = {{ type = "text", optional = true }}
checked = {{ type = "time", optional = true }}
[streams.{stream}]
from = "{topic}"
window = {{ {window} }}
grace = "{grace}"
idle = "{idle}"
aggregates = {{ {aggregates} }}
"""
TUMBLING = 'kind = "tumbling", size = "10s"'
AGGREGATES = 'current = ["count", "min", "max", "mean"], energy = ["sum", "last"], note = ["first"]'
Found = TypeVar("Found")
Said = tuple[tuple[str, int], dict[str, Any]]
"""A result: the device or group and the start, and what it says."""


class Processor:
    """``python -m processors`` as a process of its own."""

    def __init__(self, settings: Settings, log: Path, *arguments: str) -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = Program(
                "processors", *arguments, env={**os.environ, **settings.environment()}, stdout=output, stderr=output
            )

    def check(self) -> None:
        """That it runs."""
        assert self.process.poll() is None, self.log.read_text(errors="replace")[-3_000:]

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it by a signal; its exit code. Fails if it does not end."""
        self.check()
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


def until(
    condition: Callable[[], Found | None],
    what: str,
    patience_s: float = PATIENCE_S,
    *,
    running: Sequence[Processor] = (),
) -> Found:
    """What the condition gives once that is true; fails when one of the processors has ended."""
    deadline = time.monotonic() + patience_s
    while not (found := condition()):
        for processor in running:
            processor.check()
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.02)
    return found


class ProcessorLine:
    """One topic, one stream, and what came of them."""

    def __init__(  # noqa: PLR0913 - all by name
        self,
        address: str,
        name: str,
        folder: Path,
        *,
        partitions: int = 4,
        grace: str = "2s",
        idle: str = "10m",
        window: str = TUMBLING,
        aggregates: str = AGGREGATES,
        conditions: tuple[Where, Where, Where] = (always, always, always),
        **settings: str,
    ) -> None:
        """``settings``: further keys of the stream, written as in TOML; ``conditions``: its where, start and end."""
        self.address = address
        self.topic, self.stream = f"{name}-in", f"{name}-out"
        self.folder = folder
        self.conditions = conditions
        self._names = {"name": name, "topic": self.topic, "stream": self.stream, "partitions": partitions}
        self._lengths = {"grace": grace, "idle": idle}
        self.settings = Settings(
            pipeline=folder / "pipeline.toml",
            broker=address,
            data=folder / "data",
            store=f"sqlite:///{folder / 'store.db'}",
        )
        self.declare(window=window, aggregates=aggregates, **settings)
        self.arrived: dict[int, list[Reading]] = {n: [] for n in range(partitions)}
        self.everything: list[Reading] = []
        """All readings, in the order in which they were sent."""
        self.sent = 0
        self._rooms: dict[str, set[str | None]] = {}
        """What each device has said of its room."""
        self._producer = Producer(
            {
                **CLIENT,
                "bootstrap.servers": address,
                **ONCE_IN_ORDER,
                "linger.ms": 5,
                "queue.buffering.max.messages": 1_000_000,
            }
        )
        self._windows: Consumer | None = None
        self._entries: LedgerReader | None = None
        self.said: list[Said] = []
        """Every final result that a reader of committed messages has seen, repeated ones too."""
        self.provisional: list[Said] = []
        """And every provisional one."""
        self._final: Results = {}
        self.may_go_back = False
        """Whether a provisional result may follow a final one: after a kill, when all since a commit is said again."""

    def declare(
        self, *, window: str = TUMBLING, aggregates: str = AGGREGATES, grace: str | None = None, **settings: str
    ) -> None:
        """Write the pipeline file, another one than before if the stream is to be declared otherwise."""
        if grace is not None:
            self._lengths["grace"] = grace
        declared = DECLARED.format(**self._names, **self._lengths, window=window, aggregates=aggregates)
        self.write(declared + "".join(f"{key} = {value}\n" for key, value in settings.items()))

    def write(self, declared: str) -> None:
        """Write the pipeline file, as it is to stand there."""
        self.pipeline: Pipeline = parse(declared)
        self.settings.pipeline.write_text(declared, encoding="utf-8")
        self.spec = WindowSpec.of(self.pipeline, self.stream)
        self.repartition = repartition_topic(self.pipeline, self.stream)
        self.key = stream_topic(self.pipeline, self.stream).key

    def make_topics(self) -> None:
        """Make the topics, as the first service would."""
        ensure_topics(AdminClient({**CLIENT, "bootstrap.servers": self.address}), self.pipeline)

    # ---- in

    def send(self, readings: Iterable[Reading]) -> None:
        """Send readings, a device always into the same partition, and wait until the broker has them."""
        readings = list(readings)
        self.everything += readings
        for reading in readings:
            self.arrived[self.partition_of(reading.device)].append(reading)
            self.knows(reading.device, reading.values.get("room"))
        self.send_messages((r.device.encode(), message_of(r), self.partition_of(r.device)) for r in readings)

    def knows(self, device: str, room: str | None) -> None:
        """Note that a device has said this of its room."""
        self._rooms.setdefault(device, {None}).add(room)

    def send_messages(self, messages: Iterable[tuple[bytes | None, bytes | None, int]]) -> None:
        """Send keys and values as they are, each to its partition."""
        failed: list[object] = []

        def note(error: object, _: Message) -> None:
            if error is not None:
                failed.append(error)

        for key, value, partition in messages:
            self._producer.produce(self.topic, value, key, partition, on_delivery=note)
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

    def oracles(self) -> list[Oracle]:
        """What the plain oracle makes of the readings: of each partition, or of all where groups span them."""
        oracles = []
        for readings in self.arrived.values() if self.repartition is None else [self.everything]:
            oracles.append(Oracle(self.spec, *self.conditions))
            for reading in readings:
                oracles[-1].take(reading)
        return oracles

    def expected(self) -> Results:
        """The windows that the readings' own times close, by the plain oracle."""
        closed: Results = {}
        for oracle in self.oracles():
            assert not closed.keys() & oracle.closed.keys()
            closed |= oracle.closed
        return closed

    def counts(self) -> dict[str, int]:
        """What the ledger must say of the readings."""
        total: dict[str, int] = {}
        for oracle in self.oracles():
            for name, n in oracle.counts.items():
                total[name] = total.get(name, 0) + n
        return total

    def results(self) -> Results:
        """All final windows so far, upserted (at most 10,000 messages more a call). Fails if two for one differ."""
        if self._windows is None:
            self._windows = reader(self.address, **{"isolation.level": "read_committed"})
            if not (found := reaches(self._windows, self.stream)):
                self._windows.close()
                self._windows = None
                return {}
            self._windows.assign([TopicPartition(self.stream, n, 0) for n in found])
        for message in self._windows.consume(10_000, 0.05):
            if message.error() is not None:
                continue
            for key, window in self.windows_of(message):
                (self.said if window["final"] else self.provisional).append((key, window))
                if window["final"]:
                    assert self._final.setdefault(key, window) == window, f"two results for {key}"
                else:
                    assert key not in self._final or self.may_go_back, f"{key} is provisional after its final result"
        return self._final

    def look_away(self) -> None:
        """Forget the results so far: what comes now is of a stream that is declared otherwise, or begins again."""
        self.drain()
        self.said.clear()
        self.provisional.clear()
        self._final.clear()

    def windows_of(self, message: Message) -> Iterator[Said]:
        """A message's results, each as ((device or group, start), values); the tags are looked at, and left out."""
        said: dict[str, Any] = json.loads(message.value())
        rows = [said]
        if isinstance(said[self.key], list):
            rows = [dict(zip(said, values, strict=True)) for values in zip(*said.values(), strict=True)]
        for window in rows:
            name = window.pop(self.key)
            assert message.key() == name.encode()
            if self.spec.by is None:
                assert window.pop("room") in self._rooms.get(name, {None})
                assert window.pop("since") is None
            else:
                assert group_name([window.pop(part) for part in self.spec.by]) == name
            start_us, window["end"] = _time([window.pop("start"), window["end"]]).tolist()
            yield (name, start_us), window

    def await_windows(self, processors: Sequence[Processor], wanted: Results | None = None) -> None:
        """Wait until every expected window is there, and see that each is right and none is too many."""
        wanted = self.expected() if wanted is None else wanted

        def all_there() -> bool:
            for processor in processors:
                processor.check()
            return len(self.results()) >= len(wanted)

        until(all_there, "the last window")
        self.drain()
        assert_alike(self.results(), wanted)

    def await_more(self, processor: Processor) -> None:
        """Wait until there are more windows than there were."""
        self.drain()
        before = len(self.results())
        until(lambda: len(self.results()) > before, "a window", running=[processor])

    def drain(self) -> None:
        """Read what there is of windows."""
        before = -1
        while len(self.said) + len(self.provisional) > before:
            before = len(self.said) + len(self.provisional)
            self.results()

    def lines(self, stream: str = "") -> dict[str, Line]:
        """A stream's lines of the ledger, as they are now, by topic: one, or two where groups span partitions."""
        if self._entries is None:
            self._entries = LedgerReader(reader(self.address, **{"isolation.level": "read_committed"}), self.pipeline)
        entries = [entry for entry in self._entries.refresh(1.0) if entry.name == (stream or self.stream)]
        consumer = reader(self.address)
        try:
            ends = {
                (topic, n): reach.end
                for topic in {entry.topic for entry in entries}
                for n, reach in reaches(consumer, topic).items()
            }
        finally:
            consumer.close()
        return {line.topic: line for line in add_up(entries, ends)}

    def line(self) -> Line | None:
        """The stream's line of the ledger over its own topic, as it is now."""
        return self.lines().get(self.topic)

    def await_ledger(self, processors: Sequence[Processor]) -> Line:
        """Wait until the ledger reaches to the end of the topic, and see that it adds up."""

        def whole() -> Line | None:
            for processor in processors:
                processor.check()
            line = self.line()
            read = 0 if line is None else line.messages + sum(line.counts.get(name, 0) for name in NO_MESSAGES)
            return line if line is not None and read == self.sent and not line.behind else None

        line = until(whole, "the ledger's end")
        assert line.sound
        return line

    def await_both_lines(self, processors: Sequence[Processor], in_closed: int) -> tuple[Line, Line]:
        """Wait until the ledger says that so many readings are in closed groups, and see that both lines add up."""
        first = self.await_ledger(processors)
        assert self.repartition is not None

        def all_closed() -> Line | None:
            for processor in processors:
                processor.check()
            second = self.lines().get(self.repartition or "")
            return second if second is not None and second.counts["in_closed"] >= in_closed else None

        second = until(all_closed, "the second line of the ledger")
        assert second.counts["in_closed"] == in_closed
        assert second.sound
        return first, second

    @property
    def group(self) -> str:
        """The processors' consumer group."""
        return f"{self.pipeline.name}-processors"

    def committed(self) -> dict[int, int]:
        """The group's committed offsets, by partition; {} before there is a group, and while they are in the air.

        That is while a member's transaction is open: if it is suspended, until the broker ends the transaction.
        """
        consumer = reader(self.address, group=self.group)
        try:
            found = consumer.committed([TopicPartition(self.topic, n) for n in self.arrived], timeout=10)
        except KafkaException as error:
            assert error.args[0].code() in (KafkaError.GROUP_ID_NOT_FOUND, KafkaError._TIMED_OUT)
            return {}
        finally:
            consumer.close()
        return {where.partition: where.offset for where in found}

    def ends(self) -> dict[tuple[str, int], int]:
        """Where every partition ends of every topic of the line, changelogs and the ledger too."""
        consumer = reader(self.address)
        try:
            topics = [topic for topic in consumer.list_topics(timeout=10).topics if self.pipeline.name in topic]
            return {(topic, n): reach.end for topic in topics for n, reach in reaches(consumer, topic).items()}
        finally:
            consumer.close()

    def close(self) -> None:
        """Let go of the readers."""
        if self._windows is not None:
            self._windows.close()
        if self._entries is not None:
            self._entries.close()


MakeLine = Callable[..., ProcessorLine]


@contextmanager
def making_lines(name: str, folder: Path, **common: Any) -> Iterator[MakeLine]:
    """Makes a line on a broker (and its topics) from its address and settings; its readers are closed at the end."""
    made: list[ProcessorLine] = []

    def make(address: str, **settings: Any) -> ProcessorLine:
        made.append(ProcessorLine(address, name, folder, **{**common, **settings}))
        made[-1].make_topics()
        return made[-1]

    try:
        yield make
    finally:
        for line in made:
            line.close()


def fill_the_store(line: ProcessorLine) -> None:
    """Run the sinks until they have read everything."""
    with (line.folder / "sinks.log").open("ab") as log:
        environment = {**os.environ, **line.settings.environment()}
        sinks = Program("sinks", "--commit", "0.2", env=environment, stdout=log, stderr=log)
    consumer, entries = reader(line.address), LedgerReader(reader(line.address), line.pipeline)

    def all_read() -> bool:
        assert sinks.poll() is None, (line.folder / "sinks.log").read_text()[-3_000:]
        try:
            store = open_store(line.settings.store, readonly=True)
        except StoreUnavailable:
            return False
        try:
            read = {
                found.topic: found
                for found in lines_of(Ends(consumer), line.pipeline, entries, store)
                if found.stage == "sinks"
            }
        except StoreUnavailable:
            return False
        finally:
            store.close()
        wanted = {line.topic: line.sent, line.stream: len(line.results())}
        return all(name in read and read[name].messages >= n and not read[name].behind for name, n in wanted.items())

    try:
        until(all_read, "the rows in the store")
        sinks.terminate()
        assert sinks.wait(PATIENCE_S) == 0
    finally:
        sinks.kill()
        sinks.wait()
        entries.close()
        consumer.close()


def message_of(reading: Reading) -> bytes:
    """A reading as its device would send it."""
    return json.dumps({"device": reading.device, "ts": reading.ts_us // 1_000, **reading.values}).encode()


_time = parser(Time(format="iso8601"))


def assert_alike(found: Results, wanted: Results) -> None:
    """That windows are the same, but for how floats were rounded. Fails with the first few that are not."""
    lacking, too_many = wanted.keys() - found.keys(), found.keys() - wanted.keys()
    assert not lacking, f"{len(lacking)} windows lack, as {sorted(lacking)[:3]}"
    assert not too_many, f"{len(too_many)} windows too many, as {[(key, found[key]) for key in sorted(too_many)[:3]]}"
    other = [(key, found[key], wanted[key]) for key in wanted if not _alike(found[key], wanted[key])]
    assert not other, f"{len(other)} windows differ, as {other[:3]}"


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        math.isclose(value, other[name], rel_tol=1e-9, abs_tol=1e-9)
        if isinstance(value, float) and isinstance(other[name], float)
        else value == other[name]
        for name, value in one.items()
    )


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


def rooms(devices: int, each: int, *, from_s: float = 0.0, silent: tuple[int, ...] = ()) -> list[Reading]:
    """Readings in rooms; now and then none for a while, some out of order by less than a second, some repeated.

    Two devices never send at one time, so the order of all is plain. ``silent``: devices that send nothing.
    """
    made: list[Reading] = []
    for n in range(each):
        for device in range(devices):
            if device in silent:
                continue
            pauses = n // 40
            disorder_ms = (n * 7919) % 9 * 100 if n % 3 else 0
            ts_ms = BASE_MS + round(from_s * 1_000) + n * 100 + pauses * 2_000 - disorder_ms + device
            values: dict[str, Any] = {
                "current": (n * 31 + device) % 1_000 / 8,
                "energy": n,
                "note": f"n{n % 7}" if n % 5 else None,
                "room": ("hall", "attic", None)[device % 3],
            }
            made.append(Reading(f"meter-{device}", ts_ms * 1_000, values))
        if n % 13 == 0:
            made.append(made[-1])
    return made


def last_readings(devices: int, at_s: float) -> list[Reading]:
    """One more reading of every device, far enough on to close all windows before."""
    return [
        Reading(f"meter-{n}", (BASE_MS + round(at_s * 1_000)) * 1_000, {"current": 0.0, "energy": 0})
        for n in range(devices)
    ]
