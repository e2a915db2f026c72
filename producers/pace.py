"""When readings are due: exact rates, and event time running at another speed than the clock. No clock in here."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from headrace.batch import Int64s

SECOND_US = 1_000_000
ALWAYS_US = 1 << 62
"""Later than any time: what event time has reached when it runs as fast as possible."""


class Schedule:
    """Reading number n is at n / rate seconds after the epoch, for ever: nothing is added up, so nothing drifts.

    As the numbers begin at the epoch and not at the start of a run, a run that is stopped and started again
    goes on with the very readings that are due then.
    """

    def __init__(self, rate: float) -> None:
        exact = Fraction(str(rate)).limit_denominator(10**8) or Fraction(1, 10**8)
        self._per, self._step = exact.numerator, exact.denominator * SECOND_US

    def time(self, number: int) -> int:
        """When reading ``number`` is, in µs since the epoch."""
        return number * self._step // self._per

    def times(self, first: int, count: int) -> Int64s:
        """When the ``count`` readings from ``first`` on are."""
        # Python's integers hold what is too large for 64 bits; the rest is small enough for numpy's.
        whole, rest = divmod(first * self._step, self._per)
        return whole + (rest + np.arange(count, dtype=np.int64) * self._step) // self._per

    def number(self, time_us: int) -> int:
        """The first reading at ``time_us`` or after it."""
        return -(-time_us * self._per // self._step)

    def span(self, duration_us: int) -> int:
        """How many readings ``duration_us`` covers, rounded up, at least one."""
        return max(1, -(-duration_us * self._per // self._step))


@dataclass(frozen=True)
class Pace:
    """Event time ``event_us`` is reached when the clock shows ``wall_us``, and runs ``speed`` times as fast.

    Speed 0 is as fast as possible: every event time is reached at once.
    """

    event_us: int
    wall_us: int
    speed: float

    def reached(self, wall_us: int) -> int:
        """The event time reached when the clock shows ``wall_us``."""
        if self.speed == 0:
            return ALWAYS_US
        passed = wall_us - self.wall_us
        return self.event_us + (passed if self.speed == 1 else int(passed * self.speed))

    def due(self, event_us: int) -> int:
        """What the clock shows when ``event_us`` is reached."""
        if self.speed == 0:
            return self.wall_us
        ahead = event_us - self.event_us
        # Rounded up, so that at the time given back the event time has been reached.
        return self.wall_us + (ahead if self.speed == 1 else -int(-ahead / self.speed // 1))
