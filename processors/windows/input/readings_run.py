"""A sorted run of readings that are taken from the front of each group."""

from __future__ import annotations

import numpy as np

from headrace.batch import Int64s
from headrace.column import Bools
from processors.windows.arrays import heads_of, ranges
from processors.windows.input.readings import Readings

_NEVER_DUE = 2**63 - 1


class Run:
    """Readings sorted by group and time, of which some are held still: in each group those from some place on."""

    __slots__ = ("_begins", "_ends", "_next_us", "_size", "groups", "held", "next_us", "pieces", "readings")

    def __init__(self, readings: Readings, groups: Int64s, begins: Int64s, size: int) -> None:
        self.readings = readings
        self.groups = groups
        """those of which something is held"""
        self._begins = begins
        self._ends = np.append(begins[1:], len(readings))
        self._next_us = readings.ts_us[begins]
        self._size = size
        self.held = len(readings)
        self.next_us = int(self._next_us.min()) if len(groups) else _NEVER_DUE
        """The least time that is held."""
        self.pieces = range(0)
        """The numbers of the pieces of state that hold it, if any."""

    @classmethod
    def of(cls, readings: Readings, size: int | None = None) -> Run:
        """A run of readings that are sorted; ``size``: with how many it was made, if some are gone."""
        begins = np.flatnonzero(heads_of(readings.slots))
        return cls(readings, readings.slots[begins], begins, len(readings) if size is None else size)

    def __len__(self) -> int:
        """How many readings it was made with."""
        return self._size

    def advance(self, upto_us: Int64s, front_us: Int64s) -> Int64s:
        """Hold the readings no longer that are up to and with their group's time; their places, sorted.

        ``front_us``, by group, is raised to the last of them.
        """
        due = np.flatnonzero(self._next_us <= upto_us[self.groups])
        if not len(due):
            return due
        groups, begins, ends = self.groups[due], self._begins[due], self._ends[due]
        ts_us = self.readings.ts_us
        begins_now = _first_after(ts_us, begins, ends, upto_us[groups])
        front_us[groups] = np.maximum(front_us[groups], ts_us[begins_now - 1])
        over = begins_now == ends
        self._begins[due] = begins_now
        self._next_us[due] = np.where(over, _NEVER_DUE, ts_us.take(begins_now, mode="clip"))
        if over.any():
            left = np.flatnonzero(self._begins < self._ends)
            self.groups, self._next_us = self.groups[left], self._next_us[left]
            self._begins, self._ends = self._begins[left], self._ends[left]
        self.next_us = int(self._next_us.min()) if len(self.groups) else _NEVER_DUE
        taken = begins_now - begins
        self.held -= int(taken.sum())
        return ranges(begins, taken)

    def rest(self) -> Readings:
        """What is held still."""
        if self.held == len(self.readings):
            return self.readings
        return self.readings.take(ranges(self._begins, self._ends - self._begins))

    def places_of(self, marks: Bools) -> Int64s:
        """The places of what is held of those groups that are marked."""
        of = np.flatnonzero(marks[self.groups])
        return ranges(self._begins[of], self._ends[of] - self._begins[of])

    def latest_us(self) -> Int64s:
        """For each of the groups the greatest time that is held."""
        latest: Int64s = self.readings.ts_us[self._ends - 1]
        return latest


def _first_after(ts_us: Int64s, begins: Int64s, ends: Int64s, limits_us: Int64s) -> Int64s:
    """For each stretch, whose times rise and begin by its limit, the first place after the limit, or its end."""
    low, high = begins + 1, ends
    for _ in range(int((ends - begins).max()).bit_length()):
        middle = (low + high) >> 1
        goes_on = (middle < high) & (ts_us.take(middle, mode="clip") <= limits_us)
        low, high = np.where(goes_on, middle + 1, low), np.where(goes_on, high, middle)
    return low
