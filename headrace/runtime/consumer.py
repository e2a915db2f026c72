"""Quix Streams' consumer, giving micro-batches: the messages of one partition from one poll.

What the rows promise:

- The rows of a partition come in the order of its offsets, none lost, none twice within an assignment. Rows
  that wait when their partition is revoked or sought are dropped: they will be read again.
- A partition that has reached its end and stays silent gives ``idle`` rows (no messages, no offset): first
  after ``silent_s``, then every ``tick_s``. One that is behind, or paused, never does.
- A row says which offsets before its end hold nothing (transaction markers, compacted or expired messages), by
  where librdkafka jumped; so whoever counts can tell these from messages that got lost on the way to him.
- The key is constant, so state is scoped to the partition.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from confluent_kafka import KafkaError, Message, TopicPartition

from headrace.runtime.batches import MicroBatch
from headrace.runtime.quix import InternalConsumer, MessageContext, Row, Topic, raise_for_msg_error

KEY = b"partition"
"""The constant key of every row."""

IDLE_OFFSET = -1
"""The offset of a row that covers no message; it is never stored."""

EMPTY_POLLS = 3
"""After so many polls that brought nothing they may take longer."""

LONGEST_WAIT_S = 0.25
"""How long a poll may take: commits and orderly stops wait for its end."""

FOLLOWING_S = 0.005
"""How long the messages that follow a first one are waited for."""

Partition = tuple[str, int]


@dataclass
class _Silence:
    """Where a partition ends, since when it has been silent there, and when it was last said so."""

    end: int
    since: float
    said: float | None = None


@dataclass
class _Delivery:
    """How far a partition was delivered since it was assigned or sought, without a break."""

    row: int
    """the next offset after what rows were made of"""
    next: int
    """the next offset after what librdkafka has delivered or passed over"""
    empty: list[tuple[int, int]] = field(default_factory=list)
    """what it has passed over, and no row has told yet"""


class MicroBatchConsumer(InternalConsumer):
    """Quix's consumer, giving one row a partition and poll."""

    def __init__(self, *, batch: int, silent_s: float, tick_s: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._batch = batch
        self._silent_s = silent_s
        self._tick_s = tick_s
        self._queue: deque[Row] = deque()
        self._ends: dict[Partition, _Silence] = {}
        self._delivered: dict[Partition, _Delivery] = {}
        self.assigned: set[Partition] = set()
        self._rebalances = 0
        self._empty = 0
        """How many polls have brought nothing since one has."""
        self.before_assign: list[Callable[[list[TopicPartition]], None]] = []
        """Called with partitions that are about to be assigned, without those of changelogs."""
        self.on_gone: list[Callable[[set[Partition]], None]] = []
        """Called with partitions that were revoked or lost, after their last commit."""
        self.after_loss: list[Callable[[], None]] = []
        """Called when partitions were lost, without a commit."""
        self.on_quiet: list[Callable[[], None]] = []
        """Called when a poll has brought nothing."""
        self._rewound: set[Partition] = set()
        self.asked_s = time.monotonic()
        """Since when it is known that the partitions were ours: when the broker was last asked for messages."""
        self.handed_out: dict[Partition, int] = {}
        """The first offset of each partition's row that was handed out last."""
        self.begun: dict[Partition, int] = {}
        """The first offset of each partition that was processed since the checkpoint began."""

    def subscribe(self, topics: list[Topic], on_assign: Any = None, on_revoke: Any = None, on_lost: Any = None) -> None:
        """Subscribe as Quix does, and know which partitions are ours."""

        changelogs = {topic.name for topic in topics if topic.is_changelog}

        def assigned(consumer: Any, partitions: list[TopicPartition]) -> None:
            of_data = [tp for tp in partitions if tp.topic not in changelogs]
            for before in self.before_assign:
                before(of_data)
            on_assign(consumer, partitions)
            self._rebalances += 1
            for tp in partitions:
                self._delivered.pop((tp.topic, tp.partition), None)
            self.assigned.update((tp.topic, tp.partition) for tp in of_data)

        def revoked(consumer: Any, partitions: list[TopicPartition]) -> None:
            gone = {(tp.topic, tp.partition) for tp in partitions}
            # First of all: what waits must not be processed by the commit that a revoke brings.
            self._forget(gone)
            try:
                on_revoke(consumer, partitions)
            finally:
                for hook in self.on_gone:
                    hook(gone)

        def lost(consumer: Any, partitions: list[TopicPartition]) -> None:
            gone = {(tp.topic, tp.partition) for tp in partitions}
            self._forget(gone)
            on_lost(consumer, partitions)
            for hook in self.on_gone:
                hook(gone)
            for after in self.after_loss:
                after()

        super().subscribe(topics, on_assign=assigned, on_revoke=revoked, on_lost=lost)

    def note_processed(self, topic: str, partition: int) -> None:
        """Note that the row that was handed out last was processed, within the checkpoint that is open."""
        self.begun.setdefault((topic, partition), self.handed_out[topic, partition])

    def trigger_backpressure(self, offsets_to_seek: dict[Partition, int], resume_after: float) -> None:
        """Pause and seek back as Quix does; what waits will be read again."""
        # Quix notes the offset of the row, which is its last message's; what is read again begins with its first.
        seek = {**offsets_to_seek, **self.begun}
        # Quix knows of the rows that it was handed alone. Those that wait here must be read again as well, and
        # a partition at its end begins there again: consume() has moved it one offset too far for the event.
        for row in self._queue:
            if row.offset != IDLE_OFFSET:
                seek.setdefault((row.topic, row.partition), cast(MicroBatch, row.value).first_offset)
        for partition, silence in self._ends.items():
            seek.setdefault(partition, silence.end)
        self._queue.clear()
        self._ends.clear()
        super().trigger_backpressure(seek, resume_after)

    def assign(self, partitions: list[TopicPartition]) -> None:
        """Assign, and read all of them: librdkafka keeps the pause of a partition that was another's meanwhile.

        Quix forgets what it has paused when partitions are revoked or lost, and takes an assignment to end the pause.
        """
        super().assign(partitions)
        self.resume(partitions)

    def rewind(self, topic: str, partition: int, offset: int) -> None:
        """Go on from another offset: what waits of the partition is dropped, and so is the row that was handed out."""
        self._drop({(topic, partition)})
        self._rewound.add((topic, partition))
        self.seek(TopicPartition(topic, partition, offset))

    def was_rewound(self, topic: str, partition: int) -> bool:
        """Whether the row that was handed out last was dropped by :meth:`rewind`; asked once."""
        rewound = (topic, partition) in self._rewound
        self._rewound.discard((topic, partition))
        return rewound

    def seek(self, partition: TopicPartition) -> None:
        """Seek, and know nothing of what is before the next message."""
        self._delivered.pop((partition.topic, partition.partition), None)
        super().seek(partition)

    def poll(self, timeout: float | None = None) -> Message | None:
        """A single message, for the recovery of state, which knows nothing of ends."""
        message = super().poll(timeout=timeout)
        if message is not None and _is_end(message):
            return None
        return message

    def poll_row(self, timeout: float | None = None, buffered: bool = False) -> Row | None:  # noqa: ARG002 - Quix's signature
        """The next micro-batch as a row, or None."""
        if not self._queue:
            self._fill(timeout)
        if not self._queue:
            for hook in self.on_quiet:
                hook()
            return None
        row = self._queue.popleft()
        batch = cast(MicroBatch, row.value)
        batch.more = bool(self._queue)
        if not batch.idle:
            self.handed_out[batch.topic, batch.partition] = batch.first_offset
        return row

    def _fill(self, timeout: float | None) -> None:
        before, self.asked_s = self._rebalances, time.monotonic()
        messages = self._consume(timeout)
        # Where one partition is ours, and was all the time, every message is of it: no need to ask each.
        only = next(iter(self.assigned)) if len(self.assigned) == 1 and before == self._rebalances else None
        now, polled_ms = time.monotonic(), time.time_ns() // 1_000_000
        for partition, of_partition in self._by_partition(messages, only, now).items():
            # A rebalance inside consume() may have taken the partition away.
            if partition in self.assigned:
                self._queue.append(_row(self._batch_of(partition, of_partition, polled_ms)))
        for partition, silence in self._ends.items():
            if now >= self._due(silence) and partition not in self._paused():
                silence.said = now
                self._queue.append(_row(self._batch_of(partition, (), polled_ms, end=silence.end)))

    def _consume(self, timeout: float | None) -> list[Message]:
        """Up to a batch of messages.

        librdkafka waits until it has them all or the time is over. So while messages come, that is short; once
        nothing has come for a while one message alone is waited for, ever longer, and what follows it is taken with it.
        """
        if timeout is None or self._empty < EMPTY_POLLS:
            messages = self.consume(num_messages=self._batch, timeout=timeout)
        else:
            wait_s = min(timeout * 2 ** min(self._empty - EMPTY_POLLS + 1, 10), LONGEST_WAIT_S)
            paused = self._paused()
            due = [self._due(silence) for partition, silence in self._ends.items() if partition not in paused]
            until_due_s = max(min(due, default=math.inf) - time.monotonic(), 0.0)
            messages = self.consume(num_messages=1, timeout=min(wait_s, until_due_s))
            if messages:
                messages += self.consume(num_messages=max(self._batch - 1, 1), timeout=FOLLOWING_S)
        self._empty = 0 if messages else self._empty + 1
        return messages

    def _due(self, silence: _Silence) -> float:
        """When a partition's next idle row is due."""
        return silence.since + self._silent_s if silence.said is None else silence.said + self._tick_s

    def _batch_of(
        self, partition: Partition, messages: Sequence[Message], polled_ms: int, *, end: int = 0
    ) -> MicroBatch:
        delivered = self._delivered.get(partition)
        if delivered is None:
            return MicroBatch(*partition, messages, polled_ms=polled_ms, end=end)
        batch = MicroBatch(
            *partition, messages, polled_ms=polled_ms, end=end, seen_from=delivered.row, empty=delivered.empty
        )
        # The end that came in the same poll may lie beyond these messages: that is for the row which tells it.
        delivered.row = batch.next_offset
        delivered.empty = [(begin, end) for begin, end in delivered.empty if end > batch.next_offset]
        return batch

    def _by_partition(
        self, messages: list[Message], only: Partition | None, now: float
    ) -> dict[Partition, list[Message]]:
        grouped: dict[Partition, list[Message]] = {}
        if not messages:
            return grouped
        events: list[Message] = []
        if any(map(Message.error, messages)):
            events = [message for message in messages if message.error() is not None]
            messages = [message for message in messages if not self._noted(message, now)]
        if only is not None and messages:
            grouped[only] = messages
        else:
            numbers = map(Message.partition, messages)
            for message, topic, number in zip(messages, map(Message.topic, messages), numbers, strict=True):
                grouped.setdefault((topic, number), []).append(message)
        for partition, of_partition in grouped.items():
            silence = self._ends.get(partition)
            # The end that was noted may lie behind these messages: both can come from one poll.
            if silence is not None and silence.end <= of_partition[-1].offset():
                del self._ends[partition]
            self._deliver(partition, of_partition)
        for event in events:
            silence = self._ends.get((event.topic(), event.partition()))
            if silence is not None:
                self._pass((event.topic(), event.partition()), silence.end)
        return grouped

    def _deliver(self, partition: Partition, messages: list[Message]) -> None:
        """Note how far a partition was delivered, and where offsets were passed over on the way."""
        first, end = messages[0].offset(), messages[-1].offset() + 1
        self._pass(partition, first)
        delivered = self._delivered[partition]
        if end - first > len(messages):
            offsets = [message.offset() for message in messages]
            delivered.empty += [(a + 1, b) for a, b in itertools.pairwise(offsets) if b > a + 1]
        delivered.next = end

    def _pass(self, partition: Partition, upto: int) -> None:
        """Note that the next thing in a partition stands at ``upto``."""
        delivered = self._delivered.get(partition)
        if delivered is None:
            # Where reading began is not known, so what is before may as well have been left out.
            self._delivered[partition] = _Delivery(upto, upto)
        elif upto > delivered.next:
            delivered.empty.append((delivered.next, upto))
            delivered.next = upto

    def _noted(self, message: Message, now: float) -> bool:
        """Whether a message is no reading but an event: the end of a partition is noted, an error raised."""
        if message.error() is None:
            return False
        if not _is_end(message):
            raise_for_msg_error(message)
        partition = (message.topic(), message.partition())
        if partition in self.assigned:
            self._ends[partition] = _Silence(message.offset(), now)
        return True

    def _paused(self) -> set[Partition]:
        return {(tp.topic, tp.partition) for tp in self.backpressured_tps}

    def _forget(self, partitions: set[Partition]) -> None:
        self._rebalances += 1
        self.assigned -= partitions
        self._rewound -= partitions
        for partition in partitions:
            self.handed_out.pop(partition, None)
        self._drop(partitions)

    def _drop(self, partitions: set[Partition]) -> None:
        for partition in partitions:
            self._ends.pop(partition, None)
            self._delivered.pop(partition, None)
        self._queue = deque(row for row in self._queue if (row.topic, row.partition) not in partitions)


def _is_end(message: Message) -> bool:
    error = message.error()
    return error is not None and error.code() == KafkaError._PARTITION_EOF


def _row(batch: MicroBatch) -> Row:
    offset = batch.next_offset - 1 if not batch.idle else IDLE_OFFSET
    context = MessageContext(topic=batch.topic, partition=batch.partition, offset=offset, size=len(batch))
    return Row(value=batch, key=KEY, timestamp=batch.polled_ms, context=context, headers=[])
