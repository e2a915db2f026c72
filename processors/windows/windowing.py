"""Readings into windows: at once, or, where their order matters, when their place in it is sure."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from headrace.batch import Int64s
from headrace.column import Bools
from processors.windows.input.groups import different
from processors.windows.input.intake import Intake
from processors.windows.input.readings import Readings
from processors.windows.input.reorder_buffer import ReorderBuffer
from processors.windows.kinds.emitted import Emitted
from processors.windows.kinds.engine import Engine
from processors.windows.kinds.sliding_windows import SlidingWindows
from processors.windows.time.closed_up_to import ClosedUpTo


class Windowing:
    """The windows of the groups, and the readings that wait to be taken into them."""

    def __init__(self, engine: Engine, reorder: ReorderBuffer | None, intake: Intake) -> None:
        self.engine = engine
        self.reorder = reorder
        self.touched: list[Int64s] = []
        """The groups of which something has changed since the state was last written."""
        self.held = [] if reorder is None else [reorder.held]
        """The readings that are held, each in pieces of state of its own."""
        if isinstance(engine, SlidingWindows):
            self.held.append(engine.tail)
        self._intake = intake
        self._counts = intake.counts

    def keep(self, readings: Readings) -> list[Emitted]:
        """Take readings, or let them wait; the windows that they end."""
        if self.reorder is None:
            return [self._take(readings)]
        self.reorder.put(readings)
        self.touched.append(different(readings.slots))
        return []

    def _take(self, readings: Readings) -> Emitted:
        emitted, outside = self.engine.take(readings)
        self._counts["windowed"] += len(readings) - outside
        self._counts["outside"] += outside
        self.touched.append(different(readings.slots))
        return emitted

    def begin_all(self, closed_up_to: ClosedUpTo) -> None:
        """Know how far all groups are before readings of theirs are taken."""
        known = self._intake.known_groups()
        if len(known):
            self.engine.begin(known, closed_up_to)

    def advance(self, moved: Int64s, closed_up_to: ClosedUpTo) -> list[Emitted]:
        """Take what has waited long enough, and close what is over.

        ``moved``: the groups (each once) that may have moved by themselves.
        """
        emitted = []
        if self.reorder is not None and len(self.reorder):
            released = self.reorder.release(
                closed_up_to.of(np.arange(self._intake.group_count)), self._intake.devices.names
            )
            if released is not None:
                emitted.append(self._take(released))
                moved = different(np.concatenate([moved, released.slots]))
        ended = self.engine.advance(moved, closed_up_to)
        if len(ended):
            self.touched.append(ended.slots)
            emitted.append(ended)
        return emitted

    def holds(self, groups: Int64s, unknown_us: int) -> Bools:
        """Of which of n groups anything is open, waits, or is reached back to; as Holder."""
        held = self.engine.holds(groups, unknown_us)
        return held if self.reorder is None else held | self.reorder.holds(groups)

    def forget(self, groups: Int64s) -> None:
        """Be as if these groups, of which nothing is held, had never been."""
        self.engine.forget(groups)
        if self.reorder is not None:
            self.reorder.forget(groups)

    @property
    def is_open(self) -> bool:
        """Whether there is anything that time could close."""
        return self.engine.open_windows() > 0 or (self.reorder is not None and len(self.reorder) > 0)

    @property
    def gauges(self) -> Mapping[str, int]:
        """What is open and waits now."""
        return {
            "open": self.engine.open_windows(),
            "in_open": self.engine.open_readings(),
            "waiting": 0 if self.reorder is None else len(self.reorder),
        }
