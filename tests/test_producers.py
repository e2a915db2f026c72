"""Simulated readings: pure, exact in rate and time, the same for the same seed, and accounted for to the last."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from fractions import Fraction
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.batch import Batch
from headrace.duration import Duration
from headrace.pipeline.check_producers import producer_mistakes
from headrace.pipeline.model import Curve, Faults, Field, Replay, ReplayTime, Simulate, Time, Topic
from headrace.wire import Decoder, Encoder
from producers import faults
from producers.curves import DAY_US, FieldCurve, tag_values
from producers.faults import MALFORMED_KINDS, malformed
from producers.pace import Pace, Schedule
from producers.simulate import Fleet, Simulation

NOW_US = 1_763_668_800_000_000
START_US = 1_767_225_600_000_000
METERS = Topic(
    fields={"current": Field(type="float"), "voltage": Field(type="int"), "note": Field(type="text", optional=True)},
    tags={"city": Field(type="text")},
)
CURVES = {
    "current": Curve(base=10, swing=2, noise=0.5),
    "voltage": Curve(base=225, spread=2, noise=3, low=200, high=240),
    "note": Curve(choices=["ok", "hot"], absent=0.3),
    "city": Curve(choices=["Paris", "Lyon", "Nice"]),
}
NAMES = ("late", "repeated", "missing", "out_of_order", "future", "malformed")


def shares(cuts: list[float], on: list[bool]) -> Faults:
    """Shares that add up to 1 at the most, some of them 0."""
    pieces = np.diff([0.0, *sorted(cuts)]).tolist()
    given = {name: share if flag else 0.0 for name, share, flag in zip(NAMES, pieces, on, strict=True)}
    return Faults(**given, late_by=Duration.parse("700ms"))


SHARES = st.builds(
    shares, st.lists(st.floats(0, 1), min_size=6, max_size=6), st.lists(st.booleans(), min_size=6, max_size=6)
)


def simulate(**given: Any) -> Simulate:
    return Simulate(**{"topic": "meters", "curves": CURVES, "start": "2026-01-01T00:00:00Z", "speed": 0, **given})


def everything(simulation: Simulation, limits: list[int] | None = None) -> list[tuple[Any, ...]]:
    """All that a simulation sends, in its order: (device, ts, values, how it is spoilt)."""
    sent = []
    limits = limits or [4096]
    turn = 0
    while simulation.due_us() is not None:
        portion = simulation.take(NOW_US, limits[turn % len(limits)])
        turn += 1
        if portion is not None:
            sent += readings(portion.batch, dict(portion.malformed))
    return sent


def readings(batch: Batch, spoilt: dict[int, str] | None = None) -> list[tuple[Any, ...]]:
    columns = [batch.column(name) for name in ("city", "current", "voltage", "note")]
    kinds = [(spoilt or {}).get(n) for n in range(len(batch))]
    return list(zip(batch.devices, batch.ts_us.tolist(), *columns, kinds, strict=True))


@given(st.fractions(Fraction(1, 100), 2_000_000).map(float), st.integers(0, 7 * 10**15), st.integers(1, 50))
def test_reading_n_is_at_n_over_the_rate_however_far_away(rate: float, time_us: int, count: int) -> None:
    schedule = Schedule(rate)
    exact = Fraction(str(rate)).limit_denominator(10**8)
    first = schedule.number(time_us)
    times = schedule.times(first, count).tolist()
    assert times == [schedule.time(first + n) for n in range(count)]
    assert times[-1] == (first + count - 1) * 1_000_000 // exact
    assert schedule.time(first - 1) < time_us <= times[0]


@pytest.mark.parametrize("rate", [0.1, 1 / 7, 3, 333.33, 1_000, 150_000])
def test_a_rate_does_not_drift_in_ten_years(rate: float) -> None:
    schedule = Schedule(rate)
    year_us = 365 * DAY_US
    made = schedule.number(NOW_US + 10 * year_us) - schedule.number(NOW_US)
    assert abs(made - Fraction(str(rate)) * 10 * year_us / 1_000_000) <= max(1, rate)


def test_each_device_is_evenly_spaced_and_devices_are_spread_over_the_interval() -> None:
    sent = everything(Simulation("m", simulate(devices=4, rate=10, count=400), METERS, now_us=NOW_US))
    by_device: dict[str, list[int]] = {}
    for device, ts_us, *_ in sent:
        by_device.setdefault(device, []).append(ts_us)
    assert sorted(by_device) == [f"meters-{n:04}" for n in (1, 2, 3, 4)]
    assert {step for times in by_device.values() for step in np.diff(times).tolist()} == {400_000}
    assert sorted(times[0] % 400_000 for times in by_device.values()) == [0, 100_000, 200_000, 300_000]


def test_the_same_seed_gives_the_same_readings_and_another_seed_others() -> None:
    def run(seed: int) -> list[tuple[Any, ...]]:
        return everything(Simulation("m", simulate(seed=seed, count=5_000), METERS, now_us=NOW_US))

    assert run(7) == run(7)
    assert run(7) != run(8)


@settings(max_examples=30, deadline=None)
@given(SHARES, st.lists(st.integers(1, 900), min_size=1, max_size=5), st.integers(1, 40))
def test_readings_do_not_depend_on_how_they_are_asked_for(wrong: Faults, limits: list[int], devices: int) -> None:
    declared = simulate(devices=devices, rate=200, count=3_000, faults=wrong)
    whole = Simulation("m", declared, METERS, now_us=NOW_US)
    parts = Simulation("m", declared, METERS, now_us=NOW_US)
    assert everything(whole) == everything(parts, limits)
    assert whole.counts == parts.counts


@settings(max_examples=30, deadline=None)
@given(SHARES, st.integers(1, 40))
def test_every_reading_is_accounted_for(wrong: Faults, devices: int) -> None:
    declared = simulate(devices=devices, rate=200, count=3_000, faults=wrong)
    simulation = Simulation("m", declared, METERS, now_us=NOW_US)
    sent = everything(simulation)
    counts = simulation.counts
    assert counts["generated"] == 3_000
    assert counts["sent"] == len(sent) == 3_000 - counts["missing"] + counts["repeated"]

    fleet = Fleet(declared, METERS)
    first = fleet.schedule.number(START_US)
    plan = Counter(faults.NAMES[fleet.fault(n)] for n in range(first, first + 3_000))
    # Without a later reading of its device, none can overtake it.
    assert counts["out_of_order"] <= plan["out_of_order"]
    assert all(counts[name] == plan[name] for name in NAMES if name != "out_of_order")
    wanted: Counter[tuple[object, int]] = Counter()
    for n in range(first, first + 3_000):
        fault = fleet.fault(n)
        key = (fleet.names[n % devices], fleet.schedule.time(n) + DAY_US * (fault == faults.FUTURE))
        wanted[key] += {faults.MISSING: 0, faults.REPEATED: 2}.get(fault, 1)
    assert Counter((device, ts_us) for device, ts_us, *_ in sent) == +wanted
    kinds = Counter(entry[-1] for entry in sent if entry[-1])
    assert kinds == {k: counts[f"malformed_{k}"] for k in MALFORMED_KINDS if counts[f"malformed_{k}"]}
    assert max(kinds.values(), default=0) - min((kinds[k] for k in MALFORMED_KINDS), default=0) <= 1


def test_a_late_reading_is_sent_late_by_as_much_with_its_own_time() -> None:
    declared = simulate(devices=10, rate=100, count=2_000, faults=Faults(late=0.05, late_by=Duration.parse("3s")))
    simulation = Simulation("m", declared, METERS, now_us=NOW_US)
    sent = everything(simulation)
    latest = 0
    behind = []
    for _, ts_us, *_ in sent:
        if int(ts_us) < latest:
            behind.append(latest - ts_us)
        latest = max(latest, ts_us)
    assert len(behind) >= simulation.counts["late"] * 0.8 > 0
    assert Counter(behind).most_common(1)[0][0] == 3_000_000


def test_a_reading_out_of_order_follows_the_next_of_its_device() -> None:
    declared = simulate(devices=3, rate=30, count=3_000, faults=Faults(out_of_order=0.1))
    simulation = Simulation("m", declared, METERS, now_us=NOW_US)
    times: dict[object, list[int]] = {}
    for device, ts_us, *_ in everything(simulation):
        times.setdefault(device, []).append(ts_us)
    backward = sum(int((np.diff(ts) < 0).sum()) for ts in times.values())
    # Two in a row are overtaken by the same reading, and follow it in their own order.
    assert simulation.counts["out_of_order"] * 0.85 <= backward <= simulation.counts["out_of_order"]


def test_a_live_fleet_sends_what_is_due_and_nothing_before() -> None:
    live = Simulate(topic="meters", rate=100, devices=10)
    simulation = Simulation("m", live, METERS, now_us=NOW_US)
    due = simulation.due_us()
    assert due is not None and NOW_US <= due < NOW_US + 10_000
    assert simulation.take(due - 1, 1000) is None
    portion = simulation.take(NOW_US + 10_000_000 - 1, 10_000)
    sent = 0 if portion is None else len(portion.batch)
    while (portion := simulation.take(NOW_US + 10_000_000 - 1, 10_000)) is not None:
        sent += len(portion.batch)
    assert sent == 1_000


def test_a_fleet_started_again_goes_on_with_the_readings_due_then() -> None:
    live = Simulate(topic="meters", rate=30, devices=7, curves=CURVES)
    whole = Simulation("m", live, METERS, now_us=NOW_US)
    before = Simulation("m", live, METERS, now_us=NOW_US)
    after = Simulation("m", live, METERS, now_us=NOW_US + 3_000_000)

    def taken(simulation: Simulation, until_us: int) -> list[tuple[Any, ...]]:
        sent: list[tuple[Any, ...]] = []
        while (portion := simulation.take(until_us, 50)) is not None:
            sent += readings(portion.batch)
        return sent

    assert taken(whole, NOW_US + 5_999_999) == taken(before, NOW_US + 2_999_999) + taken(after, NOW_US + 5_999_999)


def test_a_stop_sends_what_is_held_back() -> None:
    live = Simulate(topic="meters", rate=100, curves=CURVES, faults=Faults(late=0.2, out_of_order=0.1, missing=0.1))
    simulation = Simulation("m", live, METERS, now_us=NOW_US)
    sent = 0
    while (portion := simulation.take(NOW_US + 5_000_000, 100)) is not None:
        sent += len(portion.batch)
    held = simulation.drain()
    assert held is not None and simulation.due_us() is None
    sent += len(held.batch)
    assert sent == simulation.counts["sent"] == simulation.counts["generated"] - simulation.counts["missing"]


def test_as_fast_as_possible_with_a_count_ends_now() -> None:
    declared = Simulate(topic="meters", rate=10, count=50, speed=0, curves=CURVES)
    sent = everything(Simulation("m", declared, METERS, now_us=NOW_US))
    assert NOW_US - 5_100_000 <= sent[0][1] <= sent[-1][1] <= NOW_US


def test_event_time_runs_at_the_speed_that_is_asked_for() -> None:
    pace = Pace(1_000_000, 50_000_000, 60)
    assert pace.due(1_000_000) == 50_000_000
    assert pace.due(61_000_000) == 51_000_000
    assert pace.reached(51_000_000) == 61_000_000


@given(st.integers(-(10**12), 10**12), st.floats(0.01, 10_000))
def test_what_is_due_at_a_time_is_reached_then(ahead_us: int, speed: float) -> None:
    pace = Pace(0, NOW_US, speed)
    assert pace.reached(pace.due(ahead_us)) >= ahead_us - 1


@pytest.mark.parametrize("key_in", ["value", "message"])
@pytest.mark.parametrize("time", [Time(), Time(format="iso8601"), Time(format="%d/%m/%Y %H:%M:%S", zone="Asia/Tokyo")])
def test_every_malformed_message_is_refused_for_its_own_reason(time: Time, key_in: str) -> None:
    topic = msgspec.structs.replace(METERS, time=time, key_in=key_in)

    class Envelope:
        def timestamp_ms(self, _place: int) -> int:
            return NOW_US // 1_000

        def key(self, _place: int) -> bytes:
            return b"meters-0001"

        def all_keyed(self) -> bool:
            return True

    columns: dict[str, list[object]] = {"current": [1.5], "voltage": [220], "note": ["ok"], "city": ["Paris"]}
    [good] = Encoder(topic).rows(Batch(["meters-0001"], np.array([NOW_US]), columns))
    values = [good, *(malformed(kind, good, topic) for kind in MALFORMED_KINDS)]
    decoded = Decoder(topic).decode(values, Envelope())
    assert len(decoded.batch) == 1
    assert {r.place: r.reason for r in decoded.refused} == dict(enumerate(MALFORMED_KINDS, 1))


def test_a_malformed_message_of_optional_fields_only_is_still_malformed() -> None:
    topic = Topic(fields={"note": Field(type="text", optional=True)})
    good = b'{"device":"a","ts":1763668800000,"note":"ok"}'
    for kind in MALFORMED_KINDS:
        with pytest.raises((ValueError, KeyError)):
            row = json.loads(malformed(kind, good, topic), parse_constant=lambda name: int(name))
            int(row["ts"] if not isinstance(row["ts"], bool) else "a flag")


def curve(kind: Any, *, devices: int = 1, n: int = 2_000, step_us: int = 50_000, **given: Any) -> list[Any]:
    made = FieldCurve("x", Field(type=kind, optional=True), Curve(**given), devices=devices, seed=1)
    return made.values(0, np.arange(n) % devices, NOW_US + np.arange(n) * step_us)


def test_a_float_waves_around_its_base_and_stays_between_low_and_high() -> None:
    values = np.array(curve("float", base=10, swing=5, period=Duration.parse("10s"), high=14), float)
    assert values.max() == 14 and 4.99 < values.min() < 5.1 and 9 < values.mean() < 10.1
    period = 200
    assert values[:-period] == pytest.approx(values[period:])


def test_values_are_rounded_and_typed() -> None:
    assert all(value == round(value, 2) for value in curve("float", noise=3, decimals=2))
    assert {type(value) for value in curve("int", base=5, noise=3)} == {int}
    assert set(curve("bool", base=0.5, swing=1)) == {True, False}
    assert set(curve("text", choices=["a", "b"])) == {"a", "b"}
    assert curve("time", base=2, n=1) == [NOW_US + 2_000_000]
    assert "-" not in str(curve("float", base=-0.0001, n=5))


def test_a_text_keeps_its_choice_for_a_period() -> None:
    values = curve("text", choices=["a", "b", "c"], period=Duration.parse("10s"))
    changes = sum(a != b for a, b in itertools.pairwise(values))
    assert 3 <= changes <= 10


def test_a_field_is_absent_as_often_as_declared() -> None:
    assert 850 <= sum(value is None for value in curve("float", absent=0.5)) <= 1_150


def test_devices_differ_in_offset_and_share_the_days_wave() -> None:
    values = np.array(curve("float", devices=50, base=100, spread=10), float)[:50]
    assert 5 < values.std() < 15
    hours = np.array(curve("float", base=0, daily=1, n=24, step_us=3_600_000_000), float)
    assert hours.argmax() == (16 - NOW_US // 3_600_000_000 % 24) % 24
    assert hours.max() == 1 and hours.min() == -1


def test_tags_are_dealt_out_evenly_and_for_good() -> None:
    names = [f"m{n}" for n in range(12)]
    values = tag_values("city", Field(type="text"), Curve(choices=["a", "b", "c"]), names, seed=3)
    assert Counter(values) == {"a": 4, "b": 4, "c": 4}
    assert values == tag_values("city", Field(type="text"), Curve(choices=["a", "b", "c"]), names, seed=3)
    assert tag_values("group", Field(type="int"), Curve(choices=[1, 2]), names, seed=3).count(1) == 6
    assert tag_values("label", Field(type="text"), None, names, seed=3) == names
    sent = everything(Simulation("m", simulate(devices=12, count=120), METERS, now_us=NOW_US))
    assert len({(device, city) for device, _, city, *_ in sent}) == 12


@pytest.mark.parametrize(
    ("producer", "path", "fix"),
    [
        (simulate(faults=Faults(late=0.6, missing=0.6)), ("faults",), "sum"),
        (simulate(faults=Faults(late=0.1, late_by=Duration(0))), ("faults", "late_by"), "20s"),
        (simulate(curves={"current": Curve(low=3, high=2)}), ("curves", "current", "low"), "exchange"),
        (simulate(curves={"voltage": Curve(choices=["a"])}), ("curves", "voltage", "choices"), "int"),
        (simulate(curves={"voltage": Curve(absent=0.1)}), ("curves", "voltage", "absent"), "optional = true"),
        (simulate(name="meter"), ("name",), "{n"),
        (simulate(start="yesterday"), ("start",), "2026"),
        (simulate(start=None), ("speed",), "count"),
        (simulate(start=None, speed=60), ("speed",), "start"),
        (simulate(rate=10_000_000, devices=2), ("rate",), "devices"),
        (simulate(linger=Duration(0)), ("linger",), "100ms"),
        (Replay(topic="meters", file="x", time=ReplayTime(columns=[])), ("time", "columns"), "name one"),
        (
            Replay(topic="meters", file="x", time=ReplayTime(columns=["t"]), constants={"voltage": "high"}),
            ("constants", "voltage"),
            "int",
        ),
        (
            Replay(topic="meters", file="x", time=ReplayTime(columns=["t"]), speed=0, loop=True, shift="now"),
            ("shift",),
            "loop",
        ),
    ],
)
def test_a_senseless_declaration_is_told(producer: Simulate | Replay, path: tuple[str, ...], fix: str) -> None:
    [(found, _, told)] = list(producer_mistakes(producer, METERS))
    assert found == path
    assert fix in told


def test_a_plain_declaration_has_no_mistakes() -> None:
    assert not list(producer_mistakes(Simulate(topic="meters"), METERS))
