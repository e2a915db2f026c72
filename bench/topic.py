"""The readings that the benches read: one JSON object a message, some 73 bytes, devices in turn, 100 Hz each."""

from __future__ import annotations

import time
from dataclasses import dataclass

from confluent_kafka import Producer

from headrace.topics import CLIENT

STEP_MS = 10
"""A device has a reading each 10 ms of event time, so a window of 10 s holds 1,000 of them."""


@dataclass(frozen=True)
class Readings:
    """``count`` readings of ``devices`` devices, in the order of their event times, from ``start_ms`` on."""

    count: int
    devices: int
    start_ms: int

    @classmethod
    def lately(cls, count: int, devices: int) -> Readings:
        """Readings that end an hour ago (or so), beginning at a whole window."""
        span_ms = count // devices * STEP_MS
        start_ms = time.time_ns() // 1_000_000 - span_ms - 3_600_000
        return cls(count, devices, start_ms // 10_000 * 10_000)

    def message(self, i: int) -> tuple[bytes, bytes]:
        """Key and value of the i-th message."""
        device = b"meter-%04d" % (i % self.devices)
        ts = self.start_ms + i // self.devices * STEP_MS
        return device, b'{"device":"%s","ts":%d,"current":%d.%02d,"voltage":%d}' % (
            device,
            ts,
            8 + i % 5,
            i * 7 % 100,
            215 + i % 11,
        )

    @property
    def a_window(self) -> int:
        """How many readings a window of 10 s holds over all devices."""
        return 10_000 // STEP_MS * self.devices


def fill(address: str, topic: str, readings: Readings) -> None:
    """Produce the readings to a topic, all to partition 0."""
    producer = Producer(
        {
            **CLIENT,
            "bootstrap.servers": address,
            # Idempotent: a batch that is sent again must not come out of order.
            "enable.idempotence": True,
            "linger.ms": 50,
            "batch.size": 1_000_000,
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    for i in range(readings.count):
        key, value = readings.message(i)
        while True:
            try:
                producer.produce(topic, value, key, partition=0)
                break
            except BufferError:
                producer.poll(0.05)
        if i % 10_000 == 0:
            producer.poll(0)
    left = producer.flush(120)
    if left:
        raise TimeoutError(f"{left} messages were not taken by the broker")
