"""A Quix Streams application whose rows are micro-batches: the messages of one partition from one poll.

Quix takes each message through Python alone, some 20 µs with a window. Here its consumer polls up to
``batch`` messages at once and hands on one row for each partition; everything else (checkpoints, state with
changelog, rebalancing, exactly-once, sinks) stays Quix's. What it takes of the inside of Quix stands in ``quix``
alone, and a test holds its results against Quix's own windows.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException, TopicPartition

from headrace.errors import HeadraceError, WriterReplaced
from headrace.runtime.batches import MicroBatch, Outgoing, Passed
from headrace.runtime.consumer import IDLE_OFFSET, KEY, MicroBatchConsumer, Partition
from headrace.runtime.consumption import USUAL, Consumption
from headrace.runtime.fencing import CheckpointedPartition, FencedState
from headrace.runtime.limits import BATCH_BYTES, PRODUCER_BYTES, BrokerLimits
from headrace.runtime.quix import (
    BaseSink,
    CheckpointProducerTimeout,
    HookedApplication,
    RocksDBOptions,
    Row,
    StreamingDataFrame,
    default_on_processing_error,
    store_of,
    transaction_of,
)
from headrace.settings import Guarantee
from headrace.topics import ONCE_IN_ORDER, first_message, reader

STOP_S = 10.0
"""How long a clean stop may take."""

STATE = RocksDBOptions(
    write_buffer_size=4 * 1024 * 1024,
    max_write_buffer_number=2,
    target_file_size_base=16 * 1024 * 1024,
    max_total_wal_size=16 * 1024 * 1024,
    block_cache_size=32 * 1024 * 1024,
)
"""What a partition's store may take: at Quix's defaults it is 192 MB of write buffers, and grows for ten minutes."""

NO_OFFSET = 2**63 - 1

REVOKE_S = 5.0
"""How long a partition that is to be given away waits for its last results to be produced."""

log = logging.getLogger("headrace.runtime")


def _on_processing_error(error: Exception, row: Row | None, logger: logging.Logger) -> bool:
    """Our own errors reach the user in two lines; the rest is logged as Quix does."""
    if row is None or isinstance(error, HeadraceError):
        return False
    return default_on_processing_error(error, row, logger)


class MicroBatchApplication(HookedApplication):
    """A Quix application on micro-batches.

    ``group`` is the consumer group; ``instance`` names this process among those of the group and must stay
    the same over restarts (static membership: a restart within its session takes its partitions back at
    once; without one they wait that long). With exactly-once the transactional id is made of the two.
    ``produces`` are the topics that messages go to: none of their batches may be larger than each of them takes.

    Raises KafkaException when the broker does not say how large that is.
    """

    consumer: MicroBatchConsumer

    def __init__(  # noqa: PLR0913 - all by name
        self,
        *,
        broker: str,
        group: str,
        instance: str,
        state: Path,
        produces: Collection[str] = (),
        guarantee: Guarantee = "at-least-once",
        consumes: Consumption = USUAL,
        wait_s: float = 0.02,
        silent_s: float = 0.2,
        tick_s: float = 1.0,
    ) -> None:
        self._consumes, self._silent_s, self._tick_s = consumes, silent_s, tick_s
        session_ms = round(consumes.session_s * 1_000)
        self.asked_to_stop = False
        self.has_committed = False
        """Whether a checkpoint was committed while partitions were assigned."""
        self._before_commit: list[Callable[[], None]] = []
        self.limits = BrokerLimits(broker)
        """How large a message each topic takes: what is produced must fit."""
        if produces:
            self.limits.ask(produces)
        identity = f"{group}-{instance}"
        quiet = {"enable.metrics.push": False}
        super().__init__(
            broker_address=broker,
            consumer_group=group,
            auto_offset_reset="earliest",
            commit_interval=consumes.commit_s,
            consumer_poll_timeout=wait_s,
            state_dir=state,
            loglevel=None,
            processing_guarantee=guarantee,
            broker_availability_timeout=0,
            on_processing_error=_on_processing_error,
            consumer_extra_config={
                **quiet,
                "group.instance.id": identity,
                "session.timeout.ms": session_ms,
                "heartbeat.interval.ms": min(3_000, session_ms // 4),
                "enable.partition.eof": True,
                "fetch.queue.backoff.ms": 10,
                "queued.min.messages": 200_000,
                # A fetch is answered as soon as there is a message, so this is how often an idle broker is asked.
                "fetch.wait.max.ms": 500,
            },
            producer_extra_config={
                **quiet,
                **ONCE_IN_ORDER,
                "linger.ms": 5,
                "message.max.bytes": PRODUCER_BYTES,
                "batch.size": min([BATCH_BYTES, *(self.limits.of(topic) for topic in produces)]),
                **({"transactional.id": identity} if guarantee == "exactly-once" else {}),
            },
        )
        self.consumer.before_assign.append(self._keep_state)
        self.consumer.after_loss.append(self._drop_checkpoint)

    def make_consumer(self, settings: dict[str, Any]) -> MicroBatchConsumer:
        """A consumer that gives micro-batches."""
        self.consumer = MicroBatchConsumer(
            batch=self._consumes.batch, silent_s=self._silent_s, tick_s=self._tick_s, **settings
        )
        return self.consumer

    def make_partition(self, settings: dict[str, Any]) -> CheckpointedPartition:
        """A store that is restored whole checkpoint by whole checkpoint."""
        return CheckpointedPartition(**settings, options=STATE, prefix=KEY)

    def restored_up_to(self, committed: dict[str, int]) -> dict[str, int]:
        """Up to the changelog's end.

        Quix leaves out what reaches beyond the committed offsets: a guess at what was cut off, which a former owner's
        records pass, and the owner's own do not where the group was set back.
        """
        return dict.fromkeys(committed, NO_OFFSET)

    def on_store_offset(self, then: Callable[..., None], topic: str, partition: int, offset: int) -> None:
        """Store no offset for idle rows, and know where a checkpoint begins."""
        # Asked first: an idle row that was rewound must not be taken for the one that comes after it.
        if self.consumer.was_rewound(topic, partition) or offset == IDLE_OFFSET:
            return
        then(topic=topic, partition=partition, offset=offset)
        self.consumer.note_processed(topic, partition)

    def on_begin_checkpoint(self, then: Callable[[], None]) -> None:
        """Know again where a checkpoint begins."""
        self.consumer.begun.clear()
        then()

    def on_commit(self, then: Callable[..., None], *, force: bool = False, revoking: bool = False) -> None:
        """Let state be written before a checkpoint ends, and commit it after what it has emitted is produced."""
        # Asked once: were it asked again below, the time could run out in between, and the offsets be
        # committed without the state.
        checkpoint = self.context.checkpoint
        if not (force or checkpoint.expired()):
            return
        for hook in self._before_commit:
            hook()
        if not (self.config.exactly_once or checkpoint.empty()):
            # A restore takes the state as the changelog has it, whatever offsets were committed after. So what
            # it has emitted already must be there first, or the state must not be there either.
            waiting = self.flush(REVOKE_S if revoking else None)
            if waiting and not revoking:
                raise CheckpointProducerTimeout(f"{waiting} messages could not be produced")
            if waiting:
                log.warning("partitions go without a last checkpoint", extra={"not_produced": waiting})
                self.begin_checkpoint()
                return
        assigned = bool(self.consumer.assigned)
        then(force=True, revoking=revoking)
        self.has_committed = self.has_committed or assigned

    def _keep_state(self, sources: list[TopicPartition]) -> None:
        """Before partitions are assigned: keep their state where retention has deleted what was not read yet.

        Quix would delete it. What has expired is a gap in the offsets; the windows around it are still right.
        """
        behind = [
            TopicPartition(tp.topic, tp.partition, low)
            for tp in (self.consumer.committed(sources, timeout=30) if sources else ())
            if 0 <= tp.offset < (low := self.consumer.get_watermark_offsets(tp, timeout=30)[0])
        ]
        if behind:
            self.consumer.commit(offsets=behind, asynchronous=False)

    def _drop_checkpoint(self) -> None:
        """Let go of the checkpoint of partitions that are another's already: it would be refused."""
        self.context.checkpoint.close(revoking=True)
        self.begin_checkpoint()

    def on_signal(self) -> None:
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
        self.consumer.on_quiet.append(hook)

    def on_gone(self, hook: Callable[[set[Partition]], None]) -> None:
        """Call ``hook`` with the partitions that are revoked or lost, after their last commit."""
        self.consumer.on_gone.append(hook)

    def batches(self, topic: str) -> StreamingDataFrame:
        """A dataframe over a topic's micro-batches: its values are MicroBatch objects."""
        return self.dataframe(self.topic(topic, value_deserializer="bytes"))

    def produce(self, outgoing: Iterable[Outgoing]) -> None:
        """Produce messages within the checkpoint that is open.

        By the application's own producer, past ``StreamingDataFrame.to_topic``: a result would cost there what
        thirty readings cost.
        """
        produce = self.context.producer.produce
        for message in outgoing:
            produce(
                topic=message.topic,
                key=message.key,
                value=message.value,
                headers=message.headers,
                partition=message.partition,
                timestamp=message.timestamp_ms,
            )

    def flush(self, timeout_s: float | None = None) -> int:
        """Wait until all that was produced is there, or the time is over; how many messages are not."""
        return self.context.producer.flush(timeout=timeout_s)

    def flush_at_commit(self, sink: BaseSink) -> None:
        """Flush a sink that is fed otherwise than by ``StreamingDataFrame.sink`` with each checkpoint."""
        self.context.sink_manager.register(sink)

    def assigned(self, topic: str) -> list[int]:
        """The topic's partitions that are this process's now."""
        return sorted(partition for of, partition in self.consumer.assigned if of == topic)

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has."""
        return len(self.consumer.list_topics(topic, timeout=30).topics[topic].partitions)

    def assure(self, topic: str, partition: int, offset: int) -> None:
        """See that a partition, of which all below ``offset`` is done, is still this process's.

        Raises WriterReplaced if it is not. The broker is asked when it was not for half a session: so long after a
        process may have been suspended, and another may have taken over.
        """
        consumer, now = self.consumer, time.monotonic()
        if now - consumer.asked_s < self._consumes.session_s / 2:
            return
        try:
            consumer.commit(offsets=[TopicPartition(topic, partition, offset)], asynchronous=False)
        except KafkaException as error:
            raise WriterReplaced(
                f"{topic}[{partition}] may be another's by now: {error.args[0].str()}",
                hint="it is read again, by whoever it belongs to",
            ) from None
        consumer.asked_s = now

    def end_offset(self, topic: str, partition: int) -> int:
        """The offset that the partition's next message will have."""
        where = TopicPartition(topic, partition)
        return self.consumer.get_watermark_offsets(where, timeout=30)[1]

    def passed(self, batch: MicroBatch, since: int) -> Passed:
        """Which offsets from ``since`` up to a micro-batch's end hold no message, as far as that was seen.

        What lies before the first message since the partition was assigned or sought is looked up on the broker:
        the group's offset, from which reading goes on, may be beyond what whoever asks has counted.
        """
        empty, expired = batch.empty_since(since), 0
        upto = min(batch.seen_from, batch.next_offset)
        if since < upto:
            consumer = reader(str(self.config.broker_address.bootstrap_servers))
            try:
                where = TopicPartition(batch.topic, batch.partition)
                low = consumer.get_watermark_offsets(where, timeout=30)[0]
                expired = max(min(low, upto) - since, 0)
                if since + expired < upto:
                    found = first_message(consumer, batch.topic, batch.partition, since + expired)
                    empty += min(found, upto) - since - expired
            finally:
                consumer.close()
        return Passed(empty, expired)

    def state(self, topic: str, partition: int) -> FencedState:
        """The state of an assigned partition, as it was left by its last owner; ours is another epoch."""

        def transaction() -> Any:
            return transaction_of(self.context, topic, partition)

        return FencedState(store_of(self.context, topic, partition), transaction, KEY)

    def rewind(self, topic: str, partition: int, offset: int) -> None:
        """Read an assigned partition on from ``offset``; the micro-batch at hand counts as not read."""
        self.consumer.rewind(topic, partition, offset)
