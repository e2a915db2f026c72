"""The whole line in one command: started, stopped, killed and started again, as a user would."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

PATIENCE_S = 60.0
PIPELINE = """
name = "small"
[topics.meters]
partitions = 2
[topics.meters.fields]
current = { type = "float", unit = "A" }
[streams.meters_1s]
from = "meters"
window = { kind = "tumbling", size = "1s" }
grace = "200ms"
aggregates = { current = ["mean", "max"] }
[producers.meters]
kind = "simulate"
topic = "meters"
devices = 6
rate = 300
[producers.meters.faults]
late = 0.02
late_by = "2s"
repeated = 0.02
missing = 0.02
out_of_order = 0.02
future = 0.02
malformed = 0.05
"""


class Demo:
    """``headrace demo`` in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "pipeline.toml").write_text(PIPELINE)
        self.process: subprocess.Popen[str] | None = None
        self.services: list[psutil.Process] = []

    def start(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "headrace.cli", "demo", "--headless", "--port", "0", "--broker-port", "0"]
        with (self.folder / "demo.log").open("w") as log:
            self.process = subprocess.Popen(
                [*command, *arguments], cwd=self.folder, stdout=log, stderr=subprocess.STDOUT, text=True
            )

    def log(self) -> str:
        return (self.folder / "demo.log").read_text()

    def until(self, holds: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < deadline, f"never came: {what}\n{self.log()}"
            time.sleep(0.05)

    def until_it_runs(self) -> None:
        """Until readings are stored; then the services that run are known."""
        self.until(lambda: "ledger adds up" in self.log() and " stored 0 " not in self.log(), "stored readings")
        assert self.process is not None
        self.services = psutil.Process(self.process.pid).children(recursive=True)
        assert len(self.services) == 5

    def until_all_are_gone(self) -> None:
        _, alive = psutil.wait_procs(self.services, timeout=PATIENCE_S)
        assert alive == []

    def report(self, *arguments: str) -> dict[str, Any]:
        """Run it to its end by itself; what it reports."""
        self.start("--report", "report.json", *arguments)
        assert self.process is not None
        code = self.process.wait(PATIENCE_S)
        assert code == 0, self.log()
        found: dict[str, Any] = json.loads((self.folder / "report.json").read_text())
        return found


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    made = Demo(tmp_path)
    try:
        yield made
    finally:
        if made.process is not None and made.process.poll() is None:
            made.process.kill()
            made.process.wait()


def sums(report: dict[str, Any], stage: str) -> dict[str, Any]:
    (found,) = [line for line in report["ledger"] if line["stage"] == stage and line["topic"] == "meters"]
    return dict(found)


def test_it_accounts_for_every_reading_and_goes_on_where_it_stopped(demo: Demo) -> None:
    first = demo.report("--for", "5s")
    assert first["sound"]
    assert first["page"]["rows"] > 0
    assert sums(first, "processors")["closed"] > 0
    assert sums(first, "sinks")["refused:future"] > 0
    second = demo.report("--for", "3s")
    assert second["sound"]
    assert sums(second, "sinks")["messages"] > sums(first, "sinks")["messages"]
    third = demo.report("--for", "3s", "--reset")
    assert third["sound"]
    assert sums(third, "sinks")["messages"] < sums(second, "sinks")["messages"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything_and_leaves_nothing_behind(demo: Demo, number: signal.Signals) -> None:
    demo.start()
    demo.until_it_runs()
    assert demo.process is not None
    demo.process.send_signal(number)
    assert demo.process.wait(PATIENCE_S) == 0
    demo.until_all_are_gone()
    assert "the ledger adds up" in demo.log()
    assert "killed" not in demo.log()


def test_killed_it_leaves_nothing_behind_and_the_next_run_accounts_for_all(demo: Demo) -> None:
    demo.start()
    demo.until_it_runs()
    assert demo.process is not None
    demo.process.kill()
    demo.process.wait()
    demo.until_all_are_gone()
    assert demo.report("--for", "3s")["sound"]


@pytest.mark.parametrize("service", ["sinks", "processors", "viewer"])
def test_a_service_that_is_killed_ends_the_run_and_the_next_accounts_for_all(demo: Demo, service: str) -> None:
    demo.start()
    demo.until_it_runs()
    (victim,) = [process for process in demo.services if service in process.cmdline()]
    victim.kill()
    assert demo.process is not None
    assert demo.process.wait(PATIENCE_S) == 2
    assert f"{service} ended with code -9" in demo.log()
    demo.until_all_are_gone()
    assert demo.report("--for", "3s")["sound"]


def test_a_port_that_is_taken_is_named_with_the_flag_to_change_it(demo: Demo) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for flag in ("--broker-port", "--port"):
            demo.start(flag, str(port))
            assert demo.process is not None
            assert demo.process.wait(PATIENCE_S) == 2
            assert f"port {port}" in demo.log()
            assert flag in demo.log()
            assert "Traceback" not in demo.log()


def test_a_second_demo_on_the_same_folder_is_refused(demo: Demo, tmp_path: Path) -> None:
    demo.start()
    demo.until_it_runs()
    second = subprocess.run(
        [sys.executable, "-m", "headrace.cli", "demo", "--headless", "--port", "0", "--broker-port", "0"],
        cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert second.returncode == 2
    assert "another demo runs on the data folder" in second.stderr


def test_a_data_folder_that_cannot_be_written_is_named(demo: Demo) -> None:
    demo.start("--data", "/proc/nowhere")
    assert demo.process is not None
    assert demo.process.wait(PATIENCE_S) == 2
    assert "the data folder /proc/nowhere cannot be written" in demo.log()
    assert "--data" in demo.log()


def test_a_wrong_pipeline_file_starts_nothing(demo: Demo) -> None:
    (demo.folder / "pipeline.toml").write_text(PIPELINE.replace("grace =", "grase ="))
    demo.start()
    assert demo.process is not None
    assert demo.process.wait(PATIENCE_S) == 2
    assert "write grace" in demo.log()
    assert sorted(path.name for path in demo.folder.iterdir()) == ["demo.log", "pipeline.toml"]
