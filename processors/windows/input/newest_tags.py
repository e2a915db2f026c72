"""The tags of devices where their readings may be in several partitions: the newest by event time counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from headrace.batch import Batch, Int64s
from headrace.column import Bools
from processors.windows.arrays import with_room
from processors.windows.input.groups import Devices
from processors.windows.time.watermark import NEVER


class NewestTags(Devices):
    """Devices, and of each tag what the newest reading sent that sent any: whichever came first, or from where."""

    def __init__(self, tags: Sequence[str]) -> None:
        super().__init__(tags)
        self.tag_times: dict[str, Int64s] = {tag: np.empty(0, np.int64) for tag in self.remembered}
        """of each tag the time at which each device sent it, by slot; longer than there are slots"""

    def make_room(self, slots: int) -> None:
        """Have room for so many slots."""
        super().make_room(slots)
        for tag, times_us in self.tag_times.items():
            self.tag_times[tag] = with_room(times_us, slots, NEVER)

    def drop_tags(self, slots: Int64s) -> None:
        """Know none of the tags of these devices."""
        super().drop_tags(slots)
        for times_us in self.tag_times.values():
            times_us[slots] = NEVER

    def _note_tag(self, batch: Batch, slots: Int64s, tag: str, counts: Bools | None) -> None:
        """Keep what the readings send, where it is newer than what is known."""
        column, ts_us = batch.column(tag), batch.ts_us
        if column.valid is not None:
            counts = column.valid if counts is None else counts & column.valid
        places = np.arange(len(slots)) if counts is None else np.flatnonzero(counts)
        # All of a device's newest: of those that were sent at one time the greatest counts.
        newest_us = self.tag_times[tag].copy()
        np.maximum.at(newest_us, slots[places], ts_us[places])
        newest = places[ts_us[places] == newest_us[slots[places]]]
        for place, slot, value in zip(newest.tolist(), slots[newest].tolist(), column.take(newest), strict=True):
            self._note(slot, tag, int(ts_us[place]), value)

    def sent(self, slot: int) -> list[list[Any]]:
        """What a device sent of each tag, with its time."""
        return [[int(self.tag_times[tag][slot]), self.tags[tag][slot]] for tag in self.remembered]

    def slot_of(self, name: str) -> int:
        """The slot of a device; a new one gets its own."""
        slot = self.slots.get(name)
        return self.add(name) if slot is None else slot

    def merge(self, slot: int, sent: list[list[Any]]) -> None:
        """Take what another partition has :meth:`sent` of a device."""
        for tag, (time_us, value) in zip(self.remembered, sent, strict=True):
            self._note(slot, tag, time_us, value)

    def _note(self, slot: int, tag: str, time_us: int, value: Any) -> None:
        known_us, known = int(self.tag_times[tag][slot]), self.tags[tag][slot]
        # Of two values sent at one time one must be chosen whichever comes first.
        if value is None or time_us < known_us or (time_us == known_us and str(value) <= str(known)):
            return
        self.tag_times[tag][slot] = time_us
        self.keep_tag(slot, tag, value)

    # State

    def packed(self, first: int, last: int) -> dict[str, Any]:
        """The devices of the slots from ``first`` up to ``last``, for MessagePack."""
        times = [self.tag_times[tag][first:last].astype("<i8").tobytes() for tag in self.remembered]
        return {**super().packed(first, last), "tag_times": times}

    def unpack(self, packed: dict[str, Any]) -> None:
        """Take up what was packed, for the slots that follow those that there are."""
        first = len(self)
        super().unpack(packed)
        for tag, times_us in zip(self.remembered, packed["tag_times"], strict=True):
            self.tag_times[tag][first : len(self)] = np.frombuffer(times_us, "<i8")
