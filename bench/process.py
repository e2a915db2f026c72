"""Runs a subject as a process and measures it from outside: progress, CPU seconds, memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bench.measured import Run

ROOT = Path(__file__).parent.parent
SAMPLE_S = 0.02
TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Sample:
    """How far a process was at a moment."""

    at_s: float
    progress: int
    cpu_s: float
    rss: int


class Subject:
    """A running process and what it has said."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log
        self._watched = psutil.Process(process.pid)

    def check(self) -> None:
        """Raise RuntimeError with its last output if it has ended."""
        if self.process.poll() is not None:
            raise RuntimeError(f"ended with {self.process.returncode}:\n{self.log.read_text(errors='replace')[-3000:]}")

    def sample(self, progress: int) -> Sample:
        """Its CPU seconds and memory now."""
        times = self._watched.cpu_times()
        return Sample(time.monotonic(), progress, times.user + times.system, self._watched.memory_info().rss)


@contextmanager
def running(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Iterator[Subject]:
    """A subject's process for as long as it is needed, in the project's folder; SIGTERM ends it."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        log = Path(folder) / "output.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            yield Subject(process, log)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def watched(
    subject: Subject, progress: Callable[[], int], target: int, readings: Callable[[int], int], *, begin: int = 0
) -> Run:
    """Measure a subject from its first progress beyond ``begin`` until ``target``.

    ``readings`` says how many readings a progress is. Raises RuntimeError when the subject ends before, or was done
    at the first look, and TimeoutError.
    """
    samples: list[Sample] = []
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        subject.check()
        reached = progress()
        if reached > begin:
            samples.append(subject.sample(reached))
        if reached >= target:
            break
        if time.monotonic() > deadline:
            raise TimeoutError(f"{reached} of {target} after {TIMEOUT_S:.0f} s")
        time.sleep(SAMPLE_S)
    first, last = samples[0], samples[-1]
    if first.progress == last.progress:
        raise RuntimeError("too few readings: all was done at the first look; raise --readings")
    return Run(
        readings=readings(last.progress) - readings(first.progress),
        seconds=last.at_s - first.at_s,
        cpu_s=last.cpu_s - first.cpu_s,
        rss_mb=max(sample.rss for sample in samples) / 1e6,
    )


def said(module: str, *arguments: str, python: str = sys.executable) -> dict[str, Any]:
    """Run a subject that ends of itself; its last line is JSON. Raises RuntimeError when it fails."""
    done = subprocess.run(
        [python, "-m", module, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{module} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    last: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return last


def told(module: str, *arguments: str, python: str = sys.executable) -> Run:
    """Run a subject that measures itself; what it said is the run."""
    return Run(**said(module, *arguments, python=python))
