"""Session, state and event windows over ordered blocks, against plain Python that takes one reading at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headrace.column import DTYPES, Column, as_array
from headrace.field_types import FieldType
from processors.windows.kinds.segments import (
    NONE,
    Cut,
    event,
    open_after_event,
    open_after_session,
    open_after_state,
    session,
    state,
)

SLOTS = 4
BLANKS: dict[FieldType, Any] = {"float": np.nan, "int": 0, "time": 0, "bool": False, "text": ""}


class Reading(NamedTuple):
    slot: int
    ts_us: int
    value: Any = None
    starts: bool = False
    stops: bool = False


Windows = list[list[Reading]]
Blocks = list[list[Reading]]


def blocks_of(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Blocks]:
    """Blocks that follow each other; the times of a slot's readings never fall, and often are equal."""
    steps = st.tuples(st.integers(0, SLOTS - 1), st.integers(0, 6), values, st.booleans(), st.booleans())

    def timed(lists: list[list[tuple[int, int, Any, bool, bool]]]) -> Blocks:
        now = [1_700_000_000_000_000, -3, 0, NONE // 2]
        blocks = []
        for steps in lists:
            block = []
            for slot, step, value, starts, stops in steps:
                now[slot] += step
                block.append(Reading(slot, now[slot], value, starts, stops))
            blocks.append(sorted(block, key=lambda reading: reading.slot))
        return blocks

    return st.lists(st.lists(steps, max_size=25), max_size=6).map(timed)


def heads_of(block: list[Reading]) -> tuple[np.ndarray, list[int]]:
    slots = np.array([reading.slot for reading in block], np.int64)
    heads = np.ones(len(block), np.bool_)
    heads[1:] = slots[1:] != slots[:-1]
    return heads, slots[heads].tolist()


def times_of(block: list[Reading]) -> np.ndarray:
    return np.array([reading.ts_us for reading in block], np.int64)


def column_of_values(values: list[Any], kind: FieldType) -> Column:
    listed = as_array([BLANKS[kind] if value is None else value for value in values], DTYPES.get(kind, object))
    present = np.array([value is not None for value in values], np.bool_)
    return Column(listed, None if present.all() else present)


class Gathered:
    """Windows put together from the cuts of one block after the other."""

    def __init__(self) -> None:
        self.windows: dict[int, Windows] = {slot: [] for slot in range(SLOTS)}
        self.ended: list[Reading] = []

    def add(self, block: list[Reading], cut: Cut) -> None:
        for array in (cut.inside, cut.begins, cut.ends):
            assert array.dtype == np.bool_
            assert array.shape == (len(block),)
        for reading, inside, begins, ends in zip(
            block, cut.inside.tolist(), cut.begins.tolist(), cut.ends.tolist(), strict=True
        ):
            assert inside or not (begins or ends)
            if begins:
                self.windows[reading.slot].append([reading])
            elif inside:
                self.windows[reading.slot][-1].append(reading)
            if ends:
                self.ended.append(reading)


def one_by_one(
    blocks: Blocks, decide: Callable[[Windows, bool, Reading], tuple[bool, bool, bool]]
) -> tuple[dict[int, Windows], list[Reading]]:
    """The windows by a decision (inside, begins, ends) for each reading, and the readings that end one."""
    windows: dict[int, Windows] = {slot: [] for slot in range(SLOTS)}
    opened = dict.fromkeys(range(SLOTS), False)
    ended = []
    for block in blocks:
        for reading in block:
            mine = windows[reading.slot]
            inside, begins, ends = decide(mine, opened[reading.slot], reading)
            if begins:
                mine.append([reading])
            elif inside:
                mine[-1].append(reading)
            if inside:
                opened[reading.slot] = not ends
            if ends:
                ended.append(reading)
    return windows, ended


@given(blocks_of(st.none()), st.integers(0, 6), st.none() | st.integers(1, 20))
def test_sessions_in_any_blocks_are_those_of_one_reading_at_a_time(
    blocks: Blocks, gap_us: int, longest_us: int | None
) -> None:
    def decide(windows: Windows, opened: bool, reading: Reading) -> tuple[bool, bool, bool]:
        begins = (
            not opened
            or reading.ts_us - windows[-1][-1].ts_us > gap_us
            or (longest_us is not None and reading.ts_us >= windows[-1][0].ts_us + longest_us)
        )
        return True, begins, False

    gathered = Gathered()
    opened = dict.fromkeys(range(SLOTS), (NONE, NONE))
    for block in blocks:
        heads, slots = heads_of(block)
        last_us = np.array([opened[slot][0] for slot in slots], np.int64)
        first_us = np.array([opened[slot][1] for slot in slots], np.int64)
        ts_us = times_of(block)
        cut = session(heads, ts_us, last_us, first_us, gap_us=gap_us, longest_us=longest_us)
        gathered.add(block, cut)
        last_us, first_us = open_after_session(heads, ts_us, cut, first_us)
        opened.update(zip(slots, zip(last_us.tolist(), first_us.tolist(), strict=True), strict=True))

    assert (gathered.windows, gathered.ended) == one_by_one(blocks, decide)
    for slot, windows in gathered.windows.items():
        assert opened[slot] == ((windows[-1][-1].ts_us, windows[-1][0].ts_us) if windows else (NONE, NONE))


def test_a_reading_exactly_a_gap_later_still_belongs_and_one_exactly_longest_later_does_not() -> None:
    heads, none = np.array([True, False, False]), np.array([NONE])
    ts_us = np.array([100, 110, 120])

    assert session(heads, ts_us, none, none, gap_us=10, longest_us=None).begins.tolist() == [True, False, False]
    assert session(heads, ts_us, none, none, gap_us=9, longest_us=None).begins.tolist() == [True, True, True]
    assert session(heads, ts_us, none, none, gap_us=10, longest_us=20).begins.tolist() == [True, False, True]
    assert session(heads, ts_us, none, none, gap_us=10, longest_us=21).begins.tolist() == [True, False, False]


def test_a_session_cut_off_for_its_length_is_measured_anew_from_the_cut() -> None:
    ts_us = np.arange(0, 1_000, 7)
    heads = ts_us == 0

    begins = session(heads, ts_us, np.array([-7]), np.array([-70]), gap_us=7, longest_us=100).begins

    # Open since -70, so the first cut is at 35; then every 105, the first time of the readings from 100 on.
    assert ts_us[begins].tolist() == list(range(35, 1_000, 105))


def test_a_window_already_closed_for_silence_is_not_gone_on_with() -> None:
    cut = session(
        np.array([True, True]), np.array([10, 10]), np.array([NONE, 9]), np.array([NONE, 9]), gap_us=5, longest_us=None
    )

    assert cut.begins.tolist() == [True, False]


VALUES: dict[FieldType, st.SearchStrategy[Any]] = {
    "float": st.sampled_from([0.0, -0.0, 1.5, float("inf")]),
    "int": st.sampled_from([0, 1, 2**63 - 1]),
    "time": st.sampled_from([0, 1]),
    "bool": st.booleans(),
    "text": st.sampled_from(["", "on", "off"]),
}


@pytest.mark.parametrize("kind", list(VALUES))
@pytest.mark.parametrize("optional", [False, True])
def test_state_windows_in_any_blocks_are_those_of_one_reading_at_a_time(kind: FieldType, optional: bool) -> None:
    def decide(windows: Windows, opened: bool, reading: Reading) -> tuple[bool, bool, bool]:
        if reading.value is None:
            return False, False, False
        return True, not opened or reading.value != windows[-1][-1].value, False

    @given(blocks_of(st.none() | VALUES[kind] if optional else VALUES[kind]))
    def holds(blocks: Blocks) -> None:
        gathered = Gathered()
        opened: dict[int, Any] = dict.fromkeys(range(SLOTS))
        for block in blocks:
            heads, slots = heads_of(block)
            values = column_of_values([reading.value for reading in block], kind)
            before = column_of_values([opened[slot] for slot in slots], kind)
            gathered.add(block, state(heads, values, before))
            after = open_after_state(heads, values, before)
            assert after.values.dtype == values.values.dtype
            present = [True] * len(slots) if after.valid is None else after.valid.tolist()
            for slot, value, there in zip(slots, after.values.tolist(), present, strict=True):
                opened[slot] = value if there else None

        assert (gathered.windows, gathered.ended) == one_by_one(blocks, decide)
        for slot, windows in gathered.windows.items():
            assert opened[slot] == (windows[-1][-1].value if windows else None)

    holds()


def test_a_reading_without_the_value_is_left_out_and_does_not_end_the_state() -> None:
    values = column_of_values(["on", None, "on", None, "off"], "text")
    heads = np.array([True, False, False, False, False])

    cut = state(heads, values, column_of_values(["on"], "text"))

    assert cut.inside.tolist() == [True, False, True, False, True]
    assert cut.begins.tolist() == [False, False, False, False, True]
    assert not cut.ends.any()


@given(blocks_of(st.none()))
@example([[Reading(0, 1, None, True, True), Reading(0, 1, None, False, True), Reading(0, 2, None, True, False)]])
def test_events_in_any_blocks_are_those_of_one_reading_at_a_time(blocks: Blocks) -> None:
    def decide(windows: Windows, opened: bool, reading: Reading) -> tuple[bool, bool, bool]:
        inside = opened or reading.starts
        return inside, not opened and reading.starts, inside and reading.stops

    gathered = Gathered()
    opened = dict.fromkeys(range(SLOTS), False)
    for block in blocks:
        heads, slots = heads_of(block)
        starts = np.array([reading.starts for reading in block], np.bool_)
        stops = np.array([reading.stops for reading in block], np.bool_)
        given_starts, given_stops = starts.copy(), stops.copy()
        cut = event(heads, starts, stops, np.array([opened[slot] for slot in slots], np.bool_))
        assert (starts == given_starts).all()
        assert (stops == given_stops).all()
        gathered.add(block, cut)
        opened.update(zip(slots, open_after_event(heads, cut).tolist(), strict=True))

    assert (gathered.windows, gathered.ended) == one_by_one(blocks, decide)


def test_an_event_that_starts_and_stops_with_one_reading_is_a_window_of_one() -> None:
    starts = np.array([False, True, True, False, False, True])
    stops = np.array([True, True, False, False, True, False])

    cut = event(np.array([True] + [False] * 5), starts, stops, np.array([False]))

    assert cut.inside.tolist() == [False, True, True, True, True, True]
    assert cut.begins.tolist() == [False, True, True, False, False, True]
    assert cut.ends.tolist() == [False, True, False, False, True, False]


def test_an_empty_block_has_no_windows_and_leaves_nothing_open() -> None:
    none, empty = np.empty(0, np.bool_), np.empty(0, np.int64)
    sessions = session(none, empty, empty, empty, gap_us=1, longest_us=1)
    for cut in (sessions, state(none, Column(empty), Column(empty)), event(none, none, none, none)):
        assert not len(cut.inside) + len(cut.begins) + len(cut.ends)

    assert [len(times) for times in open_after_session(none, empty, sessions, empty)] == [0, 0]
    assert len(open_after_state(none, Column(empty), Column(empty))) == 0
    assert len(open_after_event(none, sessions)) == 0
