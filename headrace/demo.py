"""``headrace demo``: the whole line in one command, on the embedded broker and store.

It starts the broker and the four services as child processes, shows what they do, and stops them in the
order in which readings flow: what was read is written before its writer goes.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import sys
import time
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import IO, Any

from confluent_kafka import KafkaException
from rich.console import Console
from rich.live import Live

from headrace.broker.embedded import EmbeddedBroker
from headrace.children import Child
from headrace.errors import HeadraceError, StoreUnavailable
from headrace.ledger import LedgerReader, Line
from headrace.pipeline import Pipeline
from headrace.pipeline.model import Hopping, Sliding, Tumbling
from headrace.redaction import redacted_values
from headrace.settings import Settings, writable_folder
from headrace.status import Board
from headrace.stores import Store, open_store
from headrace.topics import ensure_topics, reader, wait_for_broker
from headrace.verify import Verdict, lines_of, verify

SHOW_EVERY_S = 0.5
SAY_EVERY_S = 5.0
START_S = 60.0
DRAIN_S = 15.0
HURRIED_DRAIN_S = 1.5
STOP_S = 1.2
PAGE = re.compile(r"the page is at (http://\S+?)/?\s")
SERVICES = ("sinks", "processors", "viewer", "producers")


@dataclass(frozen=True)
class Options:
    """What the command line asks of the demo."""

    run_s: float | None = None
    headless: bool = False
    report: Path | None = None
    reset: bool = False
    broker_port: int = 9092


@dataclass
class Page:
    """What the viewer says of its page."""

    address: str
    rows: int = 0
    clients: int = 0
    status: dict[str, Any] = field(default_factory=dict)

    def refresh(self) -> None:
        """Ask the viewer; keep what was known if it does not answer yet."""
        try:
            with urllib.request.urlopen(f"{self.address}/status", timeout=1) as answer:  # noqa: S310 - our own page
                self.status = json.load(answer)
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return
        tables = self.status.get("tables", {})
        self.rows = sum(int(table.get("rows", 0)) for table in tables.values())
        self.clients = int(self.status.get("clients", 0))


class Demo:
    """One run of the whole line."""

    def __init__(self, settings: Settings, pipeline: Pipeline, options: Options) -> None:
        self.options = options
        self.pipeline = pipeline
        self.settings = settings
        self.page = Page("")
        self.children: dict[str, Child] = {}
        self.lines: list[Line] = []
        self.asked_to_stop = False
        self._store: Store | None = None

    def run(self) -> int:
        """Run until it is asked to stop or ``run_s`` have passed; 0 if the line was sound."""
        data = writable_folder(self.settings.data)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop_asked)
        with ExitStack() as stack:
            stack.enter_context(_only_one(data))
            if self.options.reset:
                self._reset(data)
            broker = stack.enter_context(EmbeddedBroker(data / "broker", port=self.options.broker_port))
            self.settings = replace(self.settings, broker=broker.address)
            ensure_topics(wait_for_broker(broker.address, patience_s=START_S), self.pipeline)
            consumer = reader(broker.address)
            stack.callback(consumer.close)
            ledger = LedgerReader(reader(broker.address), self.pipeline)
            stack.callback(ledger.close)
            stack.callback(self._stop_children)
            self._start(data)
            begun = time.monotonic()

            def look() -> None:
                self._check(broker)
                self._look(consumer, ledger)

            self._show(look, begun)
            return self._end(look, consumer, ledger, time.monotonic() - begun)

    def _stop_asked(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked_to_stop:
            raise KeyboardInterrupt
        self.asked_to_stop = True

    def _reset(self, data: Path) -> None:
        """Forget what earlier runs have left: the broker's topics, the states, the store."""
        for name in ("broker", "state", "producers"):
            shutil.rmtree(data / name, ignore_errors=True)
        try:
            store = open_store(self.settings.store)
        except StoreUnavailable:
            return
        store.reset()
        store.close()

    def _start(self, data: Path) -> None:
        logs = writable_folder(data / "logs")
        environment = self.settings.environment()
        for name in SERVICES:
            arguments = ["--quiet"] if name == "producers" else []
            self.children[name] = Child(name, arguments, environment, logs / f"{name}.log")
        deadline = time.monotonic() + START_S
        while not self.page.status and not self.asked_to_stop:
            for child in self.children.values():
                child.check()
            if time.monotonic() > deadline:
                raise HeadraceError(
                    f"the page does not answer after {START_S:.0f} s", hint=f"look into {logs / 'viewer.log'}"
                )
            # The viewer says where it listens: with --port 0 only it knows.
            if said := PAGE.search(self.children["viewer"].output()):
                self.page.address = said.group(1)
                self.page.refresh()
            time.sleep(0.05)

    def _check(self, broker: EmbeddedBroker) -> None:
        broker.check()
        for name, child in self.children.items():
            if name == "producers" and not child.running and child.process.returncode == 0:
                continue
            child.check()

    def _look(self, consumer: Any, ledger: LedgerReader) -> None:
        try:
            if self._store is None:
                self._store = open_store(self.settings.store, readonly=True)
            self.lines = lines_of(consumer, self.pipeline, ledger, self._store)
        except (StoreUnavailable, KafkaException):
            # Away for a moment: the services say so in their logs, and the numbers stay as they were.
            return
        self.page.refresh()

    def _show(self, look: Callable[[], None], begun: float) -> None:
        """Show what the line does until it is time to stop."""
        board = Board(self.pipeline, self.page.address)
        console = Console()
        print(f"the page is at {self.page.address}", flush=True)
        live = Live(console=console, auto_refresh=False, transient=False) if console.is_terminal else None
        if not self.options.headless and _has_display():
            webbrowser.open(self.page.address)
        said = begun
        with live or ExitStack():
            while not self.asked_to_stop:
                now = time.monotonic()
                if self.options.run_s is not None and now - begun >= self.options.run_s:
                    return
                look()
                board.take(self.lines, self.page.rows, self.page.clients, now)
                if live is not None:
                    live.update(board.render(now - begun), refresh=True)
                elif now - said >= SAY_EVERY_S:
                    said = now
                    print(board.line(now - begun), flush=True)
                self._wait(max(0.0, SHOW_EVERY_S - (time.monotonic() - now)))

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self.asked_to_stop and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))

    def _end(self, look: Callable[[], None], consumer: Any, ledger: LedgerReader, ran_s: float) -> int:
        """Stop in the order in which readings flow; with a report, recount before the last goes."""
        hurried = self.asked_to_stop
        print("stopping: producers first, then what they have sent is worked off", flush=True)
        self.children.pop("producers").stop(STOP_S)
        drained = self._drain(look, HURRIED_DRAIN_S if hurried else DRAIN_S)
        verdict = Verdict(self.lines)
        if not hurried and self._store is not None:
            verdict = verify(consumer, self.pipeline, ledger, self._store)
            self.lines = verdict.lines
        if not hurried and not drained:
            verdict.faults.append(f"the line was not worked off {DRAIN_S:.0f} s after the producers had stopped")
        self._stop_children()
        board = Board(self.pipeline, self.page.address)
        board.take(self.lines, self.page.rows, self.page.clients, 0.0)
        print(board.summary(verdict))
        faults = self._faults(verdict) if not hurried else verdict.faults
        if self.options.report is not None:
            self.options.report.write_text(
                json.dumps(redacted_values(self._report(ran_s, verdict, faults)), indent=2) + "\n"
            )
        for fault in faults:
            print(f"fault: {fault}", file=sys.stderr)
        return 1 if faults else 0

    def _faults(self, verdict: Verdict) -> list[str]:
        """What must hold at the end of a run: a sound ledger, closed windows, rows on the page."""
        faults = list(verdict.faults)
        for name, stream in self.pipeline.streams.items():
            # Other windows may rightly find nothing to begin or end them in a short run.
            if not isinstance(stream.window, Tumbling | Hopping | Sliding):
                continue
            if not any(line.counts.get("closed") for line in self.lines if line.name == name):
                faults.append(f"stream {name} has closed no window")
        if not self.page.rows:
            faults.append("the page's tables have no rows")
        return faults

    def _report(self, ran_s: float, verdict: Verdict, faults: list[str]) -> dict[str, Any]:
        return {
            "sound": not faults,
            "faults": faults,
            "notes": verdict.notes,
            "ran_s": round(ran_s, 1),
            "page": {"address": self.page.address, "rows": self.page.rows, "status": self.page.status},
            "ledger": [
                {
                    "stage": line.stage,
                    "name": line.name,
                    "topic": line.topic,
                    "produced": line.produced,
                    "behind": line.behind,
                    "gap": line.gap,
                    "missed": line.missed,
                    **line.counts,
                }
                for line in self.lines
            ],
        }

    def _drain(self, look: Callable[[], None], patience_s: float) -> bool:
        """Wait until every stage has read all there is, twice in a row: results bring rows of their own."""
        deadline, quiet, before = time.monotonic() + patience_s, 0, -1
        while time.monotonic() < deadline:
            look()
            total = sum(line.produced for line in self.lines)
            settled = bool(self.lines) and total == before and not any(line.behind for line in self.lines)
            quiet, before = (quiet + 1 if settled else 0), total
            if quiet >= 3:
                return True
            time.sleep(0.15)
        return False

    def _stop_children(self) -> None:
        """Processors before sinks: each has nothing left to wait for when it goes. Nobody waits for the page."""
        if "viewer" in self.children:
            self.children["viewer"].ask_to_stop()
        for name in ("producers", "processors", "sinks", "viewer"):
            child = self.children.pop(name, None)
            if child is not None and not child.stop(STOP_S):
                print(f"{name} did not stop in time and was killed; nothing is lost", file=sys.stderr)
        if self._store is not None:
            self._store.close()
            self._store = None


class _OneDemoError(HeadraceError):
    pass


def _only_one(data: Path) -> IO[str]:
    """A lock on the data folder: two demos on one would count each other's readings."""
    lock = (data / "demo.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise _OneDemoError(
            f"another demo runs on the data folder {data}", hint="stop it, or choose another folder with --data"
        ) from None
    return lock


def _has_display() -> bool:
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
