"""Kafka Streams as a peer: present where Java and Maven are."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench.brokers import EMBEDDED, Broker
from bench.measured import Run
from bench.streams import TOPIC, by_results
from bench.topic import Readings
from bench.windows import Windows
from servers.jars import jars, lacking

FOLDER = Path(__file__).parent


def why_not(broker: Broker) -> str | None:
    """Why it cannot be measured on this machine and broker; None if it can."""
    if broker.name == EMBEDDED:
        # Its answer about a topic's configuration has a source of -1, for which Java's client has no name.
        return "it does not start on the embedded broker: write --broker kafka"
    tool = lacking()
    return None if tool is None else f"there is no {tool} on PATH"


def measure(broker: Broker, windows: Windows, readings: Readings, into: str) -> Run:
    """Measure its tumbling windows over a topic, as Headrace is measured, and check the results.

    Java compiles the source as it starts, before anything is measured.
    """
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as state:
        command = ["java", "-cp", f"{jars(FOLDER / 'pom.xml')}/*", str(FOLDER / "Windows.java")]
        command += [broker.address, TOPIC, into, state, str(windows.size_ms), str(windows.grace_ms)]
        return by_results(command, broker, into, windows, readings, count=readings.count)
