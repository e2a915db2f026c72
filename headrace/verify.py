"""``headrace verify``: the ledger as it is kept, and recounted from the broker and the store.

The recount reads every retained message again, decodes it as the stages did, and compares what it finds
with what the ledger says and what the store holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from headrace.ledger import BEGUN_ANEW, TOMBSTONES, Entry, Key, LedgerReader, Line, add_up, of_store
from headrace.pipeline import Pipeline, all_tables, all_topics, into
from headrace.pipeline.model import Hopping, Topic, Tumbling
from headrace.pipeline.tables import DLQ_SUFFIX, of_one_device, repartition_topic
from headrace.stores import Store
from headrace.topics import reaches
from headrace.wire import Decoder

CHUNK = 10_000


@dataclass
class Recount:
    """What one topic really holds."""

    messages: int = 0
    readings: int = 0
    distinct: int = 0
    refused: int = 0
    tombstones: int = 0
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


def lines_of(consumer: Consumer, pipeline: Pipeline, ledger: LedgerReader, store: Store | None) -> list[Line]:
    """The ledger's lines as they are now: one for each stage and topic of the pipeline, and what else has counted."""
    entries: list[Entry] = ledger.refresh()
    if store is not None:
        entries += of_store(store.progress())
    expected = expected_lines(pipeline)
    if store is None:
        expected = [key for key in expected if key[0] != "sinks"]
    ends = {
        (topic, partition): reach.end
        for topic in sorted({entry.topic for entry in entries} | {topic for _, _, topic in expected})
        for partition, reach in reaches(consumer, topic).items()
    }
    return add_up(entries, ends, expected)


def expected_lines(pipeline: Pipeline) -> list[Key]:
    """Which lines a ledger of this pipeline has: stage, name and topic."""
    keys: list[Key] = [("sinks", name, name) for name in all_topics(pipeline)]
    for name, stream in pipeline.streams.items():
        keys.append(("processors", name, stream.source))
        if (repartition := repartition_topic(pipeline, name)) is not None:
            keys.append(("processors", name, repartition))
    return keys


def verify(consumer: Consumer, pipeline: Pipeline, lines: list[Line], store: Store) -> Verdict:
    """Hold the ledger's lines against a recount of the broker and the store.

    Each topic is recounted up to the offsets that its line counts to, so readings may go on flowing. What
    only holds at rest (each window's readings, rows in the store) is compared when nothing is behind.
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
        _check_topic(name, recount(consumer, name, topic, kept.upto), kept, verdict)
        _check_letters(consumer, name, kept, verdict)
        rows, now = store.count(tables[name]), of_store(store.progress())
        stored_now = sum(entry.counts.get("stored", 0) for entry in now if entry.topic == name)
        if not kept.dropped and not kept.counts.get("stored", 0) <= rows <= stored_now:
            verdict.faults.append(f"{name}: the ledger says {stored_now} rows are stored, the store has {rows}")
    for line in lines:
        if line.stage == "processors" and _closes_windows(pipeline, line):
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


def _check_topic(name: str, found: Recount, line: Line, verdict: Verdict) -> None:
    if found.partial:
        verdict.notes.append(f"{name}: the broker has let go of its oldest messages, so they cannot be recounted")
        return
    for what, said, counted in (
        ("messages", line.messages, found.messages),
        ("readings", line.readings, found.readings),
        ("dead letters", line.refused, found.refused),
        ("tombstones", line.counts.get(TOMBSTONES, 0), found.tombstones),
    ):
        if said != counted:
            verdict.faults.append(f"{name}: the ledger says {said} {what}, a recount finds {counted}")
    stored = line.counts.get("stored", 0)
    if not line.dropped and found.distinct != stored:
        verdict.faults.append(f"{name}: the ledger says {stored} rows are stored, a recount finds {found.distinct}")


def _check_letters(consumer: Consumer, name: str, line: Line, verdict: Verdict) -> None:
    dlq = name + DLQ_SUFFIX
    ends = reaches(consumer, dlq)
    if any(reach.begin for reach in ends.values()):
        verdict.notes.append(f"{dlq}: the oldest dead letters have expired")
        return
    letters = set()
    for messages in _read(consumer, dlq, {partition: reach.end for partition, reach in ends.items()}):
        for message in messages:
            headers = dict(message.headers() or ())
            if "offset" not in headers:
                continue  # a result that was too large for its topic: it has no place there
            partition, offset = int(headers["partition"]), int(headers["offset"])
            if offset < line.upto.get(partition, 0):
                letters.add((partition, offset))
    if len(letters) != line.refused:
        verdict.faults.append(f"{name}: the ledger says {line.refused} dead letters, {dlq} has {len(letters)}")


def _closes_windows(pipeline: Pipeline, line: Line) -> bool:
    """Whether a stream's windows close where this line was counted, and not behind a repartition topic."""
    if line.name not in pipeline.streams:
        return True
    return line.topic == (repartition_topic(pipeline, line.name) or pipeline.streams[line.name].source)


def _check_stream(pipeline: Pipeline, line: Line, by_sink: dict[str, Line], store: Store, verdict: Verdict) -> None:
    if line.name not in pipeline.streams:
        verdict.notes.append(f"stream {line.name} is in the ledger and no longer in the pipeline file")
        return
    stream, target = pipeline.streams[line.name], into(pipeline, line.name)
    sink = by_sink.get(target)
    if line.behind or (sink is not None and (sink.behind or sink.dropped)):
        verdict.notes.append(f"stream {line.name}: its windows are compared when nothing is behind")
        return
    if line.counts.get(BEGUN_ANEW):
        verdict.notes.append(
            f"stream {line.name} was started over, and the store may have windows from before: they are not compared"
        )
        return
    table = all_tables(pipeline)[target]
    in_closed = line.counts.get("in_closed", 0) - line.counts.get("in_too_large", 0)
    in_windows = store.total(table, "count") if sink is not None else 0
    # Where readings make the windows, two of a group may begin with readings of one time: the store keeps one.
    may_share = not isinstance(stream.window, Tumbling | Hopping) and (
        stream.repeats == "keep" or not of_one_device(stream, pipeline.topics[stream.source])
    )
    if in_windows != in_closed and not (may_share and in_windows < in_closed):
        verdict.faults.append(
            f"stream {line.name}: windows with {in_closed} readings closed; the store's windows hold {in_windows}"
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


def recount(consumer: Consumer, name: str, topic: Topic, upto: Mapping[int, int]) -> Recount:
    """Read a topic from its beginning up to the next offset ``upto`` of each partition."""
    found = Recount(partial=any(reach.begin for reach in reaches(consumer, name).values()))
    decoder = Decoder(topic)
    slots: dict[str, int] = {}
    devices, times = [], []
    for messages in _read(consumer, name, upto):
        decoded = decoder.decode([message.value() for message in messages], _Chunk(messages))
        found.messages += len(messages)
        found.readings += len(decoded.batch)
        found.refused += len(decoded.refused)
        found.tombstones += decoded.tombstones
        devices.append(np.array([slots.setdefault(d, len(slots)) for d in decoded.batch.devices], np.int64))
        times.append(decoded.batch.ts_us)
    if devices:
        order = np.lexsort((every := np.concatenate(times), of := np.concatenate(devices)))
        every, of = every[order], of[order]
        if len(every):
            found.distinct = 1 + int(np.count_nonzero((every[1:] != every[:-1]) | (of[1:] != of[:-1])))
    return found


def _read(consumer: Consumer, name: str, upto: Mapping[int, int]) -> Iterator[list[Message]]:
    """A topic's messages below the offsets ``upto``, partition by partition, in chunks."""
    for partition, reach in reaches(consumer, name).items():
        end = min(reach.end, upto.get(partition, 0))
        if end > reach.begin:
            consumer.assign([TopicPartition(name, partition, reach.begin)])
            try:
                yield from _until(consumer, end)
            finally:
                consumer.unassign()


def _until(consumer: Consumer, end: int) -> Iterator[list[Message]]:
    """The messages of the one assigned partition below ``end``, or up to where there are no more."""
    ended = False
    while not ended:
        messages = []
        for message in consumer.consume(CHUNK, timeout=0.2):
            error = message.error()
            if error is None:
                ended = ended or message.offset() >= end - 1
                if message.offset() < end:
                    messages.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                ended = True
            elif not error.retriable():
                raise KafkaException(error)
        if messages:
            yield messages
