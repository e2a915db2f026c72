"""What passes through an application: micro-batches in, messages out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

from confluent_kafka import Message


class MicroBatch:
    """The messages of one partition from one poll, in the order of their offsets; none in an ``idle`` one.

    ``more`` says that further rows of the same poll follow, so that a sink may wait and write once.
    ``polled_ms`` is the wall time of the poll. An idle one's ``first_offset`` and ``next_offset`` are the
    partition's end.

    ``seen_from`` is the offset from which everything up to the batch's end is known: a message, or in ``empty``,
    the ranges of offsets that the broker's client passed over because nothing is there.
    """

    __slots__ = (
        "_messages",
        "empty",
        "first_offset",
        "more",
        "next_offset",
        "partition",
        "polled_ms",
        "seen_from",
        "topic",
        "values",
    )

    def __init__(
        self,
        topic: str,
        partition: int,
        messages: Sequence[Message],
        *,
        polled_ms: int,
        end: int = 0,
        seen_from: int | None = None,
        empty: Sequence[tuple[int, int]] = (),
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.polled_ms = polled_ms
        self.more = False
        self._messages = messages
        self.values: list[bytes | None] = list(map(Message.value, messages))
        self.first_offset: int = messages[0].offset() if messages else end
        self.next_offset: int = messages[-1].offset() + 1 if messages else end
        self.seen_from = self.first_offset if seen_from is None else seen_from
        self.empty = empty

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def idle(self) -> bool:
        """Whether this says that the partition is silent."""
        return not self._messages

    def timestamp_ms(self, place: int) -> int:
        """The broker's time of a message."""
        return cast(int, self._messages[place].timestamp()[1])

    def key(self, place: int) -> bytes | None:
        """A message's key."""
        return cast("bytes | None", self._messages[place].key())

    def all_keyed(self) -> bool:
        """Whether every message has a key, and none is empty."""
        return all(map(Message.key, self._messages))

    def offset(self, place: int) -> int:
        """A message's offset."""
        return cast(int, self._messages[place].offset())

    def empty_since(self, offset: int) -> int:
        """How many offsets from ``offset`` up to the batch's end are known to hold nothing."""
        if not self.empty:
            return 0
        return sum(max(min(end, self.next_offset) - max(begin, offset), 0) for begin, end in self.empty)

    def since(self, offset: int) -> MicroBatch:
        """The messages at and beyond an offset."""
        if not self._messages or self.first_offset >= offset:
            return self
        return self._part([message for message in self._messages if message.offset() >= offset])

    def before(self, offset: int) -> MicroBatch:
        """The messages below an offset."""
        return self._part([message for message in self._messages if message.offset() < offset])

    def chunks(self, most: int) -> Iterator[MicroBatch]:
        """The batch, in parts of ``most`` messages."""
        if len(self) <= most:
            yield self
            return
        for begin in range(0, len(self), most):
            yield self._part(self._messages[begin : begin + most])

    def _part(self, messages: Sequence[Message]) -> MicroBatch:
        batch = MicroBatch(
            self.topic,
            self.partition,
            messages,
            polled_ms=self.polled_ms,
            end=self.next_offset,
            seen_from=self.seen_from,
            empty=self.empty,
        )
        batch.more = self.more
        return batch


@dataclass(frozen=True)
class Passed:
    """Offsets that hold no message: ``empty`` (markers, compacted) and ``expired`` (before the partition's first)."""

    empty: int = 0
    expired: int = 0


@dataclass(frozen=True)
class Outgoing:
    """A message to be produced."""

    topic: str
    key: bytes | None
    value: bytes
    timestamp_ms: int
    headers: list[tuple[str, bytes]] = field(default_factory=list)
    partition: int | None = None
    """where to; chosen by the key if absent"""
