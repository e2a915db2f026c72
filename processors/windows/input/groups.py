"""The devices that a partition has seen, and the groups that a stream makes of their readings, each in a slot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from headrace.batch import Batch, Int64s
from processors.windows.arrays import with_room


class Devices:
    """Names, and the tags that each device last sent, of those that are remembered."""

    def __init__(self, tags: Sequence[str]) -> None:
        self.remembered = tuple(tags)
        self.names: list[str] = []
        self.slots: dict[str, int] = {}
        self.tags: list[tuple[Any, ...]] = []
        self.tag_times: list[list[int]] = []
        """of each device and tag the time at which it was sent, where that is kept"""
        self.renamed: set[int] = set()
        """the devices that are new, or say something else of their tags, since this was last cleared"""

    def __len__(self) -> int:
        return len(self.names)

    def add(self, name: str, tags: tuple[Any, ...]) -> int:
        """A slot for a device that was never seen before."""
        slot = self.slots[name] = len(self.names)
        self.names.append(name)
        self.tags.append(tags)
        self.renamed.add(slot)
        return slot

    def slots_of(self, batch: Batch) -> Int64s:
        """The slot of each reading's device; new devices get theirs."""
        try:
            return batch.devices.looked_up(self.slots)
        except KeyError:
            for name in dict.fromkeys(batch.devices):
                if name not in self.slots:
                    self.add(name, (None,) * len(self.remembered))
            return batch.devices.looked_up(self.slots)

    def note_tags(self, batch: Batch, slots: Int64s) -> None:
        """Keep what each device last says of its tags."""
        if not self.remembered:
            return
        last = len(slots) - 1 - np.unique(slots[::-1], return_index=True)[1]
        carried: dict[str, dict[int, Any]] = {}
        for place in last.tolist():
            slot = int(slots[place])
            known = self.tags[slot]
            sent = tuple(batch.value(tag, place) for tag in self.remembered)
            if None in sent:
                # An earlier reading of the batch may carry what the last one leaves out.
                for tag in self.remembered:
                    if tag not in carried:
                        pairs = zip(slots.tolist(), batch.column(tag), strict=True)
                        carried[tag] = {slot: value for slot, value in pairs if value is not None}
                sent = tuple(carried[tag].get(slot) for tag in self.remembered)
            if sent != known:
                merged = tuple(old if new is None else new for old, new in zip(known, sent, strict=True))
                if merged != known:
                    self.tags[slot] = merged
                    self.renamed.add(slot)

    def tag_column(self, batch: Batch, slots: Int64s, tag: str) -> list[Any]:
        """A tag of each reading; where it leaves it out, what its device sent last before it."""
        sent = batch.column(tag).tolist()
        if None not in sent:
            return sent
        place = self.remembered.index(tag)
        known: dict[int, Any] = {}
        filled = []
        for slot, value in zip(slots.tolist(), sent, strict=True):
            if value is not None:
                known[slot] = value
            filled.append(known.get(slot, self.tags[slot][place]))
        return filled


class Groups:
    """Groups by something else than the device alone: each a tuple of values."""

    def __init__(self, by: Sequence[str], key: str) -> None:
        self.by = tuple(by)
        self._key = key
        self.values: list[tuple[Any, ...]] = []
        self._device: Int64s = np.empty(0, np.int64)
        self.slots: dict[tuple[Any, ...], int] = {}
        self.written = 0
        """how many of them the state has"""

    def __len__(self) -> int:
        return len(self.values)

    def add(self, values: tuple[Any, ...], device: int) -> int:
        """A slot for a group that was never seen before."""
        slot = self.slots[values] = len(self.values)
        self.values.append(values)
        self._device = with_room(self._device, slot + 1, -1)
        self._device[slot] = device
        return slot

    @property
    def device(self) -> Int64s:
        """Of each group the device that was first seen in it: its only one, where the groups are within devices."""
        return self._device[: len(self.values)]

    def of_devices(self, devices: Int64s) -> Int64s:
        """All groups within these devices (n slots), where groups are within devices.

        A device moves all of them on, those too that have no reading now: else what such a group has passed
        meanwhile would be taken for what it had no reading in when its next one comes.
        """
        device = self.device
        marks = np.zeros(max(int(device.max()), int(devices.max())) + 1, np.bool_)
        marks[devices] = True
        return np.flatnonzero(marks[device])

    def slots_of(self, batch: Batch, devices: Devices, device_slots: Int64s) -> Int64s:
        """The slot of each reading's group; new groups get theirs. To be asked before tags are noted."""
        if not self.by:
            if not self.values and len(batch):
                self.add((), int(device_slots[0]))
            return np.zeros(len(batch), np.int64)
        columns = [
            devices.tag_column(batch, device_slots, name) if name in devices.remembered else batch.column(name).tolist()
            for name in self.by
        ]
        keys = list(zip(*columns, strict=True))
        try:
            known = list(map(self.slots.__getitem__, keys))
        except KeyError:
            for key, device in zip(keys, device_slots.tolist(), strict=True):
                if key not in self.slots:
                    self.add(key, device)
            known = list(map(self.slots.__getitem__, keys))
        return np.array(known, np.int64)


class EachDevice(Groups):
    """Groups that are a device each, in the devices' own slots."""

    def __init__(self, key: str) -> None:
        super().__init__((key,), key)

    def slots_of(self, batch: Batch, devices: Devices, device_slots: Int64s) -> Int64s:  # noqa: ARG002 - as Groups
        """The slot of each reading's group: its device's."""
        for slot in range(len(self), len(devices)):
            self.add((devices.names[slot],), slot)
        return device_slots


def different(slots: Int64s) -> Int64s:
    """The different ones of n slots."""
    greatest = int(slots.max())
    if greatest > 8 * len(slots):
        return np.unique(slots)
    marks = np.zeros(greatest + 1, np.bool_)
    marks[slots] = True
    return np.flatnonzero(marks)


_EMPTY = '""'


def group_name(values: Sequence[Any]) -> str:
    r"""What a result calls a group: its values, joined by ``/``; ``all`` for the one group of everything.

    Different values have different names: an absent one is ``-``, an empty text ``""``, and a text that reads like
    one of these begins with a backslash.

    >>> group_name(("Lyon", 3)), group_name(()), group_name((None, "a/b")), group_name(("",)), group_name(("-",))
    ('Lyon/3', 'all', '-/a\\/b', '""', '\\-')
    """
    if not values:
        return "all"
    return "/".join(_written(value) for value in values)


def _written(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value).replace("\\", "\\\\").replace("/", "\\/")
    if not text:
        return _EMPTY
    return f"\\{text}" if text in ("-", _EMPTY) else text
