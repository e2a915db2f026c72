"""How far event time is, and which readings are late.

Each device has its own progress (the greatest event time it has sent) and a partition has a clock (the
greatest of all). A window of a device is closed when its end and grace are not beyond the device's
progress, nor beyond the clock by ``idle``: a device that falls silent is closed by its neighbours, one that
comes back from a tunnel with older readings is on time as long as it was not silent for longer than that.

Whether a reading is late depends on the readings before it, in the order of the partition, and on nothing
else: not on how they were cut into batches.
"""

from __future__ import annotations

import numpy as np

from headrace.batch import Int64s

NEVER = -(2**62)
"""The progress of a device, or the clock of a partition, that has sent nothing."""


def late(  # noqa: PLR0917 - columns and clocks, each by its name
    slots: Int64s, ts_us: Int64s, closes_us: Int64s, progress_us: Int64s, clock_us: int, idle_us: int
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which of n readings come after their window has closed.

    ``slots``: each reading's device; ``closes_us``: the end plus grace of its window; ``progress_us``: the
    devices' progress before the batch, by slot; ``clock_us``: the partition's clock before the batch.
    """
    furthest = max(clock_us, int(ts_us.max()))
    # Nothing can be late if nothing would be even after the whole batch, which is the common case.
    after = np.maximum(progress_us[slots], _greatest_by_slot(slots, ts_us, len(progress_us))[slots])
    suspect = closes_us <= np.maximum(after, furthest - idle_us)
    if not suspect.any():
        return suspect
    if (ts_us[1:] >= ts_us[:-1]).all():
        # In order: a window ends after its reading, so nothing before that in the batch can have closed it.
        return closes_us <= np.maximum(progress_us[slots], clock_us - idle_us)
    before = np.maximum(_running_max_before(slots, ts_us, progress_us), _clock_before(ts_us, clock_us) - idle_us)
    return closes_us <= before


def _greatest_by_slot(slots: Int64s, ts_us: Int64s, n: int) -> Int64s:
    greatest = np.full(n, NEVER, np.int64)
    np.maximum.at(greatest, slots, ts_us)
    return greatest


def _clock_before(ts_us: Int64s, clock_us: int) -> Int64s:
    running = np.maximum.accumulate(ts_us)
    before = np.empty_like(ts_us)
    before[0] = clock_us
    np.maximum(running[:-1], clock_us, out=before[1:])
    return before


def _running_max_before(slots: Int64s, ts_us: Int64s, progress_us: Int64s) -> Int64s:
    """For each reading the greatest time that its device has sent before it."""
    order = np.argsort(slots, kind="stable")
    sorted_slots, times = slots[order], ts_us[order]
    first = np.empty(len(order), np.bool_)
    first[0] = True
    np.not_equal(sorted_slots[1:], sorted_slots[:-1], out=first[1:])
    # One running maximum over all devices: each device's times are lifted above those of the one before it.
    # By rank, as the times themselves, lifted a thousand times over, would not fit into 64 bits.
    levels, ranks = np.unique(times, return_inverse=True)
    lift = (np.cumsum(first) - 1) * len(levels)
    running = levels[np.maximum.accumulate(ranks + lift) - lift]
    before_sorted = np.empty_like(times)
    before_sorted[1:] = running[:-1]
    before_sorted[first] = NEVER
    np.maximum(before_sorted, progress_us[sorted_slots], out=before_sorted)
    before = np.empty_like(before_sorted)
    before[order] = before_sorted
    return before
