"""``scan``: all rows of a store in order of time, by each store, beside the plainest columnar read of the same rows.

Few devices with many rows each, and many with few. Plain has no order, no names and no tags: SQLite's table as it
lies there by ADBC, TDengine's blocks as they come.
"""

from __future__ import annotations

import tempfile
from contextlib import closing

from rich.console import Console

from bench.brokers import Broker, settle
from bench.measured import Line, Run, lines
from bench.options import Options
from bench.process import said, told
from bench.rounds import rounds
from bench.sink import tdengine
from headrace.stores import open_store

SUBJECT = "bench.subjects.store_scan"
DEVICES = (10, 10_000)


def run(_broker: Broker, options: Options, console: Console) -> list[Line]:
    """Measure the stores that are there."""
    server, why_not = tdengine()
    if server is None:
        console.print(f"scan: no TDengine: {why_not}")
    made: list[Line] = []
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        for devices in DEVICES:
            urls = {"sqlite": f"sqlite:///{folder}/{devices}.db"}
            if server is not None:
                urls["tdengine"] = f"{server}/headrace_bench"
            for name, url in urls.items():
                made += _store(f"{name}, {devices:,} devices", url, devices, options, console)
                with closing(open_store(url)) as store:
                    store.reset()
    return made


def _store(name: str, url: str, devices: int, options: Options, console: Console) -> list[Line]:
    of_each = str(max(options.readings // devices, 1))
    console.print(f"scan: filling {name}")
    said(SUBJECT, "fill", url, str(devices), of_each)
    settle()

    def measure(how: str) -> Run:
        return told(SUBJECT, how, url, str(devices), of_each)

    subjects = {f"plain, {name}": lambda _: measure("plain"), f"scan, {name}": lambda _: measure("scan")}
    return lines("scan", rounds("scan", subjects, options.repeat, console), {"plain": f"plain, {name}"}, {})
