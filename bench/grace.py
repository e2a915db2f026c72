"""``grace``: sessions over readings that wait for 1, 10 and 60 s, 100,000 of them a second of event time.

Sessions take readings in order, so each waits for as long as the grace: up to 6,000,000 at once. What waits must cost
memory alone. All are measured over the same readings, those that follow the first minute.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from rich.console import Console

from bench.brokers import Broker
from bench.by_ledger import covered
from bench.measured import Line, Run, lines
from bench.options import Options
from bench.rounds import rounds
from bench.streams import TOPIC, Stream, processors
from bench.topic import STEP_MS, Readings, fill
from bench.windows import Windows, check

DEVICES = 1_000
A_MESSAGE = 100
FACTOR = 3
"""So many times the readings of other benches: a poll brings hundreds of thousands of them."""

GRACES_S = (1, 10, 60)
FILLING = max(GRACES_S) * 1_000 // STEP_MS * DEVICES
"""When so many readings have come as many wait as ever will."""


def run(broker: Broker, options: Options, console: Console) -> list[Line]:
    """Measure each grace over as many readings as are asked for, after those that fill the longest."""
    readings = Readings.lately(FILLING + FACTOR * options.readings, DEVICES, a_message=A_MESSAGE)
    Stream("fill", _sessions(1)).make_topics(broker)
    console.print(f"grace: producing {readings.count:,} readings to {broker.name}")
    fill(broker.address, TOPIC, readings)
    subjects: dict[str, Callable[[int], Run]] = {
        f"{grace_s} s": partial(_headrace, broker, grace_s, readings) for grace_s in GRACES_S
    }
    return lines(
        "grace",
        rounds("grace", subjects, options.repeat, console),
        {"1_s": "1 s"},
        {f"{grace_s} s": f"{grace_s * 1_000 // STEP_MS * DEVICES:,} readings wait" for grace_s in GRACES_S},
    )


def _sessions(grace_s: int) -> Windows:
    """Sessions that are cut off after 10 s, as readings come all the time."""
    return Windows("session", grace_ms=grace_s * 1_000)


def _headrace(broker: Broker, grace_s: int, readings: Readings, number: int) -> Run:
    """By the ledger: with 1,000 devices windows close in bursts."""
    stream = Stream(f"grace-{grace_s}-{number}", _sessions(grace_s))
    with processors(broker, stream) as subjects:
        run = covered(broker, stream, readings, subjects, after=FILLING // A_MESSAGE).run
    check(broker.address, stream.into, stream.windows, readings, stream.windows.closed(readings, readings.count))
    return run
