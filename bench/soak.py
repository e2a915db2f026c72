"""``soak``: is memory flat? Processors and sinks at a steady rate for a long time, their resident memory all along.

The real producers feed the real processors and sinks at ``--rate`` readings a second for ``--minutes``, with windows
of every cost: panes, sessions, groups over partitions, sketches, repeats. Topics keep ten minutes, so what still grows
after that is a leak. The figures go to results.jsonl, and with ``--picture`` the memory of each process is drawn.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from bench.brokers import Broker
from bench.measured import Line, figure
from bench.options import Options
from bench.picture import Curve, draw
from bench.process import Subject, running
from headrace.errors import StoreUnavailable
from headrace.pipeline import all_tables, parse
from headrace.stores import open_store
from headrace.topics import ensure_topics, wait_for_broker

SAMPLE_S = 5.0
SAY_EVERY_S = 60.0
TOPIC = "soak"
DEVICES = 1_000
WARM = 1 / 3
"""What grows in this part of the run, while buffers fill, is not held against a process."""

PIPELINE = """\
name = "soak"

[topics.soak]
time = {{ format = "epoch_ms" }}
partitions = 4
retention = "10m"
fields = {{ current = "float", voltage = "int" }}
tags = {{ site = "text" }}

[streams.soak_10s]
from = "soak"
window = {{ kind = "tumbling", size = "10s" }}
grace = "2s"
retention = "10m"
aggregates = {{ current = ["min", "max", "mean", "p95"], voltage = ["distinct"] }}

[streams.soak_hops]
from = "soak"
window = {{ kind = "hopping", size = "1m", step = "10s" }}
grace = "2s"
retention = "10m"
aggregates = {{ current = ["mean"] }}

[streams.soak_sessions]
from = "soak"
window = {{ kind = "session", gap = "2s", longest = "1m" }}
grace = "2s"
retention = "10m"
aggregates = {{ current = ["time_weighted_mean"] }}

[streams.soak_sites]
from = "soak"
window = {{ kind = "tumbling", size = "10s" }}
by = ["site"]
grace = "2s"
retention = "10m"
emit = "max-delay"
max_delay = "1s"
aggregates = {{ current = ["mean", "stddev"] }}

[producers.soak]
kind = "simulate"
topic = "soak"
devices = {devices}
rate = {rate}

[producers.soak.curves]
current = {{ base = 10, swing = 2, noise = 0.1, decimals = 2 }}
voltage = {{ base = 228, noise = 2 }}
site = {{ choices = ["Bergen", "Lyon", "Porto", "Turin"] }}

[producers.soak.faults]
late = 0.001
out_of_order = 0.01
repeated = 0.005
missing = 0.005
malformed = 0.001

[store]
retention = "1d"
"""


def run(broker: Broker, options: Options, console: Console) -> list[Line]:
    """Run the line; a line of results for each process, and a picture if one is asked for."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="headrace-bench-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        text = PIPELINE.format(devices=DEVICES, rate=options.rate)
        (folder / "pipeline.toml").write_text(text, encoding="utf-8")
        url = os.environ.get("HEADRACE_BENCH_STORE", f"sqlite:///{folder}/store.db")
        ensure_topics(wait_for_broker(broker.address), parse(text))
        common = ["--pipeline", str(folder / "pipeline.toml"), "--broker", broker.address]
        own = ["--store", url, "--data", str(folder)]
        subjects = {
            "processors": stack.enter_context(running([sys.executable, "-m", "processors", *common, *own])),
            "sinks": stack.enter_context(running([sys.executable, "-m", "sinks", *common, *own])),
            "producers": stack.enter_context(
                running([sys.executable, "-m", "producers", "--quiet", *common, "--data", str(folder)])
            ),
        }
        minutes = options.minutes
        console.print(f"soak: {options.rate:,} readings a second for {minutes:g} minutes on {broker.name}")
        curves = {name: Curve(name, [], []) for name in subjects}
        cpu_s = _follow(subjects, curves, minutes * 60, console)
        stored = _stored(url, text)
        if options.picture is not None:
            title = f"Resident memory, {options.rate:,} readings a second"
            options.picture.write_text(draw(title, list(curves.values())), encoding="utf-8")
            console.print(f"soak: drawn into {options.picture}")
        return [_line(curve, cpu_s[name], stored, minutes * 60) for name, curve in curves.items()]


def _follow(
    subjects: dict[str, Subject], curves: dict[str, Curve], seconds: float, console: Console
) -> dict[str, float]:
    """Sample until the time is over; the CPU seconds of each. Raises RuntimeError when one has ended."""
    begun = said = time.monotonic()
    cpu_s = dict.fromkeys(subjects, 0.0)
    while (now := time.monotonic()) - begun < seconds:
        for name, subject in subjects.items():
            subject.check()
            sample = subject.sample(0)
            cpu_s[name] = sample.cpu_s
            curves[name].x.append((sample.at_s - begun) / 60)
            curves[name].y.append(sample.rss / 1e6)
        if now - said >= SAY_EVERY_S:
            said = now
            sizes = ", ".join(f"{name} {curve.y[-1]:.0f} MB" for name, curve in curves.items())
            console.print(f"soak: {(now - begun) / 60:.0f} min: {sizes}")
        time.sleep(SAMPLE_S)
    return cpu_s


def _stored(url: str, text: str) -> int:
    """How many readings the sinks have counted."""
    try:
        store = open_store(url, readonly=True)
    except StoreUnavailable:
        return 0
    try:
        topics = {name for name, table in all_tables(parse(text)).items() if table.kind == "readings"}
        return sum(kept.counts.get("read", 0) for (topic, _), kept in store.progress().items() if topic in topics)
    finally:
        store.close()


def _line(curve: Curve, cpu_s: float, readings: int, seconds: float) -> Line:
    warm = [place for place, at in enumerate(curve.x) if at >= curve.x[-1] * WARM]
    x, y = [curve.x[place] for place in warm], [curve.y[place] for place in warm]
    return Line(
        bench="soak",
        subject=curve.name,
        readings=readings,
        readings_per_s=round(readings / seconds),
        cpu_s=round(cpu_s, 1),
        rss_mb=round(max(curve.y), 1),
        figures={
            "minutes": figure(seconds / 60),
            "mb_after_a_third": figure(statistics.median(y[: max(len(y) // 10, 1)])),
            "mb_at_the_end": figure(statistics.median(y[-max(len(y) // 10, 1) :])),
            "mb_an_hour": figure(slope(x, y) * 60),
        },
    )


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Of the straight line closest to the points: how much y grows with each x; 0 for fewer than two points."""
    if len(x) < 2:
        return 0.0
    return statistics.linear_regression(x, y).slope
