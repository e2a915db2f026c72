"""Windows computed again from what is stored: those of the plain oracle over all readings, in order and in time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from window_oracle import Oracle, Results
from window_readings import SECOND, Reading, Tick, at, batch_of
from window_strategies import CASES, KINDS, devices, differing, patience, spec_for, values_of

from headrace.batch import Batch
from headrace.pipeline.model import Hopping, Sliding, Tumbling
from processors.recompute.boundaries import Scan
from processors.recompute.in_time import in_time
from processors.recompute.recompute import Step, recompute
from processors.windows import WindowSpec

pytestmark = pytest.mark.slow

stored = st.lists(
    st.tuples(devices, st.integers(0, 600), values_of()), max_size=40, unique_by=lambda one: (one[0], one[1])
).map(
    lambda drawn: [
        # A stored row has its device's tags.
        Reading(device, at(n / 4), {**values, "room": values["room"] or "r"})
        for device, n, values in sorted(drawn, key=lambda one: (one[1], one[0]))
    ]
)
spans = st.tuples(st.integers(-40, 640), st.integers(1, 200)).map(lambda one: (at(one[0] / 4), at(sum(one) / 4)))
clocks = st.sampled_from([at(0), at(40), at(100), at(150), at(100_000)])


def rows_of(readings: Sequence[Reading], spec: WindowSpec, rows: int) -> Scan:
    """What a store would give of these readings, so many at a time."""

    def scan(start_us: int, end_us: int) -> Iterator[Batch]:
        found = [reading for reading in readings if start_us <= reading.ts_us < end_us]
        for first in range(0, len(found), rows):
            yield batch_of(found[first : first + rows], spec)

    return scan


def right(kind: str, spec: WindowSpec, readings: Sequence[Reading], clock_us: int) -> Results:
    """The windows that the oracle closes when event time passes between readings, too."""
    oracle = KINDS[kind].oracle(in_time(spec))
    for reading in readings:
        if reading.ts_us <= clock_us:
            pass_to(oracle, reading.ts_us)
            oracle.take(reading)
    if readings:
        pass_to(oracle, clock_us)
    return oracle.closed


def pass_to(oracle: Oracle, clock_us: int) -> None:
    if oracle.clock is not None and clock_us > oracle.clock:
        oracle.furthest = clock_us
        oracle.take(Tick(clock_us - oracle.clock))


def windows_of(spec: WindowSpec, steps: Iterator[Step]) -> Results:
    """Windows by group and start; fails for one that comes twice."""
    results: Results = {}
    for batch in given_by(steps):
        names = ["end", "count", "revision", "final"]
        names += [f"{measure.field}_{aggregate}" for measure in spec.measures for aggregate in measure.aggregates]
        columns = {name: batch.column(name).tolist() for name in names}
        for place, key in enumerate(zip(batch.devices, batch.ts_us.tolist(), strict=True)):
            assert key not in results or not spec.of_one_device, key
            results[key] = {name: values[place] for name, values in columns.items()}
    return results


def given_by(steps: Iterator[Step]) -> Iterator[Batch]:
    """The windows of all steps; fails for one that comes when all of its time were to have come."""
    complete_us = -(2**62)
    for step in steps:
        for batch in step.windows:
            assert int(batch.ts_us.min()) >= complete_us
            yield batch
        assert step.complete_us >= complete_us
        complete_us = step.complete_us


def concerns(spec: WindowSpec, start: int, said: dict[str, Any], span: tuple[int, int]) -> bool:
    """Whether a window has room for a reading of the span."""
    if isinstance(spec.window, Sliding):
        return span[0] <= int(said["end"]) < span[1] + int(spec.window.size)
    if isinstance(spec.window, Tumbling | Hopping):
        return start < span[1] and int(said["end"]) > span[0]
    return start < span[1] and int(said["end"]) >= span[0]


every_case = pytest.mark.parametrize(("kind", "variant"), CASES)


@every_case
@settings(max_examples=8)
@given(stored, spans, st.integers(1, 50), clocks, patience)
def test_the_windows_of_a_span_are_those_of_all_that_is_stored(
    kind: str,
    variant: str,
    readings: list[Reading],
    span: tuple[int, int],
    rows: int,
    clock_us: int,
    settled: tuple[tuple[str, str], ...],
) -> None:
    spec = spec_for(kind, variant, **dict(settled))
    readings = [reading for reading in readings if reading.ts_us <= clock_us]
    first_us = min((reading.ts_us for reading in readings), default=0)
    whole = right(kind, spec, readings, clock_us)
    scan = rows_of(readings, spec, rows)

    everything = recompute(spec, scan, at(-1_000), at(1_000), first_us=first_us, clock_us=clock_us)
    assert not differing(windows_of(spec, everything), whole)

    part = recompute(spec, scan, *span, first_us=first_us, clock_us=clock_us)
    expected = {key: said for key, said in whole.items() if concerns(spec, key[1], said, span)}
    assert not differing(windows_of(spec, part), expected)


def test_what_silence_ends_does_not_depend_on_what_the_others_do() -> None:
    """A group that is alone has the same windows as among others: event time passes between readings, too."""
    spec = spec_for("count", "by device")
    mine = [Reading("a", at(n), {"room": "r"}) for n in (0, 1, 50, 51, 52)]
    others = [Reading("b", at(n / 2), {"room": "r"}) for n in range(200)]
    both = sorted([*mine, *others], key=lambda reading: (reading.ts_us, reading.device))

    def of_a(readings: list[Reading]) -> Results:
        found = recompute(spec, rows_of(readings, spec, 1_000), at(0), at(100), first_us=at(0), clock_us=at(10_000))
        return {key: said for key, said in windows_of(spec, found).items() if key[0] == "a"}

    assert [(start - at(0)) // SECOND for _, start in sorted(of_a(mine))] == [0, 50]
    assert of_a(mine) == of_a(both)


def test_a_span_asks_for_no_more_than_its_windows_need() -> None:
    spec = spec_for("tumbling", "by device")
    asked: list[tuple[int, int]] = []
    readings = [Reading("a", at(n), {"room": "r"}) for n in range(100)]
    scan = rows_of(readings, spec, 1_000)

    def watched(start_us: int, end_us: int) -> Iterator[Batch]:
        asked.append((start_us, end_us))
        return scan(start_us, end_us)

    found = windows_of(spec, recompute(spec, watched, at(42), at(43), first_us=at(0), clock_us=at(1_000)))
    assert asked == [(at(40), at(50))]
    assert [start for _, start in found] == [at(40)]
    assert np.all([said["count"] == 10 for said in found.values()])
