"""Panes and windows: on a plain axis and in time zones, against references that walk along and count."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headrace.pipeline.zones import DAY, HOUR, mistake
from processors.windows.time.alignment import NO_END, Alignment, Fixed
from processors.windows.time.zoned import Zoned

MINUTE = 60_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Window = tuple[int, int]


def array(places: Iterable[int]) -> np.ndarray:
    return np.array(list(places), np.int64)


def us(text: str, zone: str = "UTC") -> int:
    return (datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)) - EPOCH) // timedelta(microseconds=1)


def holds(alignment: Alignment, places: list[int], after: list[int], upto: list[int], windows: list[Window]) -> None:
    """The alignment says of these places what the list of all windows around them says."""
    panes = alignment.panes(array(places))
    assert panes.dtype == np.int64
    assert alignment.panes(panes).tolist() == panes.tolist()
    around = [[w for w in windows if w[0] <= place < w[1]] for place in places]
    for place, pane, inside in zip(places, panes.tolist(), around, strict=True):
        assert pane <= place
        assert [w for w in windows if w[0] <= pane < w[1]] == inside
        # Between the pane's start and the place nothing starts or ends.
        assert not [bound for w in windows for bound in w if pane < bound <= place]
        assert any(pane in w for w in windows)
    assert alignment.last_end(panes).tolist() == [max(end for _, end in inside) for inside in around]
    ending = [
        sorted(w for w in inside if low < w[1] <= high) for inside, low, high in zip(around, after, upto, strict=True)
    ]
    later = [[end for _, end in inside if end > low] for inside, low in zip(around, after, strict=True)]
    assert alignment.first_end(panes, array(after)).tolist() == [min(ends, default=NO_END) for ends in later]
    which, starts, ends = alignment.windows(panes, array(after), array(upto))
    assert which.dtype == starts.dtype == ends.dtype == np.int64
    assert list(zip(which.tolist(), starts.tolist(), ends.tolist(), strict=True)) == [
        (place, *window) for place, found in enumerate(ending) for window in found
    ]
    assert all(end - start <= alignment.longest for start, end in windows)
    assert alignment.overlapping or all(len(inside) == 1 for inside in around)


def fixed_windows(size: int, step: int, offset: int, low: int, high: int) -> list[Window]:
    """Every window that holds one of the places from ``low`` to ``high``, found by trying all starts."""
    return [(at, at + size) for at in range(low - size, high + size + 1) if (at - offset) % step == 0]


@st.composite
def fixed(draw: st.DrawFn) -> Fixed:
    step = draw(st.integers(1, 12))
    return Fixed(draw(st.integers(step, 40)), step, draw(st.integers(-5, 30)))


bounds = st.integers(-90, 90) | st.sampled_from([-(2**62), 2**62, -(2**63), 2**63 - 1])
asked = st.lists(st.tuples(st.integers(-50, 50), bounds, bounds), max_size=12)


@given(fixed(), asked)
@example(Fixed(10, 3), [(place, -(2**62), 2**62) for place in range(-12, 12)])
@example(Fixed(7, 2), [(place, 0, 2**63 - 1) for place in range(-12, 12)])
@example(Fixed(5, 5), [(place, place, place + 5) for place in range(-12, 12)])
@example(Fixed(5, 5), [(3, after, upto) for after in range(3, 7) for upto in range(3, 7)])
@example(Fixed(10, 1), [(place, place + 3, place + 4) for place in range(-12, 12)])
@example(Fixed(10, 4, 3), [(place, -(2**63), 2**63 - 1) for place in range(-12, 12)])
def test_fixed_windows_are_those_found_by_trying_all_starts(
    alignment: Fixed, asked_for: list[tuple[int, int, int]]
) -> None:
    at, after, upto = ([triple[i] for triple in asked_for] for i in range(3))
    windows = fixed_windows(alignment.size, alignment.step, alignment.offset, -100, 100)
    holds(alignment, at, after, upto, windows)


@given(fixed())
def test_panes_tile_the_axis_and_are_at_most_two_a_step(alignment: Fixed) -> None:
    places = array(range(-120, 120))
    panes = alignment.panes(places)
    assert (np.diff(panes) >= 0).all()
    assert ((panes == places) | (panes == np.append(panes[0], panes[:-1]))).all()
    windows = fixed_windows(alignment.size, alignment.step, alignment.offset, -120, 120)
    cuts = {bound for window in windows for bound in window}
    assert set(np.unique(panes)[1:].tolist()) == {cut for cut in cuts if panes[0] < cut < 120}


def test_a_tumbling_pane_is_its_window_and_none_overlaps() -> None:
    assert not Fixed(10, 10).overlapping
    assert Fixed(10, 5).overlapping
    assert not Zoned("Europe/Paris", DAY, DAY).overlapping
    assert Zoned("Europe/Paris", DAY, HOUR).overlapping


def test_real_times_before_and_after_the_epoch() -> None:
    at = array([us("1969-12-31T23:59:59.999999"), us("2026-11-20T12:00:09.999999"), us("2026-11-20T12:00:10")])
    ten = Fixed(10_000_000, 10_000_000)
    assert ten.panes(at).tolist() == [-10_000_000, us("2026-11-20T12:00:00"), us("2026-11-20T12:00:10")]


@pytest.mark.parametrize(("size", "step"), [(5, 0), (5, -1), (5, 6), (0, 0)])
def test_a_step_of_nothing_or_beyond_the_size_is_refused(size: int, step: int) -> None:
    with pytest.raises(ValueError, match="the step is to be above 0, at most the size"):
        Fixed(size, step)


TRANSITIONS = {
    "Europe/Paris": ["2026-03-29", "2026-10-25", "1991-03-31"],
    "Australia/Lord_Howe": ["2026-04-05", "2026-10-04"],
    "Asia/Kathmandu": ["2026-01-01", "1986-01-01"],
    "America/Santiago": ["2026-04-05", "2026-09-06"],
    "Asia/Beirut": ["2026-03-29", "2026-10-25"],
    "America/Havana": ["2026-03-08", "2026-11-01"],
    "America/St_Johns": ["2010-11-07", "2010-03-14"],
    "Antarctica/Troll": ["2026-03-29", "2026-10-25"],
    "Antarctica/Casey": ["2010-03-05", "2019-10-04"],
    "Pacific/Apia": ["2011-12-30", "2011-09-24"],
    "Pacific/Kwajalein": ["1969-09-30", "1993-08-21"],
    "America/New_York": ["2026-11-01"],
    "Asia/Gaza": ["2040-10-13"],
    "UTC": ["1970-01-01", "1969-12-31"],
}
CASES = [(zone, day) for zone, days in TRANSITIONS.items() for day in days]
STEPS = [1, 2, 3, 4, 6, 8, 12, 24, 48, 72]


@lru_cache(maxsize=256)
def zoned_windows(alignment: Zoned, low: int, high: int) -> list[Window]:
    """All windows that hold a place from ``low`` to ``high``, found by looking at the clocks minute by minute.

    For zones that are whole minutes from UTC, and offsets of whole minutes.
    """
    clock, size = ZoneInfo(alignment.zone), alignment.size
    slack = size + alignment.step + 3 * DAY
    begin = (low - slack) // MINUTE * MINUTE
    first_shown: dict[int, int] = {}
    before = reckoned = offset_at(begin, clock)
    furthest = begin + reckoned - MINUTE
    for at in range(begin, high + slack, MINUTE):
        now = offset_at(at, clock)
        if (now - before) % size:
            reckoned += now - before
        before = now
        while furthest < at + reckoned:
            furthest += MINUTE
            first_shown[furthest] = at
    by_start = {}
    for local, start in first_shown.items():
        if (local - alignment.offset) % alignment.step == 0 and local + size in first_shown:
            by_start[start] = (start, first_shown[local + size])
    return sorted(by_start.values())


def offset_at(at: int, clock: ZoneInfo) -> int:
    return (EPOCH + timedelta(microseconds=at)).astimezone(clock).utcoffset() // timedelta(microseconds=1)


@st.composite
def zoned(draw: st.DrawFn) -> tuple[Zoned, int, int]:
    """An alignment, and from when to when its places are asked for."""
    zone, day = draw(st.sampled_from(CASES))
    step = draw(st.sampled_from(STEPS)) * HOUR
    size = step * draw(st.sampled_from([n for n in (1, 2, 3, 24) if n * step <= 3 * DAY]))
    offset = draw(st.sampled_from([0, 0, 30, 45, 90, 24 * 60, -60])) * MINUTE
    middle = us(day)
    return Zoned(zone, size, step, offset), middle - 36 * HOUR, middle + 60 * HOUR


@pytest.mark.slow
@given(zoned(), st.data())
def test_zoned_windows_are_those_the_zones_clocks_show(case: tuple[Zoned, int, int], data: st.DataObject) -> None:
    alignment, low, high = case
    windows = zoned_windows(alignment, low, high)
    place = st.integers(low, high) | st.integers(0, (high - low) // HOUR).map(lambda hours: low + hours * HOUR)
    bound = place | st.sampled_from([-(2**62), 2**62, 2**63 - 1, -(2**63)])
    triples = data.draw(st.lists(st.tuples(place, bound, bound), max_size=20))
    at, after, upto = ([triple[i] for triple in triples] for i in range(3))
    holds(alignment, at, after, upto, windows)


@pytest.mark.parametrize(("zone", "day"), CASES)
@pytest.mark.parametrize("step", [1, 3, 24, 48])
def test_around_a_shift_panes_tile_the_axis_as_the_clocks_show(zone: str, day: str, step: int) -> None:
    alignment = Zoned(zone, step * HOUR, step * HOUR)
    low, high = us(day) - 36 * HOUR, us(day) + 60 * HOUR
    windows = zoned_windows(alignment, low, high)
    assert all(one[1] == following[0] for one, following in pairwise(windows))
    assert all(start < end for start, end in windows)
    places = array(range(low, high, 5 * MINUTE))
    panes = alignment.panes(places)
    ends = alignment.last_end(panes)
    assert ((panes <= places) & (places < ends)).all()
    touched = {(start, end) for start, end in windows if start <= places[-1] and low < end}
    assert set(zip(panes.tolist(), ends.tolist(), strict=True)) == touched


@pytest.mark.parametrize(("zone", "day"), CASES)
@pytest.mark.parametrize(("size", "step"), [(24, 1), (2, 1), (48, 24)])
def test_around_a_shift_hopping_windows_are_from_a_local_time_to_another(
    zone: str, day: str, size: int, step: int
) -> None:
    alignment = Zoned(zone, size * HOUR, step * HOUR)
    at = list(range(us(day) - 36 * HOUR, us(day) + 60 * HOUR, 50 * MINUTE))
    windows = zoned_windows(alignment, at[0], at[-1])
    holds(alignment, at, [-(2**62)] * len(at), [2**62] * len(at), windows)


@pytest.mark.slow
# Where one table ends and the next begins: any edge; a shift four days after it; one the day after it.
@pytest.mark.parametrize(("zone", "edge"), [("Europe/Paris", 51), ("Europe/Paris", 28), ("America/Santiago", 19)])
@pytest.mark.parametrize(("size", "step"), [(1, 1), (24, 6), (480, 24)])
def test_batches_across_the_edge_of_a_table_are_seamless(zone: str, edge: int, size: int, step: int) -> None:
    alignment = Zoned(zone, size * HOUR, step * HOUR)
    low, high = (edge << 45) - 3 * DAY, (edge << 45) + 3 * DAY
    windows = zoned_windows(alignment, low, high)
    at = list(range(high, low, -7 * HOUR)) + list(range(low, high, 11 * HOUR))
    holds(alignment, at, [place - 5 * HOUR for place in at], [place + DAY for place in at], windows)
    holds(alignment, at, [-(2**62)] * len(at), [2**62] * len(at), windows)


@pytest.mark.parametrize("zone", [*TRANSITIONS, "Africa/Casablanca", "Asia/Tehran", "Pacific/Chatham", "Asia/Kolkata"])
def test_days_are_from_local_midnight_to_local_midnight(zone: str) -> None:
    clock, first, last = ZoneInfo(zone), date(1965, 1, 1), date(2045, 1, 1)
    days = [first + timedelta(days=n) for n in range((last - first).days)]
    # Of a time that is skipped, fold 0 has the offset of before, by which midnight is the jump.
    midnights = {int(datetime(d.year, d.month, d.day, tzinfo=clock).timestamp()) * 1_000_000 for d in days}
    last_midnight = max(midnights)
    places = array([*range(min(midnights), last_midnight, HOUR), last_midnight])
    assert set(Zoned(zone, DAY, DAY).panes(places).tolist()) == midnights


@pytest.mark.parametrize("zone", ["Europe/Paris", "America/New_York", "America/Santiago", "Africa/Casablanca"])
def test_hours_are_hours_through_all_shifts_by_whole_hours(zone: str) -> None:
    places = array(range(us("1980-01-01"), us("2045-01-01"), HOUR))
    assert (Zoned(zone, HOUR, HOUR).panes(places) == places).all()
    half_past = places + HOUR // 2
    assert (Zoned(zone, HOUR, HOUR, 30 * MINUTE).panes(half_past) == half_past).all()


def test_a_day_that_hops_by_the_hour_is_once_a_day_that_day() -> None:
    days = Zoned("Europe/Paris", DAY, DAY)
    hopping = Zoned("Europe/Paris", DAY, HOUR)
    for noon in ("2026-03-28", "2026-03-29", "2026-10-25", "2026-10-26"):
        pane = hopping.panes(array([us(noon + "T12:00")]))
        _, starts, ends = hopping.windows(pane, array([-(2**62)]), array([2**62]))
        day = days.panes(pane)
        assert (int(day[0]), int(days.last_end(day)[0])) in set(zip(starts.tolist(), ends.tolist(), strict=True))


def test_a_day_of_six_hour_steps_is_from_a_local_time_to_the_same() -> None:
    zone = "Europe/Paris"
    hopping = Zoned(zone, DAY, 6 * HOUR)
    pane = hopping.panes(array([us("2026-10-25T13:00", zone)]))
    _, starts, ends = hopping.windows(pane, array([-(2**62)]), array([2**62]))
    expected = [("24T18:00", "25T18:00"), ("25T00:00", "26T00:00"), ("25T06:00", "26T06:00"), ("25T12:00", "26T12:00")]
    assert list(zip(starts.tolist(), ends.tolist(), strict=True)) == [
        (us("2026-10-" + start, zone), us("2026-10-" + end, zone)) for start, end in expected
    ]


def test_weeks_begin_on_the_day_that_the_offset_says() -> None:
    weeks = Zoned("Europe/Paris", 7 * DAY, 7 * DAY, 4 * DAY)
    week = weeks.panes(array([us("2026-03-29T23:59", "Europe/Paris"), us("2026-03-30", "Europe/Paris")]))
    assert week.tolist() == [us("2026-03-23", "Europe/Paris"), us("2026-03-30", "Europe/Paris")]


def test_before_zones_were_whole_minutes_the_clocks_are_followed_to_the_second() -> None:
    # Paris was 9 min 21 s ahead, and set back by these at midnight of 1911-03-11 (00:00 became 23:50:39).
    days = Zoned("Europe/Paris", DAY, DAY)
    pane = days.panes(array([us("1911-03-10T12:00")]))
    assert pane.tolist() == [us("1911-03-09T23:50:39")]
    assert days.last_end(pane).tolist() == [us("1911-03-11T00:00:00")]


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5), st.sampled_from([1, 24, 48]))
@example([us("0001-01-01"), us("9999-12-31T23:59:59.999999"), -(2**63), 2**63 - 1], 24)
def test_any_place_at_all_is_in_a_pane(places: list[int], step: int) -> None:
    for zone in ("America/New_York", "Pacific/Apia"):
        alignment = Zoned(zone, 2 * step * HOUR, step * HOUR)
        panes = alignment.panes(array(places))
        inside = array(places).clip(-(2**61), 2**61)
        assert (panes <= inside).all()
        assert (inside < alignment.last_end(panes)).all()
        assert (alignment.panes(panes) == panes).all()
        assert ((alignment.panes(panes - 1) < panes) | (panes < -(2**61))).all()


def test_from_year_1_to_year_9999_days_leave_no_gap() -> None:
    for zone in ("Europe/Paris", "Pacific/Apia"):
        alignment = Zoned(zone, DAY, DAY)
        for around in ("0001-01-05", "1582-10-15", "1892-07-04", "9999-12-28"):
            places = array(range(us(around) - 30 * DAY, us(around) + 30 * DAY, HOUR))
            panes = np.unique(alignment.panes(places))
            assert (alignment.last_end(panes)[:-1] == panes[1:]).all()
            assert set(np.diff(panes).tolist()) <= {DAY}


def test_alignments_are_equal_and_written_by_what_they_are_declared_with() -> None:
    one, other = Zoned("Europe/Paris", DAY, HOUR), Zoned("Europe/Paris", DAY, HOUR)
    one.panes(array([0]))
    assert one == other
    assert hash(one) == hash(other)
    assert repr(one) == "Zoned(zone='Europe/Paris', size=86400000000, step=3600000000, offset=0)"
    assert one != Zoned("Europe/Berlin", DAY, HOUR)


def test_no_places_give_no_panes() -> None:
    none = array([])
    for alignment in (Fixed(10, 4), Fixed(10, 10, 3), Zoned("Europe/Paris", DAY, HOUR)):
        assert len(alignment.panes(none)) == len(alignment.last_end(none)) == len(alignment.first_end(none, none)) == 0
        assert [len(part) for part in alignment.windows(none, none, none)] == [0, 0, 0]


@pytest.mark.parametrize(
    ("zone", "size", "step", "problem", "fix"),
    [
        ("Mars/Olympus", DAY, DAY, "is no time zone", "Europe/Paris"),
        ("../etc/passwd", DAY, DAY, "is no time zone", "Europe/Paris"),
        ("", DAY, DAY, "is no time zone", "Europe/Paris"),
        ("Europe/Paris", 15 * MINUTE, 15 * MINUTE, "shorter than an hour", "leave the zone out: 15m"),
        ("Europe/Paris", 20 * MINUTE, 20 * MINUTE, "shorter than an hour", "write 1h, or leave the zone out"),
        ("Europe/Paris", DAY, 5 * HOUR, "do not divide a day", "6h, 8h"),
        ("Europe/Paris", 36 * HOUR, 36 * HOUR, "do not divide a day", "whole days"),
        ("Europe/Paris", 90 * MINUTE, 90 * MINUTE, "do not divide a day", "whole days"),
        ("Europe/Paris", 12 * HOUR, 8 * HOUR, "no multiple of its step", "8h or 16h"),
        ("Europe/Paris", HOUR, DAY, "are none", "at most the size"),
        ("Europe/Paris", 0, 0, "are none", "above 0"),
    ],
)
def test_what_cannot_follow_a_zone_is_refused_with_what_to_write(
    zone: str, size: int, step: int, problem: str, fix: str
) -> None:
    found = mistake(zone, size, step)
    assert found is not None
    assert problem in found[0]
    assert fix in found[1]
    with pytest.raises(ValueError, match=r"write|leave"):
        Zoned(zone, size, step)


@pytest.mark.parametrize("step", STEPS)
def test_what_divides_a_day_or_is_whole_days_is_accepted(step: int) -> None:
    assert mistake("Asia/Kathmandu", step * HOUR, step * HOUR) is None
    assert mistake("Asia/Kathmandu", 3 * step * HOUR, step * HOUR) is None
