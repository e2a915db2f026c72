"""``headrace verify``: the ledger as it is kept, and recounted from the broker and the store.

The recount reads every retained message again, decodes it as the stages did, and compares what it finds
with what the ledger says and what the store holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from headrace.ledger import Entry, LedgerReader, Line, add_up, of_store
from headrace.pipeline import Pipeline, all_tables, all_topics, into
from headrace.pipeline.model import Topic
from headrace.pipeline.tables import DLQ_SUFFIX
from headrace.stores import Store
from headrace.topics import Reach, reaches
from headrace.wire import Decoder

CHUNK = 10_000


@dataclass
class Recount:
    """What one topic really holds."""

    messages: int = 0
    readings: int = 0
    distinct: int = 0
    refused: int = 0
    partial: bool = False
    """Whether the broker has let go of its oldest messages, so that the counts cannot be compared."""


@dataclass
class Verdict:
    """The ledger's lines, and everything that does not add up (empty: the ledger is sound)."""

    lines: list[Line]
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether everything adds up."""
        return not self.faults


def lines_of(consumer: Consumer, ledger: LedgerReader, store: Store | None) -> list[Line]:
    """The ledger's lines as they are now."""
    entries: list[Entry] = ledger.refresh()
    if store is not None:
        entries += of_store(store.progress())
    ends = {
        (topic, partition): reach.end
        for topic in sorted({entry.topic for entry in entries})
        for partition, reach in reaches(consumer, topic).items()
    }
    return add_up(entries, ends)


def verify(consumer: Consumer, pipeline: Pipeline, lines: list[Line], store: Store) -> Verdict:
    """Hold the ledger's lines against a recount of the broker and the store.

    Right for a line at rest; where readings still flow, what is behind is noted, and counts may differ.
    """
    verdict = Verdict(lines)
    for line in lines:
        _check_line(line, verdict)
    by_sink = {line.topic: line for line in lines if line.stage == "sinks"}
    tables = all_tables(pipeline)
    for name, topic in all_topics(pipeline).items():
        kept = by_sink.get(name)
        if kept is None:
            if any(reach.end for reach in reaches(consumer, name).values()):
                verdict.faults.append(f"{name}: the broker has messages, and no sink has counted any")
            continue
        _check_topic(name, recount(consumer, name, topic), kept, store.count(tables[name]), verdict)
        _check_letters(consumer, name, kept, verdict)
    for line in lines:
        if line.stage == "processors":
            _check_stream(pipeline, line, by_sink, store, verdict)
    return verdict


def _check_line(line: Line, verdict: Verdict) -> None:
    who = f"{line.stage} {line.name}"
    if line.missed:
        verdict.faults.append(f"{who}: {line.missed} messages of {line.topic} are neither read nor waiting")
    if line.gap:
        verdict.faults.append(f"{who}: {line.gap} readings of {line.topic} are not accounted for")
    if line.behind:
        verdict.notes.append(f"{who}: {line.behind} messages of {line.topic} wait to be read")


def _check_topic(name: str, found: Recount, line: Line, rows: int, verdict: Verdict) -> None:
    if found.partial:
        verdict.notes.append(f"{name}: the broker has let go of its oldest messages, so they cannot be recounted")
        return
    if line.behind:
        return
    dropped = line.dropped
    for what, said, counted in (
        ("messages", line.messages, found.messages),
        ("readings", line.readings, found.readings),
        ("dead letters", line.refused, found.refused),
    ):
        if said != counted:
            verdict.faults.append(f"{name}: the ledger says {said} {what}, a recount finds {counted}")
    if not dropped and not found.distinct == rows == line.counts.get("stored", 0):
        verdict.faults.append(
            f"{name}: {found.distinct} different readings in the broker, {rows} rows in the store,"
            f" {line.counts.get('stored', 0)} in the ledger"
        )


def _check_letters(consumer: Consumer, name: str, line: Line, verdict: Verdict) -> None:
    letters = set()
    for messages in _read(consumer, name + DLQ_SUFFIX):
        for message in messages:
            headers = dict(message.headers() or ())
            letters.add((headers.get("partition"), headers.get("offset")))
    first = reaches(consumer, name + DLQ_SUFFIX)
    if any(reach.begin for reach in first.values()):
        verdict.notes.append(f"{name}{DLQ_SUFFIX}: the oldest dead letters have expired")
    elif len(letters) != line.refused:
        verdict.faults.append(
            f"{name}: the ledger says {line.refused} dead letters, {name}{DLQ_SUFFIX} has {len(letters)}"
        )


def _check_stream(pipeline: Pipeline, line: Line, by_sink: dict[str, Line], store: Store, verdict: Verdict) -> None:
    if line.name not in pipeline.streams:
        verdict.notes.append(f"stream {line.name} is in the ledger and no longer in the pipeline file")
        return
    target = into(pipeline, line.name)
    sink = by_sink.get(target)
    if (sink is not None and (sink.behind or sink.dropped)) or line.behind:
        return
    table = all_tables(pipeline)[target]
    in_windows = store.total(table, "count")
    in_open = line.counts.get("in_open", 0)
    if in_windows + in_open != line.counts.get("windowed", 0):
        verdict.faults.append(
            f"stream {line.name}: {line.counts.get('windowed', 0)} readings were windowed; the store's windows hold"
            f" {in_windows} and open windows {in_open}"
        )
    rows = store.count(table)
    if rows != line.counts.get("closed", 0):
        verdict.faults.append(
            f"stream {line.name}: {line.counts.get('closed', 0)} windows closed, the store has {rows}"
        )


class _Chunk:
    """The envelope of some messages."""

    def __init__(self, messages: list[Message]) -> None:
        self.messages = messages

    def timestamp_ms(self, place: int) -> int:
        return int(self.messages[place].timestamp()[1])

    def key(self, place: int) -> bytes | None:
        key: bytes | None = self.messages[place].key()
        return key


def recount(consumer: Consumer, name: str, topic: Topic) -> Recount:
    """Read a topic from its beginning to its present end."""
    found = Recount(partial=any(reach.begin for reach in reaches(consumer, name).values()))
    decoder = Decoder(topic)
    slots: dict[str, int] = {}
    devices, times = [], []
    for messages in _read(consumer, name):
        decoded = decoder.decode([message.value() for message in messages], _Chunk(messages))
        found.messages += len(messages)
        found.readings += len(decoded.batch)
        found.refused += len(decoded.refused)
        devices.append(np.array([slots.setdefault(d, len(slots)) for d in decoded.batch.devices], np.int64))
        times.append(decoded.batch.ts_us)
    if devices:
        order = np.lexsort((every := np.concatenate(times), of := np.concatenate(devices)))
        every, of = every[order], of[order]
        if len(every):
            found.distinct = 1 + int(np.count_nonzero((every[1:] != every[:-1]) | (of[1:] != of[:-1])))
    return found


def _read(consumer: Consumer, name: str) -> Iterable[list[Message]]:
    """A topic's messages from its beginning to its present end, partition by partition, in chunks."""
    for partition, reach in reaches(consumer, name).items():
        yield from _read_partition(consumer, name, partition, reach)


def _read_partition(consumer: Consumer, name: str, partition: int, reach: Reach) -> Iterable[list[Message]]:
    if reach.end <= reach.begin:
        return
    consumer.assign([TopicPartition(name, partition, reach.begin)])
    try:
        while True:
            messages, ended = [], False
            for message in consumer.consume(CHUNK, timeout=1.0):
                error = message.error()
                if error is None:
                    if message.offset() < reach.end:
                        messages.append(message)
                    ended = ended or message.offset() >= reach.end - 1
                elif error.code() == KafkaError._PARTITION_EOF:
                    ended = True
                elif not error.retriable():
                    raise KafkaException(error)
            if messages:
                yield messages
            if ended:
                return
    finally:
        consumer.unassign()
