"""How far event time is: what each reading meets, one batch or many, held to one reading at a time."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from window_readings import SECOND, Tick
from window_situations import counted, read, said, windows

from processors.windows.time.watermark import NEVER, Clocks, Follows


@pytest.mark.parametrize("follows", ['clock = "partition"', 'by = ["room"]', ""])
def test_what_time_alone_has_closed_is_late_in_a_batch_out_of_order_too(follows: str) -> None:
    name, _, value = follows.partition(" = ")
    settings = {name: value} if name else {}
    driver = windows(idle="5s", **settings)
    driver.read([read("a", 5, room="r")])
    driver.tick(Tick(11 * SECOND))
    assert [window["count"] for window in driver.closed.values()] == [1]
    driver.read([read("a", 9, room="r"), read("a", 8, room="r")])
    assert counted(driver) == {"read": 3, "windowed": 1, "late": 2, "closed": 1, "in_closed": 1}


def test_a_partitions_clock_goes_with_its_furthest_device() -> None:
    driver = windows(clock='"partition"', grace="2s")
    driver.read([read("slow", 1), read("fast", 11)])
    assert driver.closed == {}
    driver.read([read("fast", 12), read("slow", 9)])
    assert said(driver, "count") == {("slow", 0.0): 1}
    assert counted(driver)["late"] == 1


def test_a_group_closes_with_the_slowest_of_its_partitions_devices_that_is_not_idle() -> None:
    driver = windows(by='["room"]', idle="30s")
    driver.read([read("a", 1, room="r"), read("b", 2, room="r"), read("c", 3, room="s")])
    assert driver.read([read("a", 25, room="r"), read("b", 12, room="r")]) == {}
    # c is in another room, but what it sends next may be of any.
    assert list(driver.read([read("c", 11, room="r")])) == [("r", read("", 0).ts_us), ("s", read("", 0).ts_us)]
    assert said(driver, "count") == {("r", 0.0): 2, ("s", 0.0): 1}
    # b and c are silent, and a goes on: at 41 c is idle, at 42 b.
    driver.read([read("a", 41, room="r")])
    assert said(driver, "count") == {("r", 0.0): 2, ("s", 0.0): 1}
    driver.read([read("a", 42, room="r")])
    assert said(driver, "count") == {("r", 0.0): 2, ("s", 0.0): 1, ("r", 10.0): 2, ("r", 20.0): 1}


def test_a_device_that_was_idle_holds_the_others_up_again_but_what_has_closed_stays_closed() -> None:
    driver = windows(by="[]", idle="30s")
    driver.read([read("a", 1), read("b", 1), read("a", 45)])
    assert said(driver, "count") == {("all", 0.0): 2}
    driver.read([read("b", 46), read("a", 70), read("b", 9)])
    assert counted(driver)["late"] == 1
    assert said(driver, "count") == {("all", 0.0): 2}
    driver.read([read("b", 50)])
    assert said(driver, "count") == {("all", 0.0): 2, ("all", 40.0): 2}


# ---- against one reading at a time


@dataclass
class OneByOne:
    """The clocks, said plainly."""

    follows: Follows
    idle_us: int
    grace_us: int
    progress: dict[int, int] = field(default_factory=dict)
    clock: int | None = None
    furthest: int = NEVER
    slowest: int = NEVER

    def silent(self) -> int:
        return NEVER if self.clock is None else self.clock - self.idle_us

    def watermark(self, device: int) -> int:
        if self.follows == "device":
            return max(self.progress.get(device, NEVER), self.silent()) - self.grace_us
        return max(self.slowest if self.follows == "slowest" else self.furthest, self.silent()) - self.grace_us

    def take(self, device: int, ts_us: int) -> None:
        self.progress[device] = max(self.progress.get(device, NEVER), ts_us)
        self.clock = ts_us if self.clock is None else max(self.clock, ts_us)
        self.furthest = max(self.furthest, ts_us)
        self.settle()

    def settle(self) -> None:
        awake = [ts_us for ts_us in self.progress.values() if ts_us > self.silent()]
        self.slowest = max(self.slowest, min(awake, default=self.silent()))


steps = st.lists(
    st.lists(st.tuples(st.integers(0, 3), st.integers(-20, 60)), min_size=1, max_size=8) | st.integers(1, 30),
    max_size=12,
)


@example("furthest", 0, 0, 1, [[(0, 0)], 20, [(0, 5), (0, 4)]])
@example("slowest", 0, 0, 1, [[(0, 0)], 20, [(0, 5), (0, 4)]])
@given(
    st.sampled_from(["device", "slowest", "furthest"]),
    st.sampled_from([0, 5, 25]),
    st.sampled_from([0, 3, 10]),
    st.integers(1, 15),
    steps,
)
def test_the_watermark_that_a_reading_meets_does_not_depend_on_its_batch(
    follows: Follows, idle: int, grace: int, until: int, happening: list[list[tuple[int, int]] | int]
) -> None:
    clocks, plain = Clocks(follows, idle, grace), OneByOne(follows, idle, grace)
    now_us = 0
    for step in happening:
        now_us += 1
        if isinstance(step, int):
            now_us += step
            if plain.clock is not None:
                plain.clock += step + 1
                plain.settle()
            clocks.tick(now_us)
            continue
        devices, ts_us = (np.array(column, np.int64) for column in zip(*step, strict=True))
        clocks.add_devices(max(clocks.devices, int(devices.max()) + 1))
        met = []
        for device, ts in step:
            met.append(plain.watermark(device))
            plain.take(device, ts)
        before = clocks.before(devices, ts_us, ts_us + until)
        late = [ts + until <= watermark for (_, ts), watermark in zip(step, met, strict=True)]
        if before is None:
            assert not any(late)
        else:
            assert [ts + until <= mark for (_, ts), mark in zip(step, before.tolist(), strict=True)] == late
        clocks.move(devices, ts_us, now_us)
        every = np.arange(clocks.devices)
        assert clocks.watermark_us(every).tolist() == [plain.watermark(device) for device in every.tolist()]
        if follows != "device" and plain.clock is not None:
            assert clocks.partition_us == clocks.common_us == plain.watermark(0)
