"""The adapter to Kafka: readings to keyed messages, delivered or counted as failed."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, TopicMetadata

from headrace.batch import Batch
from headrace.errors import BrokerError
from headrace.pipeline import Pipeline
from headrace.topics import CLIENT, ONCE_IN_ORDER, broker_away, ensure_topics, raw_topics, waiting_for_broker
from headrace.waiting import NotYet, Waiting, wait_for
from headrace.wire import Encoder
from producers.faults import malformed
from producers.partition import partition_of
from producers.portion import Portion, Source

logger = logging.getLogger("headrace.producers")
LOOK_MS = 5_000
"""How often it is looked at whether the broker takes what is sent."""

STOP_S = 4.0
"""How long a stop waits for the broker to take what is still queued."""


class Stopped(Exception):
    """A stop was asked for while the broker was waited for."""


class Sender:
    """One connection to the broker for all producers of a process. Not for use by two threads at once.

    Idempotent: a message is in the topic once, in the order of its partition, however often it had to be
    sent. A message waits in the queue for as long as the broker is away; when the queue is full, so does
    :meth:`Lane.send`.
    """

    def __init__(self, broker: str, pipeline: Pipeline, *, stop: threading.Event | None = None) -> None:
        self.broker = broker
        self._pipeline = pipeline
        self.stop = stop or threading.Event()
        self._client = {**CLIENT, "bootstrap.servers": broker, "client.id": "headrace-producers"}
        self._producer = Producer(
            {
                **self._client,
                **ONCE_IN_ORDER,
                "compression.type": "lz4",
                "linger.ms": 5,
                "batch.size": 262_144,
                "message.timeout.ms": 0,
                # As long as a topic takes it, whatever it becomes by compression: the broker has the last word.
                "message.max.bytes": max(int(topic.config["max.message.bytes"]) for topic in raw_topics(pipeline)),
                "queue.buffering.max.messages": 200_000,
                "queue.buffering.max.kbytes": 65_536,
                "partitioner": "murmur2_random",
                "delivery.report.only.error": True,
                "error_cb": self._error,
                "stats_cb": self._look_at_taken,
                "statistics.interval.ms": LOOK_MS,
            }
        )
        self._down = False
        self._away = Waiting(f"the broker at {broker} is back", tell=logger.warning)
        self._looked_s = 0.0
        self._held = Waiting(f"the broker at {broker} takes what is sent again", tell=logger.warning)
        self._taken: dict[tuple[str, str], int] = {}
        self._stopped_s: float | None = None
        self._fatal: KafkaError | None = None

    def connect(self) -> bool:
        """Wait until the broker answers, saying so once, and make the topics; False when stopped before that.

        Raises BrokerError when the broker refuses to make a topic.
        """
        try:
            wait_for(self._make_topics, waiting_for_broker(self.broker), every_s=0.2, pause=self._pause)
        except Stopped:
            return False
        return True

    def _make_topics(self) -> None:
        if self.stop.is_set():
            raise Stopped
        if not self._answers():
            raise broker_away(self.broker)
        try:
            ensure_topics(AdminClient(self._client), self._pipeline)
        except KafkaException as error:
            logger.warning("the topics are not ready yet", extra={"reason": error.args[0].str()})
            raise broker_away(self.broker) from None
        self._down = False

    def _pause(self, seconds: float) -> None:
        if self.stop.wait(seconds):
            raise Stopped

    def lane(self, source: Source) -> Lane:
        """A lane for the source's messages, once connected."""
        return Lane(self, source, self._partitions(source.topic_name))

    @property
    def queued(self) -> int:
        """How many messages the broker has not acknowledged yet."""
        return len(self._producer)

    def poll(self, seconds: float) -> None:
        """Serve the delivery reports, waiting up to ``seconds``. Raises BrokerError when nothing can be sent."""
        self._producer.poll(seconds)
        if self._fatal is not None:
            raise BrokerError(
                f"the broker at {self.broker} refuses: {self._fatal.str()}", hint="start the producers again"
            )
        if self._down and time.monotonic() - self._looked_s > 1.0:
            self._look()

    def settle(self) -> bool:
        """Wait until the broker has all that was sent; once stopped, no longer than STOP_S in all."""
        while self.queued:
            if self.given_up:
                return False
            self._producer.flush(0.1)
            self.poll(0)
        return True

    def produce(self, topic: str, value: bytes, key: bytes, partition: int | None, failed: Any) -> None:
        """Queue a message, waiting while the queue is full; ``failed(error, message)`` is called if it fails."""
        place = {} if partition is None else {"partition": partition}
        while True:
            try:
                self._producer.produce(topic, value, key, on_delivery=failed, **place)
                return
            except BufferError:
                if self.given_up:
                    failed(KafkaError(KafkaError._QUEUE_FULL), None)
                    return
                self.poll(0.05)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.MSG_SIZE_TOO_LARGE:
                    raise BrokerError(f"nothing can be sent: {error.args[0].str()}", hint="see the broker") from None
                failed(error.args[0], None)
                return

    def produce_rows(self, topic: str, values: Sequence[bytes], keys: Sequence[bytes], failed: Any) -> None:
        """Queue messages; librdkafka chooses the partition by the key, as partition_of does."""
        produce = self._producer.produce
        for value, key in zip(values, keys, strict=True):
            try:
                produce(topic, value, key, on_delivery=failed)
            except (BufferError, KafkaException):
                self.produce(topic, value, key, None, failed)

    @property
    def given_up(self) -> bool:
        """Whether a stop has waited long enough for the broker."""
        if not self.stop.is_set():
            return False
        if self._stopped_s is None:
            self._stopped_s = time.monotonic()
        return time.monotonic() - self._stopped_s > STOP_S

    def drop(self) -> None:
        """Give up what is still queued: it counts as failed."""
        self._producer.purge()
        self._producer.flush(1)

    def _answers(self) -> bool:
        try:
            self._producer.list_topics(timeout=1.0)
        except KafkaException:
            return False
        return True

    def _metadata(self, topic: str) -> TopicMetadata | None:
        try:
            return self._producer.list_topics(topic, timeout=10).topics[topic]
        except KafkaException:
            return None

    def _error(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = error
        elif error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._down = True

    def _look(self) -> None:
        """Whether the broker is really away: an idle connection that is closed looks the same at first."""
        answers = self._answers()
        self._looked_s = time.monotonic()
        if answers:
            self._down = False
            self._away.found()
        else:
            self._away.missing(NotYet(f"the broker at {self.broker}, to send what is queued"), self._looked_s)

    def _look_at_taken(self, statistics: str) -> None:
        """Say when the broker answers and takes nothing of what is queued: librdkafka sends it again in silence."""
        before, self._taken = self._taken, _taken_of_queued(statistics)
        if any(before.get(place) == taken for place, taken in self._taken.items()):
            if not self._down:
                what = f"the broker at {self.broker} to take what is sent: its log says why (on a full disk make room)"
                self._held.missing(NotYet(what), time.monotonic())
        else:
            self._held.found()

    def _partitions(self, topic: str) -> int:
        """How many partitions the topic has; one that was just made is not known everywhere at once."""
        until_s = time.monotonic() + 30
        while time.monotonic() < until_s:
            found = self._metadata(topic)
            if found is not None and found.error is None and found.partitions:
                return len(found.partitions)
            self.stop.wait(0.05)
        raise BrokerError(f"the topic {topic} has no partitions", hint="look at the broker's own log")


def _taken_of_queued(statistics: str) -> dict[tuple[str, str], int]:
    """Of each partition for which messages are queued the last one that the broker has taken, by librdkafka's count."""
    return {
        (name, number): partition["acked_msgid"]
        for name, topic in json.loads(statistics)["topics"].items()
        for number, partition in topic["partitions"].items()
        if partition["msgq_cnt"] + partition["xmit_msgq_cnt"] + partition["msgs_inflight"]
    }


class _Keys(dict[str, bytes]):
    """The message key of each device, encoded once."""

    def __missing__(self, device: str) -> bytes:
        key = self[device] = device.encode()
        return key


class Lane:
    """The messages of one source, and how many of its readings failed to arrive.

    Each message is keyed by its device. One of several readings holds those of one partition (of one device,
    if the topic has its key only in the message) and carries the key of its first.
    """

    def __init__(self, sender: Sender, source: Source, partitions: int) -> None:
        self.source = source
        self.sender = sender
        self.failed = 0
        self.messages = 0
        self._partitions = partitions
        self._encoder = Encoder(source.topic)
        self._names = [*source.topic.tags, *source.topic.fields]
        self._keys = _Keys()
        self._of_device: dict[str, int] = {}
        self._pending: dict[str | int, list[Batch]] = {}
        self._said: set[int] = set()
        self._one_failed = partial(self._count_failed, 1)

    def send(self, portion: Portion) -> None:
        """Queue the portion's readings. Those that wait for a message to fill go with :meth:`flush`."""
        batch = portion.batch
        if self.source.columns == 1:
            values = self._encoder.rows(batch)
            for place, kind in portion.malformed.items():
                values[place] = malformed(kind, values[place], self.source.topic)
            keys = self._keys
            self.messages += len(values)
            self.sender.produce_rows(
                self.source.topic_name, values, [keys[device] for device in batch.devices], self._one_failed
            )
            return
        if portion.malformed:
            for place, kind in portion.malformed.items():
                alone = batch.take(np.array([place]))
                value = malformed(kind, self._encoder.rows(alone)[0], self.source.topic)
                self._produce(value, alone.devices[0], 1)
            batch = batch.take(np.array([n for n in range(len(batch)) if n not in portion.malformed], np.int64))
        self._pack(batch)

    def flush(self) -> None:
        """Queue the messages that have not been filled."""
        for waiting in self._pending.values():
            if waiting:
                self._columns(Batch.joined(waiting, self._names))
        self._pending.clear()

    def _pack(self, batch: Batch) -> None:
        size = self.source.columns
        for group, part in self._grouped(batch):
            waiting = self._pending.setdefault(group, [])
            waiting.append(part)
            if sum(map(len, waiting)) < size:
                continue
            whole = Batch.joined(waiting, self._names)
            full = len(whole) // size * size
            for begin in range(0, full, size):
                self._columns(whole.take(slice(begin, begin + size)))
            rest = [whole.take(slice(full, None))] if full < len(whole) else []
            self._pending[group] = rest

    def _grouped(self, batch: Batch) -> list[tuple[str | int, Batch]]:
        """The readings that may share a message."""
        groups: dict[str | int, list[int]] = {}
        by_device = self.source.topic.key_in == "message"
        for place, device in enumerate(batch.devices):
            groups.setdefault(device if by_device else self._partition(device), []).append(place)
        if len(groups) == 1:
            return [(next(iter(groups)), batch)]
        return [(group, batch.take(np.array(places))) for group, places in groups.items()]

    def _partition(self, device: str) -> int:
        partition = self._of_device.get(device)
        if partition is None:
            partition = self._of_device[device] = partition_of(self._keys[device], self._partitions)
        return partition

    def _columns(self, batch: Batch) -> None:
        value = self._encoder.columns(batch)
        if len(value) > self.source.topic.max_bytes and len(batch) > 1:
            half = len(batch) // 2
            self._columns(batch.take(slice(half)))
            self._columns(batch.take(slice(half, None)))
            return
        self._produce(value, batch.devices[0], len(batch))

    def _produce(self, value: bytes, device: str, readings: int) -> None:
        failed = self._one_failed if readings == 1 else partial(self._count_failed, readings)
        self.messages += 1
        key = self._keys[device]
        self.sender.produce(self.source.topic_name, value, key, self._partition(device), failed)

    def _count_failed(self, readings: int, error: KafkaError | None, _message: object) -> None:
        if error is None:
            return
        self.failed += readings
        if error.code() not in self._said:
            self._said.add(error.code())
            logger.error("readings are not delivered", extra={"producer": self.source.name, "why": error.str()})
