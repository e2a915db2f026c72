"""``python -m faults``: run the line, disturb it, recount it, and say whether anything was lost or wrong."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from faults.chaos import WEIGHTS
from faults.run import Options, Run
from servers.absent import ServerAbsent

RESULTS = Path(__file__).parent.parent.parent / "bench" / "results.jsonl"


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if nothing was lost, nothing wrong, and no alarm false; 1 if not; 2 where a server is missing."""
    parser = argparse.ArgumentParser(prog="faults", description="Disturb the whole line, and recount it.")
    parser.add_argument("--minutes", type=float, default=Options.minutes, help="how long readings are written")
    parser.add_argument("--seed", type=int, default=Options.seed, help="of the readings and the disturbances")
    parser.add_argument("--rate", type=int, default=Options.rate, help="readings a second")
    parser.add_argument("--store", choices=("sqlite", "tdengine"), default=Options.store)
    parser.add_argument("--guarantee", choices=("at-least-once", "exactly-once"), default=Options.guarantee)
    parser.add_argument("--broker", choices=("kafka", "embedded"), default=Options.broker)
    parser.add_argument("--data", type=Path, help="the run's folder, kept afterwards; a temporary one if none is named")
    parser.add_argument("--without", default="", help="kinds of readings and disturbances that are left out, by commas")
    parser.add_argument("--only", default="", help=f"of {', '.join(WEIGHTS)}: only these; `none` for no disturbance")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the file that the verdict is appended to")
    flags = parser.parse_args(arguments)
    without = frozenset(filter(None, flags.without.split(",")))
    only = [kind for kind in flags.only.split(",") if kind not in ("", "none")]
    unknown = [kind for kind in only if kind not in WEIGHTS]
    if unknown:
        parser.error(f"there is no disturbance {unknown[0]!r}; there are {', '.join(WEIGHTS)}")
    kinds = {
        kind: weight for kind, weight in WEIGHTS.items() if kind not in without and (not flags.only or kind in only)
    }
    options = Options(
        minutes=flags.minutes,
        seed=flags.seed,
        rate=flags.rate,
        store=flags.store,
        guarantee=flags.guarantee,
        broker=flags.broker,
        data=flags.data,
        without=without,
        kinds=kinds,
    )
    # As Ctrl-C does: all that was started ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        verdict = Run(options).run()
    except ServerAbsent as absent:
        print(f"error: {absent}\nhint: name another with --broker or --store", file=sys.stderr)
        return 2
    with flags.results.open("a", encoding="utf-8") as file:
        file.write(json.dumps(verdict.record()) + "\n")
    print(verdict.text())
    return 0 if verdict.passed else 1


if __name__ == "__main__":
    sys.exit(main())
