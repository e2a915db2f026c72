"""``hopping``: windows of 10 s every 2 s beside Quix' own; and of 60 s every second beside every 30 s.

Overlapping windows share their panes, so a step that is 30 times as short should cost little more.
"""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console

from bench.brokers import Broker
from bench.measured import Line, Run, lines
from bench.options import Options
from bench.rounds import rounds
from bench.streams import TOPIC, Stream, headrace, quix
from bench.topic import Readings, fill
from bench.windows import Windows

DEVICES = 5
BESIDE_QUIX = Windows("hopping", 10_000, 2_000)
LONG_STEP = Windows("hopping", 60_000, 30_000)
SHORT_STEP = Windows("hopping", 60_000, 1_000)


def run(broker: Broker, options: Options, console: Console) -> list[Line]:
    """Measure the three, and Quix' over fewer readings of the same topic."""
    readings = Readings.lately(options.readings, DEVICES)
    Stream("fill", BESIDE_QUIX).make_topics(broker)
    console.print(f"hopping: producing {readings.count:,} readings to {broker.name}")
    fill(broker.address, TOPIC, readings)
    slow = options.slow_readings
    subjects: dict[str, Callable[[int], Run]] = {
        "headrace 10 s / 2 s": lambda n: headrace(broker, Stream(f"10-2-{n}", BESIDE_QUIX), readings),
        "headrace 60 s / 30 s": lambda n: headrace(broker, Stream(f"60-30-{n}", LONG_STEP), readings),
        "headrace 60 s / 1 s": lambda n: headrace(broker, Stream(f"60-1-{n}", SHORT_STEP), readings),
        "quix 10 s / 2 s": lambda n: quix(broker, BESIDE_QUIX, readings, slow, f"quix-{n}"),
    }
    return lines(
        "hopping",
        rounds("hopping", subjects, options.repeat, console),
        {},
        {"quix 10 s / 2 s": f"rate over {slow:,} readings of the same topic"},
        {
            "quix": ("headrace 10 s / 2 s", "quix 10 s / 2 s"),
            "long_step": ("headrace 60 s / 1 s", "headrace 60 s / 30 s"),
        },
    )
