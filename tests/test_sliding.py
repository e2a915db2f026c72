"""Sliding windows over ordered blocks, against plain Python that goes over each reading's window by itself."""

from __future__ import annotations

import math
import statistics
from fractions import Fraction
from itertools import chain, groupby, pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.column import Column, as_array
from processors.windows.aggregates import Aggregates, Measure
from processors.windows.kinds.sliding import Closed, Sliding

SLOTS = 4
MEASURES = (
    Measure("load", "float", ("count", "missing", "sum", "min", "max", "range", "mean", "variance", "p50", "p99")),
    Measure("meter", "int", ("sum", "mean", "min", "first", "last", "delta", "rate", "time_weighted_mean", "distinct")),
    Measure("mode", "text", ("count", "last", "distinct")),
)


class Reading(NamedTuple):
    slot: int
    ts_us: int
    load: float | None
    meter: int | None
    mode: str | None


Blocks = list[list[Reading]]

LOADS = st.integers(-400, 400).map(lambda n: n / 8)
STEPS = st.one_of(st.integers(0, 4), st.integers(0, 40))
FIELDS = (
    st.none() | LOADS,
    st.none() | st.integers(0, 9) | st.integers(-(2**63), 2**63 - 1),
    st.none() | st.sampled_from(["", "on", "off"]),
)


@st.composite
def blocks(draw: st.DrawFn) -> Blocks:
    """Blocks that follow each other; the times of a slot's readings never fall, and often are equal."""
    now = [1_700_000_000_000_000, -3, 0, -(2**61)]
    drawn = []
    for size in draw(st.lists(st.integers(0, 40), max_size=5)):
        block = []
        for _ in range(size):
            slot = draw(st.integers(0, SLOTS - 1))
            now[slot] += draw(STEPS)
            block.append(Reading(slot, now[slot], *(draw(field) for field in FIELDS)))
        drawn.append(sorted(block, key=lambda reading: reading.slot))
    return drawn


def columns_of(readings: list[Reading]) -> dict[str, Column]:
    columns = {}
    for name, dtype, blank in (("load", np.float64, math.nan), ("meter", np.int64, 0), ("mode", object, "")):
        values = [getattr(reading, name) for reading in readings]
        present = np.array([value is not None for value in values], np.bool_)
        filled = as_array([blank if value is None else value for value in values], dtype)
        columns[name] = Column(filled, None if present.all() else present)
    return columns


def slots_of(readings: list[Reading]) -> np.ndarray:
    return np.array([reading.slot for reading in readings], np.int64)


def times_of(readings: list[Reading]) -> np.ndarray:
    return np.array([reading.ts_us for reading in readings], np.int64)


def closed_by_block(sliding: Sliding, blocks: Blocks, more: int = 0) -> list[tuple[Reading, int, int, dict[str, Any]]]:
    """Each reading and the window it closes: start, end, results. ``more`` older readings than needed are kept."""
    kept: list[Reading] = []
    closed = []
    for block in blocks:
        both = sorted([(reading, False) for reading in kept] + [(reading, True) for reading in block], key=_by_slot)
        readings, fresh = [reading for reading, _ in both], np.array([is_new for _, is_new in both], np.bool_)
        slots, ts_us = slots_of(readings), times_of(readings)
        found = sliding.results(slots, ts_us, columns_of(readings), fresh)
        closed += zip(block, *_rows(found), strict=True)
        tail = sliding.tail(slots, ts_us)
        older = np.flatnonzero(~tail)
        tail[older[len(older) - min(more, len(older)) :]] = True
        kept = [reading for reading, stays in zip(readings, tail.tolist(), strict=True) if stays]
    return closed


def _by_slot(pair: tuple[Reading, bool]) -> int:
    return pair[0].slot


def _rows(closed: Closed) -> tuple[list[int], list[int], list[dict[str, Any]]]:
    rows = [dict(zip(closed.results, row, strict=True)) for row in zip(*closed.results.values(), strict=True)]
    return closed.starts_us.tolist(), closed.ends_us.tolist(), rows


def expected(window: list[Reading]) -> dict[str, Any]:
    """What is said of a window, value by value."""
    said: dict[str, Any] = {"count": len(window)}
    for measure in MEASURES:
        timed = [(r.ts_us, getattr(r, measure.field)) for r in window if getattr(r, measure.field) is not None]
        values = [value for _, value in timed]
        for aggregate in measure.aggregates:
            said[f"{measure.field}_{aggregate}"] = _expected(aggregate, timed, values, len(window))
    return said


def _expected(aggregate: str, timed: list[tuple[int, Any]], values: list[Any], n: int) -> Any:  # noqa: PLR0911 - one return a kind of aggregate
    counts = {"count": len(values), "missing": n - len(values), "distinct": len(set(values))}
    if aggregate in counts:
        return counts[aggregate]
    if not values:
        return None
    if aggregate in ("p50", "p99"):
        return sorted(values)[math.ceil({"p50": 0.5, "p99": 0.99}[aggregate] * len(values)) - 1]
    if aggregate in ("min", "max", "range"):
        return {"min": min(values), "max": max(values), "range": max(values) - min(values)}[aggregate]
    if aggregate in ("first", "last"):
        at = timed[0][0] if aggregate == "first" else timed[-1][0]
        level = [value for ts_us, value in timed if ts_us == at]
        return min(level) if aggregate == "first" else max(level)
    if aggregate == "variance":
        return float(statistics.pvariance([Fraction(value) for value in values]))
    span = timed[-1][0] - timed[0][0]
    rise = sum(after if after < before else after - before for before, after in pairwise(values))
    if aggregate == "rate":
        return rise * 1_000_000 / span if span else None
    if aggregate == "time_weighted_mean":
        area = sum(Fraction(a + b) / 2 * (upto - since) for (since, a), (upto, b) in pairwise(timed))
        return float(area / span if span else Fraction(values[0] + values[-1]) / 2)
    total = {"sum": sum(values), "mean": sum(values) / len(values), "delta": rise}[aggregate]
    return total if isinstance(total, float) or -(2**63) <= total < 2**63 else None


def one_by_one(blocks: Blocks, size_us: int) -> list[tuple[Reading, int, int, dict[str, Any]]]:
    seen: dict[int, list[Reading]] = {slot: [] for slot in range(SLOTS)}
    closed = []
    for block in blocks:
        for reading in block:
            mine = seen[reading.slot]
            mine.append(reading)
            start_us = reading.ts_us - size_us
            window = [other for other in mine if other.ts_us > start_us]
            closed.append((reading, start_us, reading.ts_us, expected(window)))
    return closed


def assert_same(found: list[tuple[Reading, int, int, dict[str, Any]]], right: list[Any]) -> None:
    assert [row[:3] for row in found] == [row[:3] for row in right]
    for (*_, said), (*_, wanted) in zip(found, right, strict=True):
        assert list(said) == list(wanted)
        for name, value in wanted.items():
            if name == "meter_time_weighted_mean" and value is not None:
                # The trapezoids are added up as floats: exact to the size of the greatest, not of their sum.
                assert said[name] == pytest.approx(value, rel=1e-9, abs=2**63 * 1e-9)
            elif isinstance(value, float):
                assert said[name] == pytest.approx(value, rel=1e-12, abs=1e-9)
            else:
                assert (type(said[name]), said[name]) == (type(value), value), name


@given(blocks(), st.integers(1, 60), st.integers(0, 5))
def test_windows_in_any_blocks_are_those_of_one_reading_at_a_time(blocks: Blocks, size_us: int, more: int) -> None:
    sliding = Sliding(size_us, Aggregates(MEASURES, sketches=False))

    assert_same(closed_by_block(sliding, blocks, more), one_by_one(blocks, size_us))


@given(blocks(), st.integers(1, 60), st.data())
def test_cut_anywhere_into_more_blocks_the_windows_are_the_same(
    blocks: Blocks, size_us: int, data: st.DataObject
) -> None:
    sliding = Sliding(size_us, Aggregates(MEASURES, sketches=False))
    whole = sorted(chain.from_iterable(blocks), key=lambda reading: reading[:2])
    cut: Blocks = [[], [], [], []]
    for _, grouped in groupby(whole, lambda reading: reading.slot):
        readings = list(grouped)
        places = sorted(data.draw(st.lists(st.integers(0, len(readings)), min_size=3, max_size=3)))
        for block, (begin, end) in zip(cut, pairwise([0, *places, len(readings)]), strict=True):
            block += readings[begin:end]

    found = sorted(closed_by_block(sliding, cut), key=lambda row: row[0][:2])
    assert_same(found, closed_by_block(sliding, [whole]))


@pytest.mark.parametrize("size_us", [1, 7, 500, 2_000, 1_000_000])
@pytest.mark.parametrize("slots", [1, 3, 500])
def test_long_and_short_runs_have_the_windows_of_one_reading_at_a_time(slots: int, size_us: int) -> None:
    rng = np.random.default_rng(slots + size_us)
    of = np.sort(rng.integers(0, slots, 1_500))
    ts_us = np.sort(rng.integers(0, 5_000, 1_500))[np.lexsort((np.arange(1_500), of))]
    order = np.lexsort((ts_us, of))
    of, ts_us, loads = of[order], ts_us[order], rng.normal(size=1_500)
    fresh = np.array([ts >= 3_000 for ts in ts_us])
    measure = Measure("load", "float", ("sum", "min", "max"))

    closed = Sliding(size_us, Aggregates([measure], sketches=False)).results(of, ts_us, {"load": Column(loads)}, fresh)

    windows = [
        loads[(of == of[place]) & (ts_us > ts_us[place] - size_us) & (np.arange(1_500) <= place)]
        for place in np.flatnonzero(fresh)
    ]
    assert closed.results["count"].tolist() == [len(window) for window in windows]
    assert closed.results["load_min"].tolist() == [window.min() for window in windows]
    assert closed.results["load_max"].tolist() == [window.max() for window in windows]
    assert closed.results["load_sum"].tolist() == pytest.approx(
        [math.fsum(window) for window in windows], rel=1e-12, abs=1e-12
    )


def test_a_great_value_that_has_left_the_window_leaves_no_error_behind() -> None:
    loads = np.array([1e18] + [0.1] * 99)
    sliding = Sliding(10, Aggregates([Measure("load", "float", ("sum",))], sketches=False))

    closed = sliding.results(np.zeros(100, np.int64), np.arange(100), {"load": Column(loads)}, np.ones(100, np.bool_))

    assert closed.results["load_sum"].tolist()[10:] == pytest.approx([1.0] * 90, rel=1e-15)


def test_readings_of_one_time_are_in_the_windows_of_those_that_arrived_after_them() -> None:
    sliding = Sliding(10, Aggregates([Measure("load", "float", ("sum",))], sketches=False))
    ts_us, loads = np.array([90, 100, 100, 100, 110]), np.array([1.0, 2.0, 4.0, 8.0, 16.0])

    closed = sliding.results(np.zeros(5, np.int64), ts_us, {"load": Column(loads)}, ts_us >= 100)

    # The one at 90 is a whole size before 100, and so are those at 100 before 110.
    assert closed.results["count"].tolist() == [1, 2, 3, 1]
    assert closed.results["load_sum"].tolist() == [2.0, 6.0, 14.0, 16.0]
    assert closed.starts_us.tolist() == [90, 90, 90, 100]
    assert closed.ends_us.tolist() == [100, 100, 100, 110]


def test_without_measures_readings_are_counted() -> None:
    closed = Sliding(10, Aggregates([], sketches=False)).results(
        np.array([0, 0, 1]), np.array([1, 5, 3]), {}, np.array([False, True, True])
    )

    assert {name: column.tolist() for name, column in closed.results.items()} == {"count": [2, 1]}


@pytest.mark.parametrize("n", [0, 3])
def test_without_new_readings_no_window_closes(n: int) -> None:
    sliding = Sliding(10, Aggregates(MEASURES, sketches=False))
    readings = [Reading(0, ts_us, None, None, None) for ts_us in range(n)]

    closed = sliding.results(slots_of(readings), times_of(readings), columns_of(readings), np.zeros(n, np.bool_))

    assert len(closed.starts_us) == len(closed.ends_us) == 0
    assert list(closed.results) == list(expected([]))
    assert not any(map(len, closed.results.values()))


def test_an_older_reading_behind_a_new_one_is_refused() -> None:
    sliding = Sliding(10, Aggregates([], sketches=False))

    with pytest.raises(ValueError, match="behind"):
        sliding.results(np.array([0, 0]), np.array([1, 2]), {}, np.array([True, False]))


def test_the_tail_is_what_a_reading_still_to_come_may_have_in_its_window() -> None:
    sliding = Sliding(10, Aggregates([], sketches=False))
    slots, ts_us = np.array([0, 0, 0, 1, 2, 2]), np.array([90, 91, 100, 5, 7, 7])

    assert sliding.tail(slots, ts_us).tolist() == [False, True, True, True, True, True]
    assert sliding.tail(slots, ts_us, np.array([0, 15, 16])).tolist() == [False, True, True, False, True, True]
    assert sliding.tail(slots[:0], ts_us[:0]).tolist() == []
