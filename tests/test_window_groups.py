"""Groups: by a tag, by fields, by computed ones, by several, by nothing; and which device's clock closes them."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from window_readings import FOR_EVER_US, SECOND, Tick
from window_situations import WHOLE_AND_CUT, counted, read, said, windows

from processors.windows.input.groups import group_name

PARTS = st.one_of(st.none(), st.text(st.sampled_from('-"/\\ab'), max_size=4), st.text(max_size=3))


@given(st.lists(PARTS, min_size=1, max_size=3))
def test_a_group_s_name_tells_its_values(values: list[str | None]) -> None:
    assert values_of(group_name(values)) == values


def values_of(name: str) -> list[str | None]:
    """The texts that a group's name was made of."""
    parts = re.findall(r"((?:[^/\\]|\\.)+)(?:/|$)", name, re.DOTALL)
    texts = {"-": None, '""': ""}
    return [texts[part] if part in texts else re.sub(r"\\(.)", r"\1", part, flags=re.DOTALL) for part in parts]


AT_LAST = Tick(FOR_EVER_US)


def test_by_a_tag_readings_of_several_devices_are_together() -> None:
    driver = windows(by='["room"]')
    driver.read([read("a", 1, room="hall", energy=1), read("b", 2, room="hall", energy=2), read("c", 3, room="attic")])
    driver.run([AT_LAST])
    assert said(driver, "count", "energy_sum") == {("hall", 0.0): (2, 3), ("attic", 0.0): (1, None)}
    assert sorted(tags["room"] for tags in driver.tags.values()) == ["attic", "hall"]


def test_a_tag_that_a_reading_leaves_out_is_the_one_that_its_device_said_last() -> None:
    events = [read("a", 1), read("a", 2, room="hall"), read("b", 2), read("a", 3), read("b", 3, room="x"), read("b", 4)]
    for cuts in WHOLE_AND_CUT:
        driver = windows(by='["room"]').run([*events, AT_LAST], cuts)
        assert said(driver, "count") == {("-", 0.0): 2, ("hall", 0.0): 2, ("x", 0.0): 2}


def test_a_device_that_moves_to_another_room_is_in_the_windows_of_both() -> None:
    driver = windows(by='["room"]', grace="5s")
    driver.read([read("a", 1, room="r"), read("a", 4, room="s"), read("a", 2, room="r"), read("a", 5)])
    driver.run([AT_LAST])
    assert said(driver, "count") == {("r", 0.0): 3, ("s", 0.0): 1}


def test_by_a_whole_number_and_by_a_missing_one() -> None:
    driver = windows(by='["energy"]')
    driver.read([read("a", 1, energy=7), read("b", 2, energy=-7), read("c", 3, energy=7), read("a", 4)])
    driver.run([AT_LAST])
    assert said(driver, "count") == {("7", 0.0): 2, ("-7", 0.0): 1, ("-", 0.0): 1}
    assert [tags["energy"] for tags in driver.tags.values()] == [7, -7, None]


def test_by_a_computed_field_and_aggregates_of_one() -> None:
    driver = windows(
        computed='{ level = "floor(current / 10)", power = "current * energy" }',
        by='["level"]',
        aggregates={"power": ["sum", "missing"]},
        where="power > 1 or power is null",
    )
    driver.read([read("a", 1, current=15.0, energy=2), read("b", 2, current=19.9), read("a", 3, current=1.0, energy=1)])
    driver.run([AT_LAST])
    assert said(driver, "count", "power_sum", "power_missing") == {("1", 0.0): (2, 30.0, 1)}
    assert counted(driver)["filtered"] == 1


def test_by_several_the_groups_name_tells_them_apart_whatever_they_hold() -> None:
    driver = windows(by='["room", "note", "door"]')
    driver.read([read("a", 1, room="r", note="x/y", door=True), read("a", 2, room="r/x", note="y", door=True)])
    driver.read([read("a", 3, room="-", note="", door=False), read("b", 4)])
    driver.run([AT_LAST])
    assert said(driver, "count") == {
        (name, 0.0): 1 for name in ("r/x\\/y/true", "r\\/x/y/true", '\\-/""/false', "-/-/-")
    }


def test_by_nothing_all_is_one_group() -> None:
    driver = windows(by="[]")
    driver.read([read("a", 1, room="r", energy=1), read("b", 2, energy=2), read("b", 11), read("a", 11)])
    assert said(driver, "count", "energy_sum") == {("all", 0.0): (2, 3)}
    assert driver.tags == {("all", read("a", 0).ts_us): {}}


def test_groups_within_one_device_follow_its_own_clock() -> None:
    driver = windows(by='["device", "note"]', idle="1m")
    driver.read([read("a", 1, note="x"), read("a", 2, note="y"), read("b", 1, note="x"), read("a", 12, note="z")])
    assert said(driver, "count") == {("a/x", 0.0): 1, ("a/y", 0.0): 1}
    assert driver.tags["a/x", read("a", 0).ts_us] == {"device": "a", "note": "x"}


def test_a_window_of_a_tag_that_devices_change_closes_for_each_of_its_values() -> None:
    driver = windows('kind = "session", gap = "5s"', by='["room"]', idle="20s")
    driver.read([read("a", 0, room="r"), read("b", 3, room="r"), read("a", 6, room="s"), read("b", 9, room="r")])
    driver.run([AT_LAST])
    assert said(driver, "count", "end") == {("r", 0.0): (2, 3.0), ("s", 6.0): (1, 6.0), ("r", 9.0): (1, 9.0)}


def test_a_sliding_window_over_several_devices_waits_for_the_slowest() -> None:
    driver = windows('kind = "sliding", size = "5s"', by="[]", idle="1m")
    driver.read([read("a", 1, energy=1), read("b", 4, energy=4)])
    driver.read([read("a", 3, energy=3)])
    # Of exactly 3 s something may come yet, from another device.
    assert said(driver, "energy_sum") == {("all", -4.0): 1}
    driver.read([read("a", 10)])
    assert said(driver, "energy_sum") == {("all", -4.0): 1, ("all", -2.0): 4}
    driver.read([read("b", 10)])
    assert said(driver, "energy_sum") == {("all", -4.0): 1, ("all", -2.0): 4, ("all", -1.0): 8}


def test_readings_of_one_time_are_in_the_order_of_their_devices_names() -> None:
    for order in (["a", "b", "c"], ["c", "a", "b"]):
        driver = windows('kind = "count", count = 2', by="[]", idle="20s")
        driver.read([read(device, 1, note=device) for device in order])
        driver.run([AT_LAST])
        assert said(driver, "note_count") == {("all", 1.0): 1}
        assert counted(driver) == {"read": 3, "windowed": 3, "closed": 2, "in_closed": 3}


def test_a_partition_that_is_silent_closes_its_groups_by_the_clock() -> None:
    driver = windows(by='["room"]', idle="30s", grace="2s")
    driver.read([read("a", 1, room="r"), read("b", 5, room="r")])
    assert driver.tick(Tick(36 * SECOND)) == {}
    assert len(driver.tick(Tick(SECOND))) == 1
    assert said(driver, "count") == {("r", 0.0): 2}
