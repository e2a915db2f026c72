"""The whole line in one command: started, stopped, killed and started again, as a user would."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.slow

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

    def stored(self) -> int:
        """How many readings are stored, as it said last."""
        return int(re.findall(r" stored ([\d,]+) ", f" stored 0 {self.log()}")[-1].replace(",", ""))

    def answers(self, address: str) -> bool:
        try:
            with urllib.request.urlopen(f"{address}/status", timeout=5) as answer:  # noqa: S310 - our own page
                return bool(json.load(answer)["clients"] == 0)
        except OSError:
            return False

    def until_it_runs(self) -> None:
        """Until readings are stored; then the services that run are known."""
        self.until(lambda: self.stored() > 0, "stored readings")
        assert self.process is not None
        self.services = psutil.Process(self.process.pid).children(recursive=True)
        assert len(self.services) == 6, "the broker, four services, and the engine of the viewer"

    def named(self, service: str) -> list[psutil.Process]:
        """The process of a service as it is now; none while it is dead."""
        assert self.process is not None
        alive = [(one, one.cmdline()) for one in psutil.Process(self.process.pid).children()]
        return [one for one, words in alive if words and (service in words or f"/{service}-" in words[0])]

    def service(self, name: str) -> psutil.Process:
        (found,) = self.named(name)
        return found

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


@pytest.mark.parametrize("service", ["broker", "sinks", "processors", "viewer", "producers"])
def test_a_service_that_is_killed_is_started_again_and_nothing_is_lost(demo: Demo, service: str) -> None:
    demo.start("--report", "report.json")
    demo.until_it_runs()
    page = re.search(r"the page is at (\S+)", demo.log())
    assert page is not None
    victim = demo.service(service)
    stored = demo.stored()
    victim.kill()
    demo.until(lambda: "by signal" in demo.log() and "it is started again" in demo.log(), "a report of the death")
    demo.until(lambda: [one for one in demo.named(service) if one.pid != victim.pid], f"a new {service}")
    demo.services = [*demo.services, demo.service(service)]
    demo.until(lambda: demo.stored() > stored + 600, "readings that are stored afterwards")
    demo.until(lambda: demo.answers(page[1]), "the page at the same address")
    assert demo.process is not None
    demo.process.send_signal(signal.SIGINT)
    assert demo.process.wait(PATIENCE_S) == 0, demo.log()
    demo.until_all_are_gone()
    report = json.loads((demo.folder / "report.json").read_text())
    assert report["sound"]
    assert report["recounted"]
    (death,) = report["deaths"]
    assert service in death["name"]
    assert "by signal" in death["how"]


def test_a_service_that_dies_again_and_again_ends_the_run_with_its_last_words(demo: Demo) -> None:
    demo.start("--report", "report.json")
    demo.until_it_runs()
    sinks = demo.service("sinks")
    sinks.suspend()
    for store in (demo.folder / ".headrace").glob("store.db*"):
        store.unlink()
    (demo.folder / ".headrace" / "store.db").mkdir()
    sinks.kill()
    assert demo.process is not None
    assert demo.process.wait(PATIENCE_S) == 2
    demo.until_all_are_gone()
    assert demo.log().count("sinks ended with code 2: it is started again in") >= 2
    assert "again and again" in demo.log()
    assert "Traceback" not in demo.log()
    report = json.loads((demo.folder / "report.json").read_text())
    assert not report["sound"]
    assert max(Counter(death["name"] for death in report["deaths"]).values()) == 5
    assert "store.db cannot be" in report["faults"][0]


def test_a_service_that_needs_its_time_to_stop_is_waited_for(demo: Demo) -> None:
    demo.start()
    demo.until_it_runs()
    processors = demo.service("processors")
    processors.suspend()
    assert demo.process is not None
    demo.process.send_signal(signal.SIGINT)
    demo.until(lambda: "waiting for processors: the last checkpoint" in demo.log(), "what is waited for")
    processors.resume()
    assert demo.process.wait(PATIENCE_S) == 0, demo.log()
    demo.until_all_are_gone()
    assert "killed" not in demo.log()
    assert demo.report("--for", "3s")["sound"]


def test_ctrl_c_twice_stops_at_once_and_says_that_nothing_was_recounted(demo: Demo) -> None:
    demo.start()
    demo.until_it_runs()
    demo.service("processors").suspend()
    assert demo.process is not None
    demo.process.send_signal(signal.SIGINT)
    demo.until(lambda: "waiting for processors" in demo.log(), "what is waited for")
    demo.process.send_signal(signal.SIGINT)
    assert demo.process.wait(PATIENCE_S) == 130
    demo.until_all_are_gone()
    assert "Nothing was recounted" in demo.log()
    assert "the ledger" not in demo.log().partition("stopping:")[2]
    assert demo.report("--for", "3s")["sound"]


def test_after_ctrl_c_the_ledger_is_recounted_and_can_be_wrong(demo: Demo) -> None:
    demo.start()
    demo.until_it_runs()
    with (
        contextlib.closing(sqlite3.connect(demo.folder / ".headrace" / "store.db", timeout=PATIENCE_S)) as store,
        store,
    ):
        assert store.execute('DELETE FROM "meters:rows" WHERE _arrival % 2').rowcount > 0
    assert demo.process is not None
    demo.process.send_signal(signal.SIGINT)
    assert demo.process.wait(PATIENCE_S) == 1, demo.log()
    demo.until_all_are_gone()
    assert "THE LEDGER DOES NOT ADD UP" in demo.log()
    assert "rows are stored, the store has" in demo.log()


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
