"""``columnar``: the windows of ``tumbling`` over messages of 100 readings each, as columns."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console

from bench.brokers import Broker
from bench.measured import Line, Run, lines
from bench.options import Options
from bench.process import told
from bench.rounds import rounds
from bench.streams import TOPIC, Stream, headrace
from bench.topic import Readings, fill
from bench.windows import Windows

DEVICES = 5
A_MESSAGE = 100
FACTOR = 5
"""So many times the readings of other benches: a million of them is too soon done."""

WINDOWS = Windows("tumbling")


def run(broker: Broker, options: Options, console: Console) -> list[Line]:
    """Measure Headrace, the loop by hand and the bare consumer over the same messages."""
    readings = Readings.lately(options.readings * FACTOR, DEVICES, a_message=A_MESSAGE)
    Stream("fill", WINDOWS).make_topics(broker)
    console.print(f"columnar: producing {readings.count:,} readings in {readings.messages:,} messages to {broker.name}")
    fill(broker.address, TOPIC, readings)
    messages = str(readings.messages)
    at = (broker.address, TOPIC, messages)
    subjects: dict[str, Callable[[int], Run]] = {
        "consume": lambda _: told("bench.subjects.consume", *at).times(A_MESSAGE),
        "headrace": lambda n: headrace(broker, Stream(f"keep-{n}", WINDOWS), readings),
        "headrace, repeats dropped": lambda n: headrace(broker, Stream(f"drop-{n}", WINDOWS, repeats="drop"), readings),
        "hand loop": lambda _: told("bench.subjects.hand_loop_columns", *at, str(readings.count)).times(A_MESSAGE),
    }
    return lines(
        "columnar",
        rounds("columnar", subjects, options.repeat, console),
        {"consume": "consume", "hand_loop": "hand loop"},
        {"hand loop": "no validation, state in memory, no output"},
        {"keep": ("headrace, repeats dropped", "headrace")},
    )
