"""When to look at a store: often while something comes, and at rest only when there is a sign of something new."""

from __future__ import annotations

import math
import select
import socket
import time
from collections.abc import Sequence

from headrace.stores import Store, too_old

COUNTS_EVERY_S = 2.0
"""The store's counts are looked at this often."""
AWAKE_S = 1.0
"""So long after the last row, or the last sign of one, the store is looked at as often as while rows come."""
REST_S = 0.25
"""At rest it is looked at this often even without a sign."""
SOON = 5
"""After a sign it is looked at so many times as often, for two intervals: what was written is about to be seen."""


class Stop:
    """Asked of one thread by another, and a file descriptor that can be read from then on."""

    def __init__(self) -> None:
        self._ours, self._its = socket.socketpair()
        self.asked = False

    @property
    def descriptor(self) -> int:
        """Can be read once the stop was asked for."""
        return self._ours.fileno()

    def ask(self) -> None:
        """End all waiting, now and later."""
        if not self.asked:
            self.asked = True
            self._its.send(b"!")

    def close(self) -> None:
        """Let go of it, when nobody waits any more."""
        self._ours.close()
        self._its.close()

    def wait(self, seconds: float) -> bool:
        """Wait so long, or until it is asked for; whether it is."""
        return bool(select.select([self._ours], [], [], max(seconds, 0.0))[0])


class Look:
    """What is known of an open store between two looks at its tables: a small question in place of one a table."""

    def __init__(self, store: Store, *, read_rows: int, interval_s: float) -> None:
        """``read_rows``: a table that gives so many has more. ``interval_s``: how often to look while rows come."""
        self._store = store
        self._read_rows = read_rows
        self._interval_s = interval_s
        self._seen: object | None = None
        self._found_all = False
        self._counted: object | None = None
        self._counted_s = -math.inf
        self._rows_s = self._begun_s = time.monotonic()
        self._sign_s = -math.inf

    def is_due(self) -> bool:
        """Whether the tables may have something new.

        The store is asked before they are read, so that what is written meanwhile is due again.
        """
        self._begun_s = time.monotonic()
        before, self._seen = self._seen, self._store.version()
        due = not self._found_all or self._seen is None or self._seen != before
        # Until all were read: that may fail in the middle.
        self._found_all = self._found_all and not due
        return due

    def found(self, rows: Sequence[int]) -> None:
        """How many rows each table has given."""
        self._found_all = all(count < self._read_rows for count in rows)
        if any(rows):
            self._rows_s = time.monotonic()

    def dropped(self) -> dict[str, int] | None:
        """How many rows of each topic the store did not keep for their age; None while that cannot have changed."""
        if self._begun_s - self._counted_s < COUNTS_EVERY_S or (self._seen is not None and self._seen == self._counted):
            return None
        found = too_old(self._store.progress())
        self._counted, self._counted_s = self._seen, self._begun_s
        return found

    def wait(self, stop: Stop) -> None:
        """Wait for the next look, or until ``stop`` is asked for."""
        now_s = time.monotonic()
        if self._found_all and now_s - max(self._rows_s, self._sign_s) >= AWAKE_S:
            if self._store.wait(REST_S, stop.descriptor):
                self._sign_s = time.monotonic()
            return
        soon_s = self._interval_s / SOON
        every_s = soon_s if now_s - self._sign_s < 2 * self._interval_s else self._interval_s
        stop.wait(max(every_s - (now_s - self._begun_s), soon_s))
