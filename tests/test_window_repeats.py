"""Readings that come again: the same, or saying something else; and what became of late ones."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from window_oracle import Driver
from window_readings import FOR_EVER_US, Tick
from window_situations import WHOLE_AND_CUT, counted, missed, read, said, windows

from processors.windows.state import changed_pieces, restore

AT_LAST = Tick(FOR_EVER_US)


def restarted(driver: Driver, kept: dict[str, bytes]) -> None:
    """Put the windows away beside what is ``kept`` already, and restore them."""
    kept |= {name: piece for name, piece in changed_pieces(driver.windowed, 0) if piece is not None}
    driver.windowed, _ = restore(driver.windowed.spec, kept.get)


@pytest.mark.parametrize("cuts", WHOLE_AND_CUT)
def test_a_reading_that_comes_again_changes_nothing(cuts: Sequence[int]) -> None:
    driver = windows().run(
        [read("a", 1, energy=5), read("a", 2, energy=6), read("a", 1, energy=5), read("a", 10)], cuts
    )
    assert said(driver, "count", "energy_sum") == {("a", 0.0): (2, 11)}
    assert counted(driver) == {"read": 4, "windowed": 3, "repeated": 1, "closed": 1, "in_closed": 2}


def test_another_devices_reading_of_the_same_time_is_no_repeat() -> None:
    driver = windows(by="[]").run([read("a", 1, energy=5), read("b", 1, energy=5), AT_LAST])
    assert said(driver, "count") == {("all", 0.0): 2}


@pytest.mark.parametrize("cuts", WHOLE_AND_CUT)
def test_a_reading_that_says_something_else_is_a_correction_and_goes_the_way_of_late_ones(cuts: Sequence[int]) -> None:
    driver = windows(late='"dead-letter"')
    driver.run([read("a", 1, energy=5), read("a", 1, energy=6), read("a", 1, energy=5), read("a", 10)], cuts)
    # The first one counts; what it said is what others are compared with.
    assert said(driver, "count", "energy_sum") == {("a", 0.0): (1, 5)}
    assert counted(driver) == {"read": 4, "windowed": 2, "repeated": 1, "corrected": 1, "closed": 1, "in_closed": 1}
    assert missed(driver) == [("a", "corrected", 0.0, 10.0)]


def test_what_a_stream_does_not_look_at_makes_no_correction() -> None:
    driver = windows(aggregates={"energy": ["sum"]}, where="current > 1")
    driver.read([read("a", 1, energy=5, current=2.0, note="x"), read("a", 1, energy=5, current=2.0, note="y")])
    driver.read([read("a", 1, energy=5, current=3.0)])
    assert counted(driver) == {"read": 3, "windowed": 1, "repeated": 1, "corrected": 1}


@pytest.mark.parametrize("cuts", WHOLE_AND_CUT)
def test_what_a_condition_leaves_out_is_no_reading_that_others_repeat(cuts: Sequence[int]) -> None:
    driver = windows(where="energy > 0", late='"dead-letter"')
    driver.run(
        [
            read("a", 1, energy=-1),
            read("a", 1, energy=-1),
            read("a", 1, energy=5),
            read("a", 1, energy=5),
            read("a", 2, energy=6),
            # It takes back what is in the window.
            read("a", 2, energy=-1),
            read("a", 10, energy=1),
        ],
        cuts,
    )
    assert said(driver, "count", "energy_sum") == {("a", 0.0): (2, 11)}
    assert counted(driver) == {
        "read": 7,
        "windowed": 3,
        "filtered": 2,
        "repeated": 1,
        "corrected": 1,
        "closed": 1,
        "in_closed": 2,
    }
    assert missed(driver) == [("a", "corrected", 0.0, 10.0)]


@pytest.mark.parametrize("cuts", WHOLE_AND_CUT)
def test_readings_of_the_same_time_that_are_kept_close_one_sliding_window(cuts: Sequence[int]) -> None:
    driver = windows('kind = "sliding", size = "5s"', repeats='"keep"')
    driver.run([read("a", 1, energy=5), read("a", 1, energy=5), read("a", 1, energy=6), read("a", 2, energy=1)], cuts)
    assert said(driver, "count", "energy_sum") == {("a", -4.0): (3, 16)}
    assert counted(driver) == {"read": 4, "windowed": 3, "closed": 1, "in_closed": 3}
    driver.tick(AT_LAST)
    assert said(driver, "count", "energy_sum") == {("a", -4.0): (3, 16), ("a", -3.0): (4, 17)}


def test_a_repeat_is_recognised_after_a_restart() -> None:
    driver, kept = windows(), dict[str, bytes]()
    driver.read([read("a", 1, energy=5), read("b", 1, energy=5)])
    for _ in range(2):
        restarted(driver, kept)
        driver.read([read("a", 1, energy=5), read("b", 1, energy=6)])
    assert counted(driver) == {"read": 6, "windowed": 2, "repeated": 2, "corrected": 2}


@pytest.mark.parametrize(
    "window", ['kind = "tumbling", size = "10s"', 'kind = "session", gap = "9s"', 'kind = "count", count = 2']
)
def test_a_repeat_that_waits_is_recognised_too(window: str) -> None:
    driver = windows(window, grace="5s")
    driver.read([read("a", 1, energy=5)])
    restarted(driver, {})
    driver.read([read("a", 1, energy=5), read("a", 2, energy=5), read("a", 2, energy=5)])
    assert counted(driver)["repeated"] == 2


def test_a_repeat_after_its_window_has_closed_is_late() -> None:
    driver = windows(late='"dead-letter"')
    driver.read([read("a", 1, energy=5), read("a", 10), read("a", 1, energy=5), read("a", 1, energy=6)])
    assert counted(driver) == {"read": 4, "windowed": 2, "late": 2, "closed": 1, "in_closed": 1}
    assert missed(driver) == [("a", "late", 0.0, 10.0)] * 2


def test_with_repeats_kept_all_readings_count() -> None:
    driver = windows(repeats='"keep"')
    driver.read([read("a", 1, energy=5), read("a", 1, energy=5), read("a", 1, energy=6), read("a", 10)])
    assert said(driver, "count", "energy_sum") == {("a", 0.0): (3, 16)}
    assert counted(driver) == {"read": 4, "windowed": 4, "closed": 1, "in_closed": 3}
    assert driver.windowed.gauges["remembered"] == 0


def test_repeats_are_forgotten_once_their_window_has_closed() -> None:
    driver = windows()
    for second in range(0, 3_000, 5):
        driver.read([read("a", second), read("b", second)])
        if second % 500 == 0:
            list(changed_pieces(driver.windowed, 0))
    list(changed_pieces(driver.windowed, 0))
    # All but those of the last window, and of the batches since the last thorough look.
    assert driver.windowed.gauges["remembered"] <= 300


# ---- late readings, and the bounds of the windows that lack them


def test_a_late_reading_lacks_in_its_tumbling_window() -> None:
    driver = windows(late='"dead-letter"', grace="2s")
    driver.read([read("a", 1), read("a", 30), read("a", 14), read("a", 28)])
    assert missed(driver) == [("a", "late", 10.0, 20.0)]


def test_of_hopping_windows_a_late_reading_lacks_in_all_and_one_in_time_for_some_in_the_others() -> None:
    hopping = 'kind = "hopping", size = "10s", step = "5s"'
    events = [read("a", 1), read("a", 20), read("a", 13), read("a", 2)]
    for cuts in WHOLE_AND_CUT:
        driver = windows(hopping, late='"heal"').run(events, cuts)
        assert sorted(missed(driver)) == [
            ("a", "late", -5.0, 5.0),
            ("a", "late", 0.0, 10.0),
            ("a", "late", 5.0, 15.0),
            ("a", "late", 10.0, 20.0),
        ]
        assert counted(driver)["late"] == 2
    for cuts in WHOLE_AND_CUT:
        driver = windows(hopping, late='"heal"').run([read("a", 1), read("a", 16), read("a", 13)], cuts)
        assert missed(driver) == [("a", "late", 5.0, 15.0)]
        assert "late" not in counted(driver)
        # It is in a window, so it is no dead letter.
        assert (
            missed(windows(hopping, late='"dead-letter"').run([read("a", 1), read("a", 16), read("a", 13)], cuts)) == []
        )


@pytest.mark.parametrize(
    ("window", "start", "end"),
    [
        ('kind = "sliding", size = "5s"', -1.0, 9.0),
        ('kind = "session", gap = "3s"', 1.0, 7.0),
        ('kind = "count", count = 2', 4.0, 4.0),
        ('kind = "state", field = "note"', 4.0, 4.0),
        ('kind = "event", start = "energy > 1", end = "energy < 1"', 4.0, 4.0),
    ],
)
def test_of_windows_that_readings_make_a_late_one_says_how_far_it_may_reach(
    window: str, start: float, end: float
) -> None:
    driver = windows(window, late='"dead-letter"', grace="1s")
    driver.read([read("a", 1, note="x"), read("a", 6, note="x"), read("a", 4, note="x")])
    assert missed(driver) == [("a", "late", start, end)]
    assert counted(driver)["late"] == 1


def test_late_readings_are_named_by_their_group() -> None:
    driver = windows(by='["room"]', clock='"partition"', late='"dead-letter"')
    driver.read([read("a", 1, room="r"), read("b", 31, room="s"), read("a", 3)])
    assert missed(driver) == [("r", "late", 0.0, 10.0)]


def test_late_readings_that_the_stream_would_filter_are_not_missing_from_anything() -> None:
    driver = windows(late='"dead-letter"', where="energy > 1")
    driver.read([read("a", 1), read("a", 31), read("a", 2, energy=1), read("a", 3, energy=2)])
    assert missed(driver) == [("a", "late", 0.0, 10.0)]
    assert counted(driver) == {"read": 4, "late": 1, "filtered": 3}


def test_dropped_late_readings_are_only_counted() -> None:
    driver = windows()
    driver.read([read("a", 1), read("a", 31), read("a", 2)])
    assert (missed(driver), counted(driver)["late"]) == ([], 1)
