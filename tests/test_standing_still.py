"""What the fault suite calls standing still, by itself: faults are planted in a line that is made of numbers only."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import pytest
from faults.chaos import RECOVERY_S
from faults.watch import Movement, Place

RATE = 10
"""Messages a second in each partition."""

GROUPS = ("processors", "sinks")
BEGUN_S = 30
PAUSED = ("sinks", "meters", 1)

Sample = dict[Place, tuple[int, int]]
Fault = Callable[[Place, int], int | None]
"""What a place has committed at a time; None: nobody has ever seen it."""


def line(fault: Fault, at_s: int) -> Sample:
    """What is seen of the line at a time: each place's committed offset, and the end of its partition."""
    places = [(group, "meters", partition) for group in GROUPS for partition in range(3)]
    committed = {place: fault(place, at_s) for place in places}
    return {place: (offset, RATE * at_s) for place, offset in committed.items() if offset is not None}


def turns_at(see: Callable[[int], Mapping[Place, tuple[int, int]] | None], *, small: int = 3 * RATE) -> int | None:
    """When a wait that begins at BEGUN_S ends with a verdict against the line; None if the line has caught up.

    It is seen once a second, and given up after an hour.
    """
    movement = Movement(len(GROUPS), small)
    for now_s in itertools.count():
        if (found := see(now_s)) is not None:
            movement.note(found, now_s)
        if now_s <= BEGUN_S:
            continue
        if movement.caught_up_s > BEGUN_S:
            return None
        if movement.stands_still(BEGUN_S, now_s, RECOVERY_S):
            return now_s
        assert now_s < 3_600, "it waits for ever"
    raise AssertionError


def in_step(_: Place, at_s: int) -> int:
    return RATE * max(at_s - 1, 0)


def test_a_line_that_keeps_up_has_caught_up_at_once() -> None:
    assert turns_at(lambda at_s: line(in_step, at_s)) is None


def test_a_sink_that_pauses_one_partition_for_good_turns_it_when_patience_is_over() -> None:
    def paused(place: Place, at_s: int) -> int:
        return in_step(place, min(at_s, BEGUN_S - 5) if place == PAUSED else at_s)

    assert turns_at(lambda at_s: line(paused, at_s)) == BEGUN_S + RECOVERY_S + 1


def test_the_place_that_stands_still_is_named() -> None:
    movement = Movement(len(GROUPS), small=0)
    for now_s in range(200):
        movement.note(line(lambda place, at_s: 5 if place == PAUSED else in_step(place, at_s), now_s), now_s)
    assert movement.standing(0, 199, RECOVERY_S) == [PAUSED]


def test_one_that_stands_still_while_the_line_is_waited_for_turns_it_from_then_on() -> None:
    stops_s = BEGUN_S + 40

    def paused(place: Place, at_s: int) -> int:
        # Behind by too much to have caught up before.
        return max(in_step(place, min(at_s, stops_s)) - 20 * RATE, 0) if place == PAUSED else in_step(place, at_s)

    assert turns_at(lambda at_s: line(paused, at_s)) == stops_s + RECOVERY_S + 1


def test_one_that_is_slow_and_gets_on_is_waited_for() -> None:
    def slow(place: Place, at_s: int) -> int:
        if place != PAUSED or at_s < BEGUN_S - 10:
            return in_step(place, at_s)
        # A message each minute for half an hour; then it hurries.
        return in_step(place, BEGUN_S - 10) + at_s // 60 if at_s < 1_800 else in_step(place, at_s)

    assert turns_at(lambda at_s: line(slow, at_s)) is None


def test_a_partition_without_anything_to_read_is_not_standing_still() -> None:
    def see(at_s: int) -> Sample:
        slow = line(lambda _, at_s: in_step(PAUSED, at_s) // 2 if at_s < 1_800 else in_step(PAUSED, at_s), at_s)
        return {**slow, ("sinks", "silent", 0): (7, 7)}

    assert turns_at(see) is None


@pytest.mark.parametrize("missing", [*GROUPS, None])
def test_a_group_that_never_comes_turns_it(missing: str | None) -> None:
    def see(at_s: int) -> Sample:
        return line(lambda place, at_s: None if missing in (place[0], None) else in_step(place, at_s), at_s)

    assert turns_at(see) == BEGUN_S + RECOVERY_S + 1


def test_a_broker_that_never_answers_again_turns_it() -> None:
    assert turns_at(lambda at_s: line(in_step, at_s) if at_s < BEGUN_S else None) == BEGUN_S + RECOVERY_S + 1


def test_at_the_end_one_message_that_is_not_read_is_enough() -> None:
    def all_but_one(place: Place, at_s: int) -> int:
        return RATE * at_s - (place == PAUSED)

    def see(at_s: int) -> Sample:
        return line(all_but_one, min(at_s, BEGUN_S - 5))

    assert turns_at(see) is None
    assert turns_at(see, small=0) == BEGUN_S + RECOVERY_S + 1
