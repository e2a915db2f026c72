"""Tumbling windows, and what all kinds share: named situations."""

from __future__ import annotations

import random
from datetime import datetime
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from window_oracle import Driver
from window_readings import FOR_EVER_US, NUMBERS, SECOND, Reading, Tick, at, spec_of
from window_situations import WHOLE_AND_CUT, counted, read, said, windows
from window_strategies import cut_lists

from processors.windows.kinds.pane_windows import PaneWindows
from processors.windows.kinds.rows import Rows


def rows_of(driver: Driver) -> Rows:
    engine = driver.windowed.windows.engine
    assert isinstance(engine, PaneWindows)
    return engine.rows


def test_a_window_closes_with_the_devices_next_reading_at_its_end() -> None:
    driver = windows()
    assert driver.read([read("a", 0, current=1.0), read("a", 9.999999, current=4.0)]) == {}
    assert list(driver.read([read("a", 10)])) == [("a", at(0))]
    assert (
        driver.closed["a", at(0)] | {"current_sum": 5.0, "current_mean": 2.5, "count": 2, "end": at(10)}
        == (driver.closed["a", at(0)])
    )


def test_every_aggregate_of_every_type() -> None:
    driver = windows()
    driver.read(
        [
            read("a", 3, current=2.5, energy=5, door=True, note="mid", checked=at(1)),
            read("a", 1, current=1.5, energy=9, door=False, note="first", checked=at(2)),
            read("a", 8, current=-1.0, energy=-2, door=True, note="last", checked=at(0)),
            read("a", 10),
        ]
    )
    same = {"count": 3, "missing": 0, "distinct": 3}
    assert driver.closed["a", at(0)] == {
        "end": at(10),
        "count": 3,
        "revision": 0,
        "final": True,
        **of("current", **same, sum=3.0, min=-1.0, max=2.5, range=3.5, mean=1.0, first=1.5, last=-1.0),
        **of("energy", **same, sum=12, min=-2, max=9, range=11, mean=4.0, first=9, last=-2),
        **of("door", **same | {"distinct": 2}, first=False, last=True),
        **of("note", **same, first="first", last="last"),
        **of("checked", **same, first=at(2), last=at(0)),
    }


def of(field: str, **aggregates: Any) -> dict[str, Any]:
    return {f"{field}_{name}": value for name, value in aggregates.items()}


def test_aggregates_that_follow_the_order_of_readings_or_estimate_take_these_in_any_order() -> None:
    in_order = ["delta", "rate", "time_weighted_mean", "variance", "stddev", "p01", "p50", "p999"]
    driver = windows(aggregates={"energy": in_order, "current": ["time_weighted_mean", "rate"]}, grace="5s")
    driver.read([read("a", 4, energy=3), read("a", 0, energy=5), read("a", 2, energy=9, current=7.5)])
    driver.read([read("a", 15)])
    window = driver.closed["a", at(0)]
    # From 5 to 9, then a reset and 3 from there.
    assert (window["energy_delta"], window["energy_rate"]) == (7, 1.75)
    assert window["energy_time_weighted_mean"] == ((5 + 9) / 2 * 2 + (9 + 3) / 2 * 2) / 4
    assert window["energy_variance"] == pytest.approx(56 / 9)
    assert window["energy_stddev"] == pytest.approx((56 / 9) ** 0.5)
    assert (window["energy_p01"], window["energy_p50"], window["energy_p999"]) == (3, 5, 9)
    # Of one value there is no rate.
    assert (window["current_time_weighted_mean"], window["current_rate"]) == (7.5, None)


def test_grace_holds_a_window_open_for_what_is_out_of_order() -> None:
    driver = windows(grace="2s")
    driver.read([read("a", 5), read("a", 11.9), read("a", 9), read("a", 12), read("a", 9.5)])
    assert said(driver, "count") == {("a", 0.0): 2}
    assert counted(driver) == {"read": 5, "windowed": 4, "late": 1, "closed": 1, "in_closed": 2}


def test_a_reading_on_the_edge_of_its_window() -> None:
    driver = windows()
    driver.read([read("a", 10), read("a", 19.999999), read("a", 20), read("a", 9.999999)])
    assert said(driver, "count") == {("a", 10.0): 2}
    assert driver.windowed.counts["late"] == 1


def test_one_devices_readings_do_not_close_anothers_windows() -> None:
    driver = windows(idle="30s")
    driver.read([read("slow", 1), read("fast", 1), read("fast", 25), read("slow", 2)])
    assert said(driver, "count") == {("fast", 0.0): 1}
    driver.read([read("slow", 12)])
    assert said(driver, "count") == {("fast", 0.0): 1, ("slow", 0.0): 2}


def test_a_silent_devices_window_is_closed_by_its_neighbours_after_idle() -> None:
    driver = windows(grace="1s", idle="30s")
    driver.read([read("silent", 3), read("busy", 3)])
    assert driver.read([read("busy", 40.999999)]) == {("busy", at(0)): driver.closed["busy", at(0)]}
    assert list(driver.read([read("busy", 41)])) == [("silent", at(0))]
    driver.read([read("silent", 9)])
    assert driver.windowed.counts["late"] == 1


def test_a_device_back_from_a_tunnel_is_on_time_within_idle() -> None:
    driver = windows(idle="60s")
    driver.read([read("train", 1), read("other", 1), read("other", 65)])
    driver.read([read("train", second) for second in range(2, 66)])
    assert driver.windowed.counts["late"] == 0
    assert [said(driver, "count")["train", start] for start in (0.0, 10.0, 50.0)] == [9, 10, 10]


def test_a_silent_partitions_windows_are_closed_by_the_clock() -> None:
    driver = windows(grace="1s", idle="30s")
    driver.read([read("a", 8), read("b", 3)])
    assert driver.tick(Tick(20 * SECOND)) == {}
    assert driver.tick(Tick(13 * SECOND - 1)) == {}
    assert sorted(driver.tick(Tick(1))) == [("a", at(0)), ("b", at(0))]
    assert driver.tick(Tick(60 * SECOND)) == {}
    driver.read([read("a", 9)])
    assert driver.windowed.counts["late"] == 1


def test_a_tick_before_any_reading_and_one_in_the_past_change_nothing() -> None:
    driver = windows()
    assert driver.windowed.tick(at(1_000_000)).results is None
    driver.read([read("a", 1)])
    clock_us = driver.windowed.intake.clocks.clock_us
    assert driver.windowed.tick(driver.now_us - 1).results is None
    assert driver.windowed.intake.clocks.clock_us == clock_us


def test_an_empty_batch_changes_nothing() -> None:
    driver = windows()
    assert driver.read([]) == {}
    assert driver.windowed.counts["read"] == 0


def test_only_what_fits_the_condition_is_aggregated_and_all_of_it_moves_the_clock() -> None:
    driver = windows(where="current > 2")
    driver.read([read("a", 1, current=3.0), read("a", 2, current=1.0), read("a", 3), read("a", 10, current=0.0)])
    assert said(driver, "count", "current_sum") == {("a", 0.0): (1, 3.0)}
    driver.read([read("a", 4, current=9.0), read("a", 5, current=1.0)])
    assert counted(driver) == {"read": 6, "windowed": 1, "late": 1, "filtered": 4, "closed": 1, "in_closed": 1}


def test_missing_values_are_left_out_of_the_aggregates_and_none_when_all_are_missing() -> None:
    driver = windows()
    driver.read([read("a", 1, current=2.0, note="x"), read("a", 2), read("b", 1), read("a", 10), read("b", 10)])
    assert said(driver, "count", "current_count", "current_mean", "note_last", "energy_sum", "door_first") == {
        ("a", 0.0): (2, 1, 2.0, "x", None, None),
        ("b", 0.0): (1, 0, None, None, None, None),
    }


def test_whole_numbers_stay_exact_beyond_what_floats_can_tell_apart() -> None:
    driver = windows()
    big = 2**53 + 1
    driver.read([read("a", 1, energy=big), read("a", 2, energy=2), read("a", 3, energy=-(2**63)), read("a", 10)])
    assert said(driver, "energy_sum", "energy_max", "energy_min", "energy_first") == {
        ("a", 0.0): (big + 2 - 2**63, big, -(2**63), big)
    }


def test_a_mean_of_great_whole_numbers_is_right_and_a_sum_beyond_64_bits_is_none() -> None:
    driver = windows()
    driver.read([*(read("a", second, energy=2**63 - 1) for second in range(4)), read("a", 10)])
    driver.read([read("a", 11, energy=-(2**63)), read("a", 12, energy=-(2**63)), read("a", 20, energy=1)])
    driver.read([read("a", 21, energy=2**62), read("a", 22, energy=2**62 - 2), read("a", 30)])
    assert said(driver, "energy_sum", "energy_mean") == {
        ("a", 0.0): (None, float(2**63)),
        ("a", 10.0): (None, -float(2**63)),
        ("a", 20.0): (2**63 - 1, (2**63 - 1) / 3),
    }


def test_first_and_last_go_by_event_time_and_among_equal_times_by_value() -> None:
    driver = windows(repeats='"keep"')
    driver.read([read("a", 5, note="b", current=2.0), read("a", 5, note="a", current=1.0), read("a", 5, note="c")])
    driver.read([read("a", 5, note="0", current=7.0), read("a", 5, current=0.5), read("a", 10)])
    assert said(driver, "note_first", "note_last", "current_first", "current_last") == {
        ("a", 0.0): ("0", "c", 0.5, 7.0)
    }


def test_times_before_the_epoch_fall_into_windows_too() -> None:
    driver = windows()
    driver.read([Reading("a", -1), Reading("a", -10 * SECOND), Reading("a", 0)])
    assert [(start, window["count"]) for (_, start), window in driver.closed.items()] == [(-10 * SECOND, 2)]


def test_windows_that_close_together_come_in_the_order_of_their_starts() -> None:
    driver = windows(grace="100s")
    driver.read([read("b", 35), read("a", 35), read("b", 5), read("a", 15), read("c", 500), read("d", 600)])
    results = driver.windowed.tick(driver.now_us + 1_000 * SECOND).results
    assert results is not None
    starts = [(start - at(0)) // SECOND for start in results.ts_us.tolist()]
    assert starts == sorted(starts)
    assert starts[-2:] == [500, 600]


def test_results_carry_the_devices_tags() -> None:
    driver = windows()
    driver.read([read("a", 1, room="hall"), read("b", 1), read("a", 11, room="hall"), read("b", 11)])
    assert driver.tags == {("a", at(0)): {"room": "hall"}, ("b", at(0)): {"room": None}}


def test_a_tag_that_only_some_readings_carry_is_kept_however_they_are_cut() -> None:
    readings = [read("a", 1, room="hall"), read("b", 1), read("a", 2), read("b", 2, room="attic"), read("b", 3)]
    for cuts in WHOLE_AND_CUT:
        driver = windows().run([*readings, read("a", 10), read("b", 10)], cuts)
        assert driver.tags == {("a", at(0)): {"room": "hall"}, ("b", at(0)): {"room": "attic"}}


def test_more_devices_than_a_bucket_holds_each_with_windows_of_its_own() -> None:
    driver = windows()
    devices = [f"meter-{n}" for n in range(700)]
    for second in (1, 2, 11):
        driver.read([read(device, second, energy=n) for n, device in enumerate(devices)])
    assert said(driver, "count", "energy_sum") == {(device, 0.0): (2, 2 * n) for n, device in enumerate(devices)}
    assert driver.windowed.gauges["open"] == 700


def test_a_clock_that_was_never_set_disturbs_no_other_among_thousands() -> None:
    driver = windows()
    devices = [f"meter-{n}" for n in range(9_000)]
    driver.read([read(device, 1) for device in devices])
    # Each reads on, one of them from 1970, and each comes once too late.
    driver.read(
        [Reading("unset", 0), *(read(device, 12) for device in devices), *(read(device, 2) for device in devices)]
    )
    counts = driver.windowed.counts
    # (The unset clock has no earlier reading of its own, and comes after all the others' idle.)
    assert (counts["late"], counts["windowed"]) == (9_001, 18_000)


def test_rows_of_closed_windows_are_used_again() -> None:
    driver = windows(idle="5s")
    for second in range(0, 10_000, 5):
        driver.read([read("a", second, note="x"), read(f"b{second % 3}", second)])
    driver.tick(Tick(FOR_EVER_US))
    assert len(rows_of(driver).live) <= 64
    assert sum(window["count"] for window in driver.closed.values()) == 4_000


def test_a_row_used_again_is_not_closed_with_the_window_it_was_before() -> None:
    driver = windows(idle="30s")
    driver.read([read("a", 1), read("a", 10)])
    driver.read([read("b", 12)])
    # The clock passes the end of a's first window, whose row is b's by now.
    driver.read([read("c", 41)])
    assert said(driver, "count") == {("a", 0.0): 1}


def test_a_row_used_again_begins_empty() -> None:
    driver = windows()
    driver.read([read("a", 1, current=100.0, energy=100, note="old", door=True, checked=at(0)), read("a", 10)])
    driver.read([read("b", 1), read("b", 10), read("b", 20)])
    assert driver.closed["b", at(0)]["current_max"] is None
    assert said(driver, "note_last", "door_first", "energy_count")["b", 0.0] == (None, None, 0)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.randoms(), cut_lists)
def test_float_sums_are_the_same_in_another_order(amounts: list[float], chance: random.Random, cuts: list[int]) -> None:
    shuffled = list(amounts)
    chance.shuffle(shuffled)
    sums = []
    for order in (amounts, shuffled):
        driver = windows('kind = "tumbling", size = "1h"')
        driver.run([*(read("a", n, current=v) for n, v in enumerate(order)), Tick(FOR_EVER_US)], cuts)
        [(total, mean)] = said(driver, "current_sum", "current_mean").values()
        assert mean == float(sum(map(Fraction, amounts)) / len(amounts))
        sums.append(total)
    assert sums[0] == sums[1]


def test_the_oracle_knows_every_numeric_field() -> None:
    assert {m.field for m in spec_of().measures if "mean" in m.aggregates} == set(NUMBERS)


# ---- along the days of a time zone


def in_paris(text: str) -> float:
    """The second of the tests' noon at which clocks in Paris show this."""
    shown = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("Europe/Paris"))
    return shown.timestamp() - at(0) / SECOND


def test_days_of_a_zone_follow_its_clocks_when_they_are_set_back() -> None:
    driver = windows('kind = "tumbling", size = "1d", zone = "Europe/Paris"')
    for text in ("2026-10-24T23:59:59", "2026-10-25T00:00", "2026-10-25T12:00", "2026-10-25T23:59:59"):
        driver.read([read("a", in_paris(text))])
    driver.read([read("a", in_paris("2026-10-26T00:00"))])
    assert said(driver, "count", "end") == {
        ("a", in_paris("2026-10-24")): (1, in_paris("2026-10-25")),
        ("a", in_paris("2026-10-25")): (3, in_paris("2026-10-26")),
    }
    assert in_paris("2026-10-26") - in_paris("2026-10-25") == 25 * 3_600


def test_an_hour_that_clocks_show_twice_is_two_windows_of_an_hour_and_one_of_two_hours_lasts_three() -> None:
    one = in_paris("2026-10-25T01:00")
    readings = [read("a", one + half * 1_800) for half in range(11)]
    driver = windows('kind = "tumbling", size = "1h", zone = "Europe/Paris"')
    driver.read(readings)
    assert [(start - one, count) for (_, start), count in said(driver, "count").items()] == [
        (hour * 3_600.0, 2) for hour in range(5)
    ]
    driver = windows('kind = "hopping", size = "2h", step = "1h", zone = "Europe/Paris"')
    driver.read(readings)
    assert said(driver, "count", "end")["a", one] == (6, in_paris("2026-10-25T03:00"))
    assert in_paris("2026-10-25T03:00") - one == 3 * 3_600
