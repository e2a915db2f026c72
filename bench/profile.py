"""``profile``: where a processor's time goes, stage by stage, kept in bench/profile.txt."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.brokers import Broker, settle
from bench.machine import circumstances
from bench.measured import Line
from bench.options import Options
from bench.process import said
from bench.stages import STAGES
from bench.streams import TOPIC, Stream, processor
from bench.topic import Readings, fill
from bench.windows import Windows, check

DEVICES = 5
LEAST = 1_000_000
WINDOWS = Windows("tumbling")
KEPT = Path(__file__).parent / "profile.txt"


def run(broker: Broker, options: Options, console: Console) -> list[Line]:
    """Profile the tumbling windows, with repeats kept and dropped. It appends no lines: its file is its result."""
    readings = Readings.lately(max(options.readings, LEAST), DEVICES)
    Stream("fill", WINDOWS).make_topics(broker)
    console.print(f"profile: producing {readings.count:,} readings to {broker.name}")
    fill(broker.address, TOPIC, readings)
    runs: dict[str, dict[str, Any]] = {}
    for stream in (Stream("keep", WINDOWS), Stream("drop", WINDOWS, repeats="drop")):
        settle()
        stream.make_topics(broker)
        with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
            command = processor(broker, stream, Path(folder))
            runs[f"repeats = {stream.repeats}"] = said("bench.subjects.profiled", *_flags(command))
        check(broker.address, stream.into, WINDOWS, readings, WINDOWS.closed(readings, readings.count))
    text = _text(runs, circumstances(broker.name), readings.count)
    console.print(text, highlight=False, markup=False)
    KEPT.write_text(text, encoding="utf-8")
    return []


def _flags(command: Sequence[str]) -> list[str]:
    """What follows ``python -m processors``."""
    return list(command[3:])


def _text(runs: dict[str, dict[str, Any]], where: dict[str, Any], readings: int) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    made = [
        f"Where the time of `python -m processors` goes: tumbling 10 s, {DEVICES} devices, {readings:,} JSON messages",
        f"of one reading each, in ns a reading. {where['date']}, {where['cpu']}, {where['cores']} cores,",
        f"load {where['load']}, broker {where['broker']};",
        f"{versions}.",
        "",
        "`time` is the main thread's by the clock, with its waiting; `CPU` what it computed of that.",
        "",
    ]
    heading = f"{'stage':26}"
    for name in runs:
        heading += f"{name:>26}{'':14}"
    made += [heading.rstrip(), f"{'':26}" + f"{'time':>14}{'CPU':>12}{'share':>14}" * len(runs)]
    for stage in STAGES:
        made.append(_row(stage, [_figures(of, stage) for of in runs.values()]))
    made.append(_row("Quix, the rest", [_rest(of) for of in runs.values()]))
    made.append(_row("all", [(of["wall_s"], of["thread_s"], of["wall_s"], of["messages"]) for of in runs.values()]))
    made.append(_row("other threads (librdkafka)", [_others(of) for of in runs.values()]))
    return "\n".join(made) + "\n"


_Figures = tuple[float | None, float, float | None, int]
"""Seconds by the clock and of CPU, seconds by the clock of all, messages."""


def _figures(of: dict[str, Any], stage: str) -> _Figures:
    spent = of["spent"]
    return spent["wall_s"].get(stage, 0.0), spent["cpu_s"].get(stage, 0.0), of["wall_s"], of["messages"]


def _rest(of: dict[str, Any]) -> _Figures:
    spent = of["spent"]
    wall_s, cpu_s = sum(spent["wall_s"].values()), sum(spent["cpu_s"].values())
    return of["wall_s"] - wall_s, of["thread_s"] - cpu_s, of["wall_s"], of["messages"]


def _others(of: dict[str, Any]) -> _Figures:
    return None, of["process_s"] - of["thread_s"], None, of["messages"]


def _row(name: str, columns: Sequence[_Figures]) -> str:
    row = f"{name:26}"
    for wall_s, cpu_s, all_s, messages in columns:
        row += f"{'' if wall_s is None else round(wall_s / messages * 1e9):>14}"
        row += f"{round(cpu_s / messages * 1e9):>12}"
        row += f"{'' if wall_s is None or all_s is None else f'{wall_s / all_s:.1%}':>14}"
    return row.rstrip()
