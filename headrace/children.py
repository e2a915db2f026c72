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
from collections.abc import Mapping, Sequence
from pathlib import Path

from headrace.errors import HeadraceError

FOLLOW = "HEADRACE_FOLLOW_PARENT"
TAIL_CHARACTERS = 2_000
GRACE_S = 1.0
"""How long a service has to end by itself once its parent is gone."""


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
            self.process = subprocess.Popen(
                [sys.executable, "-m", name, *arguments],
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

    def check(self) -> None:
        """Raise HeadraceError with what it said last if it has ended."""
        if not self.running:
            code = self.process.returncode
            raise HeadraceError(
                f"{self.name} ended with code {code}:\n{self.output().strip() or '(it said nothing)'}",
                hint=f"its whole log is {self.log}",
            )

    def ask_to_stop(self) -> None:
        """Send SIGTERM."""
        if self.running:
            self.process.terminate()

    def stop(self, patience_s: float) -> bool:
        """Ask it to stop and wait; kill it after ``patience_s``. Whether it went by itself."""
        self.ask_to_stop()
        deadline = time.monotonic() + patience_s
        try:
            self.process.wait(max(deadline - time.monotonic(), 0.05))
            return True
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return False
        finally:
            with contextlib.suppress(BrokenPipeError):
                if self.process.stdin is not None:
                    self.process.stdin.close()
