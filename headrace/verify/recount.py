"""What a topic really holds: its messages read once more by a plain consumer, and decoded as the stages did."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass, field

import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from headrace.batch import Int64s
from headrace.pipeline.model import Topic
from headrace.topics import reaches
from headrace.wire import Decoder

CHUNK = 10_000

_NONE: Int64s = np.empty(0, np.int64)


@dataclass(frozen=True)
class Rows:
    """Distinct rows, as a store keeps them: of each device and time the one of the highest revision, the last of these.

    ``ts_us``: n int64. For windows ``in_final`` (n int64) is how many readings a row's window has, 0 where the window
    is not final; for readings it is 0.
    """

    ts_us: Int64s
    in_final: Int64s

    def count(self, since_us: int | None = None) -> int:
        """How many there are whose time is ``since_us`` or later."""
        return len(self.ts_us) if since_us is None else int(np.count_nonzero(self.ts_us >= since_us))

    def readings(self, since_us: int | None = None) -> int:
        """How many readings are in the final windows of these."""
        return int((self.in_final if since_us is None else self.in_final[self.ts_us >= since_us]).sum())


@dataclass(frozen=True)
class Held:
    """What a range of offsets holds."""

    messages: int = 0
    readings: int = 0
    refused: int = 0
    tombstones: int = 0

    def plus(self, other: Held) -> Held:
        """Both together."""
        return Held(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def less(self, other: Held) -> Held:
        """What is in this and not in the other, negative where the other has more."""
        return Held(*(a - b for a, b in zip(astuple(self), astuple(other), strict=True)))


@dataclass
class _Segment:
    """Offsets from one mark to the next."""

    start: int
    end: int
    held: Held = Held()
    columns: list[tuple[Int64s, ...]] = field(default_factory=list)
    """device, time, and for windows revision and readings if final: arrays of equal length"""


class Recount:
    """A topic as it is, up to the greatest of the ``marks`` (offsets, by partition), and countable between any two.

    ``topic`` declares how its messages are decoded; None counts messages alone.
    """

    def __init__(self, consumer: Consumer, name: str, topic: Topic | None, marks: Mapping[int, Iterable[int]]) -> None:
        self._name, self._decoder = name, None if topic is None else Decoder(topic)
        self._windows = topic is not None and {"revision", "final", "count"} <= topic.fields.keys()
        self._devices: dict[str, int] = {}
        self._segments: dict[int, list[_Segment]] = {}
        self.begins: dict[int, int] = {}
        """of each partition the first offset that the broker still has"""
        self.ends: dict[int, int] = {}
        """of each partition the greatest mark"""
        for partition, reach in reaches(consumer, name).items():
            self.begins[partition] = reach.begin
            within = {min(mark, reach.end) for mark in marks.get(partition, ())}
            bounds = sorted({reach.begin, *(mark for mark in within if mark > reach.begin)})
            self.ends[partition] = bounds[-1]
            segments = [_Segment(start, end) for start, end in itertools.pairwise(bounds)]
            self._segments[partition] = segments
            for messages in _read(consumer, name, partition, reach.begin, bounds[-1]):
                self._take(segments, messages)

    @property
    def decodes(self) -> bool:
        """Whether readings and dead letters are counted, and not messages alone."""
        return self._decoder is not None

    @property
    def whole(self) -> bool:
        """Whether the broker has let go of nothing."""
        return not any(self.begins.values())

    def held(self, partition: int, start: int, end: int) -> Held:
        """What is from one mark to another, as far as the broker still has it."""
        found = Held()
        for segment in self._segments.get(partition, ()):
            if segment.start >= start and segment.end <= end:
                found = found.plus(segment.held)
        return found

    def devices_in_several(self) -> dict[str, list[int]]:
        """The devices whose readings are in more than one partition, each with its partitions."""
        found: dict[int, list[int]] = {}
        for partition, segments in sorted(self._segments.items()):
            columns = [segment_columns[0] for segment in segments for segment_columns in segment.columns]
            for device in np.unique(np.concatenate(columns)).tolist() if columns else ():
                found.setdefault(device, []).append(partition)
        names = list(self._devices)
        return {names[device]: partitions for device, partitions in found.items() if len(partitions) > 1}

    def rows(self, upto: Mapping[int, int]) -> Rows:
        """The rows that the messages below these marks make."""
        found = [
            columns
            for partition, segments in self._segments.items()
            for segment in segments
            if segment.end <= upto.get(partition, 0)
            for columns in segment.columns
        ]
        if not found:
            return Rows(_NONE, _NONE)
        device, ts_us, *rest = (np.concatenate(column) for column in zip(*found, strict=True))
        # Stable, so that of those that are alike the last stands last.
        order = np.lexsort((rest[0], ts_us, device) if rest else (ts_us, device))
        device, ts_us = device[order], ts_us[order]
        last = np.ones(len(order), bool)
        last[:-1] = (device[1:] != device[:-1]) | (ts_us[1:] != ts_us[:-1])
        in_final = rest[1][order][last] if rest else np.zeros(int(last.sum()), np.int64)
        return Rows(ts_us[last], in_final)

    def _take(self, segments: list[_Segment], messages: list[Message]) -> None:
        offsets = [message.offset() for message in messages]
        for segment in segments:
            part = messages[bisect_left(offsets, segment.start) : bisect_left(offsets, segment.end)]
            if not part:
                continue
            if self._decoder is None:
                segment.held = segment.held.plus(Held(len(part)))
                continue
            decoded = self._decoder.decode([message.value() for message in part], _Envelope(part))
            batch, known = decoded.batch, self._devices
            held = Held(len(part), len(batch), len(decoded.refused), decoded.tombstones)
            segment.held = segment.held.plus(held)
            columns = [np.array([known.setdefault(d, len(known)) for d in batch.devices], np.int64), batch.ts_us]
            if self._windows:
                final = batch.column("final").values
                columns += [batch.column("revision").values, batch.column("count").values * final]
            segment.columns.append(tuple(columns))


class _Envelope:
    """The envelope of some messages."""

    def __init__(self, messages: list[Message]) -> None:
        self._messages = messages

    def timestamp_ms(self, place: int) -> int:
        return int(self._messages[place].timestamp()[1])

    def key(self, place: int) -> bytes | None:
        key: bytes | None = self._messages[place].key()
        return key

    def all_keyed(self) -> bool:
        return all(map(Message.key, self._messages))


def messages_of(consumer: Consumer, name: str) -> Iterator[list[Message]]:
    """A topic's messages up to its ends of now, partition by partition, in chunks."""
    for partition, reach in reaches(consumer, name).items():
        yield from _read(consumer, name, partition, reach.begin, reach.end)


def _read(consumer: Consumer, name: str, partition: int, begin: int, end: int) -> Iterator[list[Message]]:
    """A partition's messages from one offset to another, in chunks."""
    if end <= begin:
        return
    consumer.assign([TopicPartition(name, partition, begin)])
    try:
        yield from _until(consumer, begin, end)
    finally:
        consumer.unassign()


def _until(consumer: Consumer, begin: int, end: int) -> Iterator[list[Message]]:
    """The messages of the one assigned partition from ``begin`` up to ``end``, or to where there are no more."""
    ended, left = False, end - begin
    while not ended:
        messages = []
        # No more than there can be: it waits until it has as many.
        for message in consumer.consume(min(left, CHUNK), timeout=0.05):
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
            left = max(end - 1 - messages[-1].offset(), 1)
            yield messages
