"""The devices that a partition has seen, and the groups that a stream makes of their readings, each in a slot."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from headrace.batch import Batch, Int64s
from headrace.column import Array, Bools
from processors.windows.arrays import with_room
from processors.windows.input.vacant_slots import VacantSlots


class Devices:
    """Names, and the tags that each device last sent, of those that are remembered.

    The slot of a device that was forgotten is given to another.
    """

    def __init__(self, tags: Sequence[str]) -> None:
        self.remembered = tuple(tags)
        self.names: list[str] = []
        """by slot; empty where there is no device"""
        self.slots: dict[str, int] = {}
        self.tags: dict[str, Array] = {tag: np.empty(0, object) for tag in self.remembered}
        """of each tag what each device last sent, by slot, None where it sent none; longer than there are slots"""
        self.vacant = VacantSlots()
        self._renamed: Bools = np.empty(0, np.bool_)
        self._last: Int64s = np.empty(0, np.int64)
        """By slot; what stands in it is of one batch only."""

    def __len__(self) -> int:
        """How many slots there are, those included that are free."""
        return len(self.names)

    @property
    def known(self) -> int:
        """How many devices there are."""
        return len(self.slots)

    def add(self, name: str) -> int:
        """A slot for a device that is not known."""
        self._add_all([name])
        return self.slots[name]

    def _add_all(self, names: list[str]) -> None:
        """Slots for devices that are not known."""
        slots = self.vacant.take(len(names))
        for name, slot in zip(names, slots, strict=False):
            self.names[slot] = name
        further = names[len(slots) :]
        slots += range(len(self.names), len(self.names) + len(further))
        self.names += further
        self.slots.update(zip(names, slots, strict=True))
        self.make_room(len(self.names))
        self._renamed[slots] = True

    def make_room(self, slots: int) -> None:
        """Have room for so many slots."""
        self._renamed = with_room(self._renamed, slots, fill=False)
        for tag, known in self.tags.items():
            self.tags[tag] = with_room(known, slots, None)

    def slots_of(self, batch: Batch) -> Int64s:
        """The slot of each reading's device; new devices get theirs."""
        try:
            return batch.devices.looked_up(self.slots)
        except KeyError:
            self._add_all([name for name in dict.fromkeys(batch.devices) if name not in self.slots])
            return batch.devices.looked_up(self.slots)

    def tags_of(self, slots: Int64s, tag: str) -> list[Any]:
        """What n devices last sent of a tag; None where one sent none."""
        listed: list[Any] = self.tags[tag][slots].tolist()
        return listed

    def note_tags(self, batch: Batch, slots: Int64s, returned: Bools | None = None) -> None:
        """Keep what each device last says of its tags; one that has ``returned`` said nothing before that reading."""
        counts = None if returned is None else self._begun_anew(slots, returned)
        for tag in self.remembered:
            self._note_tag(batch, slots, tag, counts)

    def _begun_anew(self, slots: Int64s, returned: Bools) -> Bools:
        """Know no tags of devices that have returned; which of the readings are not before that."""
        places = np.flatnonzero(returned)
        self.drop_tags(slots[places])
        since = np.zeros(len(self), np.int64)
        np.maximum.at(since, slots[places], places)
        counts: Bools = np.arange(len(slots)) >= since[slots]
        return counts

    def drop_tags(self, slots: Int64s) -> None:
        """Know none of the tags of these devices."""
        for known in self.tags.values():
            known[slots] = None
        self._renamed[slots] = True

    def _note_tag(self, batch: Batch, slots: Int64s, tag: str, counts: Bools | None) -> None:
        column = batch.column(tag)
        if column.valid is not None:
            counts = column.valid if counts is None else counts & column.valid
        places = np.arange(len(slots)) if counts is None else np.flatnonzero(counts)
        of = slots[places]
        # Of several readings of a device the last one's number stays.
        self._last = with_room(self._last, len(self), 0)
        self._last[of] = places
        last = places[self._last[of] == places]
        of, known = slots[last], self.tags[tag]
        sent = column.values[last]
        differs = np.flatnonzero(known[of] != sent)
        if len(differs):
            of = of[differs]
            known[of] = _shared(sent[differs].tolist())
            self._renamed[of] = True

    def keep_tag(self, slot: int, tag: str, value: Any) -> None:
        """Keep what a device says of a tag."""
        self.tags[tag][slot] = sys.intern(value) if type(value) is str else value
        self._renamed[slot] = True

    def tag_column(self, batch: Batch, slots: Int64s, tag: str, returned: Bools | None = None) -> list[Any]:
        """A tag of each reading; where it leaves it out, what its device sent last before it (and has ``returned``)."""
        sent = batch.column(tag).tolist()
        if None not in sent:
            return sent
        before = self.tags_of(slots, tag)
        known: dict[int, Any] = {}
        filled = []
        anew = np.zeros(len(slots), np.bool_) if returned is None else returned
        for slot, value, told, begins in zip(slots.tolist(), sent, before, anew.tolist(), strict=True):
            if value is not None or begins:
                known[slot] = value
            filled.append(known.get(slot, told))
        return filled

    def forget(self, slots: Int64s) -> None:
        """Know these devices no longer."""
        for slot in slots.tolist():
            del self.slots[self.names[slot]]
            self.names[slot] = ""
        self.drop_tags(slots)
        self.vacant.add(slots)

    # State

    def changed(self) -> Int64s:
        """The slots whose names or tags have changed since the last call."""
        changed = np.flatnonzero(self._renamed[: len(self)])
        self._renamed[:] = False
        return changed

    def forget_written(self) -> None:
        """Count all as changed."""
        self._renamed[:] = True

    def packed(self, first: int, last: int) -> dict[str, Any]:
        """The devices of the slots from ``first`` up to ``last``, for MessagePack."""
        free = self.vacant.among(len(self))[first:last].tolist()
        names = [None if is_free else name for name, is_free in zip(self.names[first:last], free, strict=True)]
        return {"names": names, "tags": [self.tags[tag][first:last].tolist() for tag in self.remembered]}

    def add_vacant(self, slots: int) -> None:
        """So many free slots more."""
        first = len(self.names)
        self.names += [""] * slots
        self.make_room(first + slots)
        self.vacant.add(np.arange(first, first + slots))

    def unpack(self, packed: dict[str, Any]) -> None:
        """Take up what was packed, for the slots that follow those that there are."""
        first, names = len(self.names), packed["names"]
        self.names += [name or "" for name in names]
        self.slots.update((name, slot) for slot, name in enumerate(names, first) if name is not None)
        self.vacant.add(np.array([slot for slot, name in enumerate(names, first) if name is None], np.int64))
        self.make_room(len(self.names))
        for tag, values in zip(self.remembered, packed["tags"], strict=True):
            self.tags[tag][first : len(self.names)] = _shared(values)


def _shared(values: list[Any]) -> Array:
    """Values as objects; texts that are equal are one, as many devices have the same."""
    shared = np.empty(len(values), object)
    shared[:] = [sys.intern(value) if type(value) is str else value for value in values]
    return shared


class Groups:
    """Groups by something else than the device alone: each a tuple of values."""

    def __init__(self, by: Sequence[str]) -> None:
        self.by = tuple(by)
        self.values: list[tuple[Any, ...] | None] = []
        """by slot; None where there is no group"""
        self._device: Int64s = np.empty(0, np.int64)
        self.slots: dict[tuple[Any, ...], int] = {}
        self.vacant = VacantSlots()
        self._changed: Bools = np.empty(0, np.bool_)

    def __len__(self) -> int:
        """How many slots there are, those included that are free."""
        return len(self.values)

    def add(self, values: tuple[Any, ...], device: int) -> int:
        """A slot for a group that is not known."""
        slot = self.slots[values] = self.vacant.next(len(self.values))
        if slot == len(self.values):
            self.values.append(values)
            self._make_room()
        else:
            self.values[slot] = values
        self._device[slot] = device
        self._changed[slot] = True
        return slot

    def _make_room(self) -> None:
        self._device = with_room(self._device, len(self.values), -1)
        self._changed = with_room(self._changed, len(self.values), fill=False)

    @property
    def device(self) -> Int64s:
        """Of each group the device that was first seen in it: its only one, where the groups are within devices.

        -1 where there is no group.
        """
        return self._device[: len(self.values)]

    def values_of(self, slots: Int64s) -> Iterator[tuple[Any, ...]]:
        """The values of each of n groups."""
        for slot in slots.tolist():
            values = self.values[slot]
            assert values is not None  # noqa: S101 - what has readings is known
            yield values

    def of_devices(self, devices: Int64s) -> Int64s:
        """All groups within these devices (n slots), where groups are within devices.

        A device moves all of them on, those too that have no reading now: else what such a group has passed
        meanwhile would be taken for what it had no reading in when its next one comes.
        """
        device = self.device
        # One more, for what is no group.
        marks = np.zeros(max(int(device.max()), int(devices.max())) + 2, np.bool_)
        marks[devices] = True
        return np.flatnonzero(marks[device])

    def slots_of(self, batch: Batch, devices: Devices, device_slots: Int64s, returned: Bools | None = None) -> Int64s:
        """The slot of each reading's group; new groups get theirs. To be asked before tags are noted.

        ``returned``: the readings with which a device has come back that was forgotten.
        """
        if not self.by:
            if not self.slots and len(batch):
                self.add((), int(device_slots[0]))
            return np.zeros(len(batch), np.int64)
        columns = [
            devices.tag_column(batch, device_slots, name, returned)
            if name in devices.remembered
            else batch.column(name).tolist()
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

    def forget(self, slots: Int64s) -> None:
        """Know these groups no longer."""
        for slot, values in zip(slots.tolist(), self.values_of(slots), strict=True):
            del self.slots[values]
            self.values[slot] = None
        self._device[slots] = -1
        self._changed[slots] = True
        self.vacant.add(slots)

    # State

    def changed(self) -> Int64s:
        """The slots that have been given or become free since the last call."""
        changed = np.flatnonzero(self._changed[: len(self)])
        self._changed[:] = False
        return changed

    def forget_written(self) -> None:
        """Count all as changed."""
        self._changed[:] = True

    def packed(self, first: int, last: int) -> dict[str, Any]:
        """The groups of the slots from ``first`` up to ``last``, for MessagePack."""
        values = [None if of is None else list(of) for of in self.values[first:last]]
        return {"values": values, "devices": self.device[first:last].tolist()}

    def add_vacant(self, slots: int) -> None:
        """So many free slots more."""
        first = len(self.values)
        self.values += [None] * slots
        self._make_room()
        self.vacant.add(np.arange(first, first + slots))

    def unpack(self, packed: dict[str, Any]) -> None:
        """Take up what was packed, for the slots that follow those that there are."""
        first = len(self.values)
        self.values += [None if of is None else tuple(of) for of in packed["values"]]
        self._make_room()
        self._device[first : len(self.values)] = packed["devices"]
        self.slots.update((of, slot) for slot, of in enumerate(self.values[first:], first) if of is not None)
        free = [slot for slot, of in enumerate(self.values[first:], first) if of is None]
        self.vacant.add(np.array(free, np.int64))


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
