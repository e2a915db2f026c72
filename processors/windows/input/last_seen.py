"""The greatest time of each group's readings, for windows that silence ends."""

from __future__ import annotations

import numpy as np

from headrace.batch import Int64s
from processors.windows.arrays import with_room
from processors.windows.time.watermark import NEVER


class LastSeen:
    """For each group the greatest time of its readings so far (µs); longer than there are groups."""

    def __init__(self) -> None:
        self.us: Int64s = np.empty(0, np.int64)

    def add_groups(self, groups: int) -> None:
        """Know so many groups in all."""
        self.us = with_room(self.us, groups, NEVER)

    def note(self, slots: Int64s, ts_us: Int64s) -> None:
        """Take n readings of these groups."""
        np.maximum.at(self.us, slots, ts_us)

    def packed(self, first: int, last: int) -> bytes:
        """Those of the groups from ``first`` up to ``last``: little-endian int64s."""
        return self.us[first:last].astype("<i8").tobytes()

    def unpack(self, packed: bytes, first: int) -> None:
        """Take up what was packed of the groups from ``first`` on."""
        us = np.frombuffer(packed, "<i8")
        self.us[first : first + len(us)] = us
