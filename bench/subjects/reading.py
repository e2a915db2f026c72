"""The consumer of the subjects that are a loop on confluent-kafka: tuned as the micro-batch runtime's."""

from __future__ import annotations

from confluent_kafka import Consumer, TopicPartition


def consumer(broker: str, topic: str) -> Consumer:
    """A consumer at the beginning of a topic's partition 0."""
    made = Consumer(
        {
            "bootstrap.servers": broker,
            "group.id": "bench",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "enable.metrics.push": False,
            "fetch.queue.backoff.ms": 10,
            "queued.min.messages": 200_000,
            "fetch.wait.max.ms": 50,
        }
    )
    made.assign([TopicPartition(topic, 0, 0)])
    return made
