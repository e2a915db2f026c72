"""``python -m bench [BENCH ...]``: run benches, print a table of each, append their lines to results.jsonl."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from bench import (
    churn,
    columnar,
    devices,
    grace,
    hopping,
    idle,
    latency,
    profile,
    scale,
    scan,
    sink,
    sliding,
    soak,
    tumbling,
)
from bench.brokers import Broker, broker
from bench.machine import circumstances
from bench.measured import Line, append, show
from bench.options import Options
from headrace.errors import HeadraceError
from servers.absent import ServerAbsent

BENCHES: dict[str, Callable[[Broker, Options, Console], list[Line]]] = {
    "tumbling": tumbling.run,
    "columnar": columnar.run,
    "hopping": hopping.run,
    "sliding": sliding.run,
    "grace": grace.run,
    "devices": devices.run,
    "churn": churn.run,
    "scale": scale.run,
    "profile": profile.run,
    "sink": sink.run,
    "scan": scan.run,
    "latency": latency.run,
    "idle": idle.run,
}
LONG = {"soak": soak.run}
"""Benches that run only when they are named."""
RESULTS = Path(__file__).parent / "results.jsonl"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the named benches, or all."""
    parser = argparse.ArgumentParser(prog="bench", description="Measure Headrace beside its peers.")
    parser.add_argument(
        "benches", nargs="*", metavar="BENCH", help=f"{', '.join(BENCHES)} (all if none is named); soak"
    )
    parser.add_argument("--readings", type=int, default=Options.readings, help="for the fast subjects")
    parser.add_argument(
        "--slow-readings", type=int, default=Options.slow_readings, help="for Quix's own windows and Bytewax"
    )
    parser.add_argument("--repeat", type=int, default=Options.repeat, help="rounds; medians are shown")
    parser.add_argument("--broker", default="embedded", help="embedded, kafka (Java and Maven), or host:port")
    parser.add_argument("--rate", type=int, default=Options.rate, help="soak: readings a second")
    parser.add_argument("--minutes", type=float, default=Options.minutes, help="soak: for how long")
    parser.add_argument("--picture", type=Path, help="soak: the SVG that the memory over time is drawn into")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the file that lines are appended to")
    flags = parser.parse_args(arguments)
    known = {**BENCHES, **LONG}
    unknown = [name for name in flags.benches if name not in known]
    if unknown:
        parser.error(f"there is no bench {unknown[0]!r}; there are {', '.join(known)}")
    options = Options(
        flags.readings,
        min(flags.slow_readings, flags.readings),
        flags.repeat,
        flags.rate,
        flags.minutes,
        flags.picture,
    )
    console = Console(width=None if sys.stdout.isatty() else 160)
    try:
        for name in flags.benches or BENCHES:
            # A broker for each bench: what one has filled is not another's to carry.
            with broker(flags.broker) as started:
                measured = known[name](started, options, console)
                if measured:
                    show(console, measured)
                    append(flags.results, measured, circumstances(started.name))
    except HeadraceError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        return 2
    except ServerAbsent as absent:
        print(f"error: {absent}\nhint: install Java and Maven, or write --broker embedded", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
