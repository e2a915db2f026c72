"""Windows of any kind through whatever may happen, in any sequence, beside the plain oracle and a twin.

The twin gets the same readings in other batches, says open windows provisionally, and is never restarted; the
other one is put away and restored now and then. Both are held to the oracle after every step.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from window_oracle import Driver, sound
from window_readings import FOR_EVER_US, SECOND, Reading, Tick, at
from window_strategies import CASES, KINDS, devices, differing, overwritten, patience, spec_for, values_of

from headrace.pipeline.model import Count
from processors.windows import WindowOperator
from processors.windows.state import changed_pieces, restore

pytestmark = pytest.mark.slow

steps = st.lists(st.tuples(devices, st.integers(0, 3), values_of()), min_size=1, max_size=6)
"""Readings, and how many seconds each is beyond the one before."""


class WindowsThroughEverything(RuleBasedStateMachine):
    """One stream, its oracle and its twin."""

    @initialize(case=st.sampled_from(CASES), settled=patience)
    def begin(self, case: tuple[str, str], settled: tuple[tuple[str, str], ...]) -> None:
        kind, variant = case
        self.spec = spec_for(kind, variant, late='"dead-letter"', **dict(settled))
        alignment, window = self.spec.alignment, self.spec.window
        counted = isinstance(window, Count) and window.step is not None
        self.overlapping = counted or (alignment is not None and alignment.overlapping)
        self.oracle = KINDS[kind].oracle(self.spec)
        self.driver = Driver(WindowOperator(self.spec))
        self.twin = Driver(WindowOperator(replace(self.spec, emit_us=0)))
        self.held: list[Reading] = []
        """What the twin has not been given yet."""
        self.kept: dict[str, bytes] = {}
        self.now_us = at(0)
        self.sent: list[Reading] = []

    # ---- what may happen

    def send(self, readings: list[Reading]) -> None:
        self.sent += readings
        self.held += readings
        for reading in readings:
            self.oracle.take(reading)
        self.driver.read(readings)

    @rule(drawn=steps)
    def readings(self, drawn: list[tuple[str, int, dict[str, Any]]]) -> None:
        sent = []
        for device, seconds, values in drawn:
            self.now_us += seconds * SECOND
            sent.append(Reading(device, self.now_us, values))
        self.send(sent)

    @rule(drawn=steps)
    def disorder(self, drawn: list[tuple[str, int, dict[str, Any]]]) -> None:
        """Readings before the newest one: some of them within the grace, some too late."""
        self.send([Reading(device, self.now_us - seconds * SECOND, values) for device, seconds, values in drawn])

    @rule(device=devices, values=values_of(), seconds=st.sampled_from([15, 45, 700]))
    def late(self, device: str, values: dict[str, Any], seconds: int) -> None:
        self.send([Reading(device, self.now_us - seconds * SECOND, values)])

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), back=st.integers(1, 12))
    def repeats(self, data: st.DataObject, back: int) -> None:
        """Readings that were sent before, in another order."""
        self.send(data.draw(st.permutations(self.sent[-back:])))

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), values=values_of())
    def corrections(self, data: st.DataObject, values: dict[str, Any]) -> None:
        self.send([replace(data.draw(st.sampled_from(self.sent[-12:])), values=values)])

    @rule(seconds=st.sampled_from([4, 11, 40]))
    def gap(self, seconds: int) -> None:
        self.now_us += seconds * SECOND

    @rule(device=devices, values=values_of(), seconds=st.sampled_from([9, 60, 400]))
    def future_dated(self, device: str, values: dict[str, Any], seconds: int) -> None:
        """A device's clock is ahead, and not too far for the topic."""
        self.send([Reading(device, self.now_us + seconds * SECOND, values)])

    @rule(seconds=st.sampled_from([1, 9, 40, 700]))
    def idleness(self, seconds: int) -> None:
        self.silence(Tick(seconds * SECOND))

    def silence(self, tick: Tick) -> None:
        self.merged()
        self.oracle.take(tick)
        self.driver.tick(tick)
        self.twin.tick(tick)

    @rule()
    def put_away_and_restored(self) -> None:
        for name, piece in changed_pieces(self.driver.windowed, 7):
            if piece is None:
                self.kept.pop(name, None)
            else:
                self.kept[name] = piece
        before = self.driver.windowed
        self.driver.windowed, _ = restore(self.spec, self.kept.get)
        assert self.driver.windowed.counts == before.counts
        assert self.driver.windowed.gauges == before.gauges

    # ---- the twin's batches

    @rule()
    def merged(self) -> None:
        """The twin gets all that it has not had, as one batch."""
        if self.held:
            self.twin.read(self.held)
            self.held = []

    @rule(cuts=st.lists(st.integers(1, 30), max_size=5))
    def split(self, cuts: list[int]) -> None:
        """The twin gets it in parts."""
        self.twin.run(self.held, cuts)
        self.held = []

    # ---- what always holds

    @invariant()
    def all_readings_are_accounted_for(self) -> None:
        assert sound(self.driver.windowed)
        assert sound(self.twin.windowed)

    @invariant()
    def what_closed_is_right(self) -> None:
        self.is_right(self.driver)
        if not self.held:
            self.is_right(self.twin)
            assert sorted(self.twin.late) == sorted(self.driver.late)

    def is_right(self, driver: Driver) -> None:
        counts, oracle = driver.windowed.counts, self.oracle
        assert not differing(driver.closed, oracle.closed)
        if overwritten(self.spec):
            counts = {**counts, "closed": oracle.counts["closed"], "in_closed": oracle.counts["in_closed"]}
        assert counts == oracle.counts

    @invariant()
    def the_gauges_say_what_is_open(self) -> None:
        gauges, oracle = self.driver.windowed.gauges, self.oracle
        assert gauges["waiting"] == len(oracle.waiting)
        awake = sum(not oracle.is_forgotten(device) for device in oracle.progress)
        assert awake <= gauges["devices"] <= len(oracle.progress)
        assert (gauges["open"] > 0) == bool(oracle.open)
        assert (gauges["in_open"] > 0) == bool(oracle.open)
        if not self.overlapping:
            assert gauges["open"] == len(oracle.open)
            assert gauges["in_open"] == sum(map(len, oracle.open.values()))

    def teardown(self) -> None:
        if hasattr(self, "oracle"):
            self.silence(Tick(FOR_EVER_US))
            self.what_closed_is_right()
            assert self.driver.windowed.gauges["open"] == self.driver.windowed.gauges["waiting"] == 0


class TestWindowsThroughEverything(WindowsThroughEverything.TestCase):  # type: ignore[misc,valid-type]
    settings = settings(max_examples=300, stateful_step_count=25, phases=[Phase.generate, Phase.shrink])
