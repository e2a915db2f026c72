"""Windows of every kind against the plain oracle: any batching, any order within the grace, restored anywhere."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from window_oracle import Driver, sound
from window_readings import FOR_EVER_US, Happening, Reading, Tick, at
from window_strategies import (
    CASES,
    KINDS,
    cut_lists,
    devices,
    differing,
    drive,
    event_lists,
    overwritten,
    patience,
    spec_for,
    values_of,
)

from processors.windows import WindowOperator
from processors.windows.state import changed_pieces, restore

pytestmark = pytest.mark.slow

every_case = pytest.mark.parametrize(("kind", "variant"), CASES)
AT_LAST = Tick(FOR_EVER_US)


@every_case
@settings(max_examples=25)
@given(event_lists(), cut_lists, patience)
def test_windows_are_right_however_the_readings_are_cut_into_batches(
    kind: str, variant: str, events: list[Happening], cuts: list[int], settled: tuple[tuple[str, str], ...]
) -> None:
    spec = spec_for(kind, variant, **dict(settled))
    oracle, driver = KINDS[kind].oracle(spec), Driver(WindowOperator(spec))
    for part in (events, [AT_LAST]):
        for event in part:
            oracle.take(event)
        driver.run(part, cuts)
        assert not differing(driver.closed, oracle.closed)
        counts = driver.windowed.counts
        if overwritten(spec):
            counts = {**counts, "closed": oracle.counts["closed"], "in_closed": oracle.counts["in_closed"]}
        assert counts == oracle.counts
        assert driver.windowed.gauges["waiting"] == len(oracle.waiting)
        assert sound(driver.windowed)
    assert driver.windowed.gauges["open"] == driver.windowed.gauges["in_open"] == 0


@every_case
@settings(max_examples=12)
@given(
    # Two readings of one time and device would be a repeat, or a correction: which is which goes by their order.
    st.lists(
        st.tuples(devices, st.integers(0, 240), values_of(), st.floats(0, 1)),
        max_size=25,
        unique_by=lambda one: (one[0], one[1]),
    ),
    st.tuples(cut_lists, cut_lists),
    st.randoms(use_true_random=False),
)
def test_any_order_within_the_grace_gives_the_same_windows(
    kind: str,
    variant: str,
    drawn: list[tuple[str, int, dict[str, object], float]],
    cuts: tuple[list[int], list[int]],
    chance: random.Random,
) -> None:
    spec = spec_for(kind, variant, grace="3s", idle="1m")
    # A reading that leaves out its room is in the one that its device said last, which goes by the order, too.
    delayed = [(Reading(d, at(n / 4), {**values, "room": values["room"] or "r"}), late) for d, n, values, late in drawn]
    in_order = [reading for reading, _ in sorted(delayed, key=lambda pair: pair[0].ts_us)]
    chance.shuffle(delayed)
    out_of_order = [r for r, _ in sorted(delayed, key=lambda pair: pair[0].ts_us + int(pair[1] * spec.grace_us))]
    first, second = drive(spec, [*in_order, AT_LAST], cuts[0]), drive(spec, [*out_of_order, AT_LAST], cuts[1])
    assert not differing(second.closed, first.closed)
    assert second.windowed.counts == first.windowed.counts
    assert second.windowed.counts["late"] == 0


@every_case
@settings(max_examples=12)
@given(event_lists(), cut_lists, st.lists(st.tuples(st.integers(0, 30), st.booleans()), min_size=1, max_size=4))
def test_a_restore_at_any_point_changes_nothing(
    kind: str, variant: str, events: list[Happening], cuts: list[int], stops: list[tuple[int, bool]]
) -> None:
    spec = spec_for(kind, variant, late='"dead-letter"')
    events = [*events, AT_LAST]
    driver, unbroken = Driver(WindowOperator(spec)), Driver(WindowOperator(spec))
    kept: dict[str, bytes] = {}
    last = 0
    for stop, forget in [*sorted((min(stop, len(events)), forget) for stop, forget in stops), (len(events), True)]:
        for one in (driver, unbroken):
            one.run(events[last:stop], [cut - last for cut in cuts])
        last = stop
        for name, piece in changed_pieces(driver.windowed, stop):
            if piece is None:
                kept.pop(name, None)
            else:
                kept[name] = piece
        if forget:
            counts, gauges = driver.windowed.counts, driver.windowed.gauges
            devices = driver.windowed.intake.devices
            driver.windowed, next_offset = restore(spec, kept.get)
            assert next_offset == stop
            assert (driver.windowed.counts, driver.windowed.gauges) == (counts, gauges)
            restored = driver.windowed.intake.devices
            every = np.arange(len(devices))
            assert restored.names == devices.names
            for tag in devices.remembered:
                assert restored.tags_of(every, tag) == devices.tags_of(every, tag)
    assert driver.closed == unbroken.closed
    assert driver.tags == unbroken.tags
    assert driver.late == unbroken.late
    assert driver.windowed.counts == unbroken.windowed.counts
