"""Where session, state and event windows begin and end in readings that stand in order.

A block is n readings sorted by (slot, ts). ``heads`` is True where a slot's run of readings begins. What an
earlier block has left open is carried over by arrays with an element a run, in the order of the runs; the
``open_after_...`` functions give the same of this block, for the next one. Cutting a sequence of readings into
blocks at any places, equal times included, changes nothing of its windows.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Final

import numpy as np

from headrace.batch import Int64s
from headrace.column import Bools, Column

NONE: Final = -(2**62)
"""In place of a time: nothing is open. Times lie between -2**61 and 2**61."""


@dataclass(frozen=True, slots=True)
class Cut:
    """The windows of a block's n readings.

    ``inside``: belongs to a window. ``begins``: begins a new one, only where inside. ``ends``: its window ends with
    it, included, only where inside; set by events alone, as the other windows end where the next one begins. A
    run whose first reading inside does not begin a window goes on with the slot's open one.
    """

    inside: Bools
    begins: Bools
    ends: Bools


def session(
    heads: Bools,
    ts_us: Int64s,
    open_last_us: Int64s,
    open_first_us: Int64s,
    *,
    gap_us: int,
    longest_us: int | None,
) -> Cut:
    """Windows of readings at most ``gap_us`` apart, none of them ``longest_us`` (above 0) or more from the first.

    ``open_last_us`` and ``open_first_us`` are the times of the open window's last and first reading, or ``NONE``.
    Costs array operations only, and with ``longest_us`` a step for each window that it cuts off.
    """
    n = len(ts_us)
    begins = np.empty(n, np.bool_)
    if n:
        np.greater(ts_us[1:] - ts_us[:-1], gap_us, out=begins[1:])
        first = np.flatnonzero(heads)
        begins[first] = (open_last_us == NONE) | (ts_us[first] - open_last_us > gap_us)
        if longest_us is not None:
            _cut_off(begins, first, ts_us, open_first_us, longest_us)
    return Cut(np.ones(n, np.bool_), begins, np.zeros(n, np.bool_))


def _cut_off(begins: Bools, first: Int64s, ts_us: Int64s, open_first_us: Int64s, longest_us: int) -> None:
    """Mark the further beginnings in windows that are too long.

    Each is measured from the one before it, so they are found one after the other, by jumps from cut to cut.
    """
    goes_on = ~begins[first]
    bounds = begins.copy()
    bounds[first] = True
    parts = np.flatnonzero(bounds)
    starts_us = ts_us[parts]
    starts_us[np.searchsorted(parts, first[goes_on])] = open_first_us[goes_on]
    ends = np.append(parts[1:], len(ts_us))
    long = ts_us[ends - 1] - starts_us >= longest_us
    if not long.any():
        return
    times_us, cuts = ts_us.tolist(), []
    for begin, end, start_us in zip(parts[long].tolist(), ends[long].tolist(), starts_us[long].tolist(), strict=True):
        cut = bisect_left(times_us, start_us + longest_us, begin, end)
        while cut < end:
            cuts.append(cut)
            cut = bisect_left(times_us, times_us[cut] + longest_us, cut, end)
    begins[cuts] = True


def open_after_session(heads: Bools, ts_us: Int64s, cut: Cut, open_first_us: Int64s) -> tuple[Int64s, Int64s]:
    """For each run the times of its open window's last and first reading, as ``session`` takes them."""
    if not len(ts_us):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    first, last = _bounds(heads)
    beginning = _latest(cut.begins)[last]
    return ts_us[last], np.where(beginning < first, open_first_us, ts_us[beginning])


def state(heads: Bools, values: Column, open_values: Column) -> Cut:
    """Windows of readings that follow each other with equal values.

    A reading without the value is in no window and ends none. ``open_values`` holds an element a run: the open
    window's value, absent where nothing is open. Values present are never NaN.
    """
    n = len(values)
    begins = np.zeros(n, np.bool_)
    if values.valid is None:
        inside = np.ones(n, np.bool_)
        if n:
            np.not_equal(values.values[1:], values.values[:-1], out=begins[1:])
            first = np.flatnonzero(heads)
            begins[first] = _differs(values.take(first), open_values)
    else:
        inside = values.valid.copy()
        places = np.flatnonzero(inside)
        if len(places):
            runs = np.cumsum(heads)[places] - 1
            present = values.values[places]
            changed = np.empty(len(places), np.bool_)
            np.not_equal(present[1:], present[:-1], out=changed[1:])
            first = np.flatnonzero(np.diff(runs, prepend=-1))
            changed[first] = _differs(Column(present[first]), open_values.take(runs[first]))
            begins[places] = changed
    return Cut(inside, begins, np.zeros(n, np.bool_))


def open_after_state(heads: Bools, values: Column, open_values: Column) -> Column:
    """For each run its last value that is present, or else what was open: as ``state`` takes them."""
    if not len(values):
        return open_values
    first, last = _bounds(heads)
    if values.valid is None:
        return Column(values.values[last])
    latest = _latest(values.valid)[last]
    found = latest >= first
    carried = np.where(found, values.values[latest], open_values.values)
    if open_values.valid is None:
        return Column(carried)
    return Column(carried, found | open_values.valid)


def event(heads: Bools, starts: Bools, stops: Bools, open_: Bools) -> Cut:
    """Windows from a reading that starts one to the next that stops it, which may be the same; both are included.

    ``open_`` has an element a run: whether its slot is inside a window. Needs no loop: after a reading that stops,
    nothing is open, and after one that only starts, a window is, whatever was before; the others leave it as it was.
    """
    n = len(starts)
    if not n:
        return Cut(np.zeros(0, np.bool_), np.zeros(0, np.bool_), np.zeros(0, np.bool_))
    first = np.flatnonzero(heads)
    decides = starts | stops
    after = starts & ~stops
    at_first = np.where(decides[first], after[first], open_)
    after[first] = at_first
    decides[first] = True
    after = after[_latest(decides)]
    before = np.empty(n, np.bool_)
    before[1:] = after[:-1]
    before[first] = open_
    inside = before | starts
    return Cut(inside, starts & ~before, inside & stops)


def open_after_event(heads: Bools, cut: Cut) -> Bools:
    """For each run whether its slot is inside a window, as ``event`` takes it."""
    if not len(heads):
        return np.zeros(0, np.bool_)
    _, last = _bounds(heads)
    return cut.inside[last] & ~cut.ends[last]


def _bounds(heads: Bools) -> tuple[Int64s, Int64s]:
    """The places of each run's first and last reading; n is above 0."""
    first = np.flatnonzero(heads)
    return first, np.append(first[1:], len(heads)) - 1


def _latest(marks: Bools) -> Int64s:
    """For each reading the place of the latest mark at or before it.

    Where its run has none so far, it is a place before the run (or, in the first run, -1).
    """
    places = np.where(marks, np.arange(len(marks)), np.int64(-1))
    return np.maximum.accumulate(places)


def _differs(values: Column, open_values: Column) -> Bools:
    """Where a value is not the open one; all of ``values`` are present."""
    differs = np.empty(len(values), np.bool_)
    np.not_equal(values.values, open_values.values, out=differs)
    return differs if open_values.valid is None else differs | ~open_values.valid
