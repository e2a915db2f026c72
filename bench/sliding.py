"""``sliding``: each reading closes a window over the last 10 s, at 100 Hz a device, beside Quix' own."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console

from bench.brokers import Broker
from bench.by_ledger import covered
from bench.measured import Line, Run, lines
from bench.options import Options
from bench.rounds import rounds
from bench.streams import TOPIC, Stream, processors, quix
from bench.topic import STEP_MS, Readings, fill
from bench.windows import Windows, check

DEVICES = 2
WINDOWS = Windows("sliding")
FILLING = (WINDOWS.size_ms + WINDOWS.grace_ms) // STEP_MS * DEVICES
"""Until so many readings have come the windows are not full, and Quix, whose cost grows with them, is not measured."""

QUIX_READINGS = FILLING + 1_000


def run(broker: Broker, options: Options, console: Console) -> list[Line]:
    """Measure Headrace over all readings, and Quix over some that follow the first 10 s."""
    readings = Readings.lately(max(options.readings, 2 * QUIX_READINGS), DEVICES)
    Stream("fill", WINDOWS).make_topics(broker)
    console.print(f"sliding: producing {readings.count:,} readings to {broker.name}")
    fill(broker.address, TOPIC, readings)
    subjects: dict[str, Callable[[int], Run]] = {
        "headrace": lambda n: _headrace(broker, Stream(f"sliding-{n}", WINDOWS), readings),
        "quix": lambda n: quix(broker, WINDOWS, readings, QUIX_READINGS, f"quix-{n}", begin=FILLING),
    }
    return lines(
        "sliding",
        rounds("sliding", subjects, options.repeat, console),
        {"quix": "quix"},
        {
            "headrace": "as many results as readings",
            "quix": f"rate over {QUIX_READINGS - FILLING:,} readings of the same topic, when its windows are full",
        },
    )


def _headrace(broker: Broker, stream: Stream, readings: Readings) -> Run:
    """By the ledger: a message has the results of many readings, and how many differs."""
    with processors(broker, stream) as subjects:
        run = covered(broker, stream, readings, subjects).run
    check(broker.address, stream.into, stream.windows, readings, stream.windows.closed(readings, readings.count))
    return run
