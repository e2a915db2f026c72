"""The readings that the benches read: devices in turn; a message is one as JSON (some 73 bytes), or many as columns."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from confluent_kafka import Producer

from headrace.topics import CLIENT, ONCE_IN_ORDER

STEP_MS = 10
"""100 Hz: a device has a reading each 10 ms of event time, so a window of 10 s holds 1,000 of them."""

Message = tuple[int, bytes, bytes]
"""Partition, key and value."""


@dataclass(frozen=True)
class Readings:
    """``count`` readings of ``devices`` devices, in the order of their event times, from ``start_ms`` on.

    Each device has one every ``step_ms``. ``a_message`` of them travel together, as columns if it is more than one.
    A device is of partition number % ``partitions``.
    """

    count: int
    devices: int
    start_ms: int
    step_ms: int = STEP_MS
    a_message: int = 1
    partitions: int = 1

    @classmethod
    def lately(
        cls, count: int, devices: int, *, step_ms: int = STEP_MS, a_message: int = 1, partitions: int = 1
    ) -> Readings:
        """About so many (as many of each device), beginning at a whole minute so that they end an hour ago or so."""
        whole = devices * a_message
        count = max(count // whole, 1) * whole
        start_ms = time.time_ns() // 1_000_000 - count // devices * step_ms - 3_600_000
        return cls(count, devices, start_ms // 60_000 * 60_000, step_ms, a_message, partitions)

    @property
    def messages(self) -> int:
        """How many messages they are."""
        return self.count // self.a_message

    @property
    def of_each(self) -> int:
        """How many readings each device has."""
        return self.count // self.devices

    def all_messages(self) -> Iterator[Message]:
        """The messages, in their order."""
        return map(self._message if self.a_message == 1 else self._columns, range(self.messages))

    def _message(self, i: int) -> Message:
        number = i % self.devices
        device = b"meter-%04d" % number
        ts = self.start_ms + i // self.devices * self.step_ms
        value = b'{"device":"%s","ts":%d,"current":%d.%02d,"voltage":%d}' % (
            device,
            ts,
            8 + i % 5,
            i * 7 % 100,
            215 + i % 11,
        )
        return number % self.partitions, device, value

    def _columns(self, message: int) -> Message:
        places = range(message * self.a_message, (message + 1) * self.a_message)
        devices, start, step = self.devices, self.start_ms, self.step_ms
        value = '{"device":["%s"],"ts":[%s],"current":[%s],"voltage":[%s]}' % (  # noqa: UP031 - as above, and fast
            '","'.join([f"meter-{i % devices:04}" for i in places]),
            ",".join([str(start + i // devices * step) for i in places]),
            ",".join([f"{8 + i % 5}.{i * 7 % 100:02}" for i in places]),
            ",".join([str(215 + i % 11) for i in places]),
        )
        return 0, b"meter-%04d" % (places.start % devices), value.encode()


def fill(address: str, topic: str, readings: Readings) -> None:
    """Produce the readings to a topic. Raises TimeoutError when the broker does not take them."""
    producer = Producer(
        {
            **CLIENT,
            "bootstrap.servers": address,
            **ONCE_IN_ORDER,
            "linger.ms": 50,
            "batch.size": 1_000_000,
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    for i, (partition, key, value) in enumerate(readings.all_messages()):
        while True:
            try:
                producer.produce(topic, value, key, partition=partition)
                break
            except BufferError:
                producer.poll(0.05)
        if i % 10_000 == 0:
            producer.poll(0)
    left = producer.flush(120)
    if left:
        raise TimeoutError(f"{left} messages were not taken by the broker")
