"""Panes and windows that follow the days and hours of a named time zone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np

from headrace.batch import Int64s
from headrace.pipeline.zones import DAY, HOUR, mistake  # noqa: F401 - HOUR is for the examples
from processors.windows.time.alignment import NO_END, spread

_SECOND = 1_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_S = int((datetime(1, 1, 3, tzinfo=UTC) - _EPOCH).total_seconds())
_LAST_S = int((datetime(9999, 12, 29, tzinfo=UTC) - _EPOCH).total_seconds())
"""Between these the calendar knows the clocks of every zone."""
_FURTHEST = 2**61
_STRETCH_BITS = 45
"""Boundaries are found by stretches of 2**45 µs, some 407 days, counted from the epoch."""
_TABLES_KEPT = 64
_PROBE_S = 86_400
"""Between two changes of a zone's offset there is at least a week, in all of tzdata."""
_MARGIN = 4 * DAY


@dataclass(frozen=True)
class Zoned:
    """Windows of ``size`` every ``step`` (µs), as the clocks of ``zone`` count them; tumbling if step = size.

    They start where the clocks show ``k * step + offset`` after 1970-01-01 00:00, local time: steps of hours
    count from each midnight, a step of seven days is a week that begins on Thursday (offset 4 days: Monday).
    The step must divide the day in whole hours or be whole days, and the size be a multiple of it
    (:func:`~headrace.pipeline.zones.mistake` says why if not; then ValueError is raised).

    The rule where clocks are set forward or back, in three sentences:

    1. *A window lasts from local time L to local time L + size, and a local time is where the clocks first
       show it or, when they skip it, a later one.* So it lies at the jump if it is skipped, and of two
       showings the first one counts.
    2. *A shift by a whole number of sizes is no shift: windows go on, each as long as always.* An hour shown
       twice is two windows of an hour, an hour skipped is none.
    3. *Of windows that would start at one instant only the last is there.* So each start names one window.

    Hence windows and panes are never empty; panes, and tumbling windows, leave no gap and do not overlap. A
    hopping window that starts where a tumbling one of its size does is the same window: a day by the hour is,
    once a day, that day.

    >>> def lengths(zone, size, first, last, step=None):
    ...     "The hours of the windows that start from one local midnight on, before another."
    ...     zoned = Zoned(zone, int(size * HOUR), int((step or size) * HOUR))
    ...     bounds = [datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone)).timestamp() for day in (first, last)]
    ...     panes = np.unique(zoned.panes(np.arange(bounds[0], bounds[1], 60).astype(np.int64) * 1_000_000))
    ...     return ((zoned.last_end(panes) - panes) / HOUR).tolist()

    Days have 23 or 25 hours, and two hours in the night of the shift one or three; hours are hours:

    >>> lengths("Europe/Paris", 24, "2026-03-28", "2026-03-31")
    [24.0, 23.0, 24.0]
    >>> lengths("Europe/Paris", 24, "2026-10-24", "2026-10-27")
    [24.0, 25.0, 24.0]
    >>> lengths("Europe/Paris", 2, "2026-03-29", "2026-03-30")[:3]
    [2.0, 1.0, 2.0]
    >>> lengths("Europe/Paris", 2, "2026-10-25", "2026-10-26")[:3]
    [2.0, 3.0, 2.0]
    >>> lengths("Europe/Paris", 1, "2026-03-29", "2026-03-30") == [1.0] * 23
    True
    >>> lengths("Europe/Paris", 1, "2026-10-25", "2026-10-26") == [1.0] * 25
    True

    Lord Howe shifts by half an hour, which is no whole hour; Kathmandu's hours begin at a quarter past UTC's:

    >>> lengths("Australia/Lord_Howe", 1, "2026-04-05", "2026-04-06")[:4]
    [1.0, 1.5, 1.0, 1.0]
    >>> lengths("Australia/Lord_Howe", 1, "2026-10-04", "2026-10-05")[:4]
    [1.0, 1.0, 0.5, 1.0]
    >>> Zoned("Asia/Kathmandu", HOUR, HOUR).panes(np.array([0])) / HOUR
    array([-0.5])
    >>> Zoned("Asia/Kathmandu", DAY, DAY).panes(np.array([1_800_000_000_000_000])) / HOUR % 24
    array([18.25])

    Where midnight itself is skipped, the day begins at 1 h; where it is shown twice, at the first of them:

    >>> lengths("America/Santiago", 24, "2026-09-05", "2026-09-08")
    [24.0, 23.0, 24.0]
    >>> lengths("Asia/Beirut", 24, "2026-03-28", "2026-03-31")
    [24.0, 23.0, 24.0]
    >>> lengths("America/Havana", 24, "2026-10-31", "2026-11-03")
    [24.0, 25.0, 24.0]

    Samoa left out 2011-12-30. Two days by the day: 28 and 29; 29 alone, as the 30th is not; 31 and 1; 1 and 2:

    >>> lengths("Pacific/Apia", 24, "2011-12-28", "2012-01-02")
    [24.0, 24.0, 24.0, 24.0]
    >>> lengths("Pacific/Apia", 48, "2011-12-28", "2012-01-02", step=24)
    [48.0, 24.0, 48.0, 48.0]

    Outside the years 1 to 9999 there is no calendar, and the offset from UTC at the nearer end goes on. Places
    beyond ±2**61 µs (73,000 years) are taken for these. Boundaries are found when first asked for, a year or so
    at a time, and kept.
    """

    zone: str
    size: int
    step: int
    offset: int = 0
    _clock: ZoneInfo = field(init=False, repr=False, compare=False)
    _tables: dict[int, _Table] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        wrong = mistake(self.zone, self.size, self.step)
        if wrong is not None:
            raise ValueError(": ".join(wrong))
        object.__setattr__(self, "_clock", ZoneInfo(self.zone))
        object.__setattr__(self, "_tables", {})

    @property
    def overlapping(self) -> bool:
        """Whether a pane may be in several windows."""
        return self.step < self.size

    @property
    def longest(self) -> int:
        """No window is longer: the size and a day, the furthest that any zone's clocks were ever set back."""
        return self.size + DAY

    def panes(self, at: Int64s) -> Int64s:
        """The pane that each of n places falls into."""
        return self._by_stretch(at, lambda table, some, low, high, _: table.starts[table.numbers(some, low, high)])

    def last_end(self, panes: Int64s) -> Int64s:
        """For each of n panes the end (exclusive) of the last window that it is in."""
        return self._by_stretch(panes, lambda table, some, low, high, _: table.ends[table.numbers(some, low, high)])

    def first_end(self, panes: Int64s, after: Int64s) -> Int64s:
        """For each of n panes the end of the first window that it is in and that ends beyond ``after``."""

        def find(table: _Table, some: Int64s, low: int, high: int, which: Int64s | slice) -> Int64s:
            last = table.numbers(some, low, high)
            first = table.first(some, after[which], last)
            return np.where(first <= last, table.ends[np.minimum(first, last)], NO_END)

        return self._by_stretch(panes, find)

    def windows(self, panes: Int64s, after: Int64s, upto: Int64s) -> tuple[Int64s, Int64s, Int64s]:
        """All pairs of a pane and a window that it is in, where ``after < end <= upto``: which, starts, ends."""
        found: list[tuple[Int64s, Int64s, Int64s]] = []

        def find(table: _Table, some: Int64s, low: int, high: int, which: Int64s | slice) -> Int64s:
            last = table.numbers(some, low, high)
            first = table.first(some, after[which], last)
            final = np.minimum(last, table.ends.searchsorted(upto[which], "right") - 1)
            places, nth = spread(final - first + 1)
            numbers = first[places] + nth
            if not isinstance(which, slice):
                places = which[places]
            found.append((places, table.starts[numbers], table.ends[numbers]))
            return last

        self._by_stretch(panes, find)
        if not found:
            return panes, panes, panes
        if len(found) == 1:
            return found[0]
        which, starts, ends = (np.concatenate(parts) for parts in zip(*found, strict=True))
        order = np.argsort(which, kind="stable")
        return which[order], starts[order], ends[order]

    def _by_stretch(self, at: Int64s, find: Callable[[_Table, Int64s, int, int, Int64s | slice], Int64s]) -> Int64s:
        """What ``find(table, places, least, greatest, which)`` gives, asked once for each stretch touched."""
        if len(at) == 0:
            return np.empty(0, np.int64)
        low, high = int(at.min()), int(at.max())
        if low < -_FURTHEST or high > _FURTHEST:
            at = at.clip(-_FURTHEST, _FURTHEST)
            low, high = int(at.min()), int(at.max())
        if low >> _STRETCH_BITS == high >> _STRETCH_BITS:
            return find(self._table(low >> _STRETCH_BITS), at, low, high, slice(None))
        stretches = at >> _STRETCH_BITS
        found = np.empty(len(at), np.int64)
        for stretch in np.unique(stretches).tolist():
            which = np.flatnonzero(stretches == stretch)
            some = at[which]
            found[which] = find(self._table(stretch), some, int(some.min()), int(some.max()), which)
        return found

    def _table(self, stretch: int) -> _Table:
        table = self._tables.get(stretch)
        if table is None:
            if len(self._tables) >= _TABLES_KEPT:
                self._tables.clear()
            table = self._tables[stretch] = _Table.of(self, stretch)
        return table

    def _segments(self, low: int, high: int) -> tuple[Int64s, Int64s]:
        """Where the reckoning of local time changes from ``low`` to ``high``, and the offset from UTC from there on.

        The first begins at ``low``. Shifts by a whole number of sizes are left out, so offsets are the clocks' up
        to such numbers, which is the same to all boundaries.
        """
        begins, offsets = [low], [self._offset_s(low // _SECOND) * _SECOND]
        last_s = min(high // _SECOND, _LAST_S)
        at_s = max(low // _SECOND, _FIRST_S)
        before_s = self._offset_s(at_s)
        while at_s < last_s:
            next_s = min(at_s + _PROBE_S, last_s)
            if self._offset_s(next_s) != before_s:
                next_s = self._change_s(at_s, next_s)
                after_s = self._offset_s(next_s)
                shift = (after_s - before_s) * _SECOND
                if shift % self.size:
                    begins.append(next_s * _SECOND)
                    offsets.append(offsets[-1] + shift)
                before_s = after_s
            at_s = next_s
        return np.array(begins, np.int64), np.array(offsets, np.int64)

    def _change_s(self, same_s: int, other_s: int) -> int:
        """The first second of another offset than that of ``same_s``; there is another at ``other_s``."""
        offset_s = self._offset_s(same_s)
        while other_s - same_s > 1:
            middle_s = (same_s + other_s) // 2
            if self._offset_s(middle_s) == offset_s:
                same_s = middle_s
            else:
                other_s = middle_s
        return other_s

    def _offset_s(self, at_s: int) -> int:
        at = _EPOCH + timedelta(seconds=min(max(at_s, _FIRST_S), _LAST_S))
        offset = at.astimezone(self._clock).utcoffset()
        return 0 if offset is None else round(offset.total_seconds())


@dataclass(frozen=True)
class _Table:
    """All windows that hold a place of one stretch: starts (strictly rising) and ends (never falling)."""

    starts: Int64s
    ends: Int64s

    @classmethod
    def of(cls, zoned: Zoned, stretch: int) -> _Table:
        begin, end = stretch << _STRETCH_BITS, (stretch + 1) << _STRETCH_BITS
        low, high = begin - zoned.size - _MARGIN, end + zoned.size + _MARGIN
        begins, offsets = zoned._segments(low, high)
        first = -((zoned.offset - low - int(offsets[0])) // zoned.step)
        last = (end + int(offsets.max()) - zoned.offset) // zoned.step + 1
        labels = np.arange(first, last + 1, dtype=np.int64) * zoned.step + zoned.offset
        # Up to where the clocks have shown each time by the end of each segment.
        shown = np.maximum.accumulate(np.append(begins[1:] + offsets[:-1], 2**63 - 1))

        def instants(local: Int64s) -> Int64s:
            segment = shown.searchsorted(local, "right")
            found: Int64s = np.maximum(local - offsets[segment], begins[segment])
            return found

        starts = instants(labels)
        # Near `low` a second showing could be taken for the first one; clocks catch up within a day.
        kept = (starts[:-1] >= low + 2 * DAY) & (starts[:-1] < end) & (starts[1:] > starts[:-1])
        return cls(starts[:-1][kept], instants(labels[:-1][kept] + zoned.size))

    def numbers(self, at: Int64s, low: int, high: int) -> Int64s:
        """The place in the table of the pane of each of these places, which lie from ``low`` to ``high``."""
        first, last = (self.starts.searchsorted(np.array((low, high)), "right") - 1).tolist()
        if first == last:
            return np.full(len(at), first, np.int64)
        # A batch is of some minutes: among few boundaries the search is several times as fast.
        found: Int64s = self.starts[first + 1 : last + 1].searchsorted(at, "right") + first
        return found

    def first(self, panes: Int64s, after: Int64s, last: Int64s) -> Int64s:
        """The place of the first window of each pane that ends beyond ``after``; above ``last`` if none does."""
        return self.ends.searchsorted(np.minimum(np.maximum(panes, after), self.ends[last]), "right")
