"""A stream's operator and its state over devices that stay, or come and go: ``churned stay|go NAMES ALIVE OF_EACH``.

Prints, as JSON: the run; how much memory and state have grown since what is held has settled, as ratios; the state's
bytes at the end; how many devices are known then, and how many slots there are.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from bench.measured import Run
from headrace.batch import Batch
from headrace.column import Column
from headrace.pipeline import parse
from processors.windows import WindowOperator, WindowSpec
from processors.windows.state import changed_pieces

PIPELINE = """
[topics.readings]
fields = { current = "float" }
tags = { location = "text" }
partitions = 1
[streams.s]
from = "readings"
window = { kind = "tumbling", size = "10s" }
grace = "1s"
idle = "10s"
forget_after = "60s"
aggregates = { current = ["count", "min", "max", "mean"] }
"""
FORGET_AFTER_S = 60
CHECKPOINT_S = 10
"""A checkpoint each so many seconds of event time."""
BATCH = 4_000


def main(which: str, names: int, alive: int, of_each: int) -> None:
    """Run and print. Each of the devices that are alive sends a reading a second, for ``of_each`` seconds."""
    operator = WindowOperator(WindowSpec.of(parse(PIPELINE), "s"))
    kept: dict[str, bytes] = {}
    locations = ["Lyon", "Turin", "Graz"]
    # A generation lives for as long as a window, so that both have as many windows of as many readings.
    seconds, rng = names * of_each // alive, np.random.default_rng(0)
    spent, cpu_s, rss, state = 0.0, 0.0, [], []
    for second in range(0, seconds, BATCH // alive):
        places = np.arange(second * alive, min(second + BATCH // alive, seconds) * alive)
        number = places % alive
        generation = places // alive // of_each
        devices = number if which == "stay" else generation * alive + number
        ts_us = places * (1_000_000 // alive)
        listed = [f"trip-{n:07}" for n in devices.tolist()]
        tags = [locations[n % 3] for n in devices.tolist()]
        batch = Batch(listed, ts_us, {"current": Column(rng.normal(10, 2, len(places))), "location": tags})
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        operator.add(batch, int(ts_us[-1]))
        if second % CHECKPOINT_S < BATCH // alive:
            for name, piece in changed_pieces(operator, second):
                if piece is None:
                    kept.pop(name, None)
                else:
                    kept[name] = piece
        spent += time.perf_counter() - began_s
        cpu_s += time.process_time() - began_cpu_s
        if second % CHECKPOINT_S < BATCH // alive:
            rss.append(_rss())
            state.append(sum(map(len, kept.values())))
    # What is made once, as free lists of the allocator, is there by the second forget_after.
    settled = 2 * FORGET_AFTER_S // CHECKPOINT_S
    print(
        json.dumps(
            {
                "run": asdict(Run(seconds * alive, spent, cpu_s, max(rss) / 1e6)),
                "rss_at_the_end_to_settled": rss[-1] / rss[settled],
                "state_to_settled": max(state[settled:]) / max(state[settled : 2 * settled]),
                "state_bytes": state[-1],
                "devices_known": operator.gauges["devices"],
                "slots": len(operator.intake.devices),
            }
        )
    )


def _rss() -> int:
    """The memory of this process."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
