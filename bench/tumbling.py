"""``tumbling``: windows of 10 s by device over one-reading JSON messages, 5 devices, 1 partition.

Headrace is the real ``python -m processors``: validation, durable state with its changelog, checkpoints each
second, and the ledger. It and Quix are measured by what reaches their topic of results, from the first window
that closed to the last; the loops, which produce nothing, from their first batch to their last.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition
from rich.console import Console

from bench.brokers import Broker, settle
from bench.measured import Line, Round, Run, lines
from bench.options import Options
from bench.process import running, told, watched
from bench.topic import Readings, fill
from headrace.pipeline import parse
from headrace.settings import Guarantee
from headrace.topics import ensure_topics, reader, wait_for_broker

DEVICES = 5
TOPIC = "readings"
EXACTLY = "headrace exactly-once"
BYTEWAX_VARIABLE = "HEADRACE_BENCH_BYTEWAX"
"""The Python of an environment that has ``bytewax[kafka]``, which does not go with our confluent-kafka."""

PIPELINE = """\
name = "bench-{round}"

[topics.readings]
partitions = 1
fields = {{ current = "float", voltage = "int" }}

[streams.windows-{round}]
from = "readings"
window = {{ kind = "tumbling", size = "10s" }}
grace = "1s"
aggregates = {{ current = ["count", "min", "max", "mean"] }}
"""


def run(broker: Broker, options: Options, console: Console) -> list[Line]:
    """Measure all subjects in rounds, one after the other."""
    readings = Readings.lately(options.readings, DEVICES)
    ensure_topics(wait_for_broker(broker.address), parse(PIPELINE.format(round=0)))
    console.print(f"tumbling: producing {readings.count:,} readings to {broker.name}")
    fill(broker.address, TOPIC, readings)
    slow = str(options.slow_readings)
    subjects: dict[str, Callable[[int], Run]] = {
        "consume": lambda _: told("bench.subjects.consume", broker.address, TOPIC, str(readings.count)),
        "headrace": lambda round_: _headrace(broker, readings, round_, "at-least-once"),
        EXACTLY: lambda round_: _headrace(broker, readings, round_, "exactly-once"),
        "hand loop": lambda _: told("bench.subjects.hand_loop", broker.address, TOPIC, str(readings.count)),
        "quix": lambda round_: _quix(broker, readings, options.slow_readings, round_),
    }
    extrapolated = f"rate over {options.slow_readings:,} readings of the same topic"
    notes = {"quix": extrapolated, "hand loop": "no validation, state in memory, no output"}
    python = os.environ.get(BYTEWAX_VARIABLE)
    if python:
        subjects["bytewax"] = lambda _: told(
            "bench.subjects.bytewax_windows", broker.address, f"{TOPIC}-few", slow, python=python
        )
        notes["bytewax"] = f"rate over {options.slow_readings:,} of the same readings; no recovery, no output"
        fill(broker.address, f"{TOPIC}-few", Readings(options.slow_readings, DEVICES, readings.start_ms))
    else:
        console.print(f"tumbling: no Bytewax, as {BYTEWAX_VARIABLE} names no Python that has it")
    rounds: list[Round] = []
    for number in range(1, options.repeat + 1):
        measured = {}
        for name, measure in subjects.items():
            settle()
            measured[name] = measure(number)
            console.print(f"tumbling: round {number}, {name}: {measured[name].per_s:,.0f} readings/s")
        rounds.append(measured)
    against = {"quix": "quix", "consume": "consume", "bytewax": "bytewax", "hand_loop": "hand loop"}
    made = lines("tumbling", rounds, against, notes)
    exactly = [{name: round_[name] for name in ("headrace", EXACTLY)} for round_ in rounds]
    by_name = {line.subject: line for line in made}
    by_name[EXACTLY].ratio |= lines("tumbling", exactly, {"at_least_once": "headrace"}, {})[1].ratio
    return made


def _headrace(broker: Broker, readings: Readings, number: int, guarantee: Guarantee) -> Run:
    name = f"{number}-{guarantee}"
    text = PIPELINE.format(round=name)
    ensure_topics(wait_for_broker(broker.address), parse(text))
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        file = Path(folder) / "pipeline.toml"
        file.write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "processors", "--pipeline", str(file), "--broker", broker.address]
        command += ["--data", folder, "--guarantee", guarantee]
        return _by_results(command, broker, f"windows-{name}", readings, readings.count)


def _quix(broker: Broker, readings: Readings, count: int, number: int) -> Run:
    into = f"quix-windows-{number}"
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        command = [sys.executable, "-m", "bench.subjects.quix_windows", broker.address, TOPIC, into, folder]
        return _by_results(command, broker, into, readings, count)


def _by_results(command: list[str], broker: Broker, into: str, readings: Readings, count: int) -> Run:
    """Measure by the windows in the topic of results: each stands for the readings of its device and 10 s."""
    # The last window is only closed by silence, and the one before it only after the grace.
    target = (count // readings.a_window - 2) * readings.devices
    consumer = reader(broker.address)
    try:
        with running(command) as subject:
            return watched(
                subject,
                lambda: _end(consumer, into),
                target,
                lambda windows: windows * readings.a_window // readings.devices,
            )
    finally:
        consumer.close()


def _end(consumer: Consumer, topic: str) -> int:
    """How many messages a topic has been given; 0 while it is not there."""
    if topic not in consumer.list_topics(timeout=10).topics:
        return 0
    end: int = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=10)[1]
    return end
