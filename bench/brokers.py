"""The broker of a run: the embedded one, a private Apache Kafka on the machine's Java, or one that is named."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.jars import jars
from headrace.broker.embedded import EmbeddedBroker
from headrace.topics import wait_for_broker

# Kafka's version is pinned in one place; its jars lie in the cache that the tests use.
POM = Path(__file__).parent.parent / "tests" / "kafka" / "pom.xml"
START_TIMEOUT_S = 60.0
EMBEDDED = "embedded"

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={folder}/log
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
"""


@dataclass(frozen=True)
class Broker:
    """A broker that answers: ``host:port``, and what results.jsonl calls it."""

    address: str
    name: str


@contextmanager
def broker(wanted: str) -> Iterator[Broker]:
    """``embedded``, ``kafka`` or ``host:port``, ready; what was started ends afterwards, its data thrown away."""
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
                yield Broker(address, "Apache Kafka 4.3.1")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _kafka(folder: Path) -> Iterator[str]:
    port, controller = _free_ports(2)
    properties = folder / "server.properties"
    properties.write_text(_PROPERTIES.format(port=port, controller=controller, folder=folder), encoding="utf-8")
    logging = folder / "log4j2.xml"
    logging.write_text('<Configuration status="OFF"><Loggers><Root level="off"/></Loggers></Configuration>')
    java = ["java", "-Xmx1g", f"-Dlog4j2.configurationFile={logging}", "-cp", f"{jars(POM)}/*"]
    # Its first byte is fixed, as an id that begins with a dash would be taken for a flag.
    cluster = urlsafe_b64encode(b"h" + uuid.uuid4().bytes[1:]).decode().rstrip("=")
    with (folder / "output.log").open("wb") as output:
        formatting = [*java, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(properties)]
        subprocess.run(formatting, stdout=output, stderr=output, check=True)
        process = subprocess.Popen([*java, "kafka.Kafka", str(properties)], stdout=output, stderr=output)
    try:
        wait_for_broker(f"127.0.0.1:{port}", patience_s=START_TIMEOUT_S)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def settle(seconds: float = 1.0) -> None:
    """Let the machine come to rest between subjects: what one leaves to flush is not the next one's cost."""
    time.sleep(seconds)
