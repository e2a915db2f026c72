"""What goes wrong, and when: a schedule that follows from a seed, and the hands that do it.

One disturbance after the other, each of bounded length; some begin while the line still works off the one before.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from faults.outer import Broker, Store
from faults.services import Services
from faults.watch import Watch

RECOVERY_S = 90.0
"""No partition may stand still for longer while there is something to read."""

WEIGHTS = {
    "kill-processor": 3,
    "kill-sink": 2,
    "kill-both-processors": 1,
    "pause-processor": 2,
    "pause-sink": 1,
    "suspend-processor": 3,
    "suspend-sink": 1,
    "suspend-and-kill": 3,
    "delete-state": 2,
    "restart-processor": 1,
    "restart-sink": 1,
    "scale-up": 2,
    "scale-down": 1,
    "kill-broker": 2,
    "stop-broker": 1,
    "store": 3,
}
"""The kinds of disturbance, and how often each comes.

``pause``: SIGSTOP for less than a session (10 s); ``suspend``: for longer, so that others take over."""


@dataclass(frozen=True)
class Disturbance:
    """One of them: what, which instance (a number to choose by), and how long."""

    kind: str
    which: int
    seconds: float
    calm_s: float
    """How long the line is left alone before it"""
    patient: bool
    """whether the line is to have recovered from the one before first"""


def schedule(seed: int, kinds: dict[str, int]) -> Iterator[Disturbance]:
    """Disturbances without end; the same ones for the same seed. Each kind comes once before any comes twice."""
    drawn = random.Random(f"chaos {seed}")
    first = list(kinds)
    drawn.shuffle(first)
    while True:
        kind = first.pop() if first else drawn.choices(list(kinds), list(kinds.values()))[0]
        seconds = drawn.uniform(12, 18) if kind.startswith("suspend") else drawn.uniform(0.2, 7)
        yield Disturbance(kind, drawn.randrange(1_000), seconds, drawn.uniform(1, 6), drawn.random() < 0.7)


@dataclass
class Chaos:
    """The hands. ``say``: told of each disturbance."""

    services: Services
    broker: Broker
    store: Store
    watch: Watch
    say: Callable[[str], None]
    done: Counter[str] = field(default_factory=Counter)
    recovered_s: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """What stood still."""

    def run(self, plan: Iterator[Disturbance], until_s: float) -> None:
        """Disturb until a time of the monotonic clock; then everything that was taken away is back."""
        for one in plan:
            if not self._calm(one, until_s):
                return
            self.say(f"{one.kind} ({one.seconds:.1f} s)")
            self._do(one)
            self.done[one.kind] += 1

    def _calm(self, one: Disturbance, until_s: float) -> bool:
        if one.patient and self.done:
            took = self.watch.wait_caught_up(RECOVERY_S, self.services.look_after)
            if took is None:
                movement = self.watch.movement
                standing = movement.standing(0, time.monotonic(), RECOVERY_S)
                self.failures.append(f"for {RECOVERY_S:.0f} s: {standing}, behind {movement.behind}")
            else:
                self.recovered_s.append(took)
        self._wait(one.calm_s)
        return time.monotonic() < until_s

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.services.look_after()
            time.sleep(min(left, 0.2))

    def _do(self, one: Disturbance) -> None:  # noqa: C901, PLR0912 - one branch a disturbance
        kind = one.kind
        stage = "sinks" if kind.endswith("sink") else "processors"
        names = self.services.names(stage)
        name = names[one.which % len(names)]
        others = [other for other in names if other != name]
        if kind in ("kill-processor", "kill-sink"):
            self._kill_for(name, one.seconds)
        elif kind == "kill-both-processors":
            for each in names:
                self.services.kill(each)
            self._wait(one.seconds)
            for each in names:
                self._start(each)
        elif kind in ("pause-processor", "pause-sink", "suspend-processor", "suspend-sink"):
            self.services.suspend(name)
            self._wait(one.seconds)
            self.services.resume(name)
        elif kind == "suspend-and-kill":
            # Others take over and go on; they are gone when the one that was suspended wakes with its old state.
            self.services.suspend(name)
            self._wait(one.seconds)
            for other in others:
                self.services.kill(other)
            self.services.resume(name)
            self._wait(2)
            for other in others:
                self._start(other)
        elif kind == "delete-state":
            self.services.kill(name)
            self.services.forget_state(name)
            self._wait(one.seconds)
            self._start(name)
        elif kind in ("restart-processor", "restart-sink"):
            self.services.stop(name)
            self._wait(one.seconds)
            self._start(name)
        elif kind == "scale-up":
            self.services.start("processors", "3")
            self._wait(8 + one.seconds)
            self.services.stop("processors-3")
        elif kind == "scale-down":
            self.services.stop(name)
            self._wait(12 + one.seconds)
            self._start(name)
        elif kind in ("kill-broker", "stop-broker"):
            (self.broker.kill if kind == "kill-broker" else self.broker.stop)()
            self._wait(one.seconds)
            self.broker.start()
        elif kind == "store":
            ways = self.store.outages()
            self.store.outage(ways[one.which % len(ways)], 4 + one.seconds)
        else:
            raise ValueError(kind)

    def _kill_for(self, name: str, seconds: float) -> None:
        self.services.kill(name)
        self._wait(seconds)
        self._start(name)

    def _start(self, name: str) -> None:
        stage, _, instance = name.partition("-")
        self.services.start(stage, instance)
