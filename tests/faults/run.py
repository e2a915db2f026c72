"""One run: servers, services, load, disturbances; then the recount, and a verdict."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults.chaos import WEIGHTS, Chaos, schedule
from faults.outer import Broker, BrokerKind, Embedded, Kafka, SQLite, Store, StoreKind, TDengine
from faults.recount.comparison import Recount
from faults.recount.declared import declared
from faults.services import ROOT, Services, Watchman
from faults.verdict import Verdict
from faults.watch import Lag, Watch, memory_mb

PIPELINE = Path(__file__).parent / "pipeline.toml"
CACHE = ROOT / ".cache" / "headrace"
BEGIN_S = 8.0
"""The line is left alone at first for so long."""
DRAIN_S = 300.0
SETTLE_S = 60.0
READY_S = 120.0


@dataclass(frozen=True)
class Options:
    """What is asked for."""

    minutes: float = 15.0
    seed: int = 7
    rate: int = 5_200
    store: StoreKind = "sqlite"
    guarantee: str = "at-least-once"
    broker: BrokerKind = "kafka"
    data: Path | None = None
    without: frozenset[str] = frozenset()
    kinds: dict[str, int] = field(default_factory=lambda: dict(WEIGHTS))
    quiet: bool = False


class Run:
    """One run in a folder of its own."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._begun = time.monotonic()

    def run(self) -> Verdict:
        """Do it all. Raises ServerAbsent where a server is missing."""
        options = self.options
        with ExitStack() as stack:
            folder = options.data
            if folder is None:
                folder = Path(tempfile.mkdtemp(prefix="headrace-faults-"))
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
            folder = folder.absolute()
            for name in ("kafka", "tdengine"):
                (folder / name).mkdir(parents=True, exist_ok=True)
            watchman = Watchman()
            stack.callback(watchman.end)
            store = self._store(folder, watchman)
            stack.callback(store.stop)
            broker = self._broker(folder)
            stack.callback(broker.kill)
            broker.start()
            verdict = Verdict(
                store.name, broker.name, options.guarantee, options.seed, options.minutes * 60, _circumstances(broker)
            )
            self._say(f"{broker.name} at {broker.address}, {store.name}, {options.guarantee}, data in {folder}")
            services = Services(folder, self._settings(folder, broker, store), watchman)
            stack.callback(services.end)
            self._line(stack, services, broker, store, verdict)
            return verdict

    def _settings(self, folder: Path, broker: Broker, store: Store) -> dict[str, str]:
        return {
            "HEADRACE_PIPELINE": str(PIPELINE),
            "HEADRACE_BROKER": broker.address,
            "HEADRACE_STORE": store.url,
            "HEADRACE_DATA": str(folder),
            "HEADRACE_GUARANTEE": self.options.guarantee,
        }

    def _line(self, stack: ExitStack, services: Services, broker: Broker, store: Store, verdict: Verdict) -> None:
        line = declared(PIPELINE)
        for stage in ("processors", "sinks"):
            for instance in ("1", "2"):
                services.start(stage, instance)
        lag = Lag(broker.address, line.name, {name: topic.partitions for name, topic in line.topics.items()})
        stack.callback(lag.close)
        rate, minutes = self.options.rate, self.options.minutes
        watch = Watch(
            lag, services.settings, groups=2, small=3 * rate, verify_every_s=min(max(minutes * 60 / 10, 8.0), 60.0)
        )
        # Before the first reading: every partition has its processor and its sink.
        self._until(lambda: _assigned(lag, line.name, 2), "the services take no part", services)
        load = self._load(stack, broker)
        watch.start()
        chaos = Chaos(services, broker, store, watch, self._say)
        begun = time.monotonic()
        time.sleep(BEGIN_S)
        if self.options.kinds:
            chaos.run(schedule(self.options.seed, self.options.kinds), begun + minutes * 60 - 5)
        while load.poll() is None:
            services.look_after()
            time.sleep(0.2)
        verdict.load = _said(load)
        self._say(f"the load is done: {json.dumps(verdict.load)}")
        watch.movement.small = 0
        ended = time.monotonic()
        if watch.wait_caught_up(DRAIN_S, services.look_after) is not None:
            verdict.drained_s = time.monotonic() - ended
        verdict.memory_mb = {
            name: round(memory_mb(service.process.pid), 1)
            for name, service in services.all.items()
            if service.process is not None and service.running
        }
        watch.end()
        self._settle(watch, services)
        verdict.events, verdict.recovered_s, verdict.failures = chaos.done, chaos.recovered_s, chaos.failures
        # Counting takes its time, and what is open would be closed by silence meanwhile.
        for name in sorted(services.all):
            services.stop(name)
        self._say("recounting")
        recount = self.recount(broker, store)
        verdict.findings, verdict.readings = recount.findings, recount.readings
        code, said = watch.verify()
        verdict.sound_at_end = code == 0
        if code:
            verdict.alarms.append(f"at the end: {said[-2_000:]}")
        verdict.verdicts, verdict.deaths = watch.verdicts, services.deaths
        verdict.alarms = [*watch.alarms, *verdict.alarms]

    def recount(self, broker: Broker, store: Store) -> Recount:
        """Count everything again, and compare."""
        recount = Recount(
            broker.address, declared(PIPELINE), store.tables(), once=self.options.guarantee == "exactly-once"
        )
        try:
            recount.raw_topics()
            recount.windows()
            recount.ledger()
        finally:
            recount.close()
        return recount

    def _settle(self, watch: Watch, services: Services) -> None:
        """Wait until what the last readings have closed is stored: nothing waits to be read."""
        deadline, quiet = time.monotonic() + SETTLE_S, False
        while not quiet and time.monotonic() < deadline:
            services.look_after()
            before = dict(watch.verdicts)
            code, said = watch.verify()
            # Only a look: what it says is judged when all is recounted.
            watch.verdicts.clear()
            watch.verdicts.update(before)
            waiting = [line for line in said.splitlines() if "wait to be read" in line]
            # What partitions say of how far they are goes on, but nothing follows from it any more.
            quiet = code == 0 and all("repartition" in line for line in waiting)

    def _store(self, folder: Path, watchman: Watchman) -> Store:
        if self.options.store == "sqlite":
            return SQLite(folder)
        return TDengine(folder / "tdengine", watchman.group)

    def _broker(self, folder: Path) -> Broker:
        if self.options.broker == "kafka":
            return Kafka(folder / "kafka")
        return Embedded(folder / "broker", CACHE)

    def _load(self, stack: ExitStack, broker: Broker) -> subprocess.Popen[str]:
        options = self.options
        command = [sys.executable, "-m", "faults.load", "--broker", broker.address]
        command += ["--seed", str(options.seed), "--rate", str(options.rate)]
        command += ["--seconds", str(options.minutes * 60), "--without", ",".join(options.without)]
        load = subprocess.Popen(command, cwd=Path(__file__).parent.parent, stdout=subprocess.PIPE, text=True)
        stack.callback(_end, load)
        return load

    def _until(self, condition: Any, else_: str, services: Services) -> None:
        deadline = time.monotonic() + READY_S
        while not condition():
            services.look_after()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{else_} within {READY_S:.0f} s; deaths: {services.deaths}")
            time.sleep(0.2)

    def _say(self, what: str) -> None:
        if not self.options.quiet:
            print(f"{time.monotonic() - self._begun:7.1f} s  {what}", file=sys.stderr, flush=True)


def _assigned(lag: Lag, name: str, groups: int) -> bool:
    """Whether so many groups of the line are there."""
    found = lag.now()
    return found is not None and len({group for group, _, _ in found if group.startswith(name)}) >= groups


def _said(load: subprocess.Popen[str]) -> dict[str, Any]:
    output = load.stdout.read() if load.stdout is not None else ""
    if not output.strip():
        return {"failed": {"ended with": load.returncode}}
    last: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    return last


def _end(load: subprocess.Popen[str]) -> None:
    load.kill()
    load.communicate()


def _circumstances(broker: Broker) -> dict[str, Any]:
    from bench.machine import circumstances

    return circumstances(broker.name)
