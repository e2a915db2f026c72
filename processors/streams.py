"""The streams of one topic on the micro-batch runtime: messages in, results and ledger entries out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from headrace import ledger
from headrace.errors import StateError
from headrace.pipeline import Pipeline
from headrace.pipeline.tables import ledger_topic, repartition_topic
from headrace.runtime import FencedState, MicroBatch, MicroBatchApplication, Outgoing, Passed
from headrace.wire import Decoder, Refused
from processors.repartition import Repartition, read_parts
from processors.results import Results
from processors.windows import WindowOperator, WindowSpec
from processors.windows.repartition.local import Local
from processors.windows.repartition.merged import Merged
from processors.windows.stage import Stage
from processors.windows.state import changed_pieces, forget_written, restore_into
from processors.windows.time.watermark import NEVER

LEDGER_EVERY_MS = 500
"""How often a partition's counts are published while readings flow; and once more when it falls silent."""

CHUNK_READINGS = 10_000
"""About so many readings are taken at a time."""


Kind = TypeVar("Kind", bound=Stage)


@dataclass
class Open(Generic[Kind]):
    """A stream over one assigned partition: its windows and the next offset they await."""

    stage: Kind
    next_offset: int
    dirty: bool = False
    published_ms: int = 0
    published: int = field(default=-1)
    """the next offset that the last published counts reach to"""


class Streams(ABC, Generic[Kind]):
    """Streams that read one topic: their state, and their part of the ledger."""

    def __init__(self, app: MicroBatchApplication, pipeline: Pipeline, topic: str, *, reset: bool) -> None:
        self._app = app
        self._ledger = ledger_topic(pipeline)
        self._topic = topic
        self._reset = reset
        self._started_over: set[int] = set()
        self._open: dict[int, dict[str, Open[Kind]]] = {}
        self._states: dict[int, FencedState] = {}
        app.before_commit(self.save)
        app.on_gone(self.forget)
        app.batches(topic).update(self._update, stateful=True, metadata=True)

    @abstractmethod
    def fresh(self) -> dict[str, Kind]:
        """The windows of each stream over a partition, before any message."""

    @abstractmethod
    def process(self, batch: MicroBatch, streams: dict[str, Open[Kind]]) -> Iterator[Outgoing]:
        """What a micro-batch of a partition brings, but for the ledger entries."""

    def _update(self, batch: MicroBatch, _key: Any, _timestamp: int, _headers: Any, _state: Any) -> None:
        streams = self._open.get(batch.partition)
        if streams is None:
            streams = self._open[batch.partition] = self._opened(batch.partition)
            awaited = min((opened.next_offset for opened in streams.values() if opened.next_offset >= 0), default=-1)
            if 0 <= awaited < batch.first_offset:
                # The state is the truth: what the group has committed beyond it, the state has not seen.
                self._app.rewind(self._topic, batch.partition, awaited)
                return
        outgoing = list(self.process(batch, streams))
        for name, opened in streams.items():
            self._publish(name, opened, batch, outgoing)
        self._app.produce(outgoing)

    def _cover(
        self, opened: Open[Kind], batch: MicroBatch, messages: int, refused: Sequence[Refused], tombstones: int = 0
    ) -> None:
        """Count the messages, and which offsets carried none, up to the end of a batch."""
        counts, since = opened.stage.counts, opened.next_offset
        if since < 0:
            since = 0
            if counts.get(ledger.STARTED_OVER):
                counts[ledger.SKIPPED] = since = batch.seen_from
        passed = self._app.passed(batch, since) if since < batch.next_offset else Passed()
        ledger.count_messages(
            counts, messages, refused, tombstones=tombstones, gaps=passed.empty, expired=passed.expired
        )
        opened.next_offset = max(opened.next_offset, batch.next_offset)

    def _publish(self, name: str, opened: Open[Kind], batch: MicroBatch, outgoing: list[Outgoing]) -> None:
        """Publish the counts, now and then while readings flow, and all of them when the partition is silent."""
        closed = opened.stage.counts["closed"] + opened.next_offset
        due = batch.idle or batch.polled_ms - opened.published_ms >= LEDGER_EVERY_MS
        if not due or closed == opened.published:
            return
        opened.published, opened.published_ms = closed, batch.polled_ms
        if batch.idle:
            # A checkpoint of no offsets and no state is none: exactly-once would take the entry back.
            opened.dirty = True
        stage = opened.stage
        entry = ledger.Entry(
            stage="processors",
            name=name,
            topic=self._topic,
            partition=batch.partition,
            next_offset=max(opened.next_offset, 0),
            counts={**stage.counts, **stage.gauges},
            watermark_us=None if stage.intake.clocks.clock_us == NEVER else stage.intake.clocks.partition_us,
            epoch=self._states[batch.partition].epoch,
        )
        outgoing.append(Outgoing(self._ledger, entry.key, ledger.encode(entry), batch.polled_ms))

    def _opened(self, partition: int) -> dict[str, Open[Kind]]:
        """The streams over a partition that is ours since just now, as its last owner left them, or started over."""
        state = self._states[partition] = self._app.state(self._topic, partition)
        return {name: self._restored(name, stage, partition, state) for name, stage in self.fresh().items()}

    def _restored(self, name: str, stage: Kind, partition: int, state: FencedState) -> Open[Kind]:
        if self._reset and partition not in self._started_over:
            stage.counts[ledger.STARTED_OVER] = 1
            return Open(stage, -1)
        next_offset = restore_into(stage, lambda piece: state.get(f"{name}/{piece}"))
        forget_written(stage)
        if next_offset < 0 <= state.next_offset:
            # The stream is new to this partition: it begins where the others, or the group, go on.
            stage.counts[ledger.STARTED_OVER] = 1
        if next_offset > (end := self._app.end_offset(self._topic, partition)):
            raise StateError(
                f"the state of stream {name} awaits offset {next_offset} of {self._topic}[{partition}], which ends"
                f" at {end}: it was made on another broker, or the topic is a new one",
                hint="start over with --reset-state, or name another folder with --data",
            )
        return Open(stage, next_offset)

    def save(self) -> None:
        """Write the pieces of state that have changed since the last checkpoint."""
        self._finish_reset()
        self._started_over.update(self._open)
        for partition, streams in self._open.items():
            if any(opened.dirty for opened in streams.values()):
                reached = max(opened.next_offset for opened in streams.values())
                self._states[partition].write(self._changes(streams), reached)

    def _changes(self, streams: dict[str, Open[Kind]]) -> Iterator[tuple[str, bytes | None]]:
        # All streams that have anything unwritten: the first checkpoint of an owner holds the state of every one.
        for name, opened in streams.items():
            for piece, value in changed_pieces(opened.stage, opened.next_offset):
                yield f"{name}/{piece}", value
            opened.dirty = False

    def _finish_reset(self) -> None:
        """Start all partitions over in the first checkpoint, so that none goes on from what the others have let go of.

        From then on their state is what was made since, whoever gets them and gives them back.
        """
        if not self._reset or not (assigned := self._app.assigned(self._topic)):
            return
        for partition in assigned:
            if partition not in self._open:
                self._open[partition] = self._opened(partition)
            for opened in self._open[partition].values():
                opened.dirty = True
        self._reset = False

    def forget(self, partitions: set[tuple[str, int]]) -> None:
        """Let go of partitions that are another's now; their state is in the changelog."""
        for topic, partition in partitions:
            if topic == self._topic:
                self._open.pop(partition, None)
                self._states.pop(partition, None)


class TopicStreams(Streams[WindowOperator | Local]):
    """All streams that read one topic of readings. Its messages are decoded once for all of them."""

    def __init__(
        self, app: MicroBatchApplication, pipeline: Pipeline, topic: str, streams: Sequence[str], *, reset: bool = False
    ) -> None:
        self._decoder = Decoder(pipeline.topics[topic])
        self._messages = CHUNK_READINGS
        self._specs = {name: WindowSpec.of(pipeline, name) for name in streams}
        self._results = {name: Results(pipeline, name, app.limits) for name in streams}
        self._repartitions = {
            name: Repartition(app, topic, target)
            for name in streams
            if (target := repartition_topic(pipeline, name)) is not None
        }
        super().__init__(app, pipeline, topic, reset=reset)

    def fresh(self) -> dict[str, WindowOperator | Local]:
        """The windows of each stream; of groups that span partitions, this partition's part of them."""
        return {
            name: Local(spec) if name in self._repartitions else WindowOperator(spec)
            for name, spec in self._specs.items()
        }

    def process(self, batch: MicroBatch, streams: dict[str, Open[WindowOperator | Local]]) -> Iterator[Outgoing]:
        """The results of a micro-batch, its late readings, and what is forwarded."""
        now_us = batch.polled_ms * 1_000
        if batch.idle:
            for name, opened in streams.items():
                outcome = opened.stage.tick(now_us)
                opened.dirty = opened.dirty or outcome.results is not None or opened.next_offset < batch.next_offset
                self._cover(opened, batch, 0, ())
                yield from self._results[name].messages(outcome, batch.polled_ms, opened.stage.counts)
        else:
            # A state can only be ahead of the offsets when it was committed and they were not: what it has
            # seen already is left out.
            fresh = batch.since(min(opened.next_offset for opened in streams.values()))
            for chunk in fresh.chunks(self._messages):
                yield from self._take(chunk, streams)
        for name, repartition in self._repartitions.items():
            local = streams[name].stage
            assert isinstance(local, Local)  # noqa: S101 - made by fresh()
            local.since = batch.first_offset if local.since < 0 else local.since
            forwarded = list(repartition.messages(local, batch))
            streams[name].dirty = streams[name].dirty or bool(forwarded)
            yield from forwarded

    def _take(self, batch: MicroBatch, streams: dict[str, Open[WindowOperator | Local]]) -> Iterator[Outgoing]:
        decoded = self._decoder.decode(batch.values, batch)
        # Messages of many readings are taken so many at a time that their columns fit into the cache.
        self._messages = max(1, CHUNK_READINGS * len(batch) // max(len(decoded.batch), 1))
        for name, opened in streams.items():
            own, refused, tombstones, of_stream = decoded.batch, decoded.refused, decoded.tombstones, batch
            if opened.next_offset > batch.first_offset and len(batch):
                of_stream = batch.since(opened.next_offset)
                again = self._decoder.decode(of_stream.values, of_stream)
                own, refused, tombstones = again.batch, again.refused, again.tombstones
            self._cover(opened, batch, len(of_stream), refused, tombstones)
            outcome = opened.stage.add(own, batch.polled_ms * 1_000)
            opened.dirty = True
            yield from self._results[name].messages(outcome, batch.polled_ms, opened.stage.counts)


class MergedStream(Streams[Merged]):
    """The second stage of a stream whose groups span partitions: it reads the stream's repartition topic."""

    def __init__(self, app: MicroBatchApplication, pipeline: Pipeline, name: str, *, reset: bool = False) -> None:
        topic = repartition_topic(pipeline, name)
        assert topic is not None  # noqa: S101 - only asked for streams that have one
        self._name, self._source = name, pipeline.streams[name].source
        self._spec = WindowSpec.of(pipeline, name)
        self._results = Results(pipeline, name, app.limits)
        super().__init__(app, pipeline, topic, reset=reset)

    def fresh(self) -> dict[str, Merged]:
        """The stream's windows."""
        merged = Merged(self._spec)
        merged.clocks.any_unread = lambda source, since: self._app.end_offset(self._source, source) > since
        return {self._name: merged}

    def process(self, batch: MicroBatch, streams: dict[str, Open[Merged]]) -> Iterator[Outgoing]:
        """The results of what the partitions have forwarded."""
        opened, now_us = streams[self._name], batch.polled_ms * 1_000
        merged = opened.stage
        if batch.idle:
            opened.dirty = opened.dirty or opened.next_offset < batch.next_offset
            self._cover(opened, batch, 0, ())
            yield from self._results.messages(merged.tick(now_us), batch.polled_ms, merged.counts)
            return
        fresh = batch.since(opened.next_offset)
        parts, refused = read_parts(fresh, self._spec.digest)
        self._cover(opened, batch, len(fresh), refused)
        opened.dirty = True
        for part in parts:
            yield from self._results.messages(merged.take(part, now_us), batch.polled_ms, merged.counts)
