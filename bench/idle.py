"""``idle``: what the whole line costs when nothing comes: processor time of each of its processes, over a minute.

The shipped demo runs until it has windows; then its producers are stopped, and once the last windows have closed
all of its processes are looked at. Processor time is what is measured, so a machine that is busy otherwise changes
little.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

import psutil
from rich.console import Console

from bench.brokers import Broker
from bench.measured import Line, figure
from bench.options import Options
from bench.process import ROOT, Subject, running

RUN_S = 20.0
"""The line is fed for so long."""
SETTLE_S = 40.0
"""Until the last windows have closed: the demo's streams wait for 17 s at the most, and then tell the store."""
OVER_S = 60.0
START_S = 60.0
SERVICES = ("producers", "processors", "sinks", "viewer.process", "viewer")


def run(broker: Broker, options: Options, console: Console) -> list[Line]:  # noqa: ARG001 - as all benches
    """Measure once, on the demo's own broker: a line of results for each process, and one for all of them."""
    console.print(f"idle: the demo without readings for {OVER_S:.0f} s, some {RUN_S + SETTLE_S:.0f} s after its start")
    folder = Path(tempfile.mkdtemp(prefix="headrace-bench-"))
    pipeline = ["--pipeline", str(ROOT / "pipeline.toml"), "--data", str(folder / "data")]
    demo = [sys.executable, "-m", "headrace.cli", "demo", *pipeline, "--headless", "--port", "0", "--broker-port", "0"]
    try:
        with running(demo) as subject:
            spent = _measure(subject)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    spent["all"] = (sum(cpu_s for cpu_s, _ in spent.values()), sum(wakes for _, wakes in spent.values()))
    return [
        Line(
            bench="idle",
            subject=name,
            readings=0,
            cpu_s=round(cpu_s, 2),
            figures={
                "seconds": OVER_S,
                "percent_of_a_core": figure(100 * cpu_s / OVER_S),
                "wakes_a_second": figure(wakes / OVER_S),
            },
        )
        for name, (cpu_s, wakes) in spent.items()
    ]


def _measure(subject: Subject) -> dict[str, tuple[float, int]]:
    """The CPU seconds of each process of the demo while nothing comes, and how often its threads were woken."""
    deadline = time.monotonic() + START_S
    while "the page is at " not in subject.log.read_text(encoding="utf-8", errors="replace"):
        subject.check()
        if time.monotonic() > deadline:
            raise TimeoutError("the demo does not say where its page is")
        time.sleep(0.1)
    time.sleep(RUN_S)
    demo = psutil.Process(subject.process.pid)
    for process in demo.children():
        if _name(process) == "producers":
            process.terminate()
    time.sleep(SETTLE_S)
    processes = [process for process in (demo, *demo.children(recursive=True)) if _lives(process)]
    before = [_spent(process) for process in processes]
    time.sleep(OVER_S)
    subject.check()
    after = [_spent(process) for process in processes]
    spent: dict[str, tuple[float, int]] = {}
    for process, (cpu_0, wakes_0), (cpu_1, wakes_1) in zip(processes, before, after, strict=True):
        spent[_name(process)] = (cpu_1 - cpu_0, wakes_1 - wakes_0)
    return spent


def _lives(process: psutil.Process) -> bool:
    return process.status() != psutil.STATUS_ZOMBIE


def _name(process: psutil.Process) -> str:
    """What a process of the demo is."""
    if not _lives(process):
        return "gone"
    command = process.cmdline()
    for name in SERVICES:
        if name in command:
            return name.replace("viewer.process", "engine")
    return "demo" if "demo" in command else "broker"


def _spent(process: psutil.Process) -> tuple[float, int]:
    times = process.cpu_times()
    # A thread at rest counts its own; the process's number is that of its first thread alone.
    wakes = sum(
        int(line.rpartition(":")[2])
        for task in Path(f"/proc/{process.pid}/task").iterdir()
        for line in (task / "status").read_text(encoding="ascii", errors="replace").splitlines()
        if line.startswith("voluntary_ctxt_switches")
    )
    return times.user + times.system, wakes
