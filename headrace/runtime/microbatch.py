"""A Quix Streams application whose rows are micro-batches: the messages of one partition from one poll.

Quix takes each message through Python alone, some 20 µs with a window. Here its consumer polls up to
``batch`` messages at once and hands on one row for each partition; everything else (checkpoints, state with
changelog, rebalancing, exactly-once, sinks) stays Quix's. This file leans on names inside Quix Streams 3.28
(``InternalConsumer.poll_row``, ``Application._get_internal_consumer``, ``ProcessingContext``, ``Row``);
the version is pinned to the minor, and a test holds its results against Quix's own windows.

What the rows promise:

- The rows of a partition come in the order of its offsets, none lost, none twice within an assignment. Rows
  that wait when their partition is revoked or sought are dropped: they will be read again.
- A partition that has reached its end and stays silent gives ``idle`` rows (no messages, no offset): first
  after ``silent_s``, then every ``tick_s``. One that is behind, or paused, never does.
- The key is constant, so state is scoped to the partition.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from confluent_kafka import KafkaError, Message, TopicPartition
from quixstreams import Application
from quixstreams.dataframe import StreamingDataFrame
from quixstreams.error_callbacks import default_on_processing_error
from quixstreams.internal_consumer import InternalConsumer
from quixstreams.kafka.consumer import raise_for_msg_error
from quixstreams.models import MessageContext, Row, Topic
from quixstreams.sinks.base import BaseSink

from headrace.errors import HeadraceError, SettingsError
from headrace.runtime.batches import MicroBatch, Outgoing
from headrace.settings import Guarantee

KEY = b"partition"
"""The constant key of every row."""

IDLE_OFFSET = -1
"""The offset of a row that covers no message; it is never stored."""

STOP_S = 10.0
"""How long a clean stop may take."""

log = logging.getLogger("headrace.runtime")

Partition = tuple[str, int]


@dataclass
class _Silence:
    """Where a partition ends, since when it has been silent there, and when it was last said so."""

    end: int
    since: float
    said: float | None = None


class MicroBatchConsumer(InternalConsumer):
    """Quix's consumer, giving one row a partition and poll."""

    def __init__(self, *, batch: int, silent_s: float, tick_s: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._batch = batch
        self._silent_s = silent_s
        self._tick_s = tick_s
        self._queue: deque[Row] = deque()
        self._ends: dict[Partition, _Silence] = {}
        self.assigned: set[Partition] = set()
        self._rebalances = 0
        self.on_quiet: list[Callable[[], None]] = []
        self.handed_out: dict[Partition, int] = {}
        """The first offset of each partition's row that was handed out last."""

    def subscribe(self, topics: list[Topic], on_assign: Any = None, on_revoke: Any = None, on_lost: Any = None) -> None:
        """Subscribe as Quix does, and know which partitions are ours."""

        def assigned(consumer: Any, partitions: list[TopicPartition]) -> None:
            on_assign(consumer, partitions)
            self._rebalances += 1
            self.assigned.update(
                (tp.topic, tp.partition) for tp in partitions if not self._topics[tp.topic].is_changelog
            )

        def gone(then: Callable[..., None], consumer: Any, partitions: list[TopicPartition]) -> None:
            # First of all: what waits must not be processed by the commit that a revoke brings.
            self._forget({(tp.topic, tp.partition) for tp in partitions})
            then(consumer, partitions)

        super().subscribe(
            topics,
            on_assign=assigned,
            on_revoke=functools.partial(gone, on_revoke),
            on_lost=functools.partial(gone, on_lost),
        )

    def trigger_backpressure(self, offsets_to_seek: dict[Partition, int], resume_after: float) -> None:
        """Pause and seek back as Quix does; what waits will be read again."""
        seek = dict(offsets_to_seek)
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
        before = self._rebalances
        messages = self.consume(num_messages=self._batch, timeout=timeout)
        # Where one partition is ours, and was all the time, every message is of it: no need to ask each.
        only = next(iter(self.assigned)) if len(self.assigned) == 1 and before == self._rebalances else None
        now, polled_ms = time.monotonic(), time.time_ns() // 1_000_000
        for partition, of_partition in self._by_partition(messages, only, now).items():
            # A rebalance inside consume() may have taken the partition away.
            if partition in self.assigned:
                self._queue.append(_row(MicroBatch(*partition, of_partition, polled_ms=polled_ms)))
        for partition, silence in self._ends.items():
            due = silence.since + self._silent_s if silence.said is None else silence.said + self._tick_s
            if now >= due and partition not in self._paused():
                silence.said = now
                self._queue.append(_row(MicroBatch(*partition, (), polled_ms=polled_ms, end=silence.end)))

    def _by_partition(
        self, messages: list[Message], only: Partition | None, now: float
    ) -> dict[Partition, list[Message]]:
        grouped: dict[Partition, list[Message]] = {}
        if not messages:
            return grouped
        if any(map(Message.error, messages)):
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
        return grouped

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
        return {(tp.topic, tp.partition) for tp in self._backpressurred_tps}

    def _forget(self, partitions: set[Partition]) -> None:
        self._rebalances += 1
        self.assigned -= partitions
        for partition in partitions:
            self._ends.pop(partition, None)
            self.handed_out.pop(partition, None)
        self._queue = deque(row for row in self._queue if (row.topic, row.partition) not in partitions)


def _is_end(message: Message) -> bool:
    error = message.error()
    return error is not None and error.code() == KafkaError._PARTITION_EOF


def _row(batch: MicroBatch) -> Row:
    offset = batch.next_offset - 1 if not batch.idle else IDLE_OFFSET
    context = MessageContext(topic=batch.topic, partition=batch.partition, offset=offset, size=len(batch))
    return Row(value=batch, key=KEY, timestamp=batch.polled_ms, context=context, headers=[])


def _on_processing_error(error: Exception, row: Row | None, logger: logging.Logger) -> bool:
    """Our own errors reach the user in two lines; the rest is logged as Quix does."""
    if row is None or isinstance(error, HeadraceError):
        return False
    return default_on_processing_error(error, row, logger)


class MicroBatchApplication(Application):
    """A Quix application on micro-batches.

    ``group`` is the consumer group; ``instance`` names this process among those of the group and must stay
    the same over restarts (static membership: a restart within ``session_s`` takes its partitions back at
    once; without one they wait that long). With exactly-once the transactional id is made of the two.
    """

    def __init__(
        self,
        *,
        broker: str,
        group: str,
        instance: str,
        state: Path,
        guarantee: Guarantee = "at-least-once",
        commit_s: float = 1.0,
        batch: int = 1_000,
        wait_s: float = 0.02,
        silent_s: float = 0.2,
        tick_s: float = 1.0,
        session_s: float = 10.0,
    ) -> None:
        if batch < 1:
            raise SettingsError("a micro-batch of no messages", hint="write a batch of 1 or more")
        self._batch, self._silent_s, self._tick_s = batch, silent_s, tick_s
        self.asked_to_stop = False
        self.has_committed = False
        """Whether a checkpoint was committed while partitions were assigned."""
        self._before_commit: list[Callable[[], None]] = []
        self._on_gone: list[Callable[[set[Partition]], None]] = []
        identity = f"{group}-{instance}"
        quiet = {"enable.metrics.push": False}
        super().__init__(
            broker_address=broker,
            consumer_group=group,
            auto_offset_reset="earliest",
            commit_interval=commit_s,
            consumer_poll_timeout=wait_s,
            state_dir=state,
            loglevel=None,
            processing_guarantee=guarantee,
            broker_availability_timeout=0,
            on_processing_error=_on_processing_error,
            consumer_extra_config={
                **quiet,
                "group.instance.id": identity,
                "session.timeout.ms": round(session_s * 1_000),
                "enable.partition.eof": True,
                "fetch.queue.backoff.ms": 10,
                "queued.min.messages": 200_000,
                "fetch.wait.max.ms": 50,
            },
            producer_extra_config={**quiet, "transactional.id": identity, "linger.ms": 5}
            if guarantee == "exactly-once"
            else {**quiet, "linger.ms": 5},
        )
        self._hook_checkpoints()

    def _get_internal_consumer(
        self, on_error: Any = None, extra_config_overrides: dict[str, Any] | None = None
    ) -> MicroBatchConsumer:
        config = self._config
        return MicroBatchConsumer(
            batch=self._batch,
            silent_s=self._silent_s,
            tick_s=self._tick_s,
            broker_address=config.broker_address,
            consumer_group=config.consumer_group,
            auto_offset_reset=config.auto_offset_reset,
            auto_commit_enable=False,
            extra_config={**config.consumer_extra_config, **(extra_config_overrides or {})},
            on_error=on_error,
        )

    def _hook_checkpoints(self) -> None:
        """Store no offset for idle rows, know where a checkpoint begins, and let state be written before it ends."""
        context, consumer = self._processing_context, cast(MicroBatchConsumer, self._consumer)
        store_offset, commit_checkpoint = context.store_offset, context.commit_checkpoint

        def store(topic: str, partition: int, offset: int) -> None:
            if offset == IDLE_OFFSET:
                return
            begun = context.checkpoint._starting_tp_offsets
            fresh = (topic, partition) not in begun
            store_offset(topic=topic, partition=partition, offset=offset)
            if fresh:
                # Quix notes the offset of the row, which is its last message's; seeking back (when a sink
                # is away) must go to its first.
                begun[topic, partition] = consumer.handed_out[topic, partition]

        def commit(force: bool = False, revoking: bool = False) -> None:
            # Asked once: were it asked again below, the time could run out in between, and the offsets be
            # committed without the state.
            if not (force or context.checkpoint.expired()):
                return
            for hook in self._before_commit:
                hook()
            checkpoint = context.checkpoint
            if not (revoking or self._config.exactly_once or checkpoint._tp_offsets or checkpoint.empty()):
                # State without offsets (windows closed by silence) is taken as it stands after a crash, so
                # what it has said already must be there first.
                self._producer.flush()
            assigned = bool(consumer.assigned)
            commit_checkpoint(force=True, revoking=revoking)
            self.has_committed = self.has_committed or assigned

        context.store_offset = store  # type: ignore[method-assign]
        context.commit_checkpoint = commit  # type: ignore[method-assign]

    def _on_sigterm(self, *arguments: Any) -> None:
        self._asked()
        super()._on_sigterm(*arguments)  # type: ignore[no-untyped-call]

    def _on_sigint(self, *arguments: Any) -> None:
        self._asked()
        super()._on_sigint(*arguments)  # type: ignore[no-untyped-call]

    def _asked(self) -> None:
        """Note that a stop is asked for, and end the process if its clean stop does not.

        A broker that is gone keeps a last commit waiting for ever; what was not committed is read again.
        """
        self.asked_to_stop = True

        def end() -> None:
            log.warning("the clean stop took too long, so the process ends", extra={"patience_s": STOP_S})
            os._exit(1)

        timer = threading.Timer(STOP_S, end)
        timer.daemon = True
        timer.start()

    def before_commit(self, hook: Callable[[], None]) -> None:
        """Call ``hook`` before each checkpoint is committed: the time to write state."""
        self._before_commit.append(hook)

    def on_quiet(self, hook: Callable[[], None]) -> None:
        """Call ``hook`` whenever a poll has brought nothing: the time for what was put off."""
        cast(MicroBatchConsumer, self._consumer).on_quiet.append(hook)

    def on_gone(self, hook: Callable[[set[Partition]], None]) -> None:
        """Call ``hook`` with the partitions that are revoked or lost, after their last commit."""
        self._on_gone.append(hook)

    def _revoke_state_partitions(self, topic_partitions: list[TopicPartition]) -> None:
        super()._revoke_state_partitions(topic_partitions=topic_partitions)
        gone = {(tp.topic, tp.partition) for tp in topic_partitions}
        for hook in self._on_gone:
            hook(gone)

    def batches(self, topic: str) -> StreamingDataFrame:
        """A dataframe over a topic's micro-batches: its values are MicroBatch objects."""
        return self.dataframe(self.topic(topic, value_deserializer="bytes"))

    def produce(self, outgoing: Iterable[Outgoing]) -> None:
        """Produce messages within the checkpoint that is open.

        By the application's own producer, past ``StreamingDataFrame.to_topic``: a result would cost there what
        thirty readings cost.
        """
        for message in outgoing:
            self._producer.produce(
                topic=message.topic,
                key=message.key,
                value=message.value,
                headers=message.headers,
                partition=message.partition,
                timestamp=message.timestamp_ms,
            )

    def flush_at_commit(self, sink: BaseSink) -> None:
        """Flush a sink that is fed otherwise than by ``StreamingDataFrame.sink`` with each checkpoint."""
        self._sink_manager.register(sink)

    def assigned(self, topic: str) -> list[int]:
        """The topic's partitions that are this process's now."""
        mine = cast(MicroBatchConsumer, self._consumer).assigned
        return sorted(partition for of, partition in mine if of == topic)

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has."""
        return len(self._consumer.list_topics(topic, timeout=30).topics[topic].partitions)

    def end_offset(self, topic: str, partition: int) -> int:
        """The offset that the partition's next message will have."""
        where = TopicPartition(topic, partition)
        return self._consumer.get_watermark_offsets(where, timeout=30)[1]

    def state(self, topic: str, partition: int) -> Any:
        """The state of a topic's partition, within the checkpoint that is open."""
        transaction = self._processing_context.checkpoint.get_store_transaction(stream_id=topic, partition=partition)
        return transaction.as_state(prefix=KEY)
