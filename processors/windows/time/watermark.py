"""How far event time is, and which readings are late.

Each device has its own progress (the greatest event time it has sent) and a partition has a clock (the
greatest of all, moved on by the wall clock while the partition is silent). From these follows the watermark of
a group, and a window of the group is closed when its end is not beyond it. The watermark is, less the grace:

- clock = device, a group within one device: the device's progress, or the clock less ``idle``. A device that
  falls silent is closed by its neighbours; one that comes back from a tunnel with older readings is on time as
  long as it was not silent for longer than that.
- clock = device, groups of several devices: the progress of the slowest device of the partition that is not
  idle, or the clock less ``idle``.
- clock = partition: the furthest device, or the clock less ``idle``.

The grace is taken off here and nowhere else: whoever asks for a watermark compares it with the ends of windows.

Whether a reading is late depends on the readings before it, in the order of the partition, and on nothing
else: not on how they were cut into batches.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from headrace.batch import Int64s
from headrace.column import Bools
from processors.windows.arrays import heads_of, with_room

NEVER = -(2**62)
"""The progress of a device, or the clock of a partition, that has sent nothing."""

Follows = Literal["device", "slowest", "furthest"]
"""What the watermarks of a stream's groups follow."""


@dataclass
class Clocks:
    """The clocks of one stream over one partition."""

    follows: Follows
    idle_us: int
    grace_us: int = 0
    progress_us: Int64s = field(default_factory=lambda: np.empty(0, np.int64))
    """by device; longer than there are devices"""
    clock_us: int = NEVER
    """the greatest event time, moved on by the wall clock while the partition is silent"""
    arrived_us: int = NEVER
    """the wall time at which the clock was last moved"""
    furthest_us: int = NEVER
    """the greatest event time"""
    slowest_us: int = NEVER
    """how far all devices are that are not idle; never less than it was"""
    forgotten_us: int = NEVER
    """the watermark that devices had when they were forgotten: none has a lesser one, though idle become longer"""
    devices: int = 0

    def add_devices(self, devices: int) -> None:
        """Know so many devices in all."""
        self.devices = devices
        self.progress_us = with_room(self.progress_us, devices, NEVER)

    @property
    def silence_us(self) -> int:
        """How far the clock must be beyond a group's last reading for the group to have fallen silent."""
        return self.idle_us + self.grace_us

    @property
    def silent_us(self) -> int:
        """The watermark of what has fallen silent."""
        return self._less_grace(self._silent_us)

    @property
    def common_us(self) -> int:
        """The watermark of all groups alike, where it does not follow each device."""
        return max(self._less_grace(self._common_us), self.forgotten_us)

    @property
    def unknown_us(self) -> int:
        """The watermark of a device that is not known; no device has a lesser one."""
        return max(self.silent_us, self.forgotten_us) if self.follows == "device" else self.common_us

    @property
    def partition_us(self) -> int:
        """The watermark of the partition: of its furthest device, where each has its own."""
        return self._less_grace(self.clock_us) if self.follows == "device" else self.common_us

    def watermark_us(self, devices: Int64s) -> Int64s:
        """The watermark of groups of these devices (which do not matter where all have the same)."""
        if self.follows == "device":
            return np.maximum(self.progress_us[devices] - self.grace_us, self.unknown_us)
        return np.full(len(devices), self.common_us, np.int64)

    def _less_grace(self, us: int) -> int:
        return us - self.grace_us if us != NEVER else NEVER

    @property
    def _silent_us(self) -> int:
        return self.clock_us - self.idle_us if self.clock_us != NEVER else NEVER

    @property
    def _common_us(self) -> int:
        own = self.slowest_us if self.follows == "slowest" else self.furthest_us
        return max(own, self._silent_us)

    def before(self, devices: Int64s, ts_us: Int64s, until_us: Int64s) -> Int64s | None:
        """The watermark that each of n readings meets, or None where none can be too late.

        ``devices``: each reading's device; ``until_us``: the watermark at which it would be late. To be called
        before :meth:`move`.
        """
        if (ts_us[1:] >= ts_us[:-1]).all():
            # In order: a window ends after its reading, so nothing before that in the batch can have closed it.
            known = self.watermark_us(devices)
            return known if (until_us <= known).any() else None
        met = self._before(devices, ts_us, until_us + self.grace_us)
        if (until_us <= self.forgotten_us).any():
            return np.maximum(self.forgotten_us, NEVER if met is None else met - self.grace_us) + np.zeros_like(ts_us)
        return None if met is None else met - self.grace_us

    def _before(self, devices: Int64s, ts_us: Int64s, until_us: Int64s) -> Int64s | None:
        """As :meth:`before` for readings that are out of order, both without the grace."""
        follows, furthest = self.follows, int(ts_us.max())
        silent = max(self.clock_us, furthest) - self.idle_us
        # Nothing can be late if nothing would be even after the whole batch, which is the common case.
        if follows == "device":
            greatest = np.full(self.devices, NEVER, np.int64)
            np.maximum.at(greatest, devices, ts_us)
            own = np.maximum(self.progress_us[devices], greatest[devices])
            if not (until_us <= np.maximum(own, silent)).any():
                return None
            own = running_max_before(devices, ts_us, self.progress_us)
        elif not (until_us <= max(self.furthest_us, furthest, silent)).any():
            return None
        elif follows == "furthest":
            own = before_each(np.maximum.accumulate(ts_us), self.furthest_us)
        else:
            return self._walk(devices, ts_us)[0]
        clock = before_each(np.maximum.accumulate(ts_us), self.clock_us)
        return np.maximum(own, np.where(clock == NEVER, NEVER, clock - self.idle_us))

    def move(self, devices: Int64s, ts_us: Int64s, now_us: int) -> None:
        """Take the readings of a batch that arrived at ``now_us``: every one of them moves the clocks."""
        furthest = int(ts_us.max())
        clock = max(self.clock_us, furthest)
        if self.follows == "slowest":
            before = self.progress_us[devices]
            if (before <= clock - self.idle_us).any():
                # A device that is new, or was idle, holds the others up from its own first reading on.
                self.slowest_us = self._walk(devices, ts_us)[1]
        np.maximum.at(self.progress_us, devices, ts_us)
        self.furthest_us, self.clock_us = max(self.furthest_us, furthest), clock
        self.arrived_us = max(self.arrived_us, now_us)
        # As long as the slowest is neither moved nor idle it is the slowest.
        if self.follows == "slowest" and (int(before.min()) <= self.slowest_us or self.slowest_us <= self._silent_us):
            self._find_slowest()

    def tick(self, now_us: int) -> bool:
        """The partition is silent (not behind) at ``now_us``; whether its clock moved on."""
        if self.clock_us == NEVER or now_us <= self.arrived_us:
            return False
        self.clock_us += now_us - self.arrived_us
        self.arrived_us = now_us
        if self.follows == "slowest":
            self._find_slowest()
        return True

    def pass_to(self, clock_us: int) -> bool:
        """Event time is so far without a reading; whether it moved on."""
        if self.clock_us == NEVER or clock_us <= self.clock_us:
            return False
        self.clock_us = clock_us
        self.furthest_us = max(self.furthest_us, clock_us)
        return True

    def silent_devices(self, forget_us: int) -> Int64s:
        """The devices that have been silent for so long, and whose progress makes no difference to any watermark."""
        progress = self.progress_us[: self.devices]
        if self.clock_us == NEVER:
            return np.empty(0, np.int64)
        return np.flatnonzero((progress != NEVER) & (progress <= self.clock_us - max(forget_us, self.idle_us)))

    def forget(self, devices: Int64s) -> None:
        """Know these devices no longer: they were silent, and their watermark is that of any that is not known."""
        self.note_forgotten()
        self.progress_us[devices] = NEVER

    def note_forgotten(self) -> None:
        """Something is forgotten now: what would be late now will be from now on."""
        self.forgotten_us = max(self.forgotten_us, self.unknown_us)

    def returned(self, devices: Int64s, ts_us: Int64s, forget_us: int) -> Bools | None:
        """With which of n readings a device comes back that has been silent for so long; None: with none.

        To be called before :meth:`move`.
        """
        clock = max(self.clock_us, int(ts_us.max()))
        before = self.progress_us[devices]
        if clock - int(ts_us.min()) < forget_us and not ((before <= clock - forget_us) & (before != NEVER)).any():
            return None
        before = running_max_before(devices, ts_us, self.progress_us)
        clocks = self._clock_before(ts_us)
        returned: Bools = (before != NEVER) & (before <= clocks - forget_us)
        return returned if returned.any() else None

    def _clock_before(self, ts_us: Int64s) -> Int64s:
        """The clock before each of n readings."""
        return before_each(np.maximum.accumulate(ts_us), self.clock_us)

    def _find_slowest(self) -> None:
        progress = self.progress_us[: self.devices]
        awake = progress[progress > self._silent_us]
        slowest = int(awake.min()) if len(awake) else self._silent_us
        self.slowest_us = max(self.slowest_us, slowest)

    def _walk(self, devices: Int64s, ts_us: Int64s) -> tuple[Int64s, int]:
        """How far all are before each reading and after all, one after the other: only where that may matter."""
        touched = np.unique(devices)
        progress = dict(zip(touched.tolist(), self.progress_us[touched].tolist(), strict=True))
        untouched = np.ones(self.devices, np.bool_)
        untouched[devices] = False
        others = np.sort(self.progress_us[: self.devices][untouched]).tolist()
        heap = [(us, device) for device, us in progress.items() if us != NEVER]
        heapq.heapify(heap)
        clock, slowest, place = self.clock_us, max(self.slowest_us, self._silent_us), 0
        met = np.empty(len(ts_us), np.int64)
        for i, (device, ts) in enumerate(zip(devices.tolist(), ts_us.tolist(), strict=True)):
            met[i] = slowest
            clock = max(clock, ts)
            if ts > progress[device]:
                progress[device] = ts
                heapq.heappush(heap, (ts, device))
            silent = clock - self.idle_us
            while heap and (heap[0][0] <= silent or heap[0][0] < progress[heap[0][1]]):
                heapq.heappop(heap)
            while place < len(others) and others[place] <= silent:
                place += 1
            least = min(heap[0][0] if heap else clock, others[place] if place < len(others) else clock)
            slowest = max(slowest, least if heap or place < len(others) else silent, silent)
        return met, slowest


def before_each(running: Int64s, first: int) -> Int64s:
    """A running maximum, as it was before each of its steps."""
    before = np.empty_like(running)
    before[0] = first
    np.maximum(running[:-1], first, out=before[1:])
    return before


def late(until_us: Int64s, before_us: Int64s | None) -> Bools | None:
    """Which readings are late, given the watermark that each meets; None: none."""
    if before_us is None:
        return None
    is_late: Bools = until_us <= before_us
    return is_late if is_late.any() else None


def running_max_before(devices: Int64s, ts_us: Int64s, progress_us: Int64s) -> Int64s:
    """For each reading the greatest time that its device (or group) has sent before it."""
    order = np.argsort(devices, kind="stable")
    sorted_devices, times = devices[order], ts_us[order]
    first = heads_of(sorted_devices)
    # One running maximum over all devices: each device's times are lifted above those of the one before it.
    # By rank, as the times themselves, lifted a thousand times over, would not fit into 64 bits.
    levels, ranks = np.unique(times, return_inverse=True)
    lift = (np.cumsum(first) - 1) * len(levels)
    running = levels[np.maximum.accumulate(ranks + lift) - lift]
    before_sorted = np.empty_like(times)
    before_sorted[1:] = running[:-1]
    before_sorted[first] = NEVER
    np.maximum(before_sorted, progress_us[sorted_devices], out=before_sorted)
    before = np.empty_like(before_sorted)
    before[order] = before_sorted
    return before
