"""Services as child processes: started with settings, stopped in order, and never left behind.

A child gets a pipe as its standard input and ends when that closes (:func:`follow_parent`), so that it ends
with its parent even when that is killed with -9. It has a session of its own: Ctrl-C reaches the parent
alone, which then stops its children one after the other.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from headrace.errors import HeadraceError

FOLLOW = "HEADRACE_FOLLOW_PARENT"
TAIL_CHARACTERS = 2_000
GRACE_S = 1.0
"""How long a service has to end by itself once its parent is gone."""
SAY_AFTER_S = 1.0
TOO_OFTEN, TOO_OFTEN_S = 5, 60.0
"""What dies so often within so many seconds is not started again."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 8.0


def program(module: str, *arguments: str) -> list[str]:
    """The command that runs one of our modules as a program, and never a folder of its name where the user stands."""
    return [sys.executable, "-P", "-m", module, *arguments]


def follow_parent() -> None:
    """In a child started by :class:`Child`: end (as by SIGTERM) when the parent is gone."""
    if os.environ.get(FOLLOW) != "1":
        return

    def watch() -> None:
        while os.read(0, 4_096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        # Without its parent's broker a service may wait in vain to commit what is safe to read again.
        time.sleep(GRACE_S)
        os._exit(1)

    threading.Thread(target=watch, name="follow-parent", daemon=True).start()


class Child:
    """A service that runs as ``python -m NAME``; what it prints goes to a log file."""

    def __init__(self, name: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self._begin = output.tell()
            self._asked = False
            self.process = subprocess.Popen(
                program(name, *arguments),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env={**os.environ, **environment, FOLLOW: "1"},
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self.process.poll() is None

    def output(self) -> str:
        """What it has printed since its start, the last of it."""
        with self.log.open("rb") as log:
            log.seek(max(self._begin, self.log.stat().st_size - TAIL_CHARACTERS))
            return log.read().decode(errors="replace")

    def ended(self) -> HeadraceError:
        """That it has ended, and what it said last."""
        return HeadraceError(
            f"{self.name} {how_it_ended(self.process.returncode)}:\n{self.output().strip() or '(it said nothing)'}",
            hint=f"its whole log is {self.log}",
        )

    def ask_to_stop(self) -> None:
        """Send SIGTERM, once: a second one would end what is stopping."""
        if self.running and not self._asked:
            self._asked = True
            self.process.terminate()

    def stop(self, patience_s: float, waiting: Callable[[], None]) -> bool:
        """Ask it to stop and wait; kill it after ``patience_s``. Whether it went by itself.

        ``waiting`` is called when it still runs after SAY_AFTER_S.
        """
        self.ask_to_stop()
        try:
            self.process.wait(SAY_AFTER_S)
        except subprocess.TimeoutExpired:
            waiting()
            try:
                self.process.wait(patience_s - SAY_AFTER_S)
            except subprocess.TimeoutExpired:
                self.kill()
                return False
        self.close()
        return True

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.close()

    def close(self) -> None:
        """Let go of it, when it has ended or is about to."""
        self.process.wait()
        with contextlib.suppress(BrokenPipeError):
            if self.process.stdin is not None:
                self.process.stdin.close()


def how_it_ended(code: int | None) -> str:
    """A process's return code in words."""
    if code is None or code >= 0:
        return f"ended with code {code}"
    names = {number.value: number.name for number in signal.Signals}
    return f"was ended by signal {names.get(-code, -code)}"


@dataclass(frozen=True)
class Death:
    """That something ended by itself, when, and after how long it is started again."""

    name: str
    how: str
    at_s: float
    pause_s: float


class Deaths:
    """What has died of late, and when it may start again: at once, then after longer and longer."""

    def __init__(self, begun_s: float) -> None:
        self._begun_s = begun_s
        self.all: list[Death] = []
        self._due_s: dict[str, float] = {}

    def note(self, name: str, how: str, now_s: float) -> Death | None:
        """Note a death; None when it was the last of too many within a while."""
        of_late = sum(d.name == name and now_s - self._begun_s - d.at_s < TOO_OFTEN_S for d in self.all)
        pause_s = 0.0 if not of_late else min(FIRST_PAUSE_S * 2 ** (of_late - 1), LONGEST_PAUSE_S)
        death = Death(name, how, now_s - self._begun_s, pause_s)
        self.all.append(death)
        self._due_s[name] = now_s + pause_s
        return death if of_late + 1 < TOO_OFTEN else None

    def waits(self, name: str) -> bool:
        """Whether it is dead and not started again yet."""
        return name in self._due_s

    def due(self, name: str, now_s: float) -> bool:
        """Whether it is to be started again; asked when it is."""
        if name not in self._due_s or now_s < self._due_s[name]:
            return False
        del self._due_s[name]
        return True
