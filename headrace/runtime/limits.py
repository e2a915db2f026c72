"""How large a message each topic takes, and what a dead letter carries where the message itself is too large.

A broker checks a message after compression and a producer before it, so what was accepted once can be too large to
be sent on. Ours are checked here, against what the topic takes, before they reach a client that would end the service.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Mapping
from typing import Protocol

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from headrace.pipeline import Pipeline
from headrace.runtime.batches import Outgoing
from headrace.topics import BROKER_BYTES, CLIENT, wanted

PRODUCER_BYTES = 1_000_000_000
"""What our producers let pass (librdkafka's greatest): the topics' own limits are what counts."""

BATCH_BYTES = 1_000_000
"""The most bytes of a batch of messages (librdkafka's usual): a broker's limit for a message is one for a batch."""

HEADER_BYTES = 1_000
"""The most bytes of a text in a dead letter's headers."""

KEY_BYTES = 1_000
"""The longest key of a message that a dead letter carries where it cannot carry the message."""

_BATCH_BYTES, _RECORD_BYTES, _HEADER_FRAME_BYTES = 61, 36, 10
"""What Kafka's format adds at the most: to a batch, to a message in it, to a header."""

_NOT_ALLOWED = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED)

log = logging.getLogger("headrace.runtime")


class Limits(Protocol):
    """How large a message each topic takes."""

    def of(self, topic: str) -> int:
        """The most bytes of a message, with all that :func:`size_of` counts."""
        ...


class BrokerLimits:
    """The limits that the broker's topics have, each asked for once."""

    def __init__(self, broker: str) -> None:
        self._settings = {**CLIENT, "bootstrap.servers": broker}
        self._admin: AdminClient | None = None
        self._known: dict[str, int] = {}

    def of(self, topic: str) -> int:
        """The topic's ``max.message.bytes``. Raises KafkaException when the broker does not say it."""
        if topic not in self._known:
            self.ask([topic])
        return self._known[topic]

    def ask(self, topics: Collection[str]) -> None:
        """Ask for the limits of several topics at once. Raises KafkaException when the broker does not say them."""
        self._admin = self._admin or AdminClient(self._settings)
        asked = self._admin.describe_configs(
            [ConfigResource(ResourceType.TOPIC, topic) for topic in topics], request_timeout=10
        )
        for where, future in asked.items():
            try:
                self._known[where.name] = int(future.result(timeout=10)["max.message.bytes"].value)
            except KafkaException as error:
                if error.args[0].code() not in _NOT_ALLOWED:
                    raise
                log.warning(
                    "how large a message a topic takes may not be asked, so the broker's usual limit is assumed",
                    extra={"topic": where.name, "max.message.bytes": BROKER_BYTES},
                )
                self._known[where.name] = BROKER_BYTES


class DeclaredLimits:
    """The limits that a pipeline's topics are made with."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._known = {topic.name: topic.config for topic in wanted(pipeline)}

    def of(self, topic: str) -> int:
        """The topic's ``max.message.bytes``."""
        return int(self._known[topic].get("max.message.bytes", BROKER_BYTES))


def size_of(message: Outgoing) -> int:
    """The bytes that a broker counts of a message, at the most: its key, value and headers, and what frames them."""
    size = _BATCH_BYTES + _RECORD_BYTES + len(message.value) + len(message.key or b"")
    for name, value in message.headers:
        size += _HEADER_FRAME_BYTES + len(name.encode()) + len(value)
    return size


def dead_letter(message: Outgoing, said: Mapping[str, str], limits: Limits) -> Outgoing:
    """A message for a topic of dead letters, with what is said of it in headers; whole, if the topic takes it so.

    Otherwise it is carried by reference: without its bytes (and its key, if that is long), but with their ``size``
    and ``digest``, beside where it stands.
    """
    headers = [(name, _bounded(text)) for name, text in said.items()]
    whole = Outgoing(message.topic, message.key, message.value, message.timestamp_ms, headers)
    if size_of(whole) <= limits.of(message.topic):
        return whole
    headers += [
        ("carried", b"by reference"),
        ("size", b"%d" % len(message.value)),
        ("digest", f"sha256:{hashlib.sha256(message.value).hexdigest()}".encode()),
    ]
    key = message.key
    if key is not None and len(key) > KEY_BYTES:
        key = None
        headers.append(("key_size", b"%d" % len(message.key or b"")))
    return Outgoing(message.topic, key, b"", message.timestamp_ms, headers)


def _bounded(text: str) -> bytes:
    """A text for a header: cut where it is long."""
    written = text.encode(errors="replace")
    if len(written) <= HEADER_BYTES:
        return written
    return written[: HEADER_BYTES - 3].decode(errors="ignore").encode() + "…".encode()
