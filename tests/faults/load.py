"""``python -m faults.load``: readings written straight to the raw topics, at a steady rate, in every disorder.

A plain client and a seed; nothing is remembered but how many messages of each kind were written. What they were
the recount reads back from the topics. Event time goes with the wall clock. All values are multiples of a quarter, so
that sums are exact in whatever order they are made.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import KafkaError, Message, Producer

STEP_MS = 40
"""A meter measures 25 times a second."""
METER_PARTITIONS, PROBE_PARTITIONS = 4, 2
SITES, ROOMS = 5, 3
PROBES, PROBE_COLUMNS, PROBE_STEPS = 12, 10, 25
"""Each probe sends ten readings at once, every second."""
BEYOND_MS = 90_000
"""The readings that close all windows are so far beyond the last ones."""

SHARES = {
    "out_of_order": 0.02,
    "late": 0.004,
    "repeated": 0.006,
    "corrected": 0.001,
    "missing": 0.004,
    "pause": 0.0004,
    "future": 0.0004,
    "malformed": 0.001,
    "tombstone": 0.0002,
    "oversized": 0.0002,
}
"""Which part of the meters' readings has which fault; one has one at most. ``pause``: it is silent for seconds."""
MONSTER_EVERY_S = 15.0
MONSTERS = ("random_megabyte", "compressed_megabytes", "long_name_future", "long_name", "long_key")
"""Messages at the limits of what brokers and producers take."""

Pending = tuple[int, int, str, int, bytes, bytes | None]
"""When to send (ms), a running number, topic, partition, key and value."""


class Load:
    """The readings of one run."""

    def __init__(self, broker: str, *, seed: int, rate: int, without: frozenset[str]) -> None:
        self._random = random.Random(seed)
        self._without = without
        self._meters = max(rate * STEP_MS // 1_000, METER_PARTITIONS)
        self.sent: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        base: dict[str, Any] = {
            "bootstrap.servers": broker,
            "enable.metrics.push": False,
            "log_level": 0,
            # Order is what decides which readings are late, so a retry must not change it; and no message is
            # given up, however long the broker is away.
            "enable.idempotence": True,
            # Else a first batch that is refused is taken for delivered with the second.
            "max.in.flight": 1,
            "message.timeout.ms": 0,
            "queue.buffering.max.messages": 2_000_000,
            "queue.buffering.max.kbytes": 1_000_000,
            "on_delivery": self._delivered,
        }
        self._producer = Producer({**base, "linger.ms": 20})
        large = {"compression.type": "zstd", "message.max.bytes": 20_000_000, "on_delivery": self._tried}
        self._large = Producer({**base, **large})
        self._pending: list[Pending] = []
        self._number = 0
        self._silent_until = [0] * self._meters
        # Some clocks are slow, one is ahead: of a group, the slowest device decides.
        self._skew_ms = [-7_000 if i % 29 == 5 else 2_000 if i % 31 == 7 else i % STEP_MS for i in range(self._meters)]
        shares = {kind: share for kind, share in SHARES.items() if kind not in without}
        self._kinds: list[tuple[float, str]] = []
        bound = 0.0
        for kind, share in shares.items():
            bound += share
            self._kinds.append((bound, kind))
        self._faulty = bound

    def run(self, seconds: float) -> None:
        """Write for so long, and then what closes all windows. Returns when the broker has all of it."""
        begun = time.time_ns() // 1_000_000 // STEP_MS * STEP_MS
        next_monster, monsters = begun + int(MONSTER_EVERY_S * 500), self._monsters()
        for step in range(int(seconds * 1_000 / STEP_MS)):
            now = begun + step * STEP_MS
            ahead_s = now / 1_000 - time.time()
            if ahead_s > 0:
                time.sleep(ahead_s)
            self._step(step, now)
            while self._pending and self._pending[0][0] <= now:
                self._send(*heapq.heappop(self._pending)[2:])
            if now >= next_monster and "monsters" not in self._without:
                next(monsters)
                next_monster += int(MONSTER_EVERY_S * 1_000)
            self._producer.poll(0)
        while self._pending:
            self._send(*heapq.heappop(self._pending)[2:])
        self._close_windows(begun + int(seconds * 1_000) + BEYOND_MS)
        for producer in (self._producer, self._large):
            while producer.flush(5):
                pass

    def _step(self, step: int, now: int) -> None:
        chance, faulty = self._random.random, self._faulty
        produce, skew = self._produce, self._skew_ms
        sent = 0
        for i, silent_until in enumerate(self._silent_until):
            if silent_until > now:
                continue
            ts = now + skew[i]
            # A device's tag is left out at times; it is what it said before.
            site = b"" if (step + i) % 97 == 5 else b',"site":"site-%d"' % (i % SITES)
            value = b'{"device":"meter-%04d","ts":%d,"current":%d.%02d,"voltage":%d%s}' % (
                i,
                ts,
                (step * 7 + i * 3) % 40,
                (step + i) % 4 * 25,
                210 + (step * 3 + i) % 40,
                site,
            )
            drawn = chance()
            if drawn < faulty:
                self._spoil(drawn, i, now, ts, value)
                continue
            produce("meters", i % METER_PARTITIONS, b"meter-%04d" % i, value)
            sent += 1
        self.sent["plain"] += sent
        for probe in range(PROBES):
            if (step + probe * 2) % PROBE_STEPS == 0:
                self._probe(probe, now)

    def _spoil(self, drawn: float, i: int, now: int, ts: int, value: bytes) -> None:
        """Send a reading with a fault, now or later."""
        kind = next(kind for bound, kind in self._kinds if drawn < bound)
        self.sent[kind] += 1
        between = self._random.randint
        partition, key = i % METER_PARTITIONS, b"meter-%04d" % i
        if kind == "out_of_order":
            self._later(now + between(40, 1_500), "meters", partition, key, value)
        elif kind == "late":
            self._later(now + between(3_000, 45_000), "meters", partition, key, value)
        elif kind == "repeated":
            self._produce("meters", partition, key, value)
            self._later(now + between(0, 30_000), "meters", partition, key, value)
        elif kind == "corrected":
            self._produce("meters", partition, key, value)
            other = value.replace(b'"current":', b'"current":1')
            self._later(now + between(0, 30_000), "meters", partition, key, other)
        elif kind == "pause":
            self._silent_until[i] = now + between(1_100, 6_000)
        elif kind == "future":
            self._produce("meters", partition, key, value.replace(b"%d" % ts, b"%d" % (ts + 86_400_000)))
        elif kind == "malformed":
            self._produce("meters", partition, key, self._malformed(value, between(0, 4)))
        elif kind == "tombstone":
            self._produce("meters", partition, key, None)
        elif kind == "oversized":
            self._produce("meters", partition, key, value[:-1] + b',"more":"%s"}' % (b"x" * 5_000))

    @staticmethod
    def _malformed(value: bytes, which: int) -> bytes:
        if which == 0:
            return value[:-1]
        one: dict[str, Any] = json.loads(value)
        if which == 1:
            one["current"] = "not a value"
        elif which == 2:
            del one["voltage"]
        elif which == 3:
            one["current"] = float("nan")
        else:
            one["ts"] = 1e300
        return json.dumps(one).encode()

    def _probe(self, probe: int, now: int) -> None:
        """Ten readings of a probe in one message; at times late, without its key, or again."""
        own = now + probe * 3
        times = [own + n * 100 for n in range(PROBE_COLUMNS)]
        value = json.dumps(
            {
                "at": [datetime.fromtimestamp(ms / 1_000, UTC).isoformat(timespec="milliseconds") for ms in times],
                "current": [ms // 100 % 64 * 0.25 for ms in times],
                "voltage": [220 + ms // 100 % 7 for ms in times],
                "room": [f"room-{probe % ROOMS}"] * PROBE_COLUMNS,
            }
        ).encode()
        partition, key = probe % PROBE_PARTITIONS, b"probe-%02d" % probe
        drawn = self._random.random()
        if drawn < 0.02 and "late" not in self._without:
            self.sent["late"] += PROBE_COLUMNS
            self._later(now + self._random.randint(500, 9_000), "probes", partition, key, value)
            return
        if drawn < 0.03 and "repeated" not in self._without:
            self.sent["repeated"] += PROBE_COLUMNS
            self._later(now + self._random.randint(0, 6_000), "probes", partition, key, value)
        if 0.03 <= drawn < 0.035 and "keyless" not in self._without:
            self.sent["keyless"] += 1
            self._produce("probes", partition, None, value)
            return
        if 0.04 <= drawn < 0.045 and "missing" not in self._without:
            self.sent["missing"] += PROBE_COLUMNS
            return
        self.sent["plain"] += PROBE_COLUMNS
        self._produce("probes", partition, key, value)

    def _monsters(self) -> Iterator[None]:
        """Messages around the limits of brokers and producers, one after the other."""
        turn = 0
        while True:
            kind = MONSTERS[turn % len(MONSTERS)]
            turn += 1
            self.sent[kind] += 1
            at = time.time() + (86_400 if kind == "long_name_future" else 0)
            said = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
            reading = json.dumps({"at": said, "current": 1.0, "voltage": 220}).encode()
            if kind == "random_megabyte":
                # No JSON from its first byte on: a random one may begin as a number does, and be refused for its shape.
                self._large_one("probes", b"probe-00", b"\xff" + os.urandom(999_899))
            elif kind == "compressed_megabytes":
                self._large_one("meters", b"meter-0000", b'{"device":"' + b"x" * 5_000_000 + b'"}')
            elif kind in ("long_name_future", "long_name"):
                self._large_one("probes", b"x" * 600_000, reading)
            else:
                self._large_one("probes", b"y" * 900_000, b"no json at all")
            yield

    def _close_windows(self, ts: int) -> None:
        """A reading of each device, far beyond all others: what was open before is over then."""
        for i in range(self._meters):
            value = b'{"device":"meter-%04d","ts":%d,"current":1.0,"voltage":220}' % (i, ts + i)
            self._produce("meters", i % METER_PARTITIONS, b"meter-%04d" % i, value)
        at = [datetime.fromtimestamp(ts / 1_000, UTC).isoformat(timespec="milliseconds")]
        value = json.dumps({"at": at, "current": [1.0], "voltage": [220]}).encode()
        for probe in range(PROBES):
            self._produce("probes", probe % PROBE_PARTITIONS, b"probe-%02d" % probe, value)
        self.sent["closing"] += self._meters + PROBES

    def _later(self, due: int, topic: str, partition: int, key: bytes, value: bytes) -> None:
        self._number += 1
        heapq.heappush(self._pending, (due, self._number, topic, partition, key, value))

    def _send(self, topic: str, partition: int, key: bytes, value: bytes | None) -> None:
        self._produce(topic, partition, key, value)

    def _produce(self, topic: str, partition: int, key: bytes | None, value: bytes | None) -> None:
        while True:
            try:
                self._producer.produce(topic, value, key, partition)
                return
            except BufferError:
                self._producer.poll(0.1)

    def _large_one(self, topic: str, key: bytes, value: bytes) -> None:
        self._large.produce(topic, value, key, 0)
        self._large.poll(0)

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self.failed[error.name()] += 1

    def _tried(self, error: KafkaError | None, message: Message) -> None:
        """A large message may be refused by the broker: then it is nobody's to count."""
        if error is not None and error.name() == "MSG_SIZE_TOO_LARGE":
            self.sent["refused_by_broker"] += 1
        else:
            self._delivered(error, message)


def main() -> int:
    """Write, and say on the last line of the output what was written."""
    parser = argparse.ArgumentParser(prog="faults.load", description="Write readings in every disorder.")
    parser.add_argument("--broker", required=True)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--rate", type=int, default=5_200, help="readings a second of the meters")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--without", default="", help=f"of {', '.join([*SHARES, 'keyless', 'monsters'])}")
    flags = parser.parse_args()
    load = Load(flags.broker, seed=flags.seed, rate=flags.rate, without=frozenset(flags.without.split(",")))
    begun, cpu = time.monotonic(), time.process_time()
    load.run(flags.seconds)
    seconds = time.monotonic() - begun
    print(
        json.dumps(
            {
                "sent": dict(load.sent),
                "failed": dict(load.failed),
                "seconds": round(seconds, 1),
                "cores": round((time.process_time() - cpu) / seconds, 3),
            }
        )
    )
    return 1 if load.failed else 0


if __name__ == "__main__":
    sys.exit(main())
