"""Columns and batches: their faces agree, they keep what they are, and nothing changes them."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.batch import Batch
from headrace.column import BLANKS, DTYPES, Column
from headrace.field_types import FieldType
from headrace.pipeline import parse
from headrace.wire import Decoder
from processors.windows import WindowOperator, WindowSpec

VALUES: dict[FieldType, st.SearchStrategy[Any]] = {
    "float": st.floats(allow_infinity=False, allow_nan=False),
    "int": st.integers(-(2**63), 2**63 - 1),
    "bool": st.booleans(),
    "text": st.text(max_size=5),
    "time": st.integers(0, 2**50),
}
kinds = st.sampled_from(list(VALUES))


@st.composite
def listed_columns(draw: st.DrawFn) -> tuple[FieldType, list[Any]]:
    kind = draw(kinds)
    return kind, draw(st.lists(st.none() | VALUES[kind], max_size=12))


def arrays_of(kind: FieldType, listed: list[Any]) -> Column:
    """The same values, made of arrays."""
    blank = BLANKS[DTYPES[kind].kind]
    values = np.empty(len(listed), DTYPES[kind])
    values[:] = [blank if value is None else value for value in listed]
    return Column(values, np.array([value is not None for value in listed], np.bool_))


def validity(column: Column) -> list[bool]:
    return [True] * len(column) if column.valid is None else column.valid.tolist()


@given(listed_columns(), st.data())
def test_what_a_column_is_does_not_depend_on_what_it_was_made_of(
    of: tuple[FieldType, list[Any]], data: st.DataObject
) -> None:
    kind, listed = of
    places = np.array(data.draw(st.lists(st.integers(0, len(listed) - 1))) if listed else [], np.int64)
    part = slice(*sorted(data.draw(st.tuples(st.integers(0, 12), st.integers(0, 12)))))
    made = [Column.of(listed, kind), arrays_of(kind, listed), Column.of(tuple(listed), kind)]
    if None not in listed:
        made += [Column.of(listed, kind, whole=True), Column(as_values(kind, listed))]
        if kind == "text":
            words = sorted(set(listed))
            made.append(Column.coded(words, np.array([words.index(text) for text in listed], np.int64)))
    for column in made:
        if data.draw(st.booleans()):
            assert len(column.values) == len(listed)  # its arrays are made before the list is asked for
        assert (column.tolist(), len(column), column.dtype) == (listed, len(listed), DTYPES[kind])
        assert [column[place] for place in range(len(listed))] == listed
        assert validity(column) == [value is not None for value in listed]
        missing = [
            value for value, is_valid in zip(column.values.tolist(), validity(column), strict=True) if not is_valid
        ]
        assert all(math.isnan(value) if kind == "float" else value == BLANKS[column.dtype.kind] for value in missing)
        assert column.take(places).tolist() == [listed[place] for place in places.tolist()]
        assert column.take(part).tolist() == listed[part]
        for other in made:
            joined = Column.joined([column, other.take(part), column.take(places)])
            assert joined.tolist() == [*listed, *listed[part], *(listed[place] for place in places.tolist())]
            assert validity(joined) == [value is not None for value in joined.tolist()]


def as_values(kind: FieldType, listed: list[Any]) -> np.ndarray[Any, np.dtype[Any]]:
    values = np.empty(len(listed), DTYPES[kind])
    values[:] = listed
    return values


def test_nan_is_missing_in_whatever_a_column_is_made_of() -> None:
    for column in (Column.of([1.0, math.nan, None]), Column(np.array([1.0, np.nan, np.nan]))):
        assert column.tolist() == [1.0, None, None]
        assert validity(column) == [True, False, False]


def test_without_a_type_the_values_say_it_and_mixed_ones_are_refused() -> None:
    assert [Column.of(of).dtype.kind for of in ([1, None], [1, 2.5], [True], ["a", None], [None])] == list("ifbOf")
    assert Column.of([None, None]).to("text").tolist() == [None, None]
    assert Column.of([]).to("text").dtype == object
    assert Column.of([1, None]).to("float").values.dtype == np.float64
    for mixed in ([1, "a"], [True, 1], [b"x"]):
        with pytest.raises(TypeError, match="numbers, truth values or texts"):
            Column.of(mixed)
    with pytest.raises(TypeError, match="none of text"):
        Column.of([1]).to("text")


def test_a_table_is_looked_up_by_lists_and_by_codes_alike() -> None:
    words = ["a", "b", "never looked up"]
    for column in (Column.of(["b", "a", "b"]), Column.coded(words, np.array([1, 0, 1]))):
        assert column.looked_up({"a": 7, "b": 9}).tolist() == [9, 7, 9]
        with pytest.raises(KeyError, match="a"):
            column.looked_up({"b": 9})


def batch() -> Batch:
    return Batch(["a", "b"], np.array([1_000_000, 2_000_000]), {"f": [1.5, None], "i": [1, None], "t": ["x", None]})


def test_nothing_changes_a_batch_once_it_is_made() -> None:
    made = batch()
    with pytest.raises((FrozenInstanceError, AttributeError)):
        made.ts_us = np.zeros(2, np.int64)  # type: ignore[misc]
    with pytest.raises((FrozenInstanceError, AttributeError)):
        made.devices = Column.of(["c", "d"])  # type: ignore[misc]
    for array in (
        made.ts_us,
        *(face for name in "fit" for face in (made.column(name).values, made.column(name).valid)),
    ):
        assert array is not None
        with pytest.raises(ValueError, match="read-only"):
            array[0] = array[1]
    more = made.with_columns({"g": Column.of([1.0, 2.0]), "i": Column.of([5, 6])})
    assert (more.column("g").tolist(), more.column("i").tolist()) == ([1.0, 2.0], [5, 6])
    assert not made.has("g")
    assert made.column("i").tolist() == [1, None]
    assert more.take(np.array([1])).column("i").tolist() == [6]


def test_what_one_stream_computes_no_other_stream_sees() -> None:
    text = """
    [topics.meters]
    time = { format = "epoch_s" }
    fields = { current = "float", power = { type = "float", optional = true } }
    [streams.doubled]
    from = "meters"
    window = { kind = "tumbling", size = "10s" }
    computed = { twice = "current * 2" }
    where = "twice > 3"
    aggregates = { twice = ["max"] }
    [streams.plain]
    from = "meters"
    window = { kind = "tumbling", size = "10s" }
    aggregates = { current = ["max"] }
    """
    pipeline = parse(text)

    class Arrival:
        def timestamp_ms(self, place: int) -> int:
            return 2**52

        def key(self, place: int) -> bytes | None:
            return b"a"

        def all_keyed(self) -> bool:
            return True

    decoded = Decoder(pipeline.topics["meters"]).decode(
        [b'{"device": "a", "ts": %d, "current": %d}' % (second, second) for second in (1, 2, 30)], Arrival()
    )
    brought = {}
    for name in ("doubled", "plain"):
        results = WindowOperator(WindowSpec.of(pipeline, name)).add(decoded.batch, 0).results
        assert results is not None
        brought[name] = {column: results.column(column).tolist() for column in ("count",)}
    assert brought == {"doubled": {"count": [1]}, "plain": {"count": [2]}}
    assert not decoded.batch.has("twice")
