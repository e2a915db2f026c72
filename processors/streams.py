"""The streams of one topic on the micro-batch runtime: messages in, results and ledger entries out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from headrace import ledger
from headrace.batch import Batch
from headrace.errors import StateError
from headrace.pipeline import Pipeline, into, stream_topic
from headrace.pipeline.tables import LEDGER_TOPIC
from headrace.runtime import MicroBatch, MicroBatchApplication, Outgoing
from headrace.wire import Decoder, Encoder, Refused
from processors.windows import Windowed, WindowSpec
from processors.windows.state import changed_pieces, restore
from processors.windows.watermark import NEVER

LEDGER_EVERY_MS = 500
"""How often a partition's counts are published while readings flow; and once more when it falls silent."""


@dataclass
class Open:
    """A stream over one assigned partition: its windows and the next offset they await."""

    windowed: Windowed
    next_offset: int
    dirty: bool = False
    published_ms: int = 0
    published: int = field(default=-1)
    """the next offset that the last published counts reach to"""


class TopicStreams:
    """All streams that read one topic. Its messages are decoded once for all of them."""

    def __init__(
        self, app: MicroBatchApplication, pipeline: Pipeline, topic: str, streams: Sequence[str], *, reset: bool = False
    ) -> None:
        self._app = app
        self._topic = topic
        self._decoder = Decoder(pipeline.topics[topic])
        self._specs = {name: WindowSpec.of(pipeline, name) for name in streams}
        self._into = {name: into(pipeline, name) for name in streams}
        self._encoders = {name: Encoder(stream_topic(pipeline, name)) for name in streams}
        self._reset = reset
        self._open: dict[int, dict[str, Open]] = {}
        app.before_commit(self.save)
        app.on_gone(self.forget)
        app.batches(topic).update(self._update, stateful=True, metadata=True)

    def _update(self, batch: MicroBatch, _key: Any, _timestamp: int, _headers: Any, state: Any) -> None:
        streams = self._open.get(batch.partition)
        if streams is None:
            streams = self._open[batch.partition] = {
                name: self._restore(name, batch.partition, state) for name in self._specs
            }
        self._app.produce(self.process(batch, streams))

    def process(self, batch: MicroBatch, streams: dict[str, Open]) -> list[Outgoing]:
        """The results and ledger entries that a micro-batch of a partition brings."""
        outgoing: list[Outgoing] = []
        now_us = batch.polled_ms * 1_000
        if batch.idle:
            for name, opened in streams.items():
                outcome = opened.windowed.tick(now_us)
                opened.dirty = opened.dirty or outcome.results is not None or opened.next_offset < batch.next_offset
                self._cover(opened, batch, 0, ())
                self._emit(name, outcome.results, batch, outgoing)
        else:
            # A state can only be ahead of the offsets when it was committed and they were not: what it has
            # seen already is left out.
            ahead = min(opened.next_offset for opened in streams.values())
            fresh = batch.since(ahead)
            decoded = self._decoder.decode(fresh.values, fresh)
            for name, opened in streams.items():
                own, refused = decoded.batch, decoded.refused
                of_stream = fresh
                if opened.next_offset > fresh.first_offset and len(fresh):
                    of_stream = fresh.since(opened.next_offset)
                    again = self._decoder.decode(of_stream.values, of_stream)
                    own, refused = again.batch, again.refused
                self._cover(opened, batch, len(of_stream), refused)
                outcome = opened.windowed.add(own, now_us)
                opened.dirty = True
                self._emit(name, outcome.results, batch, outgoing)
        for name, opened in streams.items():
            self._publish(name, opened, batch, outgoing)
        return outgoing

    def _cover(self, opened: Open, batch: MicroBatch, messages: int, refused: Sequence[Refused]) -> None:
        """Count the messages, and what offsets carried none, up to the end of a batch."""
        covered = max(batch.next_offset - max(opened.next_offset, 0), 0)
        ledger.tally(opened.windowed.counts, messages, covered, refused)
        opened.next_offset = max(opened.next_offset, batch.next_offset)

    def _emit(self, name: str, results: Batch | None, batch: MicroBatch, outgoing: list[Outgoing]) -> None:
        if results is None:
            return
        topic = self._into[name]
        for device, value in zip(results.devices, self._encoders[name].rows(results), strict=True):
            outgoing.append(Outgoing(topic, device.encode(), value, batch.polled_ms))

    def _publish(self, name: str, opened: Open, batch: MicroBatch, outgoing: list[Outgoing]) -> None:
        """Publish the counts, now and then while readings flow, and all of them when the partition is silent."""
        closed = opened.windowed.counts["closed"] + opened.next_offset
        due = batch.idle or batch.polled_ms - opened.published_ms >= LEDGER_EVERY_MS
        if not due or closed == opened.published:
            return
        opened.published, opened.published_ms = closed, batch.polled_ms
        if batch.idle:
            # A checkpoint of no offsets and no state is none: exactly-once would take the entry back.
            opened.dirty = True
        windowed = opened.windowed
        entry = ledger.Entry(
            stage="processors",
            name=name,
            topic=self._topic,
            partition=batch.partition,
            next_offset=max(opened.next_offset, 0),
            counts={
                **windowed.counts,
                "open": len(windowed.accumulators),
                "in_open": windowed.accumulators.readings(),
                "devices": len(windowed.devices.names),
            },
            watermark_us=None if windowed.clock_us == NEVER else windowed.clock_us,
        )
        outgoing.append(Outgoing(LEDGER_TOPIC, entry.key, ledger.encode(entry), batch.polled_ms))

    def _restore(self, name: str, partition: int, state: Any) -> Open:
        if self._reset:
            return Open(Windowed(self._specs[name]), -1)
        windowed, next_offset = restore(self._specs[name], lambda piece: state.get_bytes(f"{name}/{piece}"))
        if next_offset > (end := self._app.end_offset(self._topic, partition)):
            raise StateError(
                f"the state of stream {name} awaits offset {next_offset} of {self._topic}[{partition}], which ends"
                f" at {end}: it was made on another broker, or the topic was made anew",
                hint="start over with --reset-state, or name another folder with --data",
            )
        return Open(windowed, next_offset)

    def save(self) -> None:
        """Write the pieces of state that have changed since the last checkpoint."""
        for partition, streams in self._open.items():
            for name, opened in streams.items():
                if not opened.dirty:
                    continue
                state = self._app.state(self._topic, partition)
                for piece, value in changed_pieces(opened.windowed, opened.next_offset):
                    state.set_bytes(f"{name}/{piece}", value)
                opened.dirty = False

    def forget(self, partitions: set[tuple[str, int]]) -> None:
        """Let go of partitions that are another's now; their state is in the changelog."""
        for topic, partition in partitions:
            if topic == self._topic:
                self._open.pop(partition, None)
