"""``tumbling``: windows of 10 s by device over one-reading JSON messages, 5 devices, 1 partition.

Headrace is the real ``python -m processors``: validation, durable state with its changelog, checkpoints each
second, and the ledger. It, Quix and Kafka Streams are measured by what reaches their topic of results, from the
first window that closed to the last; the loops, which produce nothing, from their first batch to their last.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from rich.console import Console

from bench import kafka_streams
from bench.brokers import Broker
from bench.measured import Line, Run, lines
from bench.options import Options
from bench.process import told
from bench.rounds import rounds
from bench.streams import TOPIC, Stream, headrace, quix
from bench.topic import Readings, fill
from bench.windows import Windows

DEVICES = 5
WINDOWS = Windows("tumbling")
DROP = "headrace, repeats dropped"
EXACTLY = "headrace, exactly-once"
BYTEWAX_VARIABLE = "HEADRACE_BENCH_BYTEWAX"
"""The Python of an environment that has ``bytewax[kafka]``, which does not go with our confluent-kafka."""


def run(broker: Broker, options: Options, console: Console) -> list[Line]:
    """Measure all subjects in rounds, one after the other."""
    readings = Readings.lately(options.readings, DEVICES)
    Stream("fill", WINDOWS).make_topics(broker)
    console.print(f"tumbling: producing {readings.count:,} readings to {broker.name}")
    fill(broker.address, TOPIC, readings)
    slow, count = options.slow_readings, str(readings.count)
    subjects: dict[str, Callable[[int], Run]] = {
        "consume": lambda _: told("bench.subjects.consume", broker.address, TOPIC, count),
        "headrace": lambda n: headrace(broker, Stream(f"keep-{n}", WINDOWS), readings),
        DROP: lambda n: headrace(broker, Stream(f"drop-{n}", WINDOWS, repeats="drop"), readings),
        EXACTLY: lambda n: headrace(broker, Stream(f"exactly-{n}", WINDOWS, guarantee="exactly-once"), readings),
        "hand loop": lambda _: told("bench.subjects.hand_loop", broker.address, TOPIC, count),
        "quix": lambda n: quix(broker, WINDOWS, readings, slow, f"quix-{n}"),
    }
    notes = {
        "headrace": "repeats kept, as the peers do",
        "hand loop": "no validation, state in memory, no output",
        "quix": f"rate over {slow:,} readings of the same topic",
    }
    python = os.environ.get(BYTEWAX_VARIABLE)
    if python:
        few = Readings(slow // DEVICES * DEVICES, DEVICES, readings.start_ms)
        fill(broker.address, f"{TOPIC}-few", few)
        subjects["bytewax"] = lambda _: told(
            "bench.subjects.bytewax_windows", broker.address, f"{TOPIC}-few", str(few.count), python=python
        )
        notes["bytewax"] = f"rate over {few.count:,} of the same readings; no recovery, no output"
    else:
        console.print(f"tumbling: no Bytewax, as {BYTEWAX_VARIABLE} names no Python that has it")
    lacking = kafka_streams.why_not(broker)
    if lacking is None:
        subjects["kafka streams"] = lambda n: kafka_streams.measure(broker, WINDOWS, readings, f"kafka-streams-{n}")
        notes["kafka streams"] = "4.3.1, one thread, with its cache, at-least-once"
    else:
        console.print(f"tumbling: no Kafka Streams: {lacking}")
    return lines(
        "tumbling",
        rounds("tumbling", subjects, options.repeat, console),
        {
            "consume": "consume",
            "quix": "quix",
            "bytewax": "bytewax",
            "kafka_streams": "kafka streams",
            "hand_loop": "hand loop",
        },
        notes,
        {"at_least_once": (EXACTLY, "headrace"), "keep": (DROP, "headrace")},
    )
