"""The parts that a bench runs on: a broker with a filled topic, a subject as a process, a line of results."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from headrace.broker.embedded import EmbeddedBroker
from headrace.topics import CLIENT, wait_for_broker

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results.jsonl"
BEGIN_MS = 1_767_225_600_000
TIMEOUT_S = 300


@dataclass
class Result:
    """What one subject did in one bench: medians over the rounds."""

    bench: str
    subject: str
    readings: int = 0
    readings_per_s: float = 0.0
    cpu_s: float = 0.0
    rss_mb: float = 0.0
    ratio: dict[str, float] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)

    def line(self, broker: str) -> str:
        """The result as it is kept."""
        kept = {
            "bench": self.bench,
            "subject": self.subject,
            "readings": self.readings,
            "readings_per_s": round(self.readings_per_s),
            "cpu_s": round(self.cpu_s, 3),
            "rss_mb": round(self.rss_mb),
            "ratio": {name: round(value, 3) for name, value in self.ratio.items()},
            **self.more,
            "broker": broker,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
            "quixstreams": version("quixstreams"),
        }
        return json.dumps(kept)


@contextmanager
def broker(kind: str) -> Iterator[tuple[str, str]]:
    """(address, name) of a broker: ``embedded``, ``kafka`` (Apache Kafka as the tests start it) or host:port."""
    if ":" in kind:
        yield kind, kind
    elif kind == "embedded":
        with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder, EmbeddedBroker(Path(folder)) as started:
            yield started.address, "embedded"
    elif kind == "kafka":
        sys.path.insert(0, str(ROOT / "tests"))
        from native_kafka import pick_kafka  # type: ignore[import-not-found,unused-ignore]

        with pick_kafka() as part:
            yield part.address, "Apache Kafka"
    else:
        raise SystemExit(f"--broker is {kind!r}: write embedded, kafka or host:port")


def fill(address: str, topic: str, readings: int, *, devices: int = 5, every_ms: int = 50) -> None:
    """A topic of one partition and ``readings`` one-reading JSON messages of about 73 bytes, in order."""
    admin = wait_for_broker(address, patience_s=30)
    admin.create_topics([NewTopic(topic, 1)])[topic].result()
    # Idempotent: a batch that is sent again must not come out of order.
    producer = Producer(
        {
            **CLIENT,
            "bootstrap.servers": address,
            "enable.idempotence": True,
            "linger.ms": 50,
            "queue.buffering.max.messages": 1_000_000,
            "queue.buffering.max.kbytes": 1_000_000,
        }
    )
    for n in range(readings):
        device, ts = n % devices, BEGIN_MS + n // devices * every_ms
        value = b'{"device":"meter-%04d","ts":%d,"current":%d.%d,"voltage":%d}' % (
            device,
            ts,
            n % 17,
            n % 10,
            215 + n % 9,
        )
        while True:
            try:
                producer.produce(topic, value, b"meter-%04d" % device)
                break
            except BufferError:
                producer.poll(0.1)
    if producer.flush(120):
        raise SystemExit("the broker did not take the readings within two minutes")


def drop(address: str, topics: Sequence[str]) -> None:
    """Delete topics that are no longer needed."""
    for future in AdminClient({**CLIENT, "bootstrap.servers": address}).delete_topics(list(topics)).values():
        future.result()


def measure(subject: str, **flags: object) -> dict[str, float]:
    """Run a subject as a process; its figures. Ends the bench, with what it said, when it fails."""
    given = [text for name, value in flags.items() for text in (f"--{name}", str(value))]
    done = subprocess.run(
        [sys.executable, "-m", f"bench.subjects.{subject}", *given],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{subject} ended with code {done.returncode}:\n{done.stderr[-3_000:]}")
    figures: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


def result(bench: str, subject: str, rounds: Sequence[Mapping[str, float]], **more: Any) -> Result:
    """The medians of a subject's rounds."""
    return Result(
        bench,
        subject,
        readings=int(median(r["readings"] for r in rounds)),
        readings_per_s=median(r["readings"] / r["seconds"] for r in rounds),
        cpu_s=median(r["cpu_s"] for r in rounds),
        rss_mb=median(r["rss_mb"] for r in rounds),
        more=more,
    )
