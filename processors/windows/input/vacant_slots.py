"""Slots whose owners were forgotten, to be given to others."""

from __future__ import annotations

import numpy as np

from headrace.batch import Int64s
from headrace.column import Bools


class VacantSlots:
    """The slots that are free among those that there are. The lowest is given first: so the used ones stay together."""

    def __init__(self) -> None:
        self._slots: list[int] = []
        """The lowest comes last."""

    def __len__(self) -> int:
        return len(self._slots)

    def next(self, end: int) -> int:
        """The slot for what is new: a free one, or ``end`` if there is none."""
        return self._slots.pop() if self._slots else end

    def take(self, most: int) -> list[int]:
        """The lowest free slots, ``most`` of them or as many as there are."""
        taken = self._slots[len(self._slots) - min(most, len(self._slots)) :]
        del self._slots[len(self._slots) - len(taken) :]
        return taken[::-1]

    def add(self, slots: Int64s) -> None:
        """These slots are free from now on."""
        self._slots += slots.tolist()
        self._slots.sort(reverse=True)

    def among(self, slots: int) -> Bools:
        """Which of so many slots are free."""
        free = np.zeros(slots, np.bool_)
        free[self._slots] = True
        return free
