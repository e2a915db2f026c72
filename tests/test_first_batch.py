"""A producer's first batch is not lost when the leader of its partition is not ready yet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from processor_line import PATIENCE_S, until
from unready_leader import UnreadyLeader, unready_leader

from headrace.pipeline import parse
from headrace.runtime import MicroBatchApplication
from headrace.topics import CLIENT, reader
from producers.send import Sender
from servers.kafka import KafkaPart

pytestmark = pytest.mark.slow

PIPELINE = '[topics."{}"]\nfields = {{ value = "int" }}\npartitions = 1\n'
SENT = [b"first", b"second"]


def sent_by_producers(proxy: UnreadyLeader, topic: str, _folder: Path) -> None:
    sender = Sender(proxy.address, parse(PIPELINE.format(topic)))
    for value in SENT:
        sender.produce(topic, value, b"key", 0, None)
        until(lambda: proxy.topics, "the first batch")
    assert sender.settle()


def sent_by_processors_and_sinks(proxy: UnreadyLeader, topic: str, folder: Path) -> None:
    app = MicroBatchApplication(broker=proxy.address, group=topic, instance="1", state=folder / "state")
    with app.get_producer() as producer:
        for value in SENT:
            producer.produce(topic, value, "key")
            until(lambda: proxy.topics, "the first batch")
        assert producer.flush(PATIENCE_S) == 0
    app.flush(PATIENCE_S)


@pytest.mark.parametrize("send", [sent_by_producers, sent_by_processors_and_sinks])
def test_a_first_batch_that_is_refused_is_sent_again(
    broker: KafkaPart, name: str, tmp_path: Path, send: Callable[[UnreadyLeader, str, Path], None]
) -> None:
    admin = AdminClient({**CLIENT, "bootstrap.servers": broker.address})
    for made in admin.create_topics([NewTopic(name, 1)]).values():
        made.result(PATIENCE_S)
    with unready_leader(broker.address) as proxy:
        send(proxy, name, tmp_path)
        assert proxy.refused == 1
    assert values(broker, name) == SENT


def values(broker: KafkaPart, topic: str) -> list[bytes | None]:
    """All that partition 0 holds."""
    consumer = reader(broker.address)
    found: list[bytes | None] = []
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        while (message := consumer.poll(PATIENCE_S)) is not None:
            if message.error() is not None:
                assert message.error().code() == KafkaError._PARTITION_EOF
                break
            found.append(message.value())
    finally:
        consumer.close()
    return found
