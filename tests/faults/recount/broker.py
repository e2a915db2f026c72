"""Topics read back with a plain client, a partition at a time, in the order of offsets."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

PATIENCE_S = 120.0


class Reader:
    """A client that takes part in no group's work, and sees what is committed."""

    def __init__(self, address: str) -> None:
        self._client: Any = Consumer(
            {
                "bootstrap.servers": address,
                "group.id": "faults-recount",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "enable.metrics.push": False,
                "log_level": 0,
                "fetch.wait.max.ms": 20,
                "fetch.message.max.bytes": 20_000_000,
            }
        )

    def topics(self) -> list[str]:
        """All topics."""
        return sorted(self._client.list_topics(timeout=30).topics)

    def messages(self, topic: str, partition: int) -> Iterator[Message]:
        """All messages that a partition has now. Raises TimeoutError when its end is not reached."""
        where = TopicPartition(topic, partition)
        begin, end = self._client.get_watermark_offsets(where, timeout=30)
        if end <= begin:
            return
        where.offset = begin
        self._client.assign([where])
        try:
            deadline = time.monotonic() + PATIENCE_S
            while time.monotonic() < deadline:
                for message in self._client.consume(5_000, timeout=0.05):
                    deadline = time.monotonic() + PATIENCE_S
                    error = message.error()
                    if error is None:
                        yield message
                        if message.offset() >= end - 1:
                            return
                    elif error.name() == "_PARTITION_EOF":
                        return
                    elif not error.retriable():
                        raise KafkaException(error)
            raise TimeoutError(f"{topic}[{partition}] could not be read to its end")
        finally:
            self._client.unassign()

    def close(self) -> None:
        """Close the client."""
        self._client.close()
