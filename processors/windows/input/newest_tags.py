"""The tags of devices where their readings may be in several partitions: the newest by event time counts."""

from __future__ import annotations

from typing import Any

import numpy as np

from headrace.batch import Batch, Int64s
from processors.windows.input.groups import Devices
from processors.windows.time.watermark import NEVER


class NewestTags(Devices):
    """Devices, and of each tag what the newest reading sent that sent any: whichever came first, or from where."""

    def add(self, name: str, tags: tuple[Any, ...]) -> int:
        """A slot for a device that was never seen before."""
        self.tag_times.append([NEVER] * len(self.remembered))
        return super().add(name, tags)

    def note_tags(self, batch: Batch, slots: Int64s) -> None:
        """Keep what the readings send, where it is newer than what is known."""
        if not self.remembered:
            return
        order = np.lexsort((batch.ts_us, slots))
        ordered = slots[order]
        last = np.ones(len(order), np.bool_)
        last[:-1] = ordered[1:] != ordered[:-1]
        carried: dict[str, dict[int, tuple[int, Any]]] = {}
        for place in order[last].tolist():
            slot = int(slots[place])
            for nth, tag in enumerate(self.remembered):
                value, time_us = batch.value(tag, place), int(batch.ts_us[place])
                if value is None:
                    # An older reading of the batch may carry what the newest one leaves out.
                    if tag not in carried:
                        carried[tag] = _carried(batch, tag, slots, order)
                    time_us, value = carried[tag].get(slot, (NEVER, None))
                self._note(slot, nth, time_us, value)

    def sent(self, slot: int) -> list[list[Any]]:
        """What a device sent of each tag, with its time."""
        return [list(one) for one in zip(self.tag_times[slot], self.tags[slot], strict=True)]

    def merge(self, name: str, sent: list[list[Any]]) -> int:
        """Take what another partition has :meth:`sent` of a device; the device's slot."""
        slot = self.slots.get(name)
        if slot is None:
            slot = self.add(name, (None,) * len(self.remembered))
        for nth, (time_us, value) in enumerate(sent):
            self._note(slot, nth, time_us, value)
        return slot

    def _note(self, slot: int, nth: int, time_us: int, value: Any) -> None:
        known_us, known = self.tag_times[slot][nth], self.tags[slot][nth]
        # Of two values sent at one time one must be chosen whichever comes first.
        if value is None or time_us < known_us or (time_us == known_us and str(value) <= str(known)):
            return
        self.tag_times[slot][nth] = time_us
        self.tags[slot] = (*self.tags[slot][:nth], value, *self.tags[slot][nth + 1 :])
        self.renamed.add(slot)


def _carried(batch: Batch, tag: str, slots: Int64s, order: Int64s) -> dict[int, tuple[int, Any]]:
    """Of each device the newest time and value of a tag, of the readings that have it."""
    column, ts_us, of = batch.column(tag).tolist(), batch.ts_us.tolist(), slots.tolist()
    return {of[place]: (ts_us[place], column[place]) for place in order.tolist() if column[place] is not None}
