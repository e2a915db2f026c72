"""The partial aggregates of open windows, as columns: one row a group and pane (or open window).

Rows are taken from a pool and given back when their window closes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from headrace.batch import Int64s
from processors.windows.aggregates import Aggregates, Partials

_GROWTH = 64


class Rows:
    """A pool of partial aggregates; ``slot`` and ``pane`` say whose each is."""

    def __init__(self, aggregates: Aggregates) -> None:
        self.aggregates = aggregates
        self.partials: Partials = aggregates.empty(0)
        self.slot: Int64s = np.empty(0, np.int64)
        self.pane: Int64s = np.empty(0, np.int64)
        self.live = np.empty(0, np.bool_)
        self._free: list[int] = []

    def __len__(self) -> int:
        """How many rows are open."""
        return len(self.live) - len(self._free)

    def readings(self) -> int:
        """How many readings the open rows hold."""
        return int(self.partials["count"][self.live].sum())

    @property
    def oldest_us(self) -> int | None:
        """The time of the oldest reading in them, where they know; None without any."""
        from_us = self.partials.get("from_us")
        return None if from_us is None or not len(self) else int(from_us[self.live].min())

    def take(self, slots: Sequence[int] | Int64s, panes: Sequence[int] | Int64s) -> Int64s:
        """Fresh rows for these groups and panes."""
        n = len(slots)
        if len(self._free) < n:
            self._grow(n - len(self._free))
        left = len(self._free) - n
        rows = np.array(self._free[left:], np.int64)
        del self._free[left:]
        self.slot[rows] = slots
        self.pane[rows] = panes
        self.aggregates.reset(self.partials, rows)
        self.live[rows] = True
        return rows

    def give_back(self, rows: Int64s) -> None:
        """Free the rows of closed windows."""
        self.live[rows] = False
        self._free.extend(rows.tolist())

    def _grow(self, least: int) -> None:
        old = len(self.live)
        more = max(least, _GROWTH, old // 2)
        fresh = self.aggregates.empty(more)
        self.partials = {name: np.concatenate([column, fresh[name]]) for name, column in self.partials.items()}
        self.slot = np.concatenate([self.slot, np.zeros(more, np.int64)])
        self.pane = np.concatenate([self.pane, np.zeros(more, np.int64)])
        self.live = np.concatenate([self.live, np.zeros(more, np.bool_)])
        self._free.extend(range(old + more - 1, old - 1, -1))

    def packed(self, rows: Int64s) -> dict[str, Any]:
        """These rows for MessagePack."""
        return {
            "slot": self.slot[rows].astype("<i8").tobytes(),
            "pane": self.pane[rows].astype("<i8").tobytes(),
            "partials": self.aggregates.packed(self.aggregates.take(self.partials, rows)),
        }

    def unpack(self, packed: dict[str, Any]) -> Int64s:
        """Fresh rows with what was packed."""
        slots, panes = (np.frombuffer(packed[name], "<i8").astype(np.int64) for name in ("slot", "pane"))
        if not len(slots):
            return np.empty(0, np.int64)
        rows = self.take(slots, panes)
        for name, column in self.aggregates.unpacked(packed["partials"]).items():
            self.partials[name][rows] = column
        return rows
