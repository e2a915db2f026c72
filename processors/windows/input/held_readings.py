"""Readings that are held by group and time until they are taken: what each group's later ones push out.

They lie in sorted runs, in the order in which they came; a batch makes a small one, and small ones are merged into
larger ones. Readings are taken from the front of each group, which moves on in each run by itself: nothing that stays
is copied, or looked at, but for one time of each group that a run holds. So a batch costs by what it brings and what
is taken, however much is held.

What has been taken from a run stays in it until most of it is; then the rest becomes a new run. So a run is also what
is written, once, and what is written grows with what is new. What is held of it follows from the groups' fronts, which
are written where a group is written: all up to the last one that was taken from a group is gone, in all runs. A group
that gets the slot of one that was forgotten goes on with its front: what comes is beyond it, as it would be late else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import numpy as np

from headrace.batch import Int64s
from headrace.column import Bools
from processors.windows.arrays import with_room
from processors.windows.input.pieces import Pieces, ReadPiece
from processors.windows.input.readings import Readings
from processors.windows.input.readings_run import Run
from processors.windows.input.sorted_runs import due
from processors.windows.time.watermark import NEVER

VERSION = 1

PIECE_BYTES = 512 * 1024
"""The most bytes of a piece of state: the broker takes a message of a megabyte."""

MOST = 65_536
"""The most readings of a run that is merged of others."""

FULL = 16_384
"""Runs that would not fit together with the one before them are merged once they have so many."""


class HeldReadings:
    """The readings of one stream over one partition that are held, by group; ``name``: that of their pieces."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._runs: list[Run] = []
        self._held = 0
        self.made_with = 0
        """What the runs hold, and what they held when they were made."""
        self._front_us: Int64s = np.empty(0, np.int64)
        """For each group the time of the last reading that was taken from a run."""
        self._pieces = Pieces(name, VERSION)

    def __len__(self) -> int:
        return self._held

    # Holding and taking

    def append(self, readings: Readings) -> None:
        """Hold n further readings, in any order; of one group and time they stay in the order they came.

        The state of their groups is to be written again.
        """
        self._front_us = with_room(self._front_us, int(readings.slots.max()) + 1, NEVER)
        again = readings.ts_us <= self._front_us[readings.slots]
        if again.any():
            self._move_back(readings.slots[again])
        self._add(Run.of(readings.sorted()))
        while (first := due(self._runs, MOST, FULL)) is not None:
            self._merge(first, len(self._runs))

    def take(self, upto_us: Int64s) -> list[Readings]:
        """Take the readings up to and with each group's time, sorted by group and time, those that came first first.

        They are in several parts, each sorted by group and time. The state of their groups is to be written again.
        """
        return [run.readings.take(places) for run, places in self._advance(upto_us)]

    def drop(self, upto_us: Int64s) -> None:
        """Hold the readings up to and with each group's time no longer; the state of their groups is to be written."""
        for _ in self._advance(upto_us):
            pass

    def of(self, groups: Int64s) -> list[Readings]:
        """What is held of these groups, in several parts, those that came first first."""
        marks = np.zeros(max(len(self._front_us), int(groups.max()) + 1), np.bool_)
        marks[groups] = True
        found = ((run, run.places_of(marks)) for run in self._runs)
        return [run.readings.take(places) for run, places in found if len(places)]

    def holds(self, groups: Int64s) -> Bools:
        """Of which of n groups readings are held."""
        marks = np.zeros(max(len(self._front_us), int(groups.max()) + 1), np.bool_)
        for run in self._runs:
            marks[run.groups] = True
        held: Bools = marks[groups]
        return held

    def note_latest(self, latest_us: Int64s) -> None:
        """Raise each group's time to that of its latest reading that is held."""
        for run in self._runs:
            latest_us[run.groups] = np.maximum(latest_us[run.groups], run.latest_us())

    def _advance(self, upto_us: Int64s) -> Iterator[tuple[Run, Int64s]]:
        """Each run that something is taken from, and the places of that; they are gone once it is asked for more."""
        if not self._runs:
            return
        furthest_us = int(upto_us.max())
        over = False
        for run in self._runs:
            if run.next_us > furthest_us:
                continue
            places = run.advance(upto_us, self._front_us)
            if not len(places):
                continue
            self._held -= len(places)
            over = over or not run.held
            yield run, places
        if over:
            for run in self._runs:
                if not run.held:
                    self._forget(run)
            self._runs = [run for run in self._runs if run.held]
        if self.made_with - self._held > max(self._held, MOST):
            self._thin_out()

    def _thin_out(self) -> None:
        """Make new runs of those of which most is gone, and of neighbours among them one."""
        place = 0
        while place < len(self._runs):
            last, total = place, 0
            while last < len(self._runs) and 2 * self._runs[last].held <= len(self._runs[last]):
                if last > place and total + self._runs[last].held > MOST:
                    break
                total += self._runs[last].held
                last += 1
            if last > place:
                self._merge(place, last)
            place += 1

    def _move_back(self, slots: Int64s) -> None:
        """Hold readings of these groups that are not beyond what was taken: some are, if the grace has become longer.

        No run may hold anything then that was taken, as it would be held again after a restore.
        """
        for place, run in enumerate(self._runs):
            if run.held < len(run):
                self._merge(place, place + 1)
        self._front_us[slots] = NEVER

    def _merge(self, first: int, last: int) -> None:
        """Make one run of those from ``first`` up to ``last``, of what they hold still."""
        old = self._runs[first:last]
        for run in old:
            self._forget(run)
            self._held -= run.held
        merged = Run.of(Readings.joined([run.rest() for run in old]).sorted())
        self._runs[first:last] = [merged]
        self._held += len(merged)
        self.made_with += len(merged)

    def _add(self, run: Run) -> None:
        self._runs.append(run)
        self._held += run.held
        self.made_with += len(run)

    def _forget(self, run: Run) -> None:
        self.made_with -= len(run)
        self._pieces.drop(run.pieces)

    # State

    def fronts(self, first: int, last: int) -> bytes:
        """What the pieces of the groups from ``first`` up to ``last`` have to keep."""
        fronts = self._front_us[first:last]
        return fronts.astype("<i8").tobytes() if (fronts != NEVER).any() else b""

    def take_fronts(self, fronts: bytes, first: int) -> None:
        """Take up what was kept of the groups from ``first`` on; before :meth:`restore`."""
        kept = np.frombuffer(fronts, "<i8")
        self._front_us = with_room(self._front_us, first + len(kept), NEVER)
        self._front_us[first : first + len(kept)] = kept

    def changed(self) -> Iterator[tuple[str, bytes | None]]:
        """The pieces of state that are new since the last call, the index, and those to be deleted (None).

        In this order, so that what is there after any of them can be restored. Readings that were taken before they
        were written never are.
        """
        self._gather()
        for place, run in enumerate(self._runs):
            if run.pieces:
                continue
            if run.held < len(run):
                self._merge(place, place + 1)
            packed = msgspec.msgpack.encode(self._runs[place].readings.packed())
            parts = [packed[begin : begin + PIECE_BYTES] for begin in range(0, len(packed), PIECE_BYTES)]
            self._runs[place].pieces, pieces = self._pieces.numbered(parts)
            yield from pieces
        yield from self._pieces.indexed([run.pieces for run in self._runs])

    def _gather(self) -> None:
        """Make one run of the small ones that were never written: one piece a checkpoint, not one a batch."""
        runs = self._runs
        first, total = len(runs), 0
        while first and not runs[first - 1].pieces and total + runs[first - 1].held <= MOST:
            first -= 1
            total += runs[first].held
        if first < len(runs) - 1:
            self._merge(first, len(runs))

    def forget_written(self) -> None:
        """Count nothing as written: :meth:`changed` gives every piece again, for another place to keep them in."""
        for run in self._runs:
            run.pieces = range(0)
        self._pieces.forget_written()

    def restore(self, piece: ReadPiece, dtypes: Mapping[str, Any]) -> None:
        """Be as when :meth:`changed` was last called, from ``piece(name)``; without an index, as at the start.

        Raises StateError when a piece is lacking.
        """
        for numbers in self._pieces.restore(piece)[0]:
            readings = Readings.unpacked(msgspec.msgpack.decode(self._pieces.read(piece, numbers)), dtypes)
            self._front_us = with_room(self._front_us, int(readings.slots.max()) + 1, NEVER)
            left: Bools = readings.ts_us > self._front_us[readings.slots]
            if not left.any():
                self._pieces.drop(numbers)
                continue
            run = Run.of(readings if left.all() else readings.take(np.flatnonzero(left)), len(readings))
            run.pieces = numbers
            self._add(run)
