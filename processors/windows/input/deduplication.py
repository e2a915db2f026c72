"""Readings that were sent before: recognised exactly, at 12 bytes a reading and few searches.

A reading is remembered as a key of 63 bits, its device's slot above the low bits of its time, and the digest of what
it says. The high bits of the time are the key's level: with up to 65,536 slots a level is four years long, and with a
million of them 101 days, so there is mostly one.

Keys lie in sorted runs, in the order in which they came. A batch makes a small run; small ones are merged into
larger ones, each reading about once per factor of sixteen, until they are as large as a piece of state may be. So
a run is also what is written, and what is written grows with what is new. A run is never changed: what is merged
or thinned out becomes a new one, and the pieces of the old ones are deleted.

Readings beyond their device's progress cannot have been seen before, so most batches search nothing; the others
search the runs whose times overlap those of their older readings, which are most often the last ones.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.batch import Int64s
from headrace.column import Bools
from processors.windows.input import sorted_runs as sizes
from processors.windows.input.digest import Digests
from processors.windows.input.pieces import Pieces, ReadPiece
from processors.windows.input.sorted_runs import ENTRY_BYTES, Level, SortedRun

FRESH, REPEATED, CORRECTED = 0, 1, 2
"""A reading's device and time were not seen before; seen, saying the same; seen, saying something else."""

Verdicts = NDArray[np.uint8]
Still = Callable[[Int64s, Int64s], Bools]
"""Of readings (slots, ts_us) which would still be accepted."""

VERSION = 2
INDEX = "seen"

_RUN_BYTES = 512
"""What a run takes besides its entries (measured: objects, array headers, names)."""
_PRUNED_AT_LEAST = 32_768
_FEWEST_BITS = 16


class Header(msgspec.Struct):
    """What the index says beside the pieces: how many bits of a key are the slot's."""

    bits: int


class Piece(msgspec.Struct):
    """A run: how many bits of a key are the slot's, its level, the keys (int64 bytes) and digests (uint32 bytes)."""

    bits: int
    level: int
    keys: bytes
    digests: bytes


class Deduplication:
    """The readings that were seen and would still be accepted, each by its device's slot, time and digest."""

    def __init__(self) -> None:
        self._levels: dict[int, Level] = {}
        self._entries = 0
        self._entries_pruned = 0
        """How many there were left after the last thorough pruning; goes down slowly when there are fewer."""
        self._pieces = Pieces(INDEX, VERSION)
        self._lay_out(_FEWEST_BITS)

    def __len__(self) -> int:
        return self._entries

    @property
    def nbytes(self) -> int:
        """The memory taken: 12 bytes an entry, and some for each run."""
        return self._entries * ENTRY_BYTES + _RUN_BYTES * sum(len(level.runs) for level in self._levels.values())

    # Recognising

    def sift(
        self, slots: Int64s, ts_us: Int64s, digests: Digests, progress_us: Int64s, used: Bools | None = None
    ) -> Verdicts:
        """FRESH, REPEATED or CORRECTED for each of n readings, in the order in which they came; remembers the fresh.

        ``slots``: the readings' devices, as places of ``progress_us``: the greatest time that each device had sent
        before these. What is remembered of a device and time is what the first reading says, also within the n.
        Readings that are late must be left out: what has been forgotten of them would be remembered again.
        Those that are not ``used`` (None: all are) are judged like the others, and not remembered.
        """
        verdicts = np.zeros(len(slots), np.uint8)
        if not len(slots):
            return verdicts
        suspects = ts_us <= progress_us[slots]
        if (len(progress_us) - 1) >> self._bits:
            self._widen((len(progress_us) - 1).bit_length())
        first, last = int(ts_us.min()) >> self._shift, int(ts_us.max()) >> self._shift
        keys = (slots << self._shift) | (ts_us & self._mask)
        if first == last:
            self._sift_level(first, keys, digests, suspects, verdicts, used=used)
        else:
            levels = ts_us >> self._shift
            for level in np.unique(levels).tolist():
                places = np.flatnonzero(levels == level)
                of_level = np.zeros(len(places), np.uint8)
                used_here = None if used is None else used[places]
                self._sift_level(level, keys[places], digests[places], suspects[places], of_level, used=used_here)
                verdicts[places] = of_level
        return verdicts

    def _sift_level(
        self,
        number: int,
        keys: Int64s,
        digests: Digests,
        suspects: Bools,
        verdicts: Verdicts,
        *,
        used: Bools | None,
    ) -> None:
        level = self._levels.get(number)
        fresh: Int64s | None = None
        if level is not None and np.count_nonzero(suspects):
            places = np.flatnonzero(suspects)
            if self._search(level, keys, digests, places, verdicts):
                fresh = np.flatnonzero(verdicts == FRESH)
                if not len(fresh):
                    return
                keys, digests = keys[fresh], digests[fresh]
                used = None if used is None else used[fresh]
        order = np.argsort(keys)
        ordered = keys[order]
        again = ordered[1:] == ordered[:-1]
        if np.count_nonzero(again):
            # Which of them came first matters now.
            order = np.argsort(keys, kind="stable")
            of_digests = digests[order]
            heads = np.concatenate([[True], ~again])
            group = np.cumsum(heads) - 1
            counts = np.ones(len(order), np.int64) if used is None else used[order].astype(np.int64)
            ahead = np.cumsum(counts) - counts
            ahead -= ahead[heads][group]
            first, rest = (counts > 0) & (ahead == 0), ahead > 0
            remembered = np.zeros(int(group[-1]) + 1, of_digests.dtype)
            remembered[group[first]] = of_digests[first]
            places = order[rest] if fresh is None else fresh[order[rest]]
            verdicts[places] = np.where(of_digests[rest] == remembered[group[rest]], REPEATED, CORRECTED)
            ordered, of_digests = ordered[first], of_digests[first]
        else:
            if used is not None:
                order = order[used[order]]
                ordered = keys[order]
            of_digests = digests[order]
        if not len(ordered):
            return
        times = ordered & self._mask
        self._entries += len(ordered)
        self._add(number, SortedRun(ordered, of_digests, int(times.min()), int(times.max())))

    def _search(self, level: Level, keys: Int64s, digests: Digests, places: Int64s, verdicts: Verdicts) -> bool:
        """The verdicts on those of the readings at ``places`` that are remembered; whether there are any."""
        wanted = keys[places]
        times = np.sort(wanted & self._mask).tolist()
        found = False
        # The newest first: most repeats come soon.
        for place in range(len(level.runs) - 1, bisect_left(level.reach, times[0]) - 1, -1):
            run = level.runs[place]
            nearest = bisect_left(times, run.low)
            if nearest == len(times) or times[nearest] > run.high:
                continue
            at = run.keys.searchsorted(wanted)
            hits = run.keys.take(at, mode="clip") == wanted
            if not np.count_nonzero(hits):
                continue
            found = True
            seen = places[hits]
            verdicts[seen] = np.where(run.digests[at[hits]] == digests[seen], REPEATED, CORRECTED)
            places, wanted = places[~hits], wanted[~hits]
            if not len(places):
                break
        return found

    # Runs

    def _lay_out(self, bits: int) -> None:
        self._bits = bits
        self._shift = 63 - bits
        self._mask = (1 << self._shift) - 1

    def _add(self, number: int, run: SortedRun) -> None:
        level = self._levels.setdefault(number, Level())
        if len(run) > sizes.MOST:
            for start in range(0, len(run), sizes.MOST):
                part = slice(start, start + sizes.MOST)
                # Copies, as a view would keep the whole alive.
                level.append(SortedRun(run.keys[part].copy(), run.digests[part].copy(), run.low, run.high))
        else:
            level.append(run)
        self._settle(level)

    def _settle(self, level: Level) -> None:
        while (first := sizes.due(level.runs, sizes.MOST, sizes.FULL)) is not None:
            self._merge(level, first)

    def _merge(self, level: Level, first: int) -> None:
        for pieces in level.merge_from(first):
            self._pieces.drop(pieces)

    def _widen(self, bits: int) -> None:
        """Give slots more bits of the key, and times fewer: levels become shorter."""
        before, levels = self._bits, self._levels
        self._lay_out(bits + bits % 2)
        self._levels = {}
        for number in sorted(levels):
            for run in levels[number].runs:
                self._place(before, number, run)

    def _place(self, bits: int, number: int, run: SortedRun) -> None:
        """Add a run of a level, made with so many bits for slots, as the last of the level it belongs to now."""
        if bits == self._bits:
            self._levels.setdefault(number, Level()).append(run)
            return
        shift = 63 - bits
        times = run.keys & ((1 << shift) - 1)
        levels = times >> self._shift
        keys = ((run.keys >> shift) << self._shift) | (times & self._mask)
        numbers = np.unique(levels)
        for part in numbers.tolist():
            at: Bools | slice = levels == part if len(numbers) > 1 else slice(None)
            within = times[at] & self._mask
            pieces = run.pieces if len(numbers) == 1 else range(0)
            placed = SortedRun(keys[at], run.digests[at], int(within.min()), int(within.max()), pieces)
            self._levels.setdefault((number << (shift - self._shift)) | part, Level()).append(placed)
        if len(numbers) > 1:
            self._pieces.drop(run.pieces)

    # Forgetting

    @property
    def wants_pruning(self) -> bool:
        """Whether there are twice as many entries as after the last thorough pruning."""
        return self._entries >= 2 * max(self._entries_pruned, _PRUNED_AT_LEAST)

    def prune(self, still: Still) -> None:
        """Forget entries that are no longer accepted; ``still(slots, ts_us)`` says which are.

        Looks at the oldest runs only, up to the first that holds something to be kept, unless
        :attr:`wants_pruning`: then at all of them, and those of which most is dead are thinned out. So a call costs
        little, and at most about half of what is remembered is dead while the rest grows.
        """
        thorough = self.wants_pruning
        for number in sorted(self._levels):
            self._prune_level(number, still, thorough)
        if thorough:
            self._entries_pruned = self._entries
        else:
            self._entries_pruned -= max(0, self._entries_pruned - self._entries) // 64

    def _prune_level(self, number: int, still: Still, thorough: bool) -> None:
        level = self._levels[number]
        start_us = number << self._shift
        kept: list[SortedRun] = []
        thinned: list[SortedRun] = []
        for place, run in enumerate(level.runs):
            stays = still(run.keys >> self._shift, (run.keys & self._mask) | start_us)
            alive = int(np.count_nonzero(stays))
            if alive and not thorough:
                kept += level.runs[place:]
                break
            if 2 * alive >= len(run):
                kept.append(run)
                continue
            self._entries -= len(run) - alive
            self._pieces.drop(run.pieces)
            if alive:
                keys = run.keys[stays]
                times = keys & self._mask
                thinned.append(SortedRun(keys, run.digests[stays], int(times.min()), int(times.max())))
        if len(kept) < len(level.runs):
            level.replace(kept)
            # What is left of a run goes where the new ones are, to be merged with them: else there would be ever
            # more small ones. It dies with them, too.
            for run in thinned:
                self._add(number, run)
        if not level.runs:
            del self._levels[number]

    # State

    def changed(self) -> Iterator[tuple[str, bytes | None]]:
        """The pieces of state that are new since the last call, the index, and those to be deleted (None).

        A piece holds 256 KB at most. Entries that were forgotten before they were written never are.
        """
        written: list[range] = []
        for number in sorted(self._levels):
            level = self._levels[number]
            self._gather(level)
            for run in level.runs:
                if not run.pieces:
                    run.pieces, pieces = self._pieces.numbered([_packed(self._bits, number, run)])
                    yield from pieces
                written.append(run.pieces)
        yield from self._pieces.indexed(written, msgspec.msgpack.encode(Header(self._bits)))

    def forget_written(self) -> None:
        """Count nothing as written: :meth:`changed` gives every piece again, for another place to keep them in."""
        for level in self._levels.values():
            for run in level.runs:
                run.pieces = range(0)
        self._pieces.forget_written()

    def _gather(self, level: Level) -> None:
        """Make one run of the small ones that were never written: one piece a checkpoint, not one a batch."""
        runs = level.runs
        first, total = len(runs), 0
        while first and not runs[first - 1].pieces and total + len(runs[first - 1]) <= sizes.MOST:
            first -= 1
            total += len(runs[first])
        if first < len(runs) - 1:
            self._merge(level, first)
            self._settle(level)

    def restore(self, piece: ReadPiece) -> None:
        """Be as when :meth:`changed` was last called, from ``piece(name)``; without an index, as at the start.

        Raises StateError when a piece is lacking, or the index was written by another version.
        """
        self._levels, self._entries = {}, 0
        # How much of what was written is dead is not known: the first pruning of much is a thorough one.
        self._entries_pruned = 0
        written, header = self._pieces.restore(piece)
        if not header:
            return
        self._lay_out(msgspec.msgpack.decode(header, type=Header).bits)
        for numbers in written:
            read = msgspec.msgpack.decode(self._pieces.read(piece, numbers), type=Piece)
            keys = np.frombuffer(read.keys, "<i8").astype(np.int64)
            times = keys & ((1 << (63 - read.bits)) - 1)
            of_digests = np.frombuffer(read.digests, "<u4").astype(np.uint32)
            self._entries += len(keys)
            run = SortedRun(keys, of_digests, int(times.min()), int(times.max()), numbers)
            self._place(read.bits, read.level, run)


def _packed(bits: int, level: int, run: SortedRun) -> bytes:
    keys, of_digests = run.keys.astype("<i8").tobytes(), run.digests.astype("<u4").tobytes()
    return msgspec.msgpack.encode(Piece(bits, level, keys, of_digests))
