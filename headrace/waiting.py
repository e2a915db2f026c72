"""Waiting for a part that is not there yet: told when it begins and ends, and given up when it takes too long."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TypeVar

from headrace.errors import HeadraceError

Found = TypeVar("Found")


class NotYet(Exception):
    """A look that found nothing: what is ``awaited``, and the ``error`` that this becomes when patience ends."""

    def __init__(self, awaited: str, error: HeadraceError | None = None) -> None:
        super().__init__(awaited)
        self.awaited = awaited
        self.error = error


def notice(text: str) -> None:
    """Tell it on stderr."""
    print(text, file=sys.stderr, flush=True)


class Waiting:
    """The waits for one part, which may go away again and again. Of the time it knows what it is told.

    A wait is told once when it begins and once, as ``there``, when it ends; a part that is there at the first look is
    not worth a word. ``patience_s`` is how long a wait may take; it never ends by itself if that is None.
    """

    def __init__(self, there: str, *, patience_s: float | None = None, tell: Callable[[str], None] = notice) -> None:
        self._there = there
        self._patience_s = patience_s
        self._tell = tell
        self._since_s: float | None = None

    def missing(self, what: NotYet, now_s: float) -> None:
        """A look found nothing. Raises the error of ``what`` when patience is at its end."""
        if self._since_s is None:
            self._since_s = now_s
            self._tell(f"waiting for {what.awaited}")
        elif self._patience_s is not None and now_s - self._since_s > self._patience_s and what.error is not None:
            raise what.error from None

    def found(self) -> None:
        """A look found it."""
        if self._since_s is not None:
            self._since_s = None
            self._tell(self._there)


def wait_for(
    look: Callable[[], Found],
    waiting: Waiting,
    *,
    every_s: float,
    pause: Callable[[float], object] = time.sleep,
) -> Found:
    """What ``look`` gives, as soon as it does not raise :class:`NotYet`; it is tried every ``every_s``.

    Raises what ``waiting``, ``look`` and ``pause`` raise.
    """
    while True:
        try:
            found = look()
        except NotYet as what:
            waiting.missing(what, time.monotonic())
        else:
            waiting.found()
            return found
        pause(every_s)
