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
    """

    __slots__ = ("_messages", "first_offset", "more", "next_offset", "partition", "polled_ms", "topic", "values")

    def __init__(
        self, topic: str, partition: int, messages: Sequence[Message], *, polled_ms: int, end: int = 0
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.polled_ms = polled_ms
        self.more = False
        self._messages = messages
        self.values: list[bytes | None] = list(map(Message.value, messages))
        self.first_offset: int = messages[0].offset() if messages else end
        self.next_offset: int = messages[-1].offset() + 1 if messages else end

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

    def offset(self, place: int) -> int:
        """A message's offset."""
        return cast(int, self._messages[place].offset())

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
        batch = MicroBatch(self.topic, self.partition, messages, polled_ms=self.polled_ms, end=self.next_offset)
        batch.more = self.more
        return batch


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
