"""Processors and sinks as real processes: started, stopped, suspended and killed, and never left behind.

All are in the process group of a watchman, a shell that reads from a pipe of ours: when we are gone, in whatever way,
it kills the group, and with it those that are suspended.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
STOP_S = 20.0
_WATCHMAN = "read -r _; kill -9 -$$"
TAIL_CHARACTERS = 1_500
BUSY_WITHIN_S = 3.0


class Watchman:
    """A process group that ends with us: others are started into ``group``."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(["sh", "-c", _WATCHMAN], stdin=subprocess.PIPE, process_group=0, cwd=ROOT)

    @property
    def group(self) -> int:
        """What is given as ``process_group``."""
        return self._process.pid

    def end(self) -> None:
        """Kill all that is in the group."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(10)


@dataclass
class Service:
    """One instance of a stage, over all its lives."""

    stage: str
    instance: str
    log: Path
    wanted: bool = False
    """Whether it is meant to be running."""
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """As ``processors-1``."""
        return f"{self.stage}-{self.instance}"

    @property
    def running(self) -> bool:
        """Whether its process is there, suspended or not."""
        return self.process is not None and self.process.poll() is None

    def tail(self) -> str:
        """What it said last."""
        return self.log.read_text(errors="replace")[-TAIL_CHARACTERS:] if self.log.exists() else ""


class Services:
    """All services of a run."""

    def __init__(self, folder: Path, settings: Mapping[str, str], watchman: Watchman) -> None:
        """``settings``: HEADRACE_… variables that all of them get."""
        self._folder = folder
        self.settings = settings
        self._watchman = watchman
        self.all: dict[str, Service] = {}
        self.deaths: list[str] = []
        """Services that ended of themselves, each with what it said last."""
        (folder / "logs").mkdir(parents=True, exist_ok=True)

    def start(self, stage: str, instance: str) -> Service:
        """Start an instance that does not run."""
        name = f"{stage}-{instance}"
        service = self.all.get(name)
        if service is None:
            service = self.all[name] = Service(stage, instance, self._folder / "logs" / f"{name}.log")
        if service.running:
            raise RuntimeError(f"{name} is running already")
        with service.log.open("ab") as output:
            service.process = subprocess.Popen(
                [sys.executable, "-m", stage, "--instance", instance],
                cwd=ROOT,
                env={**os.environ, **self.settings},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                process_group=self._watchman.group,
            )
        service.wanted = True
        return service

    def kill(self, name: str) -> None:
        """End it as a power cut would."""
        service = self.all[name]
        service.wanted = False
        if service.process is not None:
            service.process.kill()
            service.process.wait()

    def stop(self, name: str) -> float:
        """Ask it to stop; the seconds that took. One that takes too long is killed, and counted among the deaths."""
        service, begun = self.all[name], time.monotonic()
        service.wanted = False
        if service.process is not None and service.running:
            service.process.terminate()
            try:
                service.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.deaths.append(f"{name} did not stop within {STOP_S:.0f} s: {service.tail()}")
                service.process.kill()
                service.process.wait()
        return time.monotonic() - begun

    def suspend(self, name: str) -> None:
        """Stop it as a long pause does: in the midst of its work, if it is at work within some seconds."""
        process, deadline = self.all[name].process, time.monotonic() + BUSY_WITHIN_S
        while process is not None and time.monotonic() < deadline and not _is_at_work(process.pid):
            time.sleep(0.0005)
        self._signal(name, signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Let it go on."""
        self._signal(name, signal.SIGCONT)

    def _signal(self, name: str, number: signal.Signals) -> None:
        process = self.all[name].process
        if process is not None and process.poll() is None:
            process.send_signal(number)

    def forget_state(self, name: str) -> None:
        """Delete the state folder of an instance that does not run."""
        shutil.rmtree(self._folder / "state" / name, ignore_errors=True)

    def names(self, stage: str) -> list[str]:
        """The instances of a stage that are meant to be running."""
        return [name for name, service in self.all.items() if service.stage == stage and service.wanted]

    def look_after(self) -> None:
        """Note those that have ended of themselves, and start them again, as a supervisor would."""
        for name, service in self.all.items():
            if service.wanted and not service.running:
                assert service.process is not None
                self.deaths.append(f"{name} ended with {service.process.returncode}: {service.tail()}")
                time.sleep(0.5)
                self.start(service.stage, service.instance)

    def end(self) -> None:
        """End all, whatever they are doing."""
        for name in self.all:
            self.kill(name)


def _is_at_work(pid: int) -> bool:
    """Whether the main thread of a process is running, where that can be seen (Linux)."""
    try:
        said = Path(f"/proc/{pid}/task/{pid}/stat").read_text()
    except OSError:
        return False
    return said.rpartition(")")[2].split()[0] == "R"
