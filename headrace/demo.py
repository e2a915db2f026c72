"""``headrace demo``: the whole line in one command, on the embedded broker and store.

It starts the broker and the four services as child processes, shows what they do, starts again what dies, and
stops them in the order in which readings flow: what was read is written before its writer goes.
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
from headrace.errors import DataFolderError, HeadraceError, StoreError, StoreUnavailable
from headrace.ledger import LedgerReader, Line
from headrace.pipeline import Pipeline
from headrace.pipeline.model import Hopping, Sliding, Tumbling
from headrace.redaction import redacted_values
from headrace.services import PRODUCERS, Services
from headrace.settings import Settings, writable_folder
from headrace.status import Board
from headrace.stores import Store, open_store
from headrace.topics import ONE_AFTER_ANOTHER, SELDOM_ASKED, Ends, ensure_topics, reader, wait_for_broker
from headrace.verify import Verdict, lines_of, looked_over, verify

SHOW_EVERY_S = 0.5
SHOW_AT_REST_S = 2.0
"""How often a line is looked at of which nothing has changed."""
SAY_EVERY_S = 5.0
START_S = 60.0
DRAIN_S = 15.0
HURRIED_DRAIN_S = 1.5
RECOUNT_AT_ONCE = 500_000
"""After Ctrl-C so many messages are recounted at the most: that takes a second or two."""
PAGE = re.compile(r"the page is at (http://\S+?)/?\s")


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
        self.services: Services | None = None
        self.lines: list[Line] = []
        self.looked = False
        """Whether the last look at the ledger and the store has found both."""
        self.asked_to_stop = False
        self.at_once = False
        self._store: Store | None = None
        self._lines_now: Callable[[Store], list[Line]]
        self._verify: Callable[[Store], Verdict]

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
            consumer = reader(broker.address, **ONE_AFTER_ANOTHER)
            stack.callback(consumer.close)
            ledger = LedgerReader(reader(broker.address, **SELDOM_ASKED), self.pipeline)
            stack.callback(ledger.close)
            ends = Ends(consumer)
            self._lines_now = lambda store: lines_of(ends, self.pipeline, ledger, store)
            self._verify = lambda store: verify(consumer, self.pipeline, ledger, store)
            stack.callback(self._close)
            begun = time.monotonic()
            try:
                services = self._start(broker, data)
                begun = time.monotonic()

                def look() -> None:
                    services.keep()
                    self._look()

                self._show(look, begun)
                return self._end(services, look, time.monotonic() - begun)
            except HeadraceError as error:
                ran_s = time.monotonic() - begun
                self._write_report(ran_s, Verdict(self.lines), [error.message], "the run was broken off")
                raise

    def _stop_asked(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked_to_stop and not self.at_once:
            self.at_once = True
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

    def _start(self, broker: EmbeddedBroker, data: Path) -> Services:
        logs = writable_folder(data / "logs")
        services = self.services = Services(broker, self.settings.environment(), logs)
        deadline = time.monotonic() + START_S
        while not self.page.status and not self.asked_to_stop:
            services.check()
            if time.monotonic() > deadline:
                raise HeadraceError(
                    f"the page does not answer after {START_S:.0f} s", hint=f"look into {logs / 'viewer.log'}"
                )
            # The viewer says where it listens: with --port 0 only it knows.
            if said := PAGE.search(services.children["viewer"].output()):
                self.page.address = said.group(1)
                services.set("HEADRACE_PORT", self.page.address.rpartition(":")[2])
                self.page.refresh()
            time.sleep(0.05)
        return services

    def _look(self) -> None:
        try:
            if self._store is None:
                self._store = open_store(self.settings.store, readonly=True)
            self.lines = self._lines_now(self._store)
            self.looked = True
        except (StoreError, DataFolderError, KafkaException):
            # Away for a moment, or broken: the services say so, and the numbers stay as they were.
            self.looked = False
            return
        self.page.refresh()

    def _show(self, look: Callable[[], None], begun: float) -> None:
        """Show what the line does until it is time to stop."""
        if self.asked_to_stop:
            return
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
                before = self.lines
                look()
                every_s = SHOW_AT_REST_S if self.lines == before else SHOW_EVERY_S
                board.take(self.lines, self.page.rows, self.page.clients, now)
                if live is not None:
                    live.update(board.render(now - begun), refresh=True)
                elif now - said >= SAY_EVERY_S:
                    said = now
                    print(board.line(now - begun), flush=True)
                self._wait(max(0.0, every_s - (time.monotonic() - now)))

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self.asked_to_stop and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))

    def _end(self, services: Services, look: Callable[[], None], ran_s: float) -> int:
        """Stop in the order in which readings flow, and recount: before the last goes, or at rest if told to stop."""
        hurried = self.asked_to_stop
        print("stopping: producers first, then what they have sent is worked off", flush=True)
        faults = services.faults()
        services.stop(PRODUCERS)
        drained = self._drain(look, HURRIED_DRAIN_S if hurried else DRAIN_S)
        if hurried:
            services.stop_all()
            self._drain(self._look, HURRIED_DRAIN_S, to_the_end=False)
        verdict, unchecked = self._recount(at_most=RECOUNT_AT_ONCE if hurried else None)
        if not hurried and not drained:
            verdict.faults.append(f"the line was not worked off {DRAIN_S:.0f} s after the producers had stopped")
        services.stop_all()
        board = Board(self.pipeline, self.page.address)
        board.take(self.lines, self.page.rows, self.page.clients, 0.0)
        print(board.summary(verdict, unchecked))
        faults += self._faults(verdict) if not hurried else verdict.faults
        self._write_report(ran_s, verdict, faults, unchecked)
        for fault in faults:
            print(f"fault: {fault}", file=sys.stderr)
        return 1 if faults else 0

    def _recount(self, at_most: int | None) -> tuple[Verdict, str | None]:
        """The verdict on the line, and why it was not recounted (None: it was)."""
        if self._store is None or not self.looked:
            return looked_over(self.lines), "broker or store are away"
        if not self.lines:
            return looked_over(self.lines), "nothing has been counted yet"
        messages = sum(line.produced for line in self.lines if line.stage == "sinks")
        if at_most is not None and messages > at_most:
            why = f"{messages:,} messages would take long; a run with --for is recounted in any case"
            return looked_over(self.lines), why
        try:
            verdict = self._verify(self._store)
        except (StoreError, KafkaException) as error:
            return looked_over(self.lines), str(error)
        self.lines = verdict.lines
        return verdict, None

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

    def _write_report(self, ran_s: float, verdict: Verdict, faults: list[str], unchecked: str | None) -> None:
        if self.options.report is not None:
            report = redacted_values(self._report(ran_s, verdict, faults, unchecked))
            self.options.report.write_text(json.dumps(report, indent=2) + "\n")

    def _report(self, ran_s: float, verdict: Verdict, faults: list[str], unchecked: str | None) -> dict[str, Any]:
        return {
            "sound": not faults,
            "recounted": unchecked is None,
            "not_recounted_because": unchecked,
            "faults": faults,
            "notes": verdict.notes,
            "ran_s": round(ran_s, 1),
            "deaths": [
                {"name": death.name, "how": death.how, "at_s": round(death.at_s, 1)}
                for death in (self.services.deaths.all if self.services is not None else ())
            ],
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

    def _drain(self, look: Callable[[], None], patience_s: float, *, to_the_end: bool = True) -> bool:
        """Wait until every stage has read all there is, several looks in a row: results bring rows of their own.

        Unless ``to_the_end``, until what the stages have counted does not change any more.
        """
        deadline, quiet, before = time.monotonic() + patience_s, 0, (-1, -1)
        while time.monotonic() < deadline:
            look()
            total = (sum(line.produced for line in self.lines), sum(line.behind for line in self.lines))
            settled = bool(self.lines) and total == before and not (to_the_end and total[1])
            quiet, before = (quiet + 1 if settled else 0), total
            if quiet >= 3:
                return True
            time.sleep(0.15)
        return False

    def _close(self) -> None:
        """Let nothing behind, however the run ends."""
        if self.services is not None:
            if self.at_once:
                self.services.kill_all()
                print(
                    "stopped at once: what was not committed is read again at the next start. Nothing was recounted.",
                    file=sys.stderr,
                )
            self.services.stop_all()
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
