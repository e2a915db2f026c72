"""The services of a line as child processes: what dies is started again and reported; what stops, stops in order."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path

from headrace.broker.embedded import EmbeddedBroker
from headrace.children import Child, Death, Deaths, how_it_ended
from headrace.errors import BrokerError, DataFolderError, HeadraceError, PortTaken
from headrace.exhaustion import full, is_full

BROKER = "the embedded broker"
PRODUCERS = "producers"
STARTED = ("sinks", "processors", "viewer", PRODUCERS)
STOPPED = (PRODUCERS, "processors", "sinks", "viewer")
"""As readings flow: what was read is written before its writer goes."""

STOP_S = 15.0
"""A service ends by itself ten seconds after it was asked to, whatever it waits for."""

WAITS_FOR = {
    PRODUCERS: "the broker has not acknowledged all that was sent",
    "processors": "the last checkpoint, then closing the state of every partition",
    "sinks": "the last rows, then their offsets",
    "viewer": "its pages",
}


class Services:
    """The four services on an embedded broker. Not for use by two threads at once."""

    def __init__(self, broker: EmbeddedBroker, environment: Mapping[str, str], logs: Path) -> None:
        """Start all of them; each writes into a log of its own in ``logs``."""
        self.broker = broker
        self.logs = logs
        self.children: dict[str, Child] = {}
        self.deaths = Deaths(time.monotonic())
        self._full = False
        self._environment = dict(environment)
        for name in STARTED:
            self._start(name)

    def set(self, variable: str, value: str) -> None:
        """Give an environment variable to those that are started again."""
        self._environment[variable] = value

    def check(self) -> None:
        """Raise what has ended, with its last words: at the start nothing is tried again."""
        self.broker.check()
        for child in self.children.values():
            if not child.running and not _is_done(child):
                raise child.ended()

    def keep(self) -> None:
        """Start again what has died. Raises HeadraceError when the same has died too often within a while."""
        now_s = time.monotonic()
        self._look_at_disk()
        if not self.broker.running:
            self._keep_broker(now_s)
        for name, child in list(self.children.items()):
            if child.running or _is_done(child):
                continue
            if self.deaths.due(name, now_s):
                child.close()
                self._start(name)
            elif not self.deaths.waits(name):
                how = how_it_ended(child.process.returncode)
                self._note(self.deaths.note(name, how, now_s), child.ended())

    def faults(self) -> list[str]:
        """What services have ended with that nobody needs to start again, and that is not well."""
        producers = self.children.get(PRODUCERS)
        if producers is not None and producers.process.poll() == 1:
            return [f"producers did not deliver all of their readings: {producers.log} says why"]
        return []

    def stop(self, name: str) -> None:
        """Stop a service in order, saying what it is waited for."""
        child = self.children.get(name)
        if child is None:
            return

        def waiting() -> None:
            print(f"waiting for {name}: {WAITS_FOR[name]}", flush=True)

        if not child.stop(STOP_S, waiting):
            print(
                f"{name} did not stop within {STOP_S:.0f} s and was killed; what it had not committed is read again at"
                " the next start",
                file=sys.stderr,
            )
        del self.children[name]

    def stop_all(self) -> None:
        """Stop what still runs, in order. Nobody waits for the page."""
        if "viewer" in self.children:
            self.children["viewer"].ask_to_stop()
        for name in STOPPED:
            self.stop(name)

    def kill_all(self) -> None:
        """End what still runs at once."""
        for name in STOPPED:
            if name in self.children:
                self.children.pop(name).kill()

    def _start(self, name: str) -> None:
        arguments = ["--quiet"] if name == PRODUCERS else []
        self.children[name] = Child(name, arguments, self._environment, self.logs / f"{name}.log")

    def _keep_broker(self, now_s: float) -> None:
        if self.deaths.due(BROKER, now_s):
            self.broker.start()
        elif not self.deaths.waits(BROKER):
            try:
                self.broker.check()
            except (BrokerError, DataFolderError, PortTaken) as died:
                how = died.message.removeprefix(f"{BROKER} ").partition("\n")[0]
                self._note(self.deaths.note(BROKER, how, now_s), died)

    def _look_at_disk(self) -> None:
        """Say when the disk is full, and when it is no more: the broker's clients know only that it refuses."""
        before, self._full = self._full, is_full(self.logs)
        if self._full and not before:
            error = full(str(self.logs.parent))
            print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr, flush=True)
        elif before and not self._full:
            print("there is room on the disk again", file=sys.stderr, flush=True)

    def _note(self, death: Death | None, error: HeadraceError) -> None:
        if death is None:
            if self._full:
                raise full(str(self.logs.parent)) from error
            raise HeadraceError(f"{error.message}\nIt dies again and again.", hint=error.hint)
        when = f"in {death.pause_s:g} s" if death.pause_s else "now"
        print(f"{death.name} {death.how}: it is started again {when}", file=sys.stderr, flush=True)


def _is_done(child: Child) -> bool:
    """Whether it has ended of its own accord: producers do, with all their readings sent (0) or not (1)."""
    return child.name == PRODUCERS and child.process.poll() in (0, 1)
