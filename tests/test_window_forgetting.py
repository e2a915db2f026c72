"""What is forgotten: devices and groups that come and go leave memory and state, and no result tells."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from test_window_merging import KINDS as MERGED_KINDS
from test_window_merging import Ends, Line
from window_oracle import FOR_EVER_US, SECOND, Driver, Reading, Tick, at, sound, spec_of
from window_strategies import KINDS, differing

from processors.windows import WindowOperator, WindowSpec
from processors.windows.stage import Stage
from processors.windows.state import BUCKET, changed_pieces, forget_written, restore

PATIENCE = {"grace": "2s", "idle": "10s", "forget_after": "60s"}
SHORT = {kind: case for kind, case in KINDS.items() if kind != "tumbling, zone"}
"""All but days."""


def put_away(windowed: Stage, kept: dict[str, bytes]) -> None:
    for name, piece in changed_pieces(windowed, 7):
        if piece is None:
            kept.pop(name, None)
        else:
            kept[name] = piece


def restarted(driver: Driver, spec: WindowSpec | None = None) -> None:
    kept: dict[str, bytes] = {}
    forget_written(driver.windowed)
    put_away(driver.windowed, kept)
    driver.windowed, _ = restore(spec or driver.windowed.spec, kept.get)


def passing(seconds: range) -> list[Reading]:
    """A new device, in a room of its own, every third second; each sends three readings and no more."""
    values = {"current": 6.0, "energy": 0, "note": "x", "door": True}
    return sorted(
        (
            Reading(f"d{second}", at(second + after), {**values, "room": f"r{second}"})
            for second in seconds
            for after in (0, 1, 2)
        ),
        key=lambda reading: reading.ts_us,
    )


@pytest.mark.parametrize("by", [None, '["room"]', '["device", "note"]'])
@pytest.mark.parametrize("kind", SHORT)
def test_devices_and_groups_that_come_and_go_keep_neither_slots_nor_state(kind: str, by: str | None) -> None:
    if kind == "hopping, in order" and by == '["room"]':
        pytest.skip("its aggregates follow one device's values")
    spec = SHORT[kind].spec(**({} if by is None else {"by": by}), **PATIENCE)
    driver, oracle, kept = Driver(WindowOperator(spec)), SHORT[kind].oracle(spec), dict[str, bytes]()
    slots, sizes = [], []
    for minute in range(7):
        readings = passing(range(60 * minute, 60 * minute + 60, 3))
        for reading in readings:
            oracle.take(reading)
        driver.run(readings, [30])
        put_away(driver.windowed, kept)
        assert 20 <= driver.windowed.gauges["devices"] < 50
        slots.append((len(driver.windowed.intake.devices), driver.windowed.intake.group_count))
        sizes.append(sum(map(len, kept.values())))
        if minute == 4:
            gauges = driver.windowed.gauges
            driver.windowed, _ = restore(spec, kept.get)
            assert driver.windowed.gauges == gauges
    assert slots[3:] == [slots[3]] * 4
    assert max(sizes[3:]) < 1.2 * sizes[3]
    assert not differing(driver.closed, oracle.closed)
    assert driver.windowed.counts == oracle.counts


def test_the_state_of_a_bucket_that_nobody_is_left_in_is_deleted() -> None:
    driver, kept = Driver(WindowOperator(spec_of(**PATIENCE))), dict[str, bytes]()
    driver.read([Reading(f"d{n}", at(0)) for n in range(3 * BUCKET)])
    put_away(driver.windowed, kept)
    assert {f"{kind}.{bucket}" for kind in ("names", "progress", "open") for bucket in range(3)} <= kept.keys()
    driver.read([Reading("d5", at(100))])
    put_away(driver.windowed, kept)
    assert {name for name in kept if not name.startswith("seen")} == {"meta", "names.0", "progress.0", "open.0"}
    restarted(driver)
    assert driver.windowed.gauges["devices"] == 1
    driver.read([Reading(f"e{n}", at(101)) for n in range(2 * BUCKET)])
    assert len(driver.windowed.intake.devices) == 3 * BUCKET


def test_a_device_that_was_forgotten_and_comes_back_makes_no_window_twice_and_is_not_counted_twice() -> None:
    for restart in (False, True):
        driver = Driver(WindowOperator(spec_of(**PATIENCE)))
        sent = [Reading("a", at(1), {"energy": 1}), Reading("a", at(12), {"energy": 2})]
        driver.read(sent)
        driver.read([Reading("b", at(200))])
        assert driver.windowed.gauges["devices"] == 1
        if restart:
            restarted(driver)
        closed = dict(driver.closed)
        driver.read([*sent, Reading("a", at(15)), Reading("c", at(12)), Reading("a", at(187))])
        assert driver.windowed.counts["late"] == 4
        # Within idle and grace of the clock it is on time, as one that was never seen is.
        driver.read([Reading("a", at(188))])
        assert driver.windowed.counts["late"] == 4
        driver.tick(Tick(FOR_EVER_US))
        assert {key: driver.closed[key] for key in closed} == closed
        assert sorted(key for key in driver.closed if key[0] == "a") == [("a", at(0)), ("a", at(10)), ("a", at(180))]


def test_a_reading_is_no_repeat_of_one_whose_device_had_the_slot_before() -> None:
    spec = spec_of(**{**PATIENCE, "idle": "60s"})
    driver = Driver(WindowOperator(spec))
    driver.read([Reading("a", at(1), {"energy": 1}), Reading("b", at(1), {"energy": 1}), Reading("b", at(65))])
    driver.read([Reading("b", at(140))])
    slot = driver.windowed.intake.devices.vacant
    assert len(slot) == 1
    # Patience that grows with a restart would have this one on time, had nobody been forgotten.
    restarted(driver, replace(spec, idle_us=1_000 * SECOND, forget_us=1_000 * SECOND))
    driver.read([Reading("c", at(1), {"energy": 1})])
    counts = driver.windowed.counts
    assert (counts["late"], counts["repeated"], counts["windowed"]) == (1, 0, 4)


def test_a_device_is_known_as_long_as_its_readings_could_be_on_time_once_more() -> None:
    spec = spec_of(by='["room"]', grace="300s", idle="10s", forget_after="60s")
    driver = Driver(WindowOperator(spec))
    said = {"energy": 1, "room": "r"}
    driver.read([Reading("a", at(1), said), Reading("b", at(100), said)])
    driver.read([Reading("c", at(1), said), Reading("a", at(1), said)])
    assert (driver.windowed.counts["windowed"], driver.windowed.counts["repeated"]) == (3, 1)
    driver.read([Reading("b", at(400), said)])
    assert driver.windowed.gauges["devices"] == 1


def test_the_readings_that_sliding_windows_reach_back_to_are_forgotten_with_their_group() -> None:
    driver = Driver(WindowOperator(spec_of('kind = "sliding", size = "5s"', **PATIENCE)))
    driver.read([Reading(f"d{n}", at(second)) for n in range(9) for second in (0, 2, 4)])
    restarted(driver)
    driver.read([Reading("d5", at(100))])
    driver.read([Reading("d5", at(103))])
    assert driver.windowed.gauges["devices"] == 1
    assert {held.name: len(held) for held in driver.windowed.held} == {"waiting": 1, "tail": 1}


def test_what_was_late_when_somebody_was_forgotten_is_late_though_idle_is_longer_from_then_on() -> None:
    for by in (None, '["room"]'):
        spec = spec_of(**{} if by is None else {"by": by}, **PATIENCE)
        driver = Driver(WindowOperator(spec))
        driver.read([Reading("a", at(1), {"room": "r"}), Reading("b", at(200), {"room": "s"})])
        assert driver.windowed.gauges["devices"] == 1
        closed = dict(driver.closed)
        restarted(driver, replace(spec, idle_us=1_000 * SECOND, grace_us=500 * SECOND, forget_us=1_000 * SECOND))
        driver.read([Reading("a", at(2), {"room": "r"}), Reading("a", at(100), {"room": "r"})])
        assert driver.windowed.counts["late"] == 2
        driver.tick(Tick(FOR_EVER_US))
        assert {key: driver.closed[key] for key in closed} == closed


def test_the_tags_of_a_device_are_forgotten_by_its_readings_alone_however_these_are_cut() -> None:
    spec = spec_of(by='["room"]', **PATIENCE)
    events = [
        Reading("a", at(0), {"room": "r"}),
        Reading("b", at(59)),
        Reading("a", at(59.5)),  # in time: in r still
        Reading("b", at(119.5)),
        Reading("a", at(119.5)),  # forgotten: 60 s have passed elsewhere
        Reading("a", at(119.6), {"room": "s"}),
        Reading("a", at(119.7)),
        Reading("b", at(300)),
        Reading("a", at(300)),
    ]
    for cuts in ([], [4], [5], list(range(len(events)))):
        for stop in range(len(events)):
            driver = Driver(WindowOperator(spec)).run(events[:stop], cuts)
            restarted(driver)
            driver.run(events[stop:], [cut - stop for cut in cuts])
            driver.tick(Tick(FOR_EVER_US))
            rooms = {(room, (start - at(0)) // SECOND): said["count"] for (room, start), said in driver.closed.items()}
            assert rooms == {
                ("r", 0): 1,
                ("-", 50): 1,
                ("r", 50): 1,
                ("-", 110): 2,
                ("s", 110): 2,
                ("-", 300): 2,
            }


def test_a_slot_s_new_group_does_not_take_over_up_to_where_the_old_one_s_windows_have_closed() -> None:
    """A device's own time may be far ahead of its neighbours': so may that of a group within it that is forgotten."""
    spec = spec_of('kind = "hopping", size = "10s", step = "5s"', by='["device", "note"]', **PATIENCE)
    for restart in (False, True):
        driver = Driver(WindowOperator(spec))
        driver.read([Reading("a", at(1), {"note": "old"}), Reading("a", at(1_000), {"note": "far"})])
        assert len(driver.windowed.intake.groups.vacant) == 1  # type: ignore[union-attr]
        if restart:
            restarted(driver)
        driver.read([Reading("b", at(990), {"note": "new"}), Reading("b", at(1_100), {"note": "new"})])
        assert {("b/new", at(985)), ("b/new", at(990))} <= driver.closed.keys()


def rounds_of(chance: random.Random) -> list[list[Reading]]:
    """Rounds of a minute of readings each, five minutes apart; in each some of the devices, and some of the rooms."""
    made = []
    for number in range(3):
        of = chance.sample([f"d{n}" for n in range(8)], 3)
        rooms = chance.sample(["r", "s", "t", "u"], 2)
        values: list[dict[str, Any]] = [
            {"current": chance.choice([None, 1.5, 7.0]), "energy": chance.choice([None, 0, 1]), "note": note}
            for note in (None, "x", "y")
        ]
        times = chance.sample(range(60), 12)
        made.append(
            [
                Reading(
                    chance.choice(of),
                    at(300 * number + second),
                    {**chance.choice(values), "room": chance.choice(rooms)},
                )
                for second in times
            ]
        )
    return made


@pytest.mark.parametrize("by", [None, '["room"]', '["note", "room"]'])
@pytest.mark.parametrize("kind", MERGED_KINDS)
def test_both_stages_forget_and_their_windows_are_those_of_one_partition(kind: str, by: str | None) -> None:
    own = {"unkeyed": "merge"} if by is None else {"by": by}
    spec = spec_of(**{"grace": "70s", "idle": "5s", "forget_after": "20s", **MERGED_KINDS[kind], **own})
    for seed in range(4):
        chance = random.Random(seed)
        rounds = rounds_of(chance)
        one = Driver(WindowOperator(spec))
        line, ends = Line(spec, 2, 2), Ends(spec, 2)
        for readings in rounds:
            one.run([*readings, Tick(80 * SECOND)])
            parts: list[list[Reading]] = [[], []]
            for reading in readings:
                # One device of one partition, unless any may take any.
                source = chance.randrange(2) if by is None else int(reading.device[1:]) % 2
                parts[source].append(reading)
            for source, part in enumerate(parts):
                kept = line.put_away(source)
                line.read(source, part)
                if chance.random() < 0.5:
                    line.restart(source, kept)
                    for reading in part:
                        line.read(source, [reading])
            for source in (0, 1):
                line.silence(source, 80 * SECOND)
            ends.take_all(line)
            for target in (0, 1):
                ends.restart(target)
        for second in (10_000, 10_001):
            for source in (0, 1):
                last = Reading(f"d{source}", at(second), {"room": "v"})
                one.read([last])
                line.read(source, [last])
            ends.take_all(line)
        one.tick(Tick(FOR_EVER_US))
        for source in (0, 1):
            line.silence(source, FOR_EVER_US)
        ends.take_all(line)
        assert not differing(ends.driver.closed, one.closed)
        for stage in (*line.locals, *ends.merged):
            assert sound(stage)  # type: ignore[arg-type]
            assert stage.gauges["devices"] <= 2
            assert stage.intake.group_count <= 12
