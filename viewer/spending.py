"""What the engine spends on whom, and when that is too much: pure, fed with looks at its mark and its processor time.

Processor time is what counts, so that a machine that is busy with other things, or was asleep, blames nobody.

>>> spending = Spending(Budget(work_s=5.0))
>>> looks = [spending.look(1, page=7, cpu_s=0.1 * n, passed_s=0.1, memory=0) for n in range(51)]
>>> [look for look in looks if look]
[Excess(page=7, did='held the engine for 5 s', fatal=True, slow=True)]
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Budget:
    """What the engine may take.

    One piece of work may take ``work_s`` of processor time, and six times as long whatever it does. A page's
    requests may take ``share`` of any four times ``work_s``. ``memory`` is in bytes. The process has
    ``stop_s`` to stop by itself.
    """

    work_s: float = 5.0
    share: float = 0.5
    memory: int = 1 << 30
    stop_s: float = 1.0

    @property
    def span_s(self) -> float:
        """How far back a page's requests are added up."""
        return 4 * self.work_s

    @property
    def waited_s(self) -> float:
        """How long one piece of work may take, whatever it does."""
        return 6 * self.work_s


class Excess(NamedTuple):
    """Who (0: no page) has done what; ``fatal`` when nothing helps but to end the engine."""

    page: int
    did: str
    fatal: bool
    slow: bool = False
    """Whether it is a piece of work that takes too long."""


class Spending:
    """One process of the engine, looked at again and again."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._number = 0
        self._spent_s = self._waited_s = 0.0
        self._cpu_s: float | None = None
        self._span_s = 0.0
        self._recent: deque[tuple[float, int, float]] = deque()

    def look(self, number: int, page: int, *, cpu_s: float | None, passed_s: float, memory: int) -> Excess | None:
        """Take a look: the mark, the process's processor time (None: the system does not tell), its memory, and how
        long ago the last look was. What is too much, if anything is.
        """
        before, self._cpu_s = self._cpu_s, cpu_s
        spent_s = passed_s if cpu_s is None else min(passed_s, cpu_s - before) if before is not None else 0.0
        if number and number == self._number:
            self._spent_s += spent_s
            self._waited_s += passed_s
        else:
            self._number, self._spent_s, self._waited_s = number, 0.0, 0.0
        lately_s = self._lately(page if number else 0, spent_s, passed_s)
        budget = self._budget
        # A hair less: sums of looks are not exact.
        if self._spent_s >= budget.work_s - 1e-6 or self._waited_s >= budget.waited_s:
            return Excess(page, f"held the engine for {self._waited_s:.0f} s", fatal=True, slow=True)
        if memory > budget.memory:
            return Excess(page if number else 0, f"made the engine take more than {budget.memory >> 20} MB", fatal=True)
        if lately_s > budget.share * budget.span_s:
            did = f"held the engine for {lately_s:.1f} s of the last {budget.span_s:g}"
            return Excess(page, did, fatal=False)
        return None

    def _lately(self, page: int, spent_s: float, passed_s: float) -> float:
        """What the requests of ``page`` have taken of the last while."""
        recent = self._recent
        recent.append((passed_s, page, spent_s))
        self._span_s += passed_s
        while self._span_s > self._budget.span_s:
            self._span_s -= recent.popleft()[0]
        return sum(spent for _, whose, spent in recent if whose == page) if page else 0.0
