"""The topics of a pipeline on the broker: waiting for it, making them, and how far they reach."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from confluent_kafka import (
    OFFSET_END,
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec, TopicMetadata

from headrace.errors import BrokerError
from headrace.exhaustion import check_file_handles
from headrace.pipeline import Pipeline, all_topics, stream_topic
from headrace.pipeline.model import Topic
from headrace.pipeline.tables import DLQ_SUFFIX, late_topic, ledger_topic, repartition_topic
from headrace.waiting import NotYet, Waiting, wait_for

log = logging.getLogger("headrace.topics")

CLIENT = {"enable.metrics.push": False, "logger": logging.getLogger("headrace.librdkafka"), "log_level": 2}
"""What every Kafka client of ours is configured with."""

ONCE_IN_ORDER = {"enable.idempotence": True, "max.in.flight": 1}
"""What every producer of ours is configured with, so that a message is in its partition once and in order.

Idempotence alone loses messages: a leader that is not ready yet refuses a producer's first batch and then takes its
second, because a producer that it does not know may begin anywhere; librdkafka (2.12) takes that for the
acknowledgement of both. So a batch is sent when the one before it has been taken.
"""


BROKER_BYTES = 1_048_588
"""The longest message that a broker takes where nothing else is said (``max.message.bytes``)."""

PARTITIONS_S = 30.0
"""How long it is believed that a topic has the partitions that it had."""

ENVELOPE_BYTES = 65_536
"""Room beside a message's value: for its key, its headers, and what frames them."""


@dataclass(frozen=True)
class Wanted:
    """A topic as it should be made."""

    name: str
    partitions: int
    config: dict[str, str]


def wanted(pipeline: Pipeline) -> list[Wanted]:
    """Every topic that the pipeline needs: readings, results, dead letters, late readings, repartitions, the ledger."""
    topics = []
    for name, topic in all_topics(pipeline).items():
        retention = {"retention.ms": str(topic.retention.ms)}
        topics.append(_of_readings(name, topic))
        # A dead letter is the whole message, with headers beside it.
        topics.append(Wanted(name + DLQ_SUFFIX, 1, {**retention, **_longest(topic, 2)}))
    for name, stream in pipeline.streams.items():
        retention = {"retention.ms": str(stream.retention.ms), **_longest(stream_topic(pipeline, name), 2)}
        partitions = stream.partitions or pipeline.topics[stream.source].partitions
        if (late := late_topic(pipeline, name)) is not None:
            topics.append(Wanted(late, partitions, retention))
        if (repartition := repartition_topic(pipeline, name)) is not None:
            topics.append(Wanted(repartition, partitions, retention))
    topics.append(Wanted(ledger_topic(pipeline), 1, {"cleanup.policy": "compact"}))
    return topics


def raw_topics(pipeline: Pipeline) -> list[Wanted]:
    """The topics that producers send into."""
    return [_of_readings(name, topic) for name, topic in pipeline.topics.items()]


def written_topics(pipeline: Pipeline) -> list[str]:
    """The names of all other topics: what processors and sinks write into."""
    return [topic.name for topic in wanted(pipeline) if topic.name not in pipeline.topics]


def _of_readings(name: str, topic: Topic) -> Wanted:
    # The broker's own time decides what is dated too far ahead, so every stage judges a reading alike.
    config = {"retention.ms": str(topic.retention.ms), "message.timestamp.type": "LogAppendTime"}
    return Wanted(name, topic.partitions, {**config, **_longest(topic, 1)})


def _longest(topic: Topic, envelopes: int) -> dict[str, str]:
    """What a broker is told of the longest message of a topic: as long as declared, with what is around it."""
    return {"max.message.bytes": str(max(topic.max_bytes + envelopes * ENVELOPE_BYTES, BROKER_BYTES))}


def wait_for_broker(address: str, *, patience_s: float | None = None) -> AdminClient:
    """A client of the broker, when it answers; one line on stderr if it does not at once.

    Raises BrokerError after ``patience_s`` (never, if None).
    """
    admin = AdminClient({**CLIENT, "bootstrap.servers": address, "socket.timeout.ms": 5_000})

    def look() -> None:
        try:
            admin.list_topics(timeout=2)
        except KafkaException:
            # Without one it would seem to be the broker that is away.
            check_file_handles()
            raise broker_away(address) from None

    # A look waits by itself.
    wait_for(look, waiting_for_broker(address, patience_s=patience_s), every_s=0)
    return admin


def waiting_for_broker(address: str, *, patience_s: float | None = None) -> Waiting:
    """The notices of who waits for the broker."""
    return Waiting(f"the broker at {address} is there", patience_s=patience_s)


def broker_away(address: str) -> NotYet:
    """The broker does not answer."""
    return NotYet(
        f"the broker at {address}",
        BrokerError(
            f"no broker answers at {address}",
            hint="start it (`headrace broker` runs the embedded one), or name another with --broker",
        ),
    )


def ensure_topics(admin: AdminClient, pipeline: Pipeline, *, timeout_s: float = 30) -> None:
    """Make the pipeline's topics that are not there yet.

    Raises BrokerError when the broker refuses, and KafkaException when it cannot just now.
    """
    needed = wanted(pipeline)
    there = admin.list_topics(timeout=timeout_s).topics
    for topic in needed:
        found = there.get(topic.name)
        if found is not None and len(found.partitions) != topic.partitions:
            log.warning(
                "a topic has another number of partitions than the pipeline file says",
                extra={"topic": topic.name, "there": len(found.partitions), "declared": topic.partitions},
            )
    missing = [
        NewTopic(topic.name, num_partitions=topic.partitions, config=topic.config)
        for topic in needed
        if topic.name not in there
    ]
    if not missing:
        return
    for name, made in admin.create_topics(missing, operation_timeout=timeout_s).items():
        try:
            made.result(timeout=timeout_s)
        except KafkaException as error:
            if error.args[0].retriable():
                raise
            if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
                raise BrokerError(
                    f"the broker refuses to make the topic {name}: {error.args[0].str()}",
                    hint="make it by hand with the partitions the pipeline file says, or give the right to make topics",
                ) from None
    _await_metadata(admin, {topic.topic for topic in missing}, timeout_s)


def _await_metadata(admin: AdminClient, names: set[str], timeout_s: float) -> None:
    """A topic that was made is not always in the next answer, nor are its partitions led by anyone at once."""
    deadline = time.monotonic() + timeout_s
    while not all(
        _is_led(topics.get(name)) for topics in [admin.list_topics(timeout=timeout_s).topics] for name in names
    ):
        if time.monotonic() > deadline:
            raise BrokerError("topics were made and do not appear", hint="look at the broker's own log")
        time.sleep(0.05)


def _is_led(topic: TopicMetadata | None) -> bool:
    if topic is None or topic.error is not None or not topic.partitions:
        return False
    return all(partition.error is None and partition.leader >= 0 for partition in topic.partitions.values())


def read_again(admin: AdminClient, group: str, topics: list[str], made: list[str], *, patience_s: float = 15.0) -> None:
    """Let a consumer group begin at the first message of these topics again. All of its members must have stopped.

    What the topics ``made`` hold was made of the others' messages and will be again, so they are passed over.
    Raises BrokerError when a member is still there after ``patience_s`` (one that was killed is, for its session).
    """

    def look() -> None:
        try:
            offsets = [*_partitions(admin, topics), *_ends(admin, _partitions(admin, made))]
            [future] = admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, offsets)]).values()
            refused = [found.error for found in future.result(timeout=10).topic_partitions if found.error is not None]
        except KafkaException as error:
            refused = [error.args[0]]
        if refused:
            running = refused[0].code() in (KafkaError.UNKNOWN_MEMBER_ID, KafkaError.NON_EMPTY_GROUP)
            why = "a member of it is still running" if running else refused[0].str()
            raise NotYet(
                f"the group {group}, to set it back: {why}",
                BrokerError(
                    f"the group {group} cannot be set back: {why}",
                    hint="stop every service of this group, wait for 10 s, and start one with --rebuild",
                ),
            )

    wait_for(look, Waiting(f"the group {group} is set back", patience_s=patience_s), every_s=0.5)


def _partitions(admin: AdminClient, topics: list[str]) -> list[TopicPartition]:
    """The first offset of every partition of these topics."""
    there = admin.list_topics(timeout=10).topics
    return [TopicPartition(topic, n, 0) for topic in topics if topic in there for n in there[topic].partitions]


def _ends(admin: AdminClient, partitions: list[TopicPartition]) -> list[TopicPartition]:
    """The offset that the next message of each partition will have."""
    if not partitions:
        return []
    found = admin.list_offsets({where: OffsetSpec.latest() for where in partitions}, request_timeout=10)
    return [TopicPartition(where.topic, where.partition, end.result().offset) for where, end in found.items()]


@dataclass(frozen=True)
class Reach:
    """The offsets of a partition: the first that is kept, and the next to be written."""

    begin: int
    end: int


def reaches(consumer: Consumer, topic: str, *, timeout_s: float = 10) -> dict[int, Reach]:
    """How far each partition of a topic reaches; {} if there is no such topic."""
    partitions = _numbers(consumer, topic, timeout_s=timeout_s)
    return {n: Reach(*consumer.get_watermark_offsets(TopicPartition(topic, n), timeout=timeout_s)) for n in partitions}


class Ends:
    """Where topics end, for one who looks again and again: a look is one request for all of them."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._partitions: dict[str, list[int]] = {}
        """of the topics that are there"""
        self._known_s = -math.inf

    def of(self, topics: Collection[str], counted: Collection[tuple[str, int]] = ()) -> dict[tuple[str, int], int]:
        """The next offset of every partition of these topics, of those that are there.

        How many partitions there are is asked at times, and at once where a topic is not known to have one of the
        ``counted``. Raises KafkaException when the broker does not say.
        """
        known = all(topic in self._partitions for topic in topics)
        known = known and all(partition in self._partitions.get(topic, ()) for topic, partition in counted)
        if not known or time.monotonic() - self._known_s > PARTITIONS_S:
            self._partitions = {topic: _numbers(self._consumer, topic) for topic in topics}
            self._partitions = {topic: numbers for topic, numbers in self._partitions.items() if numbers}
            self._known_s = time.monotonic()
        asked = [TopicPartition(topic, n, OFFSET_END) for topic in topics for n in self._partitions.get(topic, ())]
        found = self._consumer.offsets_for_times(asked, timeout=10) if asked else []
        for partition in found:
            if partition.error is not None:
                self._known_s = -math.inf
                raise KafkaException(partition.error)
        return {(partition.topic, partition.partition): partition.offset for partition in found}


def _numbers(consumer: Consumer, topic: str, *, timeout_s: float = 10) -> list[int]:
    """The partitions of a topic; none if there is no such topic."""
    found = consumer.list_topics(topic, timeout=timeout_s).topics[topic]
    return sorted(found.partitions) if found.error is None else []


def first_message(consumer: Consumer, topic: str, partition: int, offset: int, *, timeout_s: float = 30) -> int:
    """The offset of the first message at or beyond ``offset``; the partition's end if there is none.

    Raises KafkaException when the broker does not say within ``timeout_s``.
    """
    deadline = time.monotonic() + timeout_s
    consumer.assign([TopicPartition(topic, partition, offset)])
    try:
        while time.monotonic() < deadline:
            message = consumer.poll(0.2)
            if message is None:
                continue
            error = message.error()
            if error is None or error.code() == KafkaError._PARTITION_EOF:
                found: int = message.offset()
                return max(found, offset)
            if not error.retriable():
                raise KafkaException(error)
    finally:
        consumer.unassign()
    raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"what is at offset {offset} of {topic}[{partition}]"))


ONE_AFTER_ANOTHER: dict[str, Any] = {"fetch.wait.max.ms": 10}
"""For a reader that goes from partition to partition: else each waits until the broker has given up on the last."""

SELDOM_ASKED: dict[str, Any] = {"fetch.wait.max.ms": 2_000}
"""For a reader that stays with its partitions: what comes is answered at once, and no news seldom asked for."""


def reader(address: str, group: str = "headrace-reader", **config: object) -> Consumer:
    """A consumer that looks at topics without taking part in a group's work."""
    return Consumer(
        {
            **CLIENT,
            "bootstrap.servers": address,
            "group.id": group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
            **config,
        }
    )
