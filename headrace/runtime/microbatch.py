"""A Quix Streams application whose rows are micro-batches: the messages of one partition from one poll.

Quix takes each message through Python alone, some 20 µs with a window. Here its consumer polls up to
``batch`` messages at once and hands on one row for each partition; everything else (checkpoints, state with
changelog, rebalancing, exactly-once, sinks) stays Quix's. This file and ``consumer`` lean on names inside Quix
Streams 3.28 (here ``Application._get_internal_consumer``, ``ProcessingContext``); the version is pinned to the
minor, and a test holds its results against Quix's own windows.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, cast

from confluent_kafka import KafkaException, TopicPartition
from quixstreams import Application
from quixstreams.checkpointing.exceptions import CheckpointProducerTimeout
from quixstreams.dataframe import StreamingDataFrame
from quixstreams.error_callbacks import default_on_processing_error
from quixstreams.models import Row
from quixstreams.sinks.base import BaseSink
from quixstreams.state import DEFAULT_STATE_STORE_NAME
from quixstreams.state.rocksdb import RocksDBOptions, RocksDBStore

from headrace.errors import HeadraceError, SettingsError, WriterReplaced
from headrace.runtime.batches import MicroBatch, Outgoing, Passed
from headrace.runtime.consumer import IDLE_OFFSET, KEY, MicroBatchConsumer, Partition
from headrace.runtime.fencing import CheckpointedPartition, FencedState
from headrace.runtime.limits import BATCH_BYTES, PRODUCER_BYTES, BrokerLimits
from headrace.settings import Guarantee
from headrace.topics import first_message, reader

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
        self._batch, self._silent_s, self._tick_s, self._session_s = batch, silent_s, tick_s, session_s
        self.asked_to_stop = False
        self.has_committed = False
        """Whether a checkpoint was committed while partitions were assigned."""
        self._before_commit: list[Callable[[], None]] = []
        self._on_gone: list[Callable[[set[Partition]], None]] = []
        self.limits = BrokerLimits(broker)
        """How large a message each topic takes: what is produced must fit."""
        identity = f"{group}-{instance}"
        quiet = {"enable.metrics.push": False}
        super().__init__(
            broker_address=broker,
            consumer_group=group,
            auto_offset_reset="earliest",
            commit_interval=commit_s,
            consumer_poll_timeout=wait_s,
            state_dir=state,
            rocksdb_options=STATE,
            loglevel=None,
            processing_guarantee=guarantee,
            broker_availability_timeout=0,
            on_processing_error=_on_processing_error,
            consumer_extra_config={
                **quiet,
                "group.instance.id": identity,
                "session.timeout.ms": round(session_s * 1_000),
                "heartbeat.interval.ms": min(3_000, round(session_s * 1_000 / 4)),
                "enable.partition.eof": True,
                "fetch.queue.backoff.ms": 10,
                "queued.min.messages": 200_000,
                # A fetch is answered as soon as there is a message, so this is how often an idle broker is asked.
                "fetch.wait.max.ms": 500,
            },
            producer_extra_config={
                **quiet,
                # Without idempotence a retry puts a whole batch behind what was sent after it.
                "enable.idempotence": True,
                "linger.ms": 5,
                "message.max.bytes": PRODUCER_BYTES,
                **({"transactional.id": identity} if guarantee == "exactly-once" else {}),
            },
        )
        self._hook_checkpoints()
        self._hook_recovery()

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
            # Asked first: an idle row that was rewound must not be taken for the one that comes after it.
            if consumer.was_rewound(topic, partition) or offset == IDLE_OFFSET:
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
            if not (self._config.exactly_once or context.checkpoint.empty()):
                # A restore takes the state as the changelog has it, whatever offsets were committed after. So what
                # it has emitted already must be there first, or the state must not be there either.
                waiting = self._producer.flush(timeout=REVOKE_S if revoking else None)
                if waiting and not revoking:
                    raise CheckpointProducerTimeout(f"{waiting} messages could not be produced")
                if waiting:
                    log.warning("partitions go without a last checkpoint", extra={"not_produced": waiting})
                    context.init_checkpoint()  # type: ignore[no-untyped-call]
                    return
            assigned = bool(consumer.assigned)
            commit_checkpoint(force=True, revoking=revoking)
            self.has_committed = self.has_committed or assigned

        context.store_offset = store  # type: ignore[method-assign]
        context.commit_checkpoint = commit  # type: ignore[method-assign]

    def _hook_recovery(self) -> None:
        """Restore state whole checkpoint by whole checkpoint, from the changelog alone."""
        manager = self._state_manager
        register, assign = manager.register_store, manager.on_partition_assign

        def registered(stream_id: str | None, *arguments: Any, **named: Any) -> None:
            register(stream_id, *arguments, **named)
            for store in manager.stores[stream_id].values():
                assert isinstance(store, RocksDBStore)  # noqa: S101 - as the application is made here
                make = functools.partial(CheckpointedPartition.in_place_of, store, prefix=KEY)
                store.create_new_partition = make  # type: ignore[method-assign]

        def assigned(stream_id: str | None, partition: int, committed_offsets: dict[str, int]) -> Any:
            # Quix leaves out what reaches beyond the committed offsets: a guess at what was cut off, which a former
            # owner's records pass, and the owner's own do not where the group was set back.
            return assign(stream_id, partition, dict.fromkeys(committed_offsets, NO_OFFSET))

        manager.register_store = registered  # type: ignore[method-assign]
        manager.on_partition_assign = assigned  # type: ignore[method-assign]

    def _on_assign(self, consumer: Any, topic_partitions: list[TopicPartition]) -> None:
        """Assign as Quix does, but keep the state where retention has deleted what was not read yet.

        Quix would delete it. What has expired is a gap in the offsets; the windows around it are still right.
        """
        sources = [tp for tp in topic_partitions if tp.topic in self._topic_manager.non_changelog_topics]
        behind = [
            TopicPartition(tp.topic, tp.partition, low)
            for tp in (self._consumer.committed(sources, timeout=30) if sources else ())
            if 0 <= tp.offset < (low := self._consumer.get_watermark_offsets(tp, timeout=30)[0])
        ]
        if behind:
            self._consumer.commit(offsets=behind, asynchronous=False)
        super()._on_assign(consumer, topic_partitions)

    def _on_lost(self, consumer: Any, topic_partitions: list[TopicPartition]) -> None:
        """Let go of partitions that are another's already, and of the checkpoint: it would be refused."""
        super()._on_lost(consumer, topic_partitions)
        self._processing_context.checkpoint.close(revoking=True)
        self._processing_context.init_checkpoint()  # type: ignore[no-untyped-call]

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

    def will_produce(self, topics: Collection[str]) -> None:
        """Know which topics messages go to: none of their batches may be larger than each of them takes.

        To be called before the application runs. Raises KafkaException when the broker does not say what they take.
        """
        self.limits.ask(topics)
        # Quix makes its client when it is first used, of these settings.
        settings = self._producer._producer._producer_config
        settings["batch.size"] = min([BATCH_BYTES, *(self.limits.of(topic) for topic in topics)])

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

    def assure(self, topic: str, partition: int, offset: int) -> None:
        """See that a partition, of which all below ``offset`` is done, is still this process's.

        Raises WriterReplaced if it is not. The broker is asked when it was not for half a session: so long after a
        process may have been suspended, and another may have taken over.
        """
        consumer, now = cast(MicroBatchConsumer, self._consumer), time.monotonic()
        if now - consumer.asked_s < self._session_s / 2:
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
        return self._consumer.get_watermark_offsets(where, timeout=30)[1]

    def passed(self, batch: MicroBatch, since: int) -> Passed:
        """Which offsets from ``since`` up to a micro-batch's end hold no message, as far as that was seen.

        What lies before the first message since the partition was assigned or sought is looked up on the broker:
        the group's offset, from which reading goes on, may be beyond what whoever asks has counted.
        """
        empty, expired = batch.empty_since(since), 0
        upto = min(batch.seen_from, batch.next_offset)
        if since < upto:
            consumer = reader(str(self._config.broker_address.bootstrap_servers))
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
        store = self._state_manager.get_store(topic, DEFAULT_STATE_STORE_NAME)

        def transaction() -> Any:
            return self._processing_context.checkpoint.get_store_transaction(stream_id=topic, partition=partition)

        return FencedState(store.partitions[partition], transaction, KEY)

    def rewind(self, topic: str, partition: int, offset: int) -> None:
        """Read an assigned partition on from ``offset``; the micro-batch at hand counts as not read."""
        cast(MicroBatchConsumer, self._consumer).rewind(topic, partition, offset)
