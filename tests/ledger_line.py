"""A line in this process, on a real broker and a real store, whose stages can be broken at their joints.

The stages are the real ones on the real runtime. One topic of readings, filled once in transactions, so that there are
gaps, with repeats, late readings, dead letters and tombstones; every broken line reads it as a line of its own.
"""

from __future__ import annotations

import itertools
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from processor_line import BASE_MS, PATIENCE_S

from headrace import ledger
from headrace.ledger import Entry, LedgerReader
from headrace.pipeline import Pipeline, all_tables, all_topics, parse
from headrace.pipeline.tables import DLQ_SUFFIX, ledger_topic
from headrace.runtime import Consumption, MicroBatchApplication
from headrace.stores import Store, open_store
from headrace.topics import CLIENT, ensure_topics, reaches, reader
from headrace.verify import Verdict, verify
from headrace.verify.recount import messages_of
from processors.streams import TopicStreams
from sinks.tables import TableSink

PARTITIONS = 2
DEVICES = 6
BATCH = 60
DECLARED = """
name = "{name}"
[topics.{topic}]
partitions = 2
[topics.{topic}.fields]
current = "float"
[streams.{name}-windows]
from = "{topic}"
window = {{ kind = "tumbling", size = "10s" }}
grace = "2s"
idle = "10m"
aggregates = {{ current = ["mean"] }}
"""


@dataclass
class Stage:
    """An application with its stages, before it runs."""

    line: MutableLine
    pipeline: Pipeline
    file: Path
    app: MicroBatchApplication
    sink: TableSink
    store: Store
    streams: TopicStreams | None
    struck: bool = False
    """whether what was planted has happened"""

    def change_result(
        self, owner: Any, method: str, change: Callable[..., Any], *, nth: int = 0, always: bool = False
    ) -> None:
        """Let ``change(result, *arguments)`` change what a method gives, the n-th time that it gives not None."""
        real, left = getattr(owner, method), itertools.count()

        def changed(*arguments: Any, **named: Any) -> Any:
            result = real(*arguments, **named)
            other = change(result, *arguments)
            if other is None or not (next(left) == nth or (always and self.struck)):
                return result
            self.struck = True
            return other

        setattr(owner, method, changed)

    def change_call(
        self,
        owner: Any,
        method: str,
        change: Callable[..., Any],
        *,
        nth: int = 0,
        when: Callable[..., bool] = lambda *_: True,
        always: bool = False,
    ) -> None:
        """Let ``change(real, *arguments)`` stand for the n-th call of a method with such arguments."""
        real, left = getattr(owner, method), itertools.count()

        def changed(*arguments: Any, **named: Any) -> Any:
            if when(*arguments) and (next(left) == nth or (always and self.struck)):
                self.struck = True
                return change(real, *arguments, **named)
            return real(*arguments, **named)

        setattr(owner, method, changed)


Plant = Callable[[Stage], None]


@dataclass
class MutableLine:
    """The topic, the lines that have read it soundly, and a way to run broken ones."""

    address: str
    topic: str
    folder: Path
    names: Iterator[str] = field(init=False)

    def __post_init__(self) -> None:
        self.names = (f"{self.topic}-{n}" for n in itertools.count())
        self.admin = AdminClient({**CLIENT, "bootstrap.servers": self.address})
        self.pipeline = self.declared()
        ensure_topics(self.admin, self.pipeline)
        fill(self.address, self.topic)

    def declared(self) -> Pipeline:
        """A pipeline of its own name over the topic."""
        return parse(DECLARED.format(name=next(self.names), topic=self.topic))

    # ---- runs

    def run_both(self, plant: Plant | None = None, *, runs: int = 1) -> tuple[Pipeline, Path, bool]:
        """Run processors on the topic, and sinks on their results, to the end of both.

        The store is a copy of the sound one, so that it has the readings. What is planted breaks the first run only.
        """
        pipeline, file = self.declared(), self.folder / f"{next(self.names)}.db"
        shutil.copy(self.sound_store(), file)
        ensure_topics(self.admin, pipeline)
        self._take_over_letters(pipeline)
        results = {name: topic for name, topic in all_topics(pipeline).items() if name != self.topic}
        struck = False
        for run in range(runs):
            with self._application(pipeline, file, f"{pipeline.name}-both") as (app, store):
                sink = TableSink(app, store, results, all_tables(pipeline), line=pipeline.name)
                streams = TopicStreams(app, pipeline, self.topic, list(pipeline.streams))
                stage = Stage(self, pipeline, file, app, sink, store, streams)
                if plant is not None and run == 0:
                    plant(stage)
                self._to_the_end(app)
                struck = struck or stage.struck
        return pipeline, file, struck

    def run_sinks(self, plant: Plant | None = None) -> tuple[Pipeline, Path, bool]:
        """Run sinks on the topic and on the results of the sound line, to the end of both, into a new store.

        They are a line of another name: the sound one's processors are taken for its own.
        """
        pipeline = msgspec.structs.replace(self.pipeline, name=next(self.names))
        file = self.folder / f"{pipeline.name}.db"
        ensure_topics(self.admin, pipeline)
        for entry in self.entries():
            self._publish(pipeline, entry.key, ledger.encode(entry))
        with self._application(pipeline, file, pipeline.name) as (app, store):
            sink = TableSink(app, store, all_topics(pipeline), all_tables(pipeline), line=pipeline.name)
            stage = Stage(self, pipeline, file, app, sink, store, None)
            if plant is not None:
                plant(stage)
            self._to_the_end(app)
        return pipeline, file, stage.struck

    def sound_store(self) -> Path:
        """The store of the sound line; the line is run when it is first asked for."""
        file = self.folder / "sound.db"
        if not file.exists():
            with self._application(self.pipeline, file, f"{self.topic}-raw") as (app, store):
                raw = {self.topic: self.pipeline.topics[self.topic]}
                TableSink(app, store, raw, all_tables(self.pipeline), line=self.pipeline.name)
                self._to_the_end(app)
            results = {name: topic for name, topic in all_topics(self.pipeline).items() if name != self.topic}
            with self._application(self.pipeline, file, f"{self.topic}-results") as (app, store):
                TableSink(app, store, results, all_tables(self.pipeline), line=self.pipeline.name)
                TopicStreams(app, self.pipeline, self.topic, list(self.pipeline.streams))
                self._to_the_end(app)
        return file

    @contextmanager
    def _application(self, pipeline: Pipeline, file: Path, group: str) -> Iterator[tuple[MicroBatchApplication, Store]]:
        store = open_store(f"sqlite:///{file}")
        store.prepare(list(all_tables(pipeline).values()), pipeline.store.retention)
        app = MicroBatchApplication(
            broker=self.address,
            group=group,
            instance="1",
            state=self.folder / "state" / group,
            consumes=Consumption(BATCH, commit_s=0.1),
            silent_s=0.02,
        )
        try:
            yield app, store
        finally:
            app.flush(PATIENCE_S)
            store.close()

    def _to_the_end(self, app: MicroBatchApplication) -> None:
        """Run until every partition is at its end, with nothing under way, and has been said to be silent there."""
        consumer: Any = app.consumer
        ends, deadline = reader(self.address), time.monotonic() + PATIENCE_S

        def look() -> None:
            assert time.monotonic() < deadline, "the end of the topics never came"
            silent = consumer._ends
            if not consumer.assigned or silent.keys() != consumer.assigned:
                return
            if any(silence.said is None for silence in silent.values()):
                return
            app.flush(PATIENCE_S)
            if all(reaches(ends, topic)[n].end == silence.end for (topic, n), silence in silent.items()):
                app.stop()

        app.on_quiet(look)
        try:
            app.run()
        finally:
            ends.close()

    def _take_over_letters(self, pipeline: Pipeline) -> None:
        """Write the dead letters of the sound line's readings for another line too, as it takes over its store."""
        consumer, producer = reader(self.address), Producer({**CLIENT, "bootstrap.servers": self.address})
        for letters in list(messages_of(consumer, dlq := self.topic + DLQ_SUFFIX)):
            for letter in letters:
                headers: dict[str, Any] = dict(letter.headers() or ())
                if headers["line"] == self.pipeline.name.encode():
                    said = {**headers, "line": pipeline.name.encode()}
                    producer.produce(dlq, letter.value(), letter.key(), headers=list(said.items()))
        assert producer.flush(PATIENCE_S) == 0
        consumer.close()

    # ---- verdicts

    def verdict(self, pipeline: Pipeline, file: Path, *, drained: bool = True) -> Verdict:
        """What is found, by default when nothing may wait any more."""
        hurried = {"fetch.wait.max.ms": 20}
        consumer = reader(self.address, **hurried)
        entries = LedgerReader(reader(self.address, **hurried), pipeline)
        store = open_store(f"sqlite:///{file}", readonly=True)
        try:
            return verify(consumer, pipeline, entries, store, drained=drained)
        finally:
            store.close()
            entries.close()
            consumer.close()

    @contextmanager
    def tampered(self, partition: int, change: Callable[[Entry], Entry | None]) -> Iterator[None]:
        """The sound line's ledger, with one entry of its processors changed (or deleted) for a while."""
        [entry] = [entry for entry in self.entries() if entry.partition == partition]
        changed = change(entry)
        self._publish(self.pipeline, entry.key, None if changed is None else ledger.encode(changed))
        try:
            yield
        finally:
            self._publish(self.pipeline, entry.key, ledger.encode(entry))

    def entries(self) -> list[Entry]:
        """What the sound line's processors have counted."""
        self.sound_store()
        entries = LedgerReader(reader(self.address), self.pipeline)
        try:
            return entries.refresh()
        finally:
            entries.close()

    def _publish(self, pipeline: Pipeline, key: bytes, value: bytes | None) -> None:
        producer = Producer({**CLIENT, "bootstrap.servers": self.address})
        producer.produce(ledger_topic(pipeline), value, key)
        assert producer.flush(PATIENCE_S) == 0


def fill(address: str, topic: str) -> None:
    """Fill the topic, in two transactions a partition."""
    producer = Producer({**CLIENT, "bootstrap.servers": address, "transactional.id": topic})
    producer.init_transactions(PATIENCE_S)
    for half in range(2):
        producer.begin_transaction()
        for n in range(half * 120, half * 120 + 120):
            for device in range(DEVICES):
                late_ms = 30_000 if n % 50 == 49 else 0
                reading = {"device": f"meter-{device}", "ts": BASE_MS + n * 250 - late_ms, "current": n % 7}
                value = json.dumps(reading).encode()
                for _ in range(2 if n % 40 == 5 else 1):
                    producer.produce(topic, value, f"meter-{device}", device % PARTITIONS)
            if n % 30 == 3:
                for partition in range(PARTITIONS):
                    producer.produce(topic, b"{", b"meter-0", partition)
                    producer.produce(topic, None, b"meter-0", partition)
        if half:
            for device in range(DEVICES):
                last = {"device": f"meter-{device}", "ts": BASE_MS + 120_000, "current": 0}
                producer.produce(topic, json.dumps(last).encode(), f"meter-{device}", device % PARTITIONS)
        producer.commit_transaction(PATIENCE_S)


def copied(line: MutableLine) -> Path:
    """A copy of the sound line's store."""
    file = line.folder / f"{next(line.names)}.db"
    shutil.copy(line.sound_store(), file)
    return file
