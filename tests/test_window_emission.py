"""When windows emit before they close, and how that is marked."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from window_oracle import Driver
from window_readings import FOR_EVER_US, SECOND, Happening, Reading, Tick, at, batch_of
from window_situations import read, said, said_early, windows
from window_strategies import CASES, KINDS, cut_lists, differing, drive, event_lists, spec_for

from processors.windows import WindowOperator
from processors.windows.state import changed_pieces, restore

AT_ONCE = {"emit": '"at-once"'}
EVERY_5S = {"emit": '"max-delay"', "max_delay": "5s"}
AT_LAST = Tick(FOR_EVER_US)


def test_at_window_close_nothing_is_provisional() -> None:
    driver = windows()
    driver.read([read("a", 1)])
    driver.read([read("a", 10)])
    assert (said(driver, "count"), driver.provisional) == ({("a", 0.0): 1}, [])


def test_at_once_each_batch_says_the_windows_that_it_changed() -> None:
    driver = windows(**AT_ONCE)
    driver.read([read("a", 1, energy=1), read("b", 1, energy=9), read("a", 2, energy=2)])
    driver.read([read("a", 3, energy=4)])
    assert said_early(driver, "count", "energy_sum") == [("a", 0.0, (2, 3)), ("b", 0.0, (1, 9)), ("a", 0.0, (3, 7))]
    assert driver.closed == {}
    driver.read([read("a", 10, energy=8)])
    assert said(driver, "energy_sum") == {("a", 0.0): 7}
    assert said_early(driver, "energy_sum")[3:] == [("a", 10.0, 8)]


def test_at_once_nothing_is_said_where_nothing_changed() -> None:
    driver = windows(**AT_ONCE, where="energy > 1", idle="1m")
    driver.read([read("a", 1, energy=2)])
    for same in ([read("a", 2, energy=1)], [read("a", 1, energy=2)], [read("a", 1, energy=3)]):
        driver.read(same)
    driver.tick(Tick(SECOND))
    assert len(driver.provisional) == 1


def test_a_window_that_opens_and_closes_in_one_batch_is_said_once_and_finally() -> None:
    driver = windows(**AT_ONCE)
    driver.read([read("a", 1), read("a", 12), read("a", 30)])
    assert said(driver, "count") == {("a", 0.0): 1, ("a", 10.0): 1}
    assert said_early(driver, "count") == [("a", 30.0, 1)]


def test_provisional_results_are_marked_and_come_after_the_final_ones_of_their_batch() -> None:
    windowed = WindowOperator(windows(**AT_ONCE).windowed.spec)
    results = windowed.add(batch_of([read("a", 1, room="r"), read("a", 12)], windowed.spec), at(0)).results
    assert results is not None
    assert results.column("final").tolist() == [True, False]
    assert results.column("revision").tolist() == [0, 0]
    assert results.column("room").tolist() == ["r", "r"]
    assert results.ts_us.tolist() == [at(0), at(10)]
    # What is provisional is not counted as closed.
    assert windowed.counts["closed"] == windowed.counts["in_closed"] == 1


def test_a_hopping_window_changes_with_any_of_its_panes() -> None:
    driver = windows('kind = "hopping", size = "10s", step = "5s"', **AT_ONCE)
    driver.read([read("a", 1, energy=1)])
    driver.read([read("a", 6, energy=2)])
    assert said_early(driver, "energy_sum") == [("a", -5.0, 1), ("a", 0.0, 1), ("a", 0.0, 3), ("a", 5.0, 2)]
    assert said(driver, "energy_sum") == {("a", -5.0): 1}


@pytest.mark.parametrize(
    ("window", "early"),
    [
        ('kind = "session", gap = "3s"', [("a", 0.0, (1, 0.0)), ("a", 0.0, (2, 2.0))]),
        ('kind = "state", field = "note"', [("a", 0.0, (1, 0.0)), ("a", 0.0, (2, 2.0))]),
        ('kind = "count", count = 3', [("a", 0.0, (1, 0.0)), ("a", 0.0, (2, 2.0))]),
        ('kind = "event", start = "energy = 1", end = "energy = 0"', [("a", 0.0, (1, 0.0)), ("a", 0.0, (2, 2.0))]),
        ('kind = "sliding", size = "3s"', []),
    ],
)
def test_open_windows_that_readings_make_are_said_as_they_are(
    window: str, early: list[tuple[str, float, tuple[int, float]]]
) -> None:
    driver = windows(window, **AT_ONCE)
    driver.read([read("a", 0, note="x", energy=1)])
    driver.read([read("a", 2, note="x", energy=2)])
    assert said_early(driver, "count", "end") == early


def test_readings_that_wait_for_their_grace_are_in_no_provisional_result_yet() -> None:
    driver = windows('kind = "session", gap = "3s"', grace="2s", **AT_ONCE)
    driver.read([read("a", 0), read("a", 1)])
    assert driver.provisional == []
    driver.read([read("a", 2)])
    assert said_early(driver, "count") == [("a", 0.0, 1)]


def test_with_a_maximal_delay_changes_are_said_together_and_no_more_often() -> None:
    driver = windows('kind = "tumbling", size = "1m"', **EVERY_5S)
    for second in range(12):
        # A batch a second.
        driver.read([read("a", second)])
    assert said_early(driver, "count") == [("a", 0.0, 1), ("a", 0.0, 6), ("a", 0.0, 11)]
    assert driver.tick(Tick(3 * SECOND)) == {}
    assert len(driver.provisional) == 3
    # A tick says what has waited so long, too.
    driver.tick(Tick(SECOND))
    assert said_early(driver, "count")[3:] == [("a", 0.0, 12)]
    driver.read([read("a", 60)])
    assert said(driver, "count") == {("a", 0.0): 12}


def test_a_maximal_delay_never_holds_a_final_result_back() -> None:
    driver = windows(**EVERY_5S)
    driver.read([read("a", 1)])
    assert list(driver.read([read("a", 10)])) == [("a", at(0))]


@pytest.mark.parametrize("window", ['kind = "tumbling", size = "1m"', 'kind = "session", gap = "9s"'])
def test_after_a_restart_open_windows_are_said_once_more(window: str) -> None:
    driver = windows(window, **AT_ONCE)
    driver.read([read("a", 1), read("b", 2)])
    kept = {name: piece for name, piece in changed_pieces(driver.windowed, 0) if piece is not None}
    driver.windowed, _ = restore(driver.windowed.spec, kept.get)
    driver.read([read("b", 3)])
    later = [(device, count) for device, _, count in said_early(driver, "count")[2:]]
    assert sorted(later) == [("a", 1), ("b", 2)]


BY_DEVICE = [kind for kind, variant in CASES if variant == "by device"]


@pytest.mark.parametrize("kind", BY_DEVICE)
@settings(max_examples=20)
@given(event_lists(), cut_lists, st.booleans())
def test_provisional_results_change_no_final_one_and_never_follow_it(
    kind: str, events: list[Happening], cuts: list[int], delayed: bool
) -> None:
    # That none follows its final one the driver looks after.
    spec = spec_for(kind, "by device", **(EVERY_5S if delayed else AT_ONCE))
    driver = drive(spec, [*events, AT_LAST], cuts)
    quiet = drive(spec_for(kind, "by device"), [*events, AT_LAST], cuts)
    assert not differing(driver.closed, quiet.closed)
    assert driver.windowed.counts == quiet.windowed.counts
    for key, early in driver.provisional:
        assert early["revision"] == 0
        # A window's final result is at least as full, where its bounds do not depend on what comes.
        if kind.startswith(("tumbling", "hopping")):
            assert early["count"] <= driver.closed[key]["count"]
            assert early["end"] == driver.closed[key]["end"]


@pytest.mark.parametrize("kind", [kind for kind in BY_DEVICE if not kind.startswith("sliding")])
@settings(max_examples=15)
@given(event_lists(), cut_lists)
def test_at_once_what_was_said_last_of_open_windows_is_what_they_hold(
    kind: str, events: list[Happening], cuts: list[int]
) -> None:
    spec = spec_for(kind, "by device", **AT_ONCE)
    oracle = KINDS[kind].oracle(spec)
    for event in events:
        oracle.take(event)
    driver = drive(spec, events, cuts)
    latest = {key: said for key, said in driver.provisional if key not in driver.closed}
    # Each reading of an open window is in what it said last.
    assert sum(said["count"] for said in latest.values()) == sum(map(len, oracle.open.values()))
    assert len(latest) == len(oracle.open)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 6_000)), max_size=30), st.integers(1, 5))
def test_between_provisional_results_at_least_the_maximal_delay_goes_by(
    steps: list[tuple[int, int]], seconds: int
) -> None:
    spec = spec_for("tumbling", "by device", emit='"max-delay"', max_delay=f"{seconds}s")
    windowed, now_us, emitted = WindowOperator(spec), at(0), []
    for second, later_ms in steps:
        now_us += later_ms * 1_000
        results = windowed.add(batch_of([Reading("a", at(second), {})], spec), now_us).results
        if results is not None and False in results.column("final"):
            emitted.append(now_us)
    assert all(later - earlier >= seconds * SECOND for earlier, later in pairwise(emitted))


def test_the_driver_sees_a_window_that_emits_after_its_end() -> None:
    driver = Driver(windows(**AT_ONCE).windowed)
    driver.closed["a", at(0)] = {}
    with pytest.raises(AssertionError, match="emitted again"):
        driver.read([read("a", 1)])
