"""Tumbling windows: one after the other, aligned to the epoch."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.batch import Int64s


@dataclass(frozen=True)
class Tumbling:
    """Windows ``[k * size, (k + 1) * size)``; ``k`` is the window's number."""

    size_us: int

    def numbers(self, ts_us: Int64s) -> Int64s:
        """The number of the window that each time falls into."""
        return ts_us // self.size_us

    def end_of(self, number: int) -> int:
        """Where one window ends (exclusive)."""
        return (number + 1) * self.size_us

    def start_us(self, numbers: Int64s) -> Int64s:
        """Where the windows begin."""
        return numbers * self.size_us

    def end_us(self, numbers: Int64s) -> Int64s:
        """Where they end (exclusive)."""
        return (numbers + 1) * self.size_us
