"""The ledger: for each topic, partition and stream, what became of every reading.

Processors keep their counts in their state and publish them, in the same checkpoint, to the compacted topic
``NAME.ledger`` (the line's name); sinks keep theirs in the store, beside the rows. Both are durable, and both
say up to which offset they count, so they can be added up at any time:

    offsets   =  messages + gaps + expired + skipped           (gaps: transaction markers, compacted messages)
    messages  =  accepted + dead-lettered + tombstones         (a message is accepted or refused whole)
    readings  =  stored + updated + duplicate + dropped        (sink)
    readings  =  windowed + outside + waiting + late + filtered + repeated + corrected      (stream)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from headrace.pipeline import Pipeline
from headrace.pipeline.tables import ledger_topic
from headrace.stores.port import Progress
from headrace.wire import Refused

SINK_FATES = ("stored", "updated", "duplicate")
"""What becomes of a reading or a window's result in a sink: its row is the first of its device and time, replaces
another, or changes nothing."""

STREAM_FATES = ("windowed", "outside", "waiting", "late", "filtered", "repeated", "corrected")
"""What becomes of a reading in a stream: it is in a window; in none, though it was looked at (outside); its place
in the order is not sure yet (waiting); too late; not wanted; the same again; or it corrects one that is in."""

STARTED_OVER = "started_over"
"""The count of partitions over which a stream was started over: the store may have windows from before."""

GAPS = "gaps"
"""The count of offsets that were seen to hold no message: transaction markers, compacted messages."""

TOMBSTONES = "tombstones"
"""The count of messages without a value: no readings, and no dead letters."""

EXPIRED = "expired"
"""The count of offsets whose messages the broker had let go of before they were read."""

SKIPPED = "skipped"
"""The count of offsets before the point from which a stream was started over."""

NO_MESSAGES = (GAPS, EXPIRED, SKIPPED)

NAMED_DEVICES = 100
"""For so many devices that send from the future the counts say which they are."""

NAME_BYTES = 64
"""So much of their names the counts say."""


class Entry(msgspec.Struct, frozen=True):
    """A stage's counts over one partition: everything below ``next_offset`` is in them."""

    stage: str
    """``processors`` or ``sinks``"""
    name: str
    """the stream, or the supertable"""
    topic: str
    partition: int
    next_offset: int
    counts: dict[str, int]
    watermark_us: int | None = None
    epoch: int = 0
    """the epoch of the processor that owned the partition; what a former owner says late does not count"""

    @property
    def key(self) -> bytes:
        """What compaction keeps the newest of."""
        return f"{self.stage}/{self.name}/{self.topic}/{self.partition}".encode()


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Entry).decode


def count_messages(
    counts: dict[str, int],
    messages: int,
    refused: Iterable[Refused],
    *,
    tombstones: int = 0,
    gaps: int = 0,
    expired: int = 0,
) -> None:
    """Add what a decoder did to a partition's counts: messages, and refused by reason; from the future by device.

    ``gaps`` are offsets that were seen to hold no message (transaction markers, compaction), ``expired`` those that
    the broker had let go of before they were read. Other offsets that no message was counted for are missed.
    """
    counts["messages"] = counts.get("messages", 0) + messages
    for name, n in ((TOMBSTONES, tombstones), (GAPS, gaps), (EXPIRED, expired)):
        if n:
            counts[name] = counts.get(name, 0) + n
    for one in refused:
        name = f"refused:{one.reason}"
        counts[name] = counts.get(name, 0) + 1
        if one.device is not None:
            named = f"{one.reason}:{_shown(one.device)}"
            if named in counts or sum(known.startswith(f"{one.reason}:") for known in counts) < NAMED_DEVICES:
                counts[named] = counts.get(named, 0) + 1


def _shown(device: str) -> str:
    """A device's name for the counts, which a store keeps as one text: cut where it is long."""
    printable = "".join(letter if letter.isprintable() else "?" for letter in device[:NAME_BYTES])
    return printable.encode(errors="replace")[:NAME_BYTES].decode(errors="ignore")


def of_store(progress: Mapping[tuple[str, int], Progress]) -> list[Entry]:
    """The sinks' entries, from what the store keeps."""
    return [
        Entry("sinks", topic, topic, partition, kept.next_offset, dict(kept.counts))
        for (topic, partition), kept in sorted(progress.items())
    ]


@dataclass
class Line:
    """One line of the ledger: a stage's sums over the partitions of a topic, and what does not add up."""

    stage: str
    name: str
    topic: str
    produced: int
    """messages that the broker holds or held below its end"""
    behind: int
    """of these, not yet read by the stage"""
    counts: dict[str, int]
    watermark_us: int | None = None
    """the least of its partitions'; None while one that has messages has none"""
    beyond: int = 0
    """offsets counted that the broker has not given yet; 0 in a sound ledger"""
    entries: dict[int, Entry] = field(default_factory=dict)
    """each partition's own counts"""

    @property
    def upto(self) -> dict[int, int]:
        """For each partition the next offset: the counts hold everything below it."""
        return {partition: entry.next_offset for partition, entry in self.entries.items()}

    @property
    def messages(self) -> int:
        """Messages read."""
        return self.counts.get("messages", 0)

    @property
    def refused(self) -> int:
        """Messages refused, for whatever reason: the dead letters."""
        return sum(n for name, n in self.counts.items() if name.startswith("refused:"))

    @property
    def readings(self) -> int:
        """Readings in the messages that were accepted."""
        return self.counts.get("read", 0)

    @property
    def dropped(self) -> int:
        """Readings dropped, for whatever reason."""
        return sum(n for name, n in self.counts.items() if name.startswith("dropped:"))

    @property
    def gap(self) -> int:
        """Readings that nobody accounts for; 0 in a sound ledger."""
        fates = SINK_FATES if self.stage == "sinks" else STREAM_FATES
        return self.readings - sum(self.counts.get(fate, 0) for fate in fates) - self.dropped

    @property
    def missed(self) -> int:
        """Messages that are neither read nor waiting; 0 in a sound ledger."""
        passed = sum(self.counts.get(name, 0) for name in NO_MESSAGES)
        return self.produced + self.beyond - self.behind - self.messages - passed

    @property
    def all_read(self) -> bool:
        """Whether nothing is missed in any partition, and nothing was counted twice in another to make up for it."""
        return not self.missed and all(
            entry.next_offset == sum(entry.counts.get(name, 0) for name in ("messages", *NO_MESSAGES))
            for entry in self.entries.values()
        )

    @property
    def sound(self) -> bool:
        """Whether the line adds up."""
        return self.gap == 0 and self.all_read and self.beyond == 0


Key = tuple[str, str, str]
"""Stage, name and topic of a line."""


def add_up(entries: Iterable[Entry], ends: Mapping[tuple[str, int], int], expected: Iterable[Key] = ()) -> list[Line]:
    """The ledger's lines: entries summed over partitions, against the broker's ``ends`` (next offsets).

    A line has every partition of its topic, whether the stage has counted anything there or not; ``expected`` are
    lines that are to be there even when it has counted nothing at all. Offsets begin at 0 when a topic is made, so
    a partition's end is how many offsets it was ever given. A topic without any ``ends`` is taken as read.
    """
    lines = {key: Line(*key, produced=0, behind=0, counts={}) for key in expected}
    for entry in entries:
        key = (entry.stage, entry.name, entry.topic)
        lines.setdefault(key, Line(*key, produced=0, behind=0, counts={})).entries[entry.partition] = entry
    partitions: dict[str, dict[int, int]] = {}
    for (topic, partition), end in ends.items():
        partitions.setdefault(topic, {})[partition] = end
    for line in lines.values():
        _sum(line, partitions.get(line.topic))
    return list(lines.values())


def _sum(line: Line, ends: Mapping[int, int] | None) -> None:
    marks: list[int | None] = []
    known = {partition: entry.next_offset for partition, entry in line.entries.items()} if ends is None else ends
    for partition in sorted(known.keys() | line.entries.keys()):
        entry, end = line.entries.get(partition), known.get(partition, 0)
        reached = 0 if entry is None else entry.next_offset
        line.produced += end
        line.behind += max(end - reached, 0)
        line.beyond += max(reached - end, 0)
        if entry is None:
            marks += [None] * bool(end)
            continue
        for name, n in entry.counts.items():
            line.counts[name] = line.counts.get(name, 0) + n
        if entry.watermark_us is not None or entry.counts.get("read"):
            marks.append(entry.watermark_us)
    held = [mark for mark in marks if mark is not None]
    line.watermark_us = min(held) if held and len(held) == len(marks) else None


class LedgerReader:
    """The newest entry of every key of a line's ledger topic."""

    def __init__(self, consumer: Consumer, pipeline: Pipeline) -> None:
        self._consumer = consumer
        self._topic = ledger_topic(pipeline)
        self._consumer.assign([TopicPartition(self._topic, 0, OFFSET_BEGINNING)])
        self.entries: dict[bytes, Entry] = {}
        self._at_end = False

    def close(self) -> None:
        """Close the consumer."""
        self._consumer.close()

    def refresh(self, timeout_s: float = 5.0) -> list[Entry]:
        """All entries as they are now; the first call reads the topic to its end, the others what has come.

        Raises KafkaException when the broker refuses.
        """
        end = 0
        if not self._at_end:
            end = self._consumer.get_watermark_offsets(TopicPartition(self._topic, 0), timeout=timeout_s)[1]
        while True:
            message = self._consumer.poll(0 if self._at_end else timeout_s)
            if message is None:
                break
            error = message.error()
            if error is not None:
                if error.code() == KafkaError._PARTITION_EOF:
                    self._at_end = True
                    continue
                if error.retriable():
                    continue
                raise KafkaException(error)
            # Where entries come all the time the end itself is never met: the end of now is enough.
            self._at_end = self._at_end or message.offset() >= end - 1
            if message.value() is None:
                self.entries.pop(message.key(), None)
            else:
                self._take(message.key(), decode(message.value()))
        return list(self.entries.values())

    def _take(self, key: bytes, entry: Entry) -> None:
        known = self.entries.get(key)
        if known is None or entry.epoch >= known.epoch:
            self.entries[key] = entry
