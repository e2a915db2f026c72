"""Sums and what is made of them at the edges of floats and of int64: right, and the same bits by whatever route."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from aggregate_routes import ROUTES, ROWS, Reading, batches, column, of, results_of
from hypothesis import example, given
from hypothesis import strategies as st

from headrace.column import Column
from headrace.field_types import FieldType
from headrace.pipeline.model import Aggregate
from processors.windows.aggregates import Aggregates, Measure
from processors.windows.aggregates.exact_sums import ExactSum

INT64 = np.iinfo(np.int64)
GREATEST = 1.7976931348623157e308
LEAST = 5e-324

UNORDERED = (
    Measure("f", "float", ("sum", "mean", "variance", "stddev", "min", "max", "range", "first", "last", "p01", "p50")),
    Measure("i", "int", ("sum", "mean", "variance", "stddev", "min", "max", "p50", "p999")),
)
ORDERED = (
    Measure("f", "float", ("delta", "rate", "time_weighted_mean", "sum")),
    Measure("i", "int", ("delta", "rate", "time_weighted_mean")),
)

any_floats = st.floats(allow_nan=False, allow_infinity=False)
sensed_floats = st.integers(-(10**6), 10**6).map(lambda n: n / 1000)
edges = st.sampled_from(
    [0.0, -0.0, LEAST, -LEAST, 2.3e-308, GREATEST, -GREATEST, 1e308, 3e200, -3e200, 1e-200, 2.0**63, 1e9, 1e9 + 0.5]
)
floats = st.one_of(any_floats, sensed_floats, edges, st.floats(-1e9, 1e9), st.floats(0, 1e-9))
ints = st.one_of(
    st.integers(INT64.min, INT64.max),
    st.integers(-1000, 1000),
    st.sampled_from([INT64.min, INT64.max, 2**53, 2**53 + 1, -(2**53) - 1, 2**31, -(2**31), 2**32]),
)


def readings_with(times: st.SearchStrategy[int]) -> st.SearchStrategy[list[Reading]]:
    kinds = st.sampled_from([floats, sensed_floats, edges])
    return kinds.flatmap(
        lambda of: st.lists(
            st.tuples(st.integers(0, ROWS - 1), times, st.none() | of, st.none() | ints).map(lambda r: Reading(*r)),
            max_size=20,
        )
    )


def bits(value: Any) -> Any:
    """A value that is equal to another's only if they are the same, -0.0 and 0.0 apart."""
    return value.hex() if isinstance(value, float) else value


def rounded(value: Fraction | None) -> float | None:
    try:
        return None if value is None else float(value)
    except OverflowError:
        return None


def root(value: Fraction) -> Fraction:
    """The square root to 200 bits or so."""
    scale = 4 ** max(0, 200 - value.numerator.bit_length() + value.denominator.bit_length())
    return Fraction(math.isqrt(value.numerator * scale * value.denominator), value.denominator) / math.isqrt(scale)


def is_right(found: float | None, expected: Fraction | None) -> bool:
    """Within 1e-12 of the true value; None where a float does not hold it."""
    near = rounded(expected)
    if near is None or found is None:
        return near is found or abs(expected or 0) > Fraction(GREATEST) * (1 - Fraction(1, 10**12))
    assert expected is not None
    return abs(Fraction(found) - expected) <= max(abs(expected) / 10**12, Fraction(LEAST))


def check_spread(found: dict[str, Any], values: Sequence[float | int]) -> None:
    exact = [Fraction(value) for value in values]
    mean = sum(exact) / len(exact) if exact else None
    variance = None if mean is None else sum((value - mean) ** 2 for value in exact) / len(exact)
    assert is_right(found["mean"], mean), (found, mean)
    assert is_right(found["variance"], variance), (found, variance)
    assert is_right(found["stddev"], None if variance is None else root(variance)), (found, variance)


def row(results: dict[str, list[Any]], field: str, number: int) -> dict[str, Any]:
    names = {name.removeprefix(f"{field}_"): listed for name, listed in results.items() if name.startswith(f"{field}_")}
    return {name: listed[number] for name, listed in names.items()}


@pytest.mark.slow
@pytest.mark.parametrize("route", ROUTES)
@given(readings=readings_with(st.integers(0, 5)), seed=st.integers(0, 2**32))
@example(readings=[Reading(0, 1, 1e308, INT64.max), Reading(0, 2, 1e308, INT64.max)], seed=0)
@example(readings=[Reading(0, 1, 3e200, 2**53 + 1), Reading(0, 2, 0.0, None)], seed=0)
@example(readings=[Reading(1, n, 1e9 + above, n) for n, above in enumerate((0, 0.5, 0.5, 2))], seed=3)
@example(readings=[Reading(1, n, -0.0 if n % 2 else 0.0, n) for n in range(6)], seed=3)
def test_any_route_gives_the_same_bits_and_these_are_right(route: str, readings: list[Reading], seed: int) -> None:
    aggregates = Aggregates(UNORDERED)
    whole = results_of(aggregates, of(aggregates, readings))
    rng = random.Random(seed)
    mixed = rng.sample(readings, len(readings))
    found = results_of(aggregates, ROUTES[route](aggregates, mixed, rng))
    for name, listed in whole.items():
        assert list(map(bits, found[name])) == list(map(bits, listed)), name
    for number in range(ROWS):
        mine = [reading for reading in readings if reading.row == number]
        reals = [reading.f for reading in mine if reading.f is not None]
        of_reals = row(found, "f", number)
        check_spread(of_reals, reals)
        assert is_right(of_reals["sum"], sum(map(Fraction, reals)) if reals else None)
        wholes = [reading.i for reading in mine if reading.i is not None]
        of_wholes = row(found, "i", number)
        check_spread(of_wholes, wholes)
        total = sum(wholes)
        assert of_wholes["sum"] == (total if wholes and INT64.min <= total <= INT64.max else None)
        assert of_wholes["p50"] == (sorted(wholes)[(len(wholes) + 1) // 2 - 1] if wholes else None)


def expected_in_order(points: list[tuple[int, Fraction]]) -> dict[str, Fraction | None]:
    if not points:
        return dict.fromkeys(("delta", "rate", "time_weighted_mean"))
    steps = list(itertools.pairwise(points))
    delta = sum((after if after < before else after - before for (_, before), (_, after) in steps), Fraction(0))
    area = sum(((before + after) / 2 * (end - begin) for (begin, before), (end, after) in steps), Fraction(0))
    span = points[-1][0] - points[0][0]
    mean = area / span if span else (points[0][1] + points[-1][1]) / 2
    return {"delta": delta, "rate": delta * 1_000_000 / span if span else None, "time_weighted_mean": mean}


@pytest.mark.slow
@pytest.mark.parametrize("route", ROUTES)
@given(readings=readings_with(st.integers(-(10**15), 10**15)), seed=st.integers(0, 2**32))
def test_what_follows_the_order_gives_the_same_bits_however_time_is_cut(
    route: str, readings: list[Reading], seed: int
) -> None:
    readings = sorted({(r.row, r.ts): r for r in readings}.values(), key=lambda r: r.ts)
    aggregates = Aggregates(ORDERED)
    whole = results_of(aggregates, of(aggregates, readings))
    found = results_of(aggregates, ROUTES[route](aggregates, readings, random.Random(seed)))
    for name, listed in whole.items():
        assert list(map(bits, found[name])) == list(map(bits, listed)), name
    for number, field in itertools.product(range(ROWS), "fi"):
        points = [
            (r.ts, Fraction(getattr(r, field))) for r in readings if r.row == number and getattr(r, field) is not None
        ]
        expected = expected_in_order(points)
        of_row = row(found, field, number)
        for aggregate in ("delta", "rate", "time_weighted_mean"):
            if aggregate == "delta" and field == "i":
                delta = expected["delta"]
                in_reach = delta is not None and INT64.min <= delta <= INT64.max
                assert of_row["delta"] == (delta if in_reach else None)
            else:
                assert is_right(of_row[aggregate], expected[aggregate]), (aggregate, of_row, expected)


def found_in(kind: FieldType, asked: tuple[Aggregate, ...], values: Sequence[Any], cuts: int) -> dict[str, Any]:
    """The results of values folded into one row in so many batches."""
    aggregates = Aggregates([Measure("v", kind, asked)])
    partials = aggregates.empty(1)
    for part in np.array_split(np.arange(len(values)), cuts):
        if len(part):
            chosen = column(kind, [values[place] for place in part.tolist()])
            aggregates.fold(partials, np.zeros(len(part), np.int64), part, {"v": chosen})
    return row(results_of(aggregates, partials), "v", 0)


@pytest.mark.parametrize("cuts", [1, 2, 4])
def test_what_was_wrong_near_the_limits(cuts: int) -> None:
    asked: tuple[Aggregate, ...] = ("mean", "variance", "stddev")
    assert found_in("float", asked, [1e308, 1e308], cuts) == {"mean": 1e308, "variance": 0.0, "stddev": 0.0}
    assert found_in("float", asked, [3e200, 0.0], cuts) == {"mean": 1.5e200, "variance": None, "stddev": 1.5e200}
    offset = found_in("float", asked, [1e9, 1e9 + 0.5, 1e9 + 0.5, 1e9 + 2], cuts)
    assert offset == {"mean": 1e9 + 0.75, "variance": 0.5625, "stddev": 0.75}
    whole = found_in("int", (*asked, "p50", "p01"), [2**53 + 1, 2**53 + 3, 2**53 + 5], cuts)
    assert whole == {
        "mean": 2.0**53 + 4,  # the nearest float to 2**53 + 3 that is even
        "variance": 8 / 3,
        "stddev": math.sqrt(8 / 3),
        "p50": 2**53 + 3,
        "p01": 2**53 + 1,
    }
    assert found_in("int", ("p50",), [2**53 + 1], cuts) == {"p50": 9_007_199_254_740_993}


def test_a_quantile_of_many_whole_numbers_stays_within_64_bits() -> None:
    for cuts in (1, 7, 300):
        found = found_in("int", ("p50", "p999"), [INT64.max] * 300, cuts)
        assert found == {"p50": INT64.max, "p999": INT64.max}
    assert found_in("int", ("p50",), list(range(200)), 9) == {"p50": 99}


def test_what_is_not_finite_is_null_by_any_route() -> None:
    aggregates = Aggregates([Measure("v", "float", ("sum", "mean", "variance", "stddev"))])
    for odd in (math.inf, -math.inf):
        values = Column(np.array([1.0, odd, 2.0, 5.0]))
        lifted = aggregates.lift(np.arange(4), {"v": values})
        merged = aggregates.reduce(lifted, np.array([0, 2, 3]))
        restored = aggregates.unpacked(aggregates.packed(merged))
        for partials in (merged, restored, aggregates.pair(restored, aggregates.empty(3))):
            found = results_of(aggregates, partials)
            assert found["v_sum"] == [None, 2.0, 5.0]
            assert found["v_mean"] == [None, 2.0, 5.0]
            assert found["v_variance"] == [None, 0.0, 0.0]
            assert found["v_stddev"] == [None, 0.0, 0.0]


@given(
    values=st.lists(st.one_of(sensed_floats, st.floats(-1e15, 1e15)), min_size=1, max_size=50),
    seed=st.integers(0, 2**32),
)
def test_a_mean_is_the_nearest_float_and_lies_among_the_values(values: list[float], seed: int) -> None:
    rng = random.Random(seed)
    readings = [Reading(0, 0, value) for value in values]
    aggregates = Aggregates([Measure("f", "float", ("mean",))])
    partials = aggregates.empty(ROWS)
    for batch in batches(readings, rng):
        partials = aggregates.pair(partials, of(aggregates, batch))
    mean = results_of(aggregates, partials)["f_mean"][0]
    assert mean == float(sum(map(Fraction, values)) / len(values)) + 0.0
    assert min(values) <= mean <= max(values)


def test_a_sum_holds_billions_of_values() -> None:
    of_most = ExactSum("v")
    partials = {name: part.empty(2) for name, part in of_most.parts.items()}
    of_most.add(partials, np.arange(2), np.array([2.0**63, -1.1]))
    for _ in range(31):
        partials = of_most.pair(partials, partials)
    assert of_most.over(partials, np.array([1, 2**31])).tolist() == [2.0**94, -1.1]
