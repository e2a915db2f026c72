"""``sink``: the real ``python -m sinks`` from a topic of one-reading JSON messages into each store.

For TDengine also the store alone against raw stmt2 of taosws, both given the same rows in the same shapes
(subtables x rows a call). A run ends when the store's own durable counts have all readings.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from rich.console import Console

from bench.brokers import Broker, settle
from bench.measured import Line, Round, Run, lines
from bench.options import Options
from bench.process import running, told, watched
from bench.topic import Readings, fill
from headrace.errors import StoreUnavailable
from headrace.pipeline import all_tables, parse
from headrace.stores import Store, open_store
from headrace.topics import ensure_topics, wait_for_broker

TDENGINE_VARIABLE = "HEADRACE_BENCH_TDENGINE"
TDENGINE_USUAL = "taosws://root:taosdata@127.0.0.1:6041"
DEVICES = 100
TOPIC = "readings"
SHAPES = ((100, 1_000, 20), (1_000, 10, 50), (DEVICES, 200, 50))
"""Subtables, rows of each a call, calls. The last is what ``python -m sinks`` writes at once from this topic."""

PIPELINE = """\
name = "bench-{name}"

[topics.readings]
partitions = 1
fields = {{ current = "float", voltage = "int" }}
"""


def run(broker: Broker, options: Options, console: Console) -> list[Line]:
    """Measure the stores that are there."""
    readings = Readings.lately(options.readings // 2, DEVICES)
    ensure_topics(wait_for_broker(broker.address), parse(PIPELINE.format(name=0)))
    console.print(f"sink: producing {readings.count:,} readings to {broker.name}")
    fill(broker.address, TOPIC, readings)
    server, why_not = tdengine()
    if server is None:
        console.print(f"sink: no TDengine: {why_not}")
    rounds: list[Round] = []
    for number in range(1, options.repeat + 1):
        measured: dict[str, Run] = {}
        settle()
        measured["headrace to sqlite"] = _sqlite(broker, readings, number)
        if server is not None:
            settle()
            measured["headrace to tdengine"] = _tdengine(broker, readings, number, f"{server}/headrace_bench")
            for subtables, rows, calls in SHAPES:
                shape = f"{subtables}x{rows}"
                for how in ("stmt2", "store"):
                    settle(0.2)
                    measured[f"{how} {shape}"] = told(
                        "bench.subjects.tdengine_write",
                        how,
                        f"{server}/headrace_bench_{how}",
                        *map(str, (subtables, rows, calls)),
                    )
        for name, one in measured.items():
            console.print(f"sink: round {number}, {name}: {one.per_s:,.0f} rows/s")
        rounds.append(measured)
    made = lines("sink", rounds, {}, {})
    by_name = {line.subject: line for line in made}
    for name, raw in {
        **{f"store {subtables}x{rows}": f"stmt2 {subtables}x{rows}" for subtables, rows, _ in SHAPES},
        "headrace to tdengine": f"stmt2 {DEVICES}x200",
    }.items():
        if name in by_name:
            pair = lines("sink", [{name: r[name], raw: r[raw]} for r in rounds], {"stmt2": raw}, {})
            by_name[name].ratio, by_name[name].cpu_ratio = pair[0].ratio, pair[0].cpu_ratio
    return made


def tdengine() -> tuple[str | None, str]:
    """The server to measure against, without a database, or None and why there is none."""
    named = os.environ.get(TDENGINE_VARIABLE)
    server = (named or TDENGINE_USUAL).rstrip("/")
    try:
        open_store(f"{server}/headrace_bench").close()
    except StoreUnavailable as error:
        why = error.message if named else f"{TDENGINE_VARIABLE} names none, and none is at the usual place"
        return None, why
    return server, ""


def _sqlite(broker: Broker, readings: Readings, number: int) -> Run:
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        return _sink(broker, readings, f"sqlite-{number}", f"sqlite:///{folder}/store.db")


def _tdengine(broker: Broker, readings: Readings, number: int, url: str) -> Run:
    with closing(open_store(url)) as store:
        store.reset()
    try:
        return _sink(broker, readings, f"tdengine-{number}", url)
    finally:
        with closing(open_store(url)) as store:
            store.reset()


def _sink(broker: Broker, readings: Readings, name: str, url: str) -> Run:
    folder = Path(tempfile.mkdtemp(prefix="headrace-bench-"))
    stored: list[Store] = []
    try:
        text = PIPELINE.format(name=name)
        (folder / "pipeline.toml").write_text(text, encoding="utf-8")
        table = all_tables(parse(text))[TOPIC]
        command = [sys.executable, "-m", "sinks", "--pipeline", str(folder / "pipeline.toml")]
        command += ["--broker", broker.address, "--store", url, "--data", str(folder)]

        def progress() -> int:
            try:
                if not stored:
                    stored.append(open_store(url, readonly=True))
                return sum(kept.next_offset for kept in stored[0].progress().values())
            except StoreUnavailable:
                return 0

        with running(command) as subject:
            measured = watched(subject, progress, readings.count, lambda offset: offset)
        if (kept := stored[0].count(table)) != readings.count:
            raise RuntimeError(f"the store holds {kept} rows, and {readings.count} were produced")
        return measured
    finally:
        for store in stored:
            store.close()
        shutil.rmtree(folder)
