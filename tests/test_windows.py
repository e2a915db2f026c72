"""Windows in event time: named situations, and properties against a plain oracle."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from window_oracle import FOR_EVER_US, NUMBERS, SECOND, Driver, Event, Oracle, Reading, Tick, at, sound, spec_of

from processors.windows import Windowed, WindowSpec


def windows(*, where: str | None = None, **lengths: str) -> Driver:
    return Driver(Windowed(spec_of(where=where, **lengths)))  # type: ignore[arg-type]


def read(device: str, seconds: float, **values: Any) -> Reading:
    return Reading(device, at(seconds), values)


def said(driver: Driver, *wanted: str) -> dict[tuple[str, float], Any]:
    """What was said of the windows, by device and second of the start."""
    return {
        (device, (start - at(0)) / SECOND): tuple(window[name] for name in wanted)
        if len(wanted) > 1
        else window[wanted[0]]
        for (device, start), window in driver.closed.items()
    }


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
    assert driver.closed["a", at(0)] == {
        "end": at(10),
        "count": 3,
        "revision": 0,
        "current_count": 3,
        "current_sum": 3.0,
        "current_min": -1.0,
        "current_max": 2.5,
        "current_mean": 1.0,
        "current_first": 1.5,
        "current_last": -1.0,
        "energy_count": 3,
        "energy_sum": 12,
        "energy_min": -2,
        "energy_max": 9,
        "energy_mean": 4.0,
        "energy_first": 9,
        "energy_last": -2,
        "door_count": 3,
        "door_first": False,
        "door_last": True,
        "note_count": 3,
        "note_first": "first",
        "note_last": "last",
        "checked_count": 3,
        "checked_first": at(2),
        "checked_last": at(0),
    }


def test_grace_holds_a_window_open_for_what_is_out_of_order() -> None:
    driver = windows(grace="2s")
    driver.read([read("a", 5), read("a", 11.9), read("a", 9), read("a", 12), read("a", 9.5)])
    assert said(driver, "count") == {("a", 0.0): 2}
    assert driver.windowed.counts == {"read": 5, "windowed": 4, "late": 1, "filtered": 0, "closed": 1}


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
    clock_us = driver.windowed.clock_us
    assert driver.windowed.tick(driver.now_us - 1).results is None
    assert driver.windowed.clock_us == clock_us


def test_an_empty_batch_changes_nothing() -> None:
    driver = windows()
    assert driver.read([]) == {}
    assert driver.windowed.counts["read"] == 0


def test_only_what_fits_the_condition_is_aggregated_and_all_of_it_moves_the_clock() -> None:
    driver = windows(where="current > 2")
    driver.read([read("a", 1, current=3.0), read("a", 2, current=1.0), read("a", 3), read("a", 10, current=0.0)])
    assert said(driver, "count", "current_sum") == {("a", 0.0): (1, 3.0)}
    driver.read([read("a", 4, current=9.0), read("a", 5, current=1.0)])
    assert driver.windowed.counts == {"read": 6, "windowed": 1, "late": 1, "filtered": 4, "closed": 1}


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
    driver = windows()
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
    for cuts in ([], range(9)):
        driver = windows().run([*readings, read("a", 10), read("b", 10)], cuts)
        assert driver.tags == {("a", at(0)): {"room": "hall"}, ("b", at(0)): {"room": "attic"}}


def test_more_devices_than_a_bucket_holds_each_with_windows_of_its_own() -> None:
    driver = windows()
    devices = [f"meter-{n}" for n in range(700)]
    for second in (1, 2, 11):
        driver.read([read(device, second, energy=n) for n, device in enumerate(devices)])
    assert said(driver, "count", "energy_sum") == {(device, 0.0): (2, 2 * n) for n, device in enumerate(devices)}
    assert len(driver.windowed.accumulators) == 700


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
    assert len(driver.windowed.accumulators.live) <= 64
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


# ---- properties

devices = st.sampled_from(["a", "b", "c"])
quarters = st.integers(-40, 40).map(lambda n: n / 4)  # sums of these are exact in whatever order


@st.composite
def values_of(draw: st.DrawFn) -> dict[str, Any]:
    values = {
        "current": st.none() | quarters,
        "energy": st.none() | st.sampled_from([0, 1, -7, 2**53 + 1, -(2**60)]),
        "door": st.none() | st.booleans(),
        "note": st.none() | st.sampled_from(["", "x", "y", "é"]),
        "checked": st.none() | st.integers(at(0), at(5)),
    }
    return {name: draw(strategy) for name, strategy in values.items()}


readings = st.builds(Reading, devices, st.integers(-3, 60).map(at), values_of())
far_readings = st.builds(Reading, devices, st.sampled_from([0, at(-500), at(500)]), values_of())
ticks = st.builds(Tick, st.sampled_from([SECOND, 9 * SECOND, 40 * SECOND]))
event_lists = st.lists(st.one_of(readings, readings, readings, readings, far_readings, ticks), max_size=40)
cut_lists = st.lists(st.integers(0, 40), max_size=10)
specs = st.sampled_from(
    [
        spec_of(),
        spec_of(grace="3s", idle="12s"),
        spec_of(size="7s", grace="1s", idle="0s"),
        spec_of(size="1m", grace="10s", where="current > 0"),
        spec_of(size="500ms", grace="10s", idle="20s", where="not door or energy = 1"),
    ]
)


def passes(spec: WindowSpec) -> Any:
    """The conditions of the specs, said in Python."""
    if spec.where is None:
        return lambda _: True
    if spec.where.text == "current > 0":
        return lambda reading: (reading.values.get("current") or 0) > 0
    return lambda reading: reading.values.get("door") is False or reading.values.get("energy") == 1


def right(spec: WindowSpec, events: list[Event]) -> Oracle:
    oracle = Oracle(spec, passes(spec))
    for event in events:
        oracle.take(event)
    return oracle


@given(specs, event_lists, cut_lists)
def test_windows_are_right_however_the_readings_are_cut_into_batches(
    spec: WindowSpec, events: list[Event], cuts: list[int]
) -> None:
    for end in ([], [Tick(FOR_EVER_US)]):
        oracle = right(spec, events + end)
        driver = Driver(Windowed(spec)).run(events + end, cuts)
        assert driver.closed == oracle.closed
        assert driver.windowed.counts == oracle.counts
        assert len(driver.windowed.accumulators) == len(oracle.open)
        assert sound(driver.windowed)


@given(specs, st.lists(st.tuples(readings, st.floats(0, 1)), max_size=30), cut_lists, st.randoms())
def test_any_order_within_the_grace_gives_the_same_windows(
    spec: WindowSpec, delayed: list[tuple[Reading, float]], cuts: list[int], chance: random.Random
) -> None:
    end = Tick(FOR_EVER_US)
    in_order = [reading for reading, _ in sorted(delayed, key=lambda pair: pair[0].ts_us)]
    chance.shuffle(delayed)
    out_of_order = [r for r, _ in sorted(delayed, key=lambda pair: pair[0].ts_us + int(pair[1] * spec.grace_us))]
    first, second = (Driver(Windowed(spec)).run([*events, end], cuts) for events in (in_order, out_of_order))
    assert first.closed == second.closed
    assert first.windowed.counts == second.windowed.counts
    assert second.windowed.counts["late"] == 0


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.randoms(), cut_lists)
def test_float_sums_differ_by_rounding_alone_in_another_order(
    amounts: list[float], chance: random.Random, cuts: list[int]
) -> None:
    shuffled = list(amounts)
    chance.shuffle(shuffled)
    sums = []
    for order in (amounts, shuffled):
        driver = windows(size="1h").run([*(read("a", 1, current=v) for v in order), Tick(FOR_EVER_US)], cuts)
        [(total, mean)] = said(driver, "current_sum", "current_mean").values()
        assert mean == total / len(amounts)
        sums.append(total)
    assert sums[0] == pytest.approx(sums[1], rel=1e-9, abs=1e-6)


def test_the_oracle_knows_every_numeric_field() -> None:
    assert {m.field for m in spec_of().measures if "mean" in m.aggregates} == set(NUMBERS)
