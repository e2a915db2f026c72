"""How far the groups of a stream are: the times that their readings cannot be before any more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from headrace.batch import Int64s


@dataclass(frozen=True)
class ClosedUpTo:
    """Watermarks: what ends by them is over."""

    of: Callable[[Int64s], Int64s]
    """for each of these groups"""
    silent_us: int
    """for groups that have fallen silent"""
    common_us: int | None
    """for all groups alike, where they do not each follow their device"""
    seen_us: Int64s
    """for each group the greatest time of its readings, kept or not; for kinds that silence ends"""
