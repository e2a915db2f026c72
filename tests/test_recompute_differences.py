"""Computed windows held against stored ones: what is new, changed, withdrawn, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from window_readings import at, spec_of

from headrace.batch import Batch
from headrace.column import Column
from processors.recompute.differences import compared, differences, result_names
from processors.recompute.recompute import FOR_EVER_US, Step
from processors.windows import WindowSpec

SPEC = spec_of(aggregates={"current": ["mean", "p95"], "note": ["last"]})
Windows = dict[tuple[str, int], dict[str, Any]]

said = st.fixed_dictionaries(
    {
        "end": st.just(0),
        "count": st.integers(1, 3),
        "current_mean": st.none() | st.floats(-10, 10),
        "current_p95": st.none() | st.floats(-10, 10),
        "note_last": st.none() | st.sampled_from(["", "x"]),
    }
)
windows = st.dictionaries(st.tuples(st.sampled_from("abc"), st.integers(0, 9).map(at)), said, max_size=15)


def batch_of(found: Windows) -> Batch:
    names = result_names(SPEC)
    kinds = {"end": "time", "count": "int", "note_last": "text"}
    columns = {name: Column.of([one[name] for one in found.values()], kinds.get(name, "float")) for name in names}  # type: ignore[arg-type]
    columns["room"] = Column.of([None] * len(found), "text")
    columns["revision"] = Column(np.zeros(len(found), np.int64))
    columns["final"] = Column(np.ones(len(found), np.bool_))
    return Batch([key[0] for key in found], np.array([key[1] for key in found], np.int64), columns)


def keys_of(batch: Batch) -> list[tuple[str, int]]:
    return list(zip(batch.devices, batch.ts_us.tolist(), strict=True))


@settings(max_examples=100)
@given(windows, windows)
def test_windows_are_new_changed_or_withdrawn_as_their_values_say(computed: Windows, stored: Windows) -> None:
    found = differences(SPEC, batch_of(computed), batch_of(stored))
    by_start = sorted({*computed, *stored}, key=lambda key: (key[1], key[0]))
    assert keys_of(found.new) == [key for key in by_start if key not in stored]
    assert keys_of(found.withdrawn) == [key for key in by_start if key not in computed]
    both = [key for key in by_start if key in computed and key in stored and computed[key] != stored[key]]
    assert keys_of(found.changed) == keys_of(found.was) == both
    for batch, of in ((found.changed, computed), (found.was, stored)):
        for name in result_names(SPEC):
            assert batch.column(name).tolist() == [of[key][name] for key in both]
    assert found.compared == len({*computed, *stored})


def test_quantiles_of_many_values_are_estimates_and_not_compared() -> None:
    one = {"end": 0, "count": 201, "current_mean": 1.0, "current_p95": 2.0, "note_last": None}
    computed, stored = batch_of({("a", 0): one}), batch_of({("a", 0): {**one, "current_p95": 2.5}})
    assert len(differences(SPEC, computed, stored)) == 0
    few = [batch_of({("a", 0): {**one, "count": 200, "current_p95": p95}}) for p95 in (2.0, 2.5)]
    assert len(differences(SPEC, *few)) == 1


def test_floats_may_differ_in_their_last_digits_alone() -> None:
    one = {"end": 0, "count": 1, "current_mean": 0.1 + 0.2, "current_p95": None, "note_last": None}
    for mean, differs in ((0.3, 0), (0.3 * (1 + 1e-9), 1)):
        assert (
            len(differences(SPEC, batch_of({("a", 0): one}), batch_of({("a", 0): {**one, "current_mean": mean}})))
            == differs
        )


@settings(max_examples=50)
@given(windows, windows, st.lists(st.integers(-1, 11).map(at), max_size=4), st.integers(0, 5), st.integers(1, 9))
def test_comparing_as_they_come_is_comparing_all(
    computed: Windows, stored: Windows, marks: list[int], begin: int, length: int
) -> None:
    span = at(begin), at(begin + length)

    def steps() -> Iterator[Step]:
        left = dict(computed)
        for mark in [*sorted(marks), FOR_EVER_US]:
            ready = {key: left.pop(key) for key in list(left) if key[1] < mark}
            yield Step([batch_of(ready)] if ready else [], mark, 1)

    def scan(start_us: int, end_us: int) -> Iterator[Batch]:
        yield batch_of({key: one for key, one in stored.items() if start_us <= key[1] < end_us})

    def inside(some: Windows) -> Windows:
        return {key: one for key, one in some.items() if span[0] <= key[1] < span[1]}

    whole = differences(SPEC, batch_of(inside(computed)), batch_of(inside(stored)))
    parts = [part for part, _ in compared(SPEC, steps(), scan, *span)]
    for name in ("new", "changed", "was", "withdrawn"):
        assert [key for part in parts for key in keys_of(getattr(part, name))] == keys_of(getattr(whole, name))
    assert sum(part.compared for part in parts) == whole.compared


def test_a_spec_of_sliding_windows_compares_quantiles_of_any_size() -> None:
    sliding: WindowSpec = replace(SPEC, window=spec_of('kind = "sliding", size = "5s"').window)
    one = {"end": 0, "count": 201, "current_mean": 1.0, "current_p95": 2.0, "note_last": None}
    pair = [batch_of({("a", 0): {**one, "current_p95": p95}}) for p95 in (2.0, 2.5)]
    assert len(differences(sliding, *pair)) == 1
