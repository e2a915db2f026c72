"""Hopping, sliding, session, state, count and event windows: named situations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from window_readings import FOR_EVER_US, SECOND, Tick, at
from window_situations import WHOLE_AND_CUT, counted, read, said, windows

# ---- hopping

HOPPING = 'kind = "hopping", size = "10s", step = "5s"'


def test_a_reading_is_in_each_hopping_window_that_holds_its_time() -> None:
    driver = windows(HOPPING)
    driver.read([read("a", 1, energy=1), read("a", 7, energy=2), read("a", 12, energy=4)])
    assert said(driver, "energy_sum", "end") == {("a", -5.0): (1, 5.0), ("a", 0.0): (3, 10.0)}
    driver.tick(Tick(FOR_EVER_US))
    assert said(driver, "energy_sum") == {("a", -5.0): 1, ("a", 0.0): 3, ("a", 5.0): 6, ("a", 10.0): 4}
    # Each reading is windowed once, and counted in both of its windows.
    assert counted(driver) == {"read": 3, "windowed": 3, "closed": 4, "in_closed": 6}


def test_a_step_that_does_not_divide_the_size_gives_windows_of_different_numbers_of_steps() -> None:
    driver = windows('kind = "hopping", size = "10s", step = "4s"')
    driver.read([read("a", second) for second in (0, 1.5, 2, 3.9, 4, 9.9)])
    driver.tick(Tick(FOR_EVER_US))
    assert said(driver, "count") == {("a", -8.0): 2, ("a", -4.0): 5, ("a", 0.0): 6, ("a", 4.0): 2, ("a", 8.0): 1}


def test_an_offset_moves_all_windows() -> None:
    driver = windows('kind = "hopping", size = "10s", step = "5s", offset = "2s"')
    driver.read([read("a", 2), read("a", 6.9), read("a", 7), read("a", 12)])
    assert said(driver, "count", "end") == {("a", -3.0): (2, 7.0), ("a", 2.0): (3, 12.0)}


def test_a_reading_in_time_for_some_of_its_windows_is_missing_from_those_that_have_closed() -> None:
    for cuts in WHOLE_AND_CUT:
        driver = windows(HOPPING).run([read("a", 1), read("a", 10), read("a", 9), read("a", 4), read("a", 20)], cuts)
        assert said(driver, "count") == {("a", -5.0): 1, ("a", 0.0): 1, ("a", 5.0): 2, ("a", 10.0): 1}
        assert counted(driver)["late"] == 1


def test_a_window_that_was_passed_before_its_first_reading_came_never_speaks() -> None:
    driver = windows(HOPPING)
    driver.read([read("a", 11)])
    driver.read([read("a", 8)])
    driver.tick(Tick(FOR_EVER_US))
    assert said(driver, "count") == {("a", 5.0): 2, ("a", 10.0): 1}


def test_hopping_windows_of_aggregates_in_order_hold_readings_back_until_their_grace_is_over() -> None:
    driver = windows(HOPPING, aggregates={"energy": ["delta"]}, grace="3s")
    driver.read([read("a", 1, energy=1), read("a", 9, energy=9), read("a", 6, energy=5), read("a", 10, energy=2)])
    assert driver.windowed.gauges["waiting"] == 2
    driver.read([read("a", 13, energy=4), read("a", 9.5, energy=10), read("a", 18, energy=5)])
    # The reading of 9.5 s came when 10 s (13 less the grace) had been released.
    assert counted(driver)["late"] == 1
    assert said(driver, "energy_delta") == {("a", -5.0): 0, ("a", 0.0): 8, ("a", 5.0): 4 + 2 + 2}


# ---- sliding


def test_each_reading_closes_a_sliding_window_from_after_its_start_up_to_itself() -> None:
    driver = windows('kind = "sliding", size = "5s"')
    driver.read([read("a", 0, energy=1), read("a", 5, energy=2), read("a", 9.999999, energy=4)])
    driver.read([read("a", 10, energy=8), read("b", 10, energy=16)])
    assert said(driver, "energy_sum", "count", "end") == {
        ("a", -5.0): (1, 1, 0.0),
        ("a", 0.0): (2, 1, 5.0),
        ("a", 4.999999): (6, 2, 9.999999),
        ("a", 5.0): (12, 2, 10.0),
        ("b", 5.0): (16, 1, 10.0),
    }


def test_batches_of_other_devices_between_change_nothing_of_what_a_sliding_window_holds() -> None:
    driver = windows('kind = "sliding", size = "5s"')
    for second in range(6):
        driver.read([read("a", second), read("b", second)] if second % 3 == 0 else [read("ab"[second % 2], second)])
    assert said(driver, "count") == {
        ("a", -5.0): 1,
        ("a", -3.0): 2,
        ("a", -2.0): 3,
        ("a", -1.0): 4,
        ("b", -5.0): 1,
        ("b", -4.0): 2,
        ("b", -2.0): 3,
        ("b", 0.0): 3,
    }


def test_a_sliding_window_waits_for_the_grace_and_takes_readings_in_order_of_time() -> None:
    driver = windows('kind = "sliding", size = "5s"', grace="2s")
    assert driver.read([read("a", 3, note="c"), read("a", 1, note="a"), read("a", 2, note="b")]) != {}
    assert said(driver, "count") == {("a", -4.0): 1}
    driver.read([read("a", 5)])
    assert said(driver, "count", "note_first", "note_last")["a", -2.0] == (3, "a", "c")


def test_of_readings_of_one_time_in_a_group_the_last_ones_window_speaks() -> None:
    driver = windows('kind = "sliding", size = "5s"', by="[]")
    driver.read([read("b", 1, note="b"), read("a", 1, note="a"), read("a", 2), read("b", 2)])
    driver.tick(Tick(FOR_EVER_US))
    assert said(driver, "count", "note_count") == {("all", -4.0): (2, 2), ("all", -3.0): (4, 2)}
    assert counted(driver) == {"read": 4, "windowed": 4, "closed": 2, "in_closed": 6}


# ---- session


def test_readings_a_gap_apart_are_in_one_session_and_beyond_it_in_two() -> None:
    driver = windows('kind = "session", gap = "3s"')
    driver.read([read("a", 0), read("a", 3), read("a", 6), read("a", 9.000001), read("a", 20)])
    assert said(driver, "count", "end") == {("a", 0.0): (3, 6.0), ("a", 9.000001): (1, 9.000001)}


def test_a_session_ends_when_its_gap_and_grace_have_passed_without_a_reading() -> None:
    driver = windows('kind = "session", gap = "3s"', grace="2s", idle="10s")
    driver.read([read("a", 0), read("b", 0)])
    assert driver.read([read("b", second) for second in (5, 8, 11, 14, 15)]) == {
        ("b", at(0)): driver.closed["b", at(0)]
    }
    # b has gone on to 15 s, less idle, grace and gap: that is where a's only reading is.
    assert driver.read([read("b", 15.000001)]) == {("a", at(0)): driver.closed["a", at(0)]}


def test_a_session_is_no_longer_than_its_longest() -> None:
    driver = windows('kind = "session", gap = "3s", longest = "6s"')
    driver.read([read("a", second) for second in (0, 2, 4, 5.999999, 8, 10, 13.9, 14, 30)])
    assert said(driver, "count", "end") == {
        ("a", 0.0): (4, 5.999999),
        ("a", 8.0): (2, 10.0),
        ("a", 13.9): (2, 14.0),
    }


@pytest.mark.parametrize("cuts", WHOLE_AND_CUT)
def test_a_reading_within_the_grace_bridges_what_would_have_been_two_sessions(cuts: Sequence[int]) -> None:
    driver = windows('kind = "session", gap = "3s"', grace="4s")
    driver.run([read("a", 0, note="x"), read("a", 5, note="z"), read("a", 2.5, note="y"), read("a", 20)], cuts)
    assert said(driver, "count", "end", "note_first", "note_last") == {("a", 0.0): (3, 5.0, "x", "z")}


# ---- state


@pytest.mark.parametrize(
    ("field", "values"), [("note", ["x", "", "x"]), ("door", [True, False, True]), ("energy", [7, 0, -7])]
)
def test_a_state_window_lasts_as_long_as_the_field_keeps_its_value(field: str, values: list[Any]) -> None:
    driver = windows(f'kind = "state", field = "{field}"')
    one, two, three = values
    said_by = [one, one, two, three, three, three, one if one != three else two]
    for second, value in enumerate(said_by):
        driver.read([read("a", second, **{field: value})])
    assert said(driver, "count", "end", f"{field}_first") == {
        ("a", 0.0): (2, 1.0, one),
        ("a", 2.0): (1, 2.0, two),
        ("a", 3.0): (3, 5.0, three),
    }


def test_a_reading_without_the_field_is_in_no_state_window_and_ends_none() -> None:
    driver = windows('kind = "state", field = "note"')
    driver.read([read("a", 0, energy=9), read("a", 1, note="x", energy=1), read("a", 2, energy=9)])
    driver.read([read("a", 3, note="x", energy=2), read("a", 4, note="y")])
    assert said(driver, "count", "energy_sum", "end") == {("a", 1.0): (2, 3, 3.0)}
    assert counted(driver) == {"read": 5, "windowed": 3, "outside": 2, "closed": 1, "in_closed": 2}


def test_a_state_ends_with_its_groups_silence_and_begins_anew_with_the_same_value() -> None:
    driver = windows('kind = "state", field = "door"', idle="10s", grace="1s")
    driver.read([read("a", 0, door=True), read("b", 11, door=True)])
    assert driver.closed == {}
    driver.read([read("b", 11.000001, door=True)])
    assert said(driver, "count") == {("a", 0.0): 1}
    driver.read([read("a", 12, door=True), read("a", 14, door=False), read("a", 16, door=False)])
    assert said(driver, "count") == {("a", 0.0): 1, ("a", 12.0): 1}


def test_silence_within_a_batch_ends_a_state_as_between_batches() -> None:
    events = [read("a", 0, door=True), read("b", 20, door=True), read("a", 21, door=True), read("b", 50, door=False)]
    for cuts in WHOLE_AND_CUT:
        driver = windows('kind = "state", field = "door"', idle="10s").run([*events, Tick(FOR_EVER_US)], cuts)
        assert said(driver, "count") == {("a", 0.0): 1, ("a", 21.0): 1, ("b", 20.0): 1, ("b", 50.0): 1}


# ---- count


def test_a_count_window_speaks_with_the_reading_that_fills_it() -> None:
    driver = windows('kind = "count", count = 3')
    assert driver.read([read("a", 0), read("a", 1), read("b", 1)]) == {}
    driver.read([read("a", 2), read("a", 3), read("b", 4), read("b", 5)])
    assert said(driver, "count", "end") == {("a", 0.0): (3, 2.0), ("b", 1.0): (3, 5.0)}


def test_count_windows_with_a_step_overlap() -> None:
    driver = windows('kind = "count", count = 4, step = 2')
    driver.read([read("a", n, energy=n) for n in range(9)])
    assert said(driver, "energy_sum", "end") == {
        ("a", 0.0): (6, 3.0),
        ("a", 2.0): (14, 5.0),
        ("a", 4.0): (22, 7.0),
    }


def test_count_windows_that_silence_ends_speak_with_fewer_readings_and_counting_begins_anew() -> None:
    driver = windows('kind = "count", count = 3, step = 2', idle="10s")
    driver.read([read("a", n, energy=n) for n in range(4)])
    assert said(driver, "count") == {("a", 0.0): 3}
    driver.tick(Tick(11 * SECOND))
    assert said(driver, "count", "energy_sum") == {("a", 0.0): (3, 3), ("a", 2.0): (2, 5)}
    driver.read([read("a", 20), read("a", 21), read("a", 22)])
    assert said(driver, "count")["a", 20.0] == 3


def test_readings_out_of_order_are_counted_in_the_order_of_their_times() -> None:
    driver = windows('kind = "count", count = 2', grace="5s")
    driver.read([read("a", 3, note="d"), read("a", 1, note="b"), read("a", 0, note="a"), read("a", 2, note="c")])
    driver.read([read("a", 20)])
    assert said(driver, "note_first", "note_last") == {("a", 0.0): ("a", "b"), ("a", 2.0): ("c", "d")}


# ---- event

EVENT = 'kind = "event", start = "current > 250", end = "current < 240"'


def test_an_event_lasts_from_the_reading_that_starts_it_to_the_one_that_ends_it_both_included() -> None:
    driver = windows(EVENT)
    driver.read([read("a", n, current=float(v)) for n, v in enumerate([245, 251, 260, 245, 239, 230, 251])])
    assert said(driver, "count", "end", "current_max") == {("a", 1.0): (4, 4.0, 260.0)}
    # What is before the start, and between two events, is in none.
    assert counted(driver) == {"read": 7, "windowed": 5, "outside": 2, "closed": 1, "in_closed": 4}


def test_one_reading_may_start_and_end_an_event() -> None:
    driver = windows('kind = "event", start = "current > 5", end = "energy = 1"')
    driver.read([read("a", 0, current=9.0, energy=1), read("a", 1, energy=1), read("a", 2, current=9.0)])
    assert said(driver, "count", "end") == {("a", 0.0): (1, 0.0)}
    driver.read([read("a", 3, current=9.0, energy=1)])
    assert said(driver, "count", "end") == {("a", 0.0): (1, 0.0), ("a", 2.0): (2, 3.0)}
    assert counted(driver)["outside"] == 1


def test_a_condition_over_a_missing_value_neither_starts_nor_ends_an_event() -> None:
    driver = windows(EVENT)
    driver.read([read("a", 0), read("a", 1, current=251.0), read("a", 2), read("a", 3, current=1.0)])
    assert said(driver, "count", "current_missing") == {("a", 1.0): (3, 1)}


def test_an_event_that_never_ends_does_so_with_its_groups_silence() -> None:
    driver = windows(EVENT, idle="10s")
    driver.read([read("a", 0, current=300.0), read("a", 1, current=245.0)])
    assert driver.tick(Tick(10 * SECOND)) == {}
    driver.tick(Tick(1))
    assert said(driver, "count", "end") == {("a", 0.0): (2, 1.0)}
