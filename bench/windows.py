"""The windows that a bench asks for, and what their results must be: how many, and with how many readings each."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from bench.topic import Readings
from headrace.topics import reader

PATIENCE_S = 30.0


@dataclass(frozen=True)
class Windows:
    """Windows by device: of ``size_ms``, one every ``step_ms`` (each reading has one of its own, if sliding).

    Sessions never pause, and are cut off after ``size_ms``.
    """

    kind: Literal["tumbling", "hopping", "sliding", "session"]
    size_ms: int = 10_000
    step_ms: int = 10_000
    grace_ms: int = 1_000

    @property
    def toml(self) -> str:
        """The window as a pipeline file has it."""
        if self.kind == "session":
            return f'{{ kind = "session", gap = "1s", longest = "{self.size_ms}ms" }}'
        step = f', step = "{self.step_ms}ms"' if self.kind == "hopping" else ""
        return f'{{ kind = "{self.kind}", size = "{self.size_ms}ms"{step} }}'

    def apart_ms(self, readings: Readings) -> int:
        """How much later than the one before it a device's next window is."""
        return readings.step_ms if self.kind == "sliding" else self.step_ms

    def a_result(self, readings: Readings) -> int:
        """For how many readings that were read a result stands."""
        return self.apart_ms(readings) // readings.step_ms

    def closed(self, readings: Readings, count: int) -> int:
        """How many windows are closed for sure when the first ``count`` readings are read.

        The last is only closed by silence, and those before it only after the grace.
        """
        span_ms = (count // readings.devices - 1) * readings.step_ms - self.grace_ms
        return max(span_ms // self.apart_ms(readings) - 1, 0) * readings.devices

    def held(self, readings: Readings, start_ms: int, end_ms: int, *, with_start: bool = False) -> int:
        """How many readings a window holds, by arithmetic.

        A sliding one holds what is after its start, up to and with its end; ``with_start``: and what is at its start.
        A session holds both.
        """
        after_start = self.kind == "sliding" and not with_start
        with_end = self.kind in ("sliding", "session")
        begin, end = (
            -((readings.start_ms - ms) // readings.step_ms) for ms in (start_ms + after_start, end_ms + with_end)
        )
        return max(min(end, readings.of_each) - max(begin, 0), 0)


class _Result(msgspec.Struct):
    """What every peer's results have; the times are ISO 8601 or ms since the epoch."""

    start: datetime | int
    end: datetime | int
    count: int


class _Results(msgspec.Struct):
    """As many results of a device, in one message."""

    start: list[datetime]
    end: list[datetime]
    count: list[int]


def _results(value: bytes) -> Iterator[tuple[int, int, int]]:
    """Start and end (ms) and count of each result in a message."""
    try:
        one = _DECODE_ONE(value)
    except msgspec.ValidationError:
        many = _DECODE_MANY(value)
        for start, end, count in zip(many.start, many.end, many.count, strict=True):
            yield _ms(start), _ms(end), count
    else:
        yield _ms(one.start), _ms(one.end), one.count


_DECODE_ONE = msgspec.json.Decoder(_Result).decode
_DECODE_MANY = msgspec.json.Decoder(_Results).decode


def check(
    address: str, topic: str, windows: Windows, readings: Readings, least: int, *, with_start: bool = False
) -> None:
    """Check the results in a topic: each window once, none left out, each with the readings it must have.

    Raises RuntimeError when one is wrong, or when there are fewer than ``least``.
    """
    seen: dict[bytes, list[int]] = {}
    total = 0
    for message in messages(address, topic):
        key, value = message.key(), message.value()
        for start_ms, end_ms, count in _results(value):
            expected = windows.held(readings, start_ms, end_ms, with_start=with_start)
            if count != expected:
                window = f"{start_ms} to {end_ms} ms"
                raise RuntimeError(f"{topic}: the window of {key.decode()} from {window} has {count}, not {expected}")
            seen.setdefault(key, []).append(end_ms)
            total += 1
    # Transaction markers are counted as results while it runs, one a second.
    if total < least * 0.98:
        raise RuntimeError(f"{topic}: {total} windows, and {least} are closed")
    apart_ms = windows.apart_ms(readings)
    for key, ends in seen.items():
        ends.sort()
        if ends != list(range(ends[0], ends[0] + len(ends) * apart_ms, apart_ms)):
            raise RuntimeError(f"{topic}: a window of {key.decode()} is there twice, or left out")


def messages(address: str, topic: str) -> Iterator[Message]:
    """All messages of a topic that are there now, committed ones only. Raises TimeoutError."""
    consumer = reader(address)
    try:
        left = set(partitions_of(consumer, topic))
        consumer.assign([TopicPartition(topic, n, 0) for n in left])
        deadline = time.monotonic() + PATIENCE_S
        while left:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{topic} does not come to its end")
            # A short while: it waits for as many messages as it is asked for.
            for message in consumer.consume(10_000, 0.1):
                error = message.error()
                if error is None:
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    left.discard(message.partition())
                else:
                    raise KafkaException(error)
    finally:
        consumer.close()


def end(consumer: Consumer, topic: str) -> int:
    """How many messages a topic has been given; 0 while it is not there."""
    return sum(
        int(consumer.get_watermark_offsets(TopicPartition(topic, n), timeout=10)[1])
        for n in partitions_of(consumer, topic)
    )


def partitions_of(consumer: Consumer, topic: str) -> list[int]:
    """The numbers of a topic's partitions; none while it is not there."""
    topics = consumer.list_topics(timeout=10).topics
    return sorted(topics[topic].partitions) if topic in topics else []


def _ms(time: datetime | int) -> int:
    return time if isinstance(time, int) else round(time.timestamp() * 1_000)
