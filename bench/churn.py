"""``churn``: devices that come and go beside as many readings of a fleet that stays, in one partition.

A million names pass through, each alive for 10 s of event time, a thousand at a time; ``forget_after`` is a minute, so
a few thousand are known at a time. Memory and the pieces of state must be flat from the first ``forget_after`` on, and
the readings not slower. Measured in the process itself, on what a processor runs of a stream (its operator and
its state's pieces), as memory is to be told apart from that of a broker's client; each subject in a process of its own.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from functools import partial

from rich.console import Console

from bench.brokers import Broker
from bench.measured import Line, Run, figure, lines
from bench.options import Options
from bench.rounds import rounds

NAMES = 1_000_000
ALIVE = 1_000
"""So many devices send at a time."""
OF_EACH = 10
FLEET, CHURN = f"{ALIVE:,} devices that stay", f"{NAMES:,} devices that come and go"


def run(broker: Broker, options: Options, console: Console) -> list[Line]:  # noqa: ARG001 - as the other benches
    """Measure both in rounds, each over ten readings of a million devices."""
    told: dict[str, list[dict[str, float]]] = {FLEET: [], CHURN: []}
    subjects = {
        FLEET: partial(_measured, "stay", told[FLEET]),
        CHURN: partial(_measured, "go", told[CHURN]),
    }
    made = lines("churn", rounds("churn", subjects, options.repeat, console), {"staying": FLEET}, {})
    for line in made:
        of = told[line.subject]
        line.figures = {name: figure(statistics.median(one[name] for one in of)) for name in of[0] if name != "run"}
    return made


def _measured(which: str, told: list[dict[str, float]], number: int) -> Run:  # noqa: ARG001 - as rounds() calls it
    """Run a subject in a process of its own."""
    command = [sys.executable, "-m", "bench.subjects.churned", which, str(NAMES), str(ALIVE), str(OF_EACH)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    said = json.loads(done.stdout)
    measured = Run(**said.pop("run"))
    told.append(said)
    return measured
