"""What comes in over one partition: each reading's device, group and watermark, and which readings are kept."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from headrace.batch import Batch, Int64s
from headrace.column import Bools
from processors.windows.input.deduplication import CORRECTED, REPEATED, Deduplication
from processors.windows.input.digest import digests
from processors.windows.input.groups import Devices, Groups, different, group_name
from processors.windows.input.readings import Readings
from processors.windows.spec import WindowSpec, until_us
from processors.windows.time.closed_up_to import ClosedUpTo
from processors.windows.time.watermark import Clocks, late

COUNTS = ("read", "windowed", "late", "filtered", "repeated", "corrected", "outside", "closed", "in_closed")


@dataclass(frozen=True)
class Placed:
    """``n`` readings with the slots of their groups and devices.

    ``until_us``: the watermark at which each is late; ``before_us``: the one that it meets, or None where none can
    be late; ``returned``: with which a device comes back that has been silent for so long that it is forgotten.
    """

    batch: Batch
    slots: Int64s
    devices: Int64s
    until_us: Int64s
    before_us: Int64s | None
    returned: Bools | None

    @cached_property
    def groups(self) -> Int64s:
        """The groups, each once."""
        return different(self.slots)

    @cached_property
    def moved(self) -> Int64s:
        """The devices, each once."""
        return self.groups if self.devices is self.slots else different(self.devices)

    def cut(self, place: int) -> tuple[Placed, Batch | None]:
        """The readings before ``place`` and the rest; all of them and None where it is 0."""
        if not place:
            return self, None
        every = np.arange(len(self.batch))
        before_us = None if self.before_us is None else self.before_us[:place]
        slots = self.slots[:place]
        devices = slots if self.devices is self.slots else self.devices[:place]
        returned = None if self.returned is None else self.returned[:place]
        head = Placed(self.batch.take(every[:place]), slots, devices, self.until_us[:place], before_us, returned)
        return head, self.batch.take(every[place:])


@dataclass
class Judged:
    """Which of ``n`` readings are kept, and which are late or correct another (None: none)."""

    keep: Bools
    late: Bools | None = None
    corrected: Bools | None = None


class Intake:
    """The readings of one stream over one partition, before any window has seen them."""

    def __init__(
        self, spec: WindowSpec, clocks: Clocks, devices: Devices, groups: Groups | None, *, deduplicates: bool
    ) -> None:
        self.spec = spec
        self.clocks = clocks
        self.devices = devices
        self.groups = groups
        self.deduplication = Deduplication() if deduplicates else None
        self.counts: dict[str, int] = dict.fromkeys(COUNTS, 0)
        """What became of the readings, here and in the windows."""
        self.moved: list[Int64s] = []
        """The devices that have moved on since the state was last written."""

    @property
    def group_count(self) -> int:
        """How many slots of groups there are."""
        return len(self.devices if self.groups is None else self.groups)

    def known_groups(self) -> Int64s:
        """The slots that there are groups in."""
        slots = self.devices.vacant if self.groups is None else self.groups.vacant
        return np.flatnonzero(~slots.among(self.group_count))

    def place(self, batch: Batch) -> Placed:
        """Find each reading's device, group and watermark; new devices and groups get their slots."""
        devices = self.devices.slots_of(batch)
        self.clocks.add_devices(len(self.devices))
        returned = None
        if self.devices.remembered:
            returned = self.clocks.returned(devices, batch.ts_us, self.spec.forget_us)
        slots = devices if self.groups is None else self.groups.slots_of(batch, self.devices, devices, returned)
        until = until_us(self.spec, self.spec.alignment, batch.ts_us)
        # Of overlapping windows a reading may miss the first and be in time for the last.
        misses = self.first_end(batch.ts_us) if self.spec.overlapping else until
        return Placed(batch, slots, devices, until, self.clocks.before(devices, batch.ts_us, misses), returned)

    def first_end(self, ts_us: Int64s, after_us: Int64s | None = None) -> Int64s:
        """Where the first window of each reading ends, of those that end beyond ``after_us`` (or its own time)."""
        alignment = self.spec.alignment
        assert alignment is not None  # noqa: S101 - only asked of windows along event time
        return alignment.first_end(alignment.panes(ts_us), ts_us if after_us is None else after_us)

    def take(self, placed: Placed, now_us: int) -> Judged:
        """Judge readings that arrived at ``now_us``, and let them move the clocks."""
        self.devices.note_tags(placed.batch, placed.devices, placed.returned)
        judged = self._judge(placed)
        self.clocks.move(placed.devices, placed.batch.ts_us, now_us)
        self.moved.append(placed.moved)
        return judged

    def _judge(self, placed: Placed) -> Judged:
        """Tell late, repeated, corrected and filtered readings from those to be kept, and count them."""
        spec, counts, batch = self.spec, self.counts, placed.batch
        is_late = late(placed.until_us, placed.before_us)
        passes = spec.where.mask(batch) if spec.where is not None else None
        judged = Judged(np.ones(len(batch), np.bool_) if is_late is None else ~is_late, is_late)
        if self.deduplication is not None:
            self._deduplicate(self.deduplication, placed, judged, passes)
        if passes is not None:
            filtered = ~passes
            if judged.corrected is not None:
                filtered &= ~judged.corrected
            counts["filtered"] += int(np.count_nonzero(filtered))
            judged.keep &= passes
            if judged.late is not None:
                judged.late = judged.late & passes
        if judged.late is not None:
            counts["late"] += int(np.count_nonzero(judged.late))
        return judged

    def _deduplicate(self, deduplication: Deduplication, placed: Placed, judged: Judged, passes: Bools | None) -> None:
        batch, devices = placed.batch, placed.devices
        digest = digests(self.spec.used_columns(batch), len(batch))
        progress = self.clocks.progress_us[: self.clocks.devices]
        if judged.late is None:
            verdicts = deduplication.sift(devices, batch.ts_us, digest, progress, passes)
        else:
            verdicts = np.zeros(len(batch), np.uint8)
            places = np.flatnonzero(judged.keep)
            used = None if passes is None else passes[places]
            verdicts[places] = deduplication.sift(devices[places], batch.ts_us[places], digest[places], progress, used)
        if not verdicts.any():
            return
        repeated, corrected = verdicts == REPEATED, verdicts == CORRECTED
        judged.keep &= ~(repeated | corrected)
        judged.corrected = corrected
        if passes is not None:
            repeated &= passes
        self.counts["repeated"] += int(np.count_nonzero(repeated))
        self.counts["corrected"] += int(np.count_nonzero(corrected))

    def moved_on(self, placed: Placed) -> Int64s:
        """The groups whose own watermark readings have moved, each once."""
        if self.groups is not None and self.clocks.follows == "device":
            return self.groups.of_devices(placed.devices)
        return placed.groups

    def closed_up_to(self, seen_us: Int64s) -> ClosedUpTo:
        """How far the groups are; ``seen_us``: for each the greatest time of its readings."""
        clocks = self.clocks
        device = None if self.groups is None else self.groups.device
        shared = clocks.follows != "device"

        def of(groups: Int64s) -> Int64s:
            devices = groups if device is None or shared else device[groups]
            return clocks.watermark_us(devices)

        return ClosedUpTo(of, clocks.silent_us, clocks.common_us if shared else None, seen_us)

    def prune(self, *, when_due: bool = False) -> None:
        """Forget what repeats of late readings would be recognised by; ``when_due``: only when that has grown."""
        if self.deduplication is not None and (not when_due or self.deduplication.wants_pruning):
            self.deduplication.prune(lambda devices, ts_us: self.in_time(ts_us, self.clocks.watermark_us(devices)))

    def in_time(self, ts_us: Int64s, watermark_us: Int64s | int) -> Bools:
        """Which of n readings would not be late, given the watermark that they meet."""
        still: Bools = until_us(self.spec, self.spec.alignment, ts_us) > watermark_us
        return still

    def forget(self, devices: Int64s) -> None:
        """Know these devices no longer, of which nothing is held."""
        self.clocks.forget(devices)
        self.devices.forget(devices)
        self.moved.append(devices)

    def group_names(self, slots: Int64s) -> list[str]:
        """What results call these groups."""
        if self.groups is None:
            return [self.devices.names[slot] for slot in slots.tolist()]
        if self.spec.by is None:
            return [values[0] for values in self.groups.values_of(slots)]
        return [group_name(values[: len(self.spec.by)]) for values in self.groups.values_of(slots)]


def kept_readings(spec: WindowSpec, placed: Placed, judged: Judged) -> Readings | None:
    """The readings that are kept, as the windows take them; None if none is."""
    kept = int(np.count_nonzero(judged.keep))
    if not kept:
        return None
    readings = Readings(placed.slots, placed.devices, placed.batch.ts_us, spec.columns(placed.batch))
    return readings if kept == len(readings) else readings.take(np.flatnonzero(judged.keep))
