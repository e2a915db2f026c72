"""A real Kafka: the best part present, or a private Apache Kafka on the machine's Java.

In this order: the broker that HEADRACE_TEST_KAFKA names, Docker (testcontainers: Redpanda), Java and Maven on PATH.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from servers.absent import ServerAbsent
from servers.docker import docker_answers
from servers.jars import jars, lacking
from servers.ports import free_ports

ADDRESS_VARIABLE = "HEADRACE_TEST_KAFKA"
IMAGE = "redpandadata/redpanda:v25.3.4"
KAFKA = "Apache Kafka 4.3.1"
NATIVE = f"{KAFKA} on Java"
POM = Path(__file__).parent / "kafka.pom.xml"
SMALL = ("-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""Java's options for little memory and a quick start, as tests want it."""
FAST = ("-Xmx1g",)
"""Java's options for speed, as benches want it."""
START_TIMEOUT_S = 180.0

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
group.min.session.timeout.ms=1000
"""
_LOGGING = """\
<Configuration status="ERROR">
  <Appenders><Console name="out"><PatternLayout pattern="%d %p %c: %m%n"/></Console></Appenders>
  <Loggers><Root level="warn"><AppenderRef ref="out"/></Root></Loggers>
</Configuration>
"""
# The shell kills what it runs when its own input ends, as it does when the tests are killed.
_WITH_PARENT = '"$@" & echo $! >"$0"; read -r _; kill -9 $!; wait'
STOP_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class KafkaPart:
    """A broker that answers: its ``address`` (host:port) and the part's ``name``."""

    address: str
    name: str


class NativeKafka:
    """A private Apache Kafka (KRaft, one node) on free loopback ports, in a folder of its own.

    It may be stopped, in order or at once, and started again: the port and what it holds stay the same.
    """

    def __init__(self, folder: Path, libraries: Path, options: Sequence[str] = SMALL) -> None:
        self._folder = folder
        self._libraries = libraries
        self._options = options
        self._port, self._controller = free_ports(2)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start, formatting the folder the first time, and wait until it answers; ServerAbsent if it does not."""
        properties = self._folder / "server.properties"
        with self._output() as output:
            if not properties.exists():
                self._format(properties, output)
            self._process = subprocess.Popen(
                ["sh", "-c", _WITH_PARENT, str(self._pid_file), *self._java("kafka.Kafka", str(properties))],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        wait_ready(self.address, alive=lambda: self._process is not None and self._process.poll() is None)

    def stop(self) -> None:
        """End it at once, as a power cut would."""
        process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            process.stdin.close()
            process.wait(10)

    def stop_in_order(self) -> None:
        """Ask it to stop, and wait until it has; at once if it takes too long."""
        pid, deadline = int(self._pid_file.read_text()), time.monotonic() + STOP_TIMEOUT_S
        os.kill(pid, signal.SIGTERM)
        # The shell reaps it only when it is told to end, so that until then it may be a zombie.
        while time.monotonic() < deadline and not _is_gone(pid):
            time.sleep(0.05)
        self.stop()

    def _format(self, properties: Path, output: IO[bytes]) -> None:
        properties.write_text(
            _PROPERTIES.format(port=self._port, controller=self._controller, folder=self._folder), encoding="utf-8"
        )
        (self._folder / "log4j2.xml").write_text(_LOGGING, encoding="utf-8")
        # Its first byte is fixed, as an id that begins with a dash would be taken for a flag.
        cluster = urlsafe_b64encode(b"h" + uuid.uuid4().bytes[1:]).decode().rstrip("=")
        formatted = subprocess.run(
            self._java("kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(properties)),
            stdout=output,
            stderr=output,
            check=False,
        )
        if formatted.returncode:
            properties.unlink()
            raise ServerAbsent(f"its folder could not be formatted: {self._tail()}")

    @property
    def _pid_file(self) -> Path:
        return self._folder / "pid"

    def _java(self, *command: str) -> list[str]:
        logging = f"-Dlog4j2.configurationFile={self._folder / 'log4j2.xml'}"
        return ["java", *self._options, logging, "-cp", f"{self._libraries}/*", *command]

    def _output(self) -> IO[bytes]:
        return (self._folder / "output.log").open("ab")

    def _tail(self) -> str:
        return (self._folder / "output.log").read_text(errors="replace")[-2000:]


def which_kafka() -> str:
    """The name of the part that :func:`pick_kafka` would try first, or why there is none."""
    if os.environ.get(ADDRESS_VARIABLE):
        return f"{ADDRESS_VARIABLE}={os.environ[ADDRESS_VARIABLE]}"
    if docker_answers():
        return f"Docker: {IMAGE}"
    if lacking() is None:
        return f"native: {NATIVE}"
    return f"none: no {ADDRESS_VARIABLE}, no Docker daemon, no Java and Maven on PATH"


@contextmanager
def pick_kafka() -> Iterator[KafkaPart]:
    """The best real broker present, ready, and ended afterwards. Raises ServerAbsent when there is none."""
    address = os.environ.get(ADDRESS_VARIABLE)
    if address:
        wait_ready(address)
        yield KafkaPart(address, which_kafka())
        return
    reasons = [f"no {ADDRESS_VARIABLE}"]
    if docker_answers():
        container: Any = None
        try:
            container, address = _start_container()
        except Exception as error:
            reasons.append(f"Docker did not run {IMAGE}: {error}")
        else:
            try:
                yield KafkaPart(address, f"Docker: {IMAGE}")
            finally:
                container.stop()
            return
    else:
        reasons.append("no Docker daemon answers")
    if lacking() is not None:
        raise ServerAbsent(", ".join([*reasons, "no Java and Maven on PATH"]))
    libraries = jars(POM)
    folder = Path(tempfile.mkdtemp(prefix="headrace-kafka-"))
    kafka = NativeKafka(folder, libraries)
    try:
        kafka.start()
        yield KafkaPart(kafka.address, f"native: {NATIVE}")
    finally:
        kafka.stop()
        shutil.rmtree(folder)


def wait_ready(address: str, *, alive: Callable[[], bool] = lambda: True) -> None:
    """Wait until a broker answers. Raises ServerAbsent when it ends or does not in three minutes."""
    # A short backoff: else the client, once refused, would look again only after seconds.
    admin = AdminClient(
        {
            "bootstrap.servers": address,
            "enable.metrics.push": False,
            "log_level": 0,
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 200,
        }
    )
    deadline = time.monotonic() + START_TIMEOUT_S
    while alive() and time.monotonic() < deadline:
        try:
            if admin.list_topics(timeout=1).brokers:
                return
        except KafkaException as error:
            if not error.args[0].retriable() and error.args[0].name() not in ("_TRANSPORT", "_TIMED_OUT"):
                raise
    raise ServerAbsent(f"no broker answers at {address}")


def _start_container() -> tuple[Any, str]:
    from testcontainers.community.kafka import RedpandaContainer

    container: Any = RedpandaContainer(IMAGE)
    # Loopback only, which testcontainers does not do of itself.
    container.ports = dict.fromkeys(container.ports, ("127.0.0.1", None))
    container.start(timeout=START_TIMEOUT_S)
    try:
        address = container.get_bootstrap_server()
        wait_ready(address)
    except BaseException:
        container.stop()
        raise
    return container, address


def _is_gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
