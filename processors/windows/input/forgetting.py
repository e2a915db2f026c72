"""Devices and groups that have been silent for long, and of which nothing is held: they leave memory and state.

A device is forgotten when the clock is ``forget_after`` beyond its last reading, all that it has sent would be late by
now, and it is idle. From then on its watermark would be that of any device that was never seen, so it makes no
difference to any result that it is not known any more, nor when it is forgotten: what it sends again is judged the
same. Its slot goes to another, and what remembers readings by their slot recognises none of them, as they are late.

What a device has sent of its tags does make a difference. So that does not go by when it is forgotten, but by its
readings alone: a device that comes back after ``forget_after`` has sent none (``Clocks.returned``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from headrace.batch import Int64s
from headrace.column import Bools
from processors.windows.input.intake import Intake
from processors.windows.input.last_seen import LastSeen
from processors.windows.time.watermark import NEVER

LOOKS = 16
"""So many times within ``forget_after`` it is looked for what can be forgotten."""


class Holder(Protocol):
    """What may hold something of a group."""

    def holds(self, groups: Int64s, unknown_us: int) -> Bools:
        """Of which of n groups anything is held that readings may need which are not late.

        ``unknown_us``: the watermark of what is not known; that of no group is less.
        """
        ...

    def forget(self, groups: Int64s) -> None:
        """Be as if these groups, of which nothing is held, had never been."""


class Forgetting:
    """What is forgotten of one stream over one partition."""

    def __init__(
        self, intake: Intake, holders: Sequence[Holder], last_seen: LastSeen | None, touched: list[Int64s]
    ) -> None:
        self._intake = intake
        self._holders = holders
        self._last_seen = last_seen
        """Of groups, where these are others than devices."""
        self._touched = touched
        self._next_us = NEVER

    def forget(self) -> None:
        """Forget what can be forgotten, if the clock has moved on far enough since that was last looked for."""
        clocks, spec = self._intake.clocks, self._intake.spec
        if clocks.clock_us < self._next_us or clocks.clock_us == NEVER:
            return
        self._next_us = clocks.clock_us + max(spec.forget_us // LOOKS, 1)
        self._forget_groups()
        devices = clocks.silent_devices(spec.forget_us)
        if len(devices):
            progress_us = clocks.progress_us[devices]
            devices = devices[~self._intake.in_time(progress_us, clocks.unknown_us) & ~self._have_groups(devices)]
        if len(devices):
            self._intake.forget(devices)
            if self._intake.groups is None:
                self._let_go(devices)

    def _forget_groups(self) -> None:
        """Forget the groups, where these are others than devices, that have had no reading for so long."""
        groups, last_seen, clocks = self._intake.groups, self._last_seen, self._intake.clocks
        if groups is None or last_seen is None:
            return
        seen_us = last_seen.us[: len(groups)]
        silent = np.flatnonzero((seen_us != NEVER) & (seen_us <= clocks.clock_us - self._intake.spec.forget_us))
        silent = silent[~self._held(silent)] if len(silent) else silent
        if len(silent):
            clocks.note_forgotten()
            self._let_go(silent)
            last_seen.us[silent] = NEVER
            groups.forget(silent)

    def _have_groups(self, devices: Int64s) -> Bools:
        """Which of these devices anything is held of, or a group is known within."""
        groups = self._intake.groups
        if groups is None:
            return self._held(devices)
        within = np.zeros(self._intake.clocks.devices + 1, np.bool_)
        if self._intake.spec.of_one_device:
            within[groups.device] = True
        having: Bools = within[devices]
        return having

    def _held(self, groups: Int64s) -> Bools:
        held = np.zeros(len(groups), np.bool_)
        for holder in self._holders:
            held |= holder.holds(groups, self._intake.clocks.unknown_us)
        return held

    def _let_go(self, groups: Int64s) -> None:
        for holder in self._holders:
            holder.forget(groups)
        self._touched.append(groups)
