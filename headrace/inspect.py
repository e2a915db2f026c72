"""Looking into the broker: topics with their counts and lag, and a topic's messages, readable."""

from __future__ import annotations

import sys

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from rich.console import Console
from rich.table import Table as Grid

from headrace.errors import BrokerError, StoreUnavailable
from headrace.event_time import to_datetime
from headrace.ledger import add_up, of_store
from headrace.pipeline import Pipeline
from headrace.pipeline.consumer_groups import processors_group, sinks_group, streams_of_groups
from headrace.pipeline.nearest import nearest_name
from headrace.stores import Progress, open_store, too_old
from headrace.topics import reaches, reader, wait_for_broker

PATIENCE_S = 10.0


def list_topics(broker: str, pipeline: Pipeline, store: str) -> None:
    """Print every topic with its partitions, messages, how far each group is behind, and what the store dropped.

    Without a store that answers nothing is said of the last. Raises BrokerError when no broker answers.
    """
    admin = wait_for_broker(broker, patience_s=PATIENCE_S)
    names = sorted(admin.list_topics(timeout=10).topics)
    listed = admin.list_consumer_groups(request_timeout=10).result(timeout=10).valid
    there = [group.group_id for group in listed]
    groups = _groups(pipeline, there)
    # A broker has no offsets of a group that it does not know, but an error.
    consumers = {group: reader(broker, group) if group in there else None for group in groups}
    looking = reader(broker)
    grid = Grid("topic", "partitions", "messages", *(f"{said} behind" for said in groups.values()), "dropped", box=None)
    progress = _progress(store)
    dropped = {line.topic: line.dropped for line in add_up(of_store(progress), {})}
    for column in grid.columns[1:]:
        column.justify = "right"
    try:
        for name in names:
            reach = reaches(looking, name)
            kept = sum(r.end - r.begin for r in reach.values())
            lags = [_lag(consumer, name, {n: r.end for n, r in reach.items()}) for consumer in consumers.values()]
            told = (*lags, dropped.get(name))
            grid.add_row(name, f"{len(reach)}", f"{kept:,}", *("-" if n is None else f"{n:,}" for n in told))
    finally:
        for consumer in (looking, *consumers.values()):
            if consumer is not None:
                consumer.close()
    Console(width=None if sys.stdout.isatty() else 200).print(grid)
    for name, rows in too_old(progress).items():
        print(f"{name}: {rows:,} readings were dropped: older than [store] keeps them ({pipeline.store.retention})")


def _progress(url: str) -> dict[tuple[str, int], Progress]:
    try:
        store = open_store(url, readonly=True)
    except StoreUnavailable:
        return {}
    try:
        return store.progress()
    except StoreUnavailable:
        return {}
    finally:
        store.close()


def _groups(pipeline: Pipeline, there: list[str]) -> dict[str, str]:
    """The line's groups that are there, the two usual ones in any case, and what they are called."""
    said = {}
    for group, streams in streams_of_groups(pipeline, there).items():
        whole = group == processors_group(pipeline, pipeline.streams)
        said[group] = "processors" if whole else f"processors {' '.join(streams) or group[-8:]}"
    return {**said, sinks_group(pipeline): "sinks"}


def _lag(consumer: Consumer | None, topic: str, ends: dict[int, int]) -> int | None:
    """How many messages the group has not committed; None if there is no such group, or it does not read the topic."""
    if consumer is None:
        return None
    committed = consumer.committed([TopicPartition(topic, n) for n in ends], timeout=10)
    known: dict[int, int] = {tp.partition: tp.offset for tp in committed if tp.offset >= 0}
    if not known:
        return None
    behind: int = sum(end - known.get(partition, 0) for partition, end in ends.items())
    return behind


def tail(broker: str, topic: str, *, newest: int, follow: bool) -> None:
    """Print the topic's ``newest`` messages in the order of their times, then what comes.

    Raises BrokerError when there is no such topic.
    """
    admin = wait_for_broker(broker, patience_s=PATIENCE_S)
    names = admin.list_topics(timeout=10).topics
    if topic not in names:
        raise BrokerError(f"there is no topic {topic!r}", hint=nearest_name(topic, names))
    consumer = reader(broker)
    try:
        reach = reaches(consumer, topic)
        consumer.assign([TopicPartition(topic, n, max(r.begin, r.end - newest)) for n, r in reach.items()])
        # Up to the ends of now: where messages come all the time, the end of a partition is never reached.
        open_ends = {n for n, r in reach.items() if r.end > r.begin}
        backlog: list[Message] = []
        while open_ends:
            for message in consumer.consume(1_000, timeout=0.2):
                if _ends(message):
                    open_ends.discard(message.partition())
                else:
                    backlog.append(message)
                    if message.offset() >= reach[message.partition()].end - 1:
                        open_ends.discard(message.partition())
        backlog.sort(key=lambda message: message.timestamp()[1])
        for message in backlog[-newest:] if newest > 0 else []:
            print(readable(message), flush=True)
        while follow:
            for message in consumer.consume(1_000, timeout=0.2):
                if not _ends(message):
                    print(readable(message), flush=True)
    finally:
        consumer.close()


def readable(message: Message) -> str:
    """A message on one line: time, place, key, headers, value."""
    stamp = to_datetime(message.timestamp()[1] * 1_000).isoformat(timespec="milliseconds")
    key = (message.key() or b"").decode(errors="replace")
    headers = "".join(f" {name}={value.decode(errors='replace')}" for name, value in message.headers() or ())
    value = (message.value() or b"").decode(errors="backslashreplace")
    return f"{stamp} {message.partition()}/{message.offset()} {key}{headers} {value}"


def _ends(message: Message) -> bool:
    error = message.error()
    if error is None:
        return False
    if error.code() == KafkaError._PARTITION_EOF or error.retriable():
        return True
    raise KafkaException(error)
