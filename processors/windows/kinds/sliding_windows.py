"""Sliding windows: each reading closes one, over the last so much time of its group."""

from __future__ import annotations

from typing import Any

import numpy as np

from headrace.batch import Int64s
from headrace.column import Bools
from processors.windows.aggregates import Aggregates
from processors.windows.arrays import heads_of, with_room
from processors.windows.input.held_readings import HeldReadings
from processors.windows.input.readings import Readings
from processors.windows.kinds.emitted import Emitted
from processors.windows.kinds.sliding import Sliding
from processors.windows.time.closed_up_to import ClosedUpTo
from processors.windows.time.watermark import NEVER


class SlidingWindows:
    """The readings of each group that later windows reach back to."""

    def __init__(self, size_us: int, aggregates: Aggregates) -> None:
        self._sliding = Sliding(size_us, aggregates)
        self.tail = HeldReadings("tail")
        """The readings of each group that later windows reach back to."""
        self._latest_us: Int64s = np.empty(0, np.int64)
        """For each group the time of its last reading."""

    def add_groups(self, groups: int) -> None:
        """Know so many groups in all."""
        self._latest_us = with_room(self._latest_us, groups, NEVER)

    def begin(self, groups: Int64s, closed_up_to: ClosedUpTo) -> None:
        """Nothing: windows follow the readings alone."""

    def take(self, readings: Readings) -> tuple[Emitted, int]:
        """Take readings in their order; each one's window."""
        groups = readings.slots[heads_of(readings.slots)]
        block, fresh, computed = readings, np.ones(len(readings), np.bool_), np.ones(len(readings), np.bool_)
        older = self.tail.of(groups)
        if older:
            block = Readings.joined([*older, readings])
            order = block.by_group_and_time()
            block, fresh = block.take(order), order >= len(block) - len(readings)
            behind = ~fresh[1:] & fresh[:-1] & (block.slots[1:] == block.slots[:-1])
            # Where the grace has become longer a reading may come before older ones: their windows are had once more.
            computed = np.ones(len(block), np.bool_) if behind.any() else fresh
        closed = self._sliding.results(block.slots, block.ts_us, block.columns, computed)
        emitted = Emitted(block.slots[computed], closed.starts_us, closed.ends_us, closed.results)
        if computed is not fresh and not fresh.all():
            emitted = emitted.take(np.flatnonzero(fresh))
        self._keep(readings, groups)
        # Of readings of the same time the last one's window holds them all.
        last = np.ones(len(emitted), np.bool_)
        last[:-1] = (emitted.slots[1:] != emitted.slots[:-1]) | (emitted.ends_us[1:] != emitted.ends_us[:-1])
        return (emitted if last.all() else emitted.take(np.flatnonzero(last))), 0

    def _keep(self, readings: Readings, groups: Int64s) -> None:
        """Keep those that later windows reach back to, of the readings that were held before and of these."""
        last = np.append(np.flatnonzero(heads_of(readings.slots))[1:], len(readings)) - 1
        self._latest_us[groups] = np.maximum(self._latest_us[groups], readings.ts_us[last])
        kept = self._sliding.tail(readings.slots, readings.ts_us, self._latest_us[groups])
        self.tail.drop(self._latest_us - self._sliding.size_us)
        if kept.any():
            self.tail.append(readings if kept.all() else readings.take(np.flatnonzero(kept)))

    def advance(self, touched: Int64s, closed_up_to: ClosedUpTo) -> Emitted:  # noqa: ARG002 - as the other kinds
        """Nothing: only readings close windows."""
        return Emitted.none()

    def provisional(self) -> Emitted:
        """Nothing: no window is open."""
        return Emitted.none()

    def forget_changes(self) -> None:
        """Nothing: no window is open."""

    @property
    def oldest_open_us(self) -> None:
        """None: no window is open."""
        return

    def open_windows(self) -> int:
        """None."""
        return 0

    def open_readings(self) -> int:
        """None: the readings that are kept have emitted."""
        return 0

    def holds(self, groups: Int64s, unknown_us: int) -> Bools:
        """Of which of n groups later windows may reach back to a reading."""
        self.tail.note_latest(self._latest_us)  # what was restored
        latest_us = self._latest_us[groups]
        held: Bools = (latest_us != NEVER) & (latest_us > unknown_us - self._sliding.size_us)
        return held

    def forget(self, groups: Int64s) -> None:
        """Drop the readings of these groups, which no window reaches back to any more."""
        upto_us = np.full(len(self._latest_us), NEVER, np.int64)
        upto_us[groups] = self._latest_us[groups]
        self.tail.drop(upto_us)
        self._latest_us[groups] = NEVER

    def packed(self, first: int, last: int) -> dict[str, Any]:  # noqa: ARG002 - as the other kinds
        """Nothing: the readings that are kept have pieces of their own."""
        return {}

    def unpack(self, packed: dict[str, Any], dtypes: dict[str, Any]) -> None:
        """Nothing: no window is open."""
