"""The broker of a run: the embedded one, a private Apache Kafka on the machine's Java, or one that is named."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from headrace.broker.embedded import EmbeddedBroker
from headrace.topics import wait_for_broker
from servers.jars import jars
from servers.kafka import FAST, KAFKA, POM, NativeKafka

START_TIMEOUT_S = 60.0
EMBEDDED = "embedded"


@dataclass(frozen=True)
class Broker:
    """A broker that answers: ``host:port``, and what results.jsonl calls it."""

    address: str
    name: str


@contextmanager
def broker(wanted: str) -> Iterator[Broker]:
    """``embedded``, ``kafka`` or ``host:port``, ready; what was started ends afterwards, its data thrown away.

    Raises ServerAbsent where there is no Kafka to be started.
    """
    if wanted not in (EMBEDDED, "kafka"):
        wait_for_broker(wanted, patience_s=START_TIMEOUT_S)
        yield Broker(wanted, wanted)
        return
    folder = Path(tempfile.mkdtemp(prefix="headrace-bench-"))
    try:
        if wanted == EMBEDDED:
            with EmbeddedBroker(folder) as started:
                yield Broker(started.address, EMBEDDED)
        else:
            with _kafka(folder) as address:
                yield Broker(address, KAFKA)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _kafka(folder: Path) -> Iterator[str]:
    kafka = NativeKafka(folder, jars(POM), FAST)
    try:
        kafka.start()
        yield kafka.address
    finally:
        kafka.stop()


def settle(seconds: float = 1.0) -> None:
    """Let the machine come to rest between subjects: what one leaves to flush is not the next one's cost."""
    time.sleep(seconds)
