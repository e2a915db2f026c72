"""Readings of all types, and the ways in which aggregates may come by them: batches, merges, messages."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from headrace.column import Column
from headrace.field_types import FieldType
from processors.windows.aggregates import Aggregates, Partials

ROWS = 3
TYPES: dict[str, FieldType] = {"f": "float", "i": "int", "t": "text", "b": "bool", "w": "time"}


class Reading(NamedTuple):
    row: int
    ts: int
    f: float | None = None
    i: int | None = None
    t: str | None = None
    b: bool | None = None
    w: int | None = None


def column(kind: FieldType, values: Sequence[Any]) -> Column:
    return Column.of(values, kind)


def results_of(aggregates: Aggregates, partials: Partials) -> dict[str, list[Any]]:
    """The results as plain values, None where there is none."""
    return {name: column.tolist() for name, column in aggregates.results(partials).items()}


def columns(readings: Sequence[Reading]) -> dict[str, Column]:
    return {name: column(kind, [getattr(r, name) for r in readings]) for name, kind in TYPES.items()}


def rows_of(readings: Sequence[Reading]) -> Any:
    return np.array([r.row for r in readings], np.int64)


def times_of(readings: Sequence[Reading]) -> Any:
    return np.array([r.ts for r in readings], np.int64)


def fold(aggregates: Aggregates, partials: Partials, readings: Sequence[Reading]) -> None:
    aggregates.fold(partials, rows_of(readings), times_of(readings), columns(readings))


def of(aggregates: Aggregates, readings: Sequence[Reading]) -> Partials:
    partials = aggregates.empty(ROWS)
    fold(aggregates, partials, readings)
    return partials


def joined(parts: Sequence[Partials]) -> Partials:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def batches(readings: Sequence[Reading], rng: random.Random) -> Iterator[Sequence[Reading]]:
    """The readings cut anywhere, empty batches too."""
    cuts = sorted(rng.randrange(len(readings) + 1) for _ in range(rng.randrange(5)))
    for begin, end in itertools.pairwise([0, *cuts, len(readings)]):
        yield readings[begin:end]


Route = Callable[[Aggregates, Sequence[Reading], random.Random], Partials]


def by_fold(aggregates: Aggregates, readings: Sequence[Reading], rng: random.Random) -> Partials:
    """Batch after batch into rows of a larger pool that other readings were in."""
    places = rng.sample(range(10), ROWS)
    pool = aggregates.empty(10)
    before = [Reading(row, 7, 1.0, 2, "before", True, 3) for row in range(10)]
    fold(aggregates, pool, before)
    aggregates.reset(pool, np.array(places))
    for batch in batches(readings, rng):
        fold(aggregates, pool, [r._replace(row=places[r.row]) for r in batch])
    return aggregates.take(pool, np.array(places))


def by_reduce(aggregates: Aggregates, readings: Sequence[Reading], rng: random.Random) -> Partials:
    """A partial a reading, each row's in any order, merged in one go."""
    mixed = rng.sample(readings, len(readings))
    mixed.sort(key=lambda r: r.row)
    partials = aggregates.lift(times_of(mixed), columns(mixed))
    return aggregates.reduce(partials, np.searchsorted(rows_of(mixed), np.arange(ROWS)))


def by_pairs(aggregates: Aggregates, readings: Sequence[Reading], rng: random.Random) -> Partials:
    """A partial a reading, neighbours merged in any tree."""
    lifted = aggregates.lift(times_of(readings), columns(readings))
    rows = rows_of(readings)
    whole = []
    for row in range(ROWS):
        parts = [aggregates.take(lifted, np.array([place])) for place in np.flatnonzero(rows == row)]
        parts.insert(rng.randrange(len(parts) + 1), aggregates.empty(1))
        while len(parts) > 1:
            at = rng.randrange(len(parts) - 1)
            parts[at : at + 2] = [aggregates.pair(parts[at], parts[at + 1])]
        whole += parts
    return joined(whole)


def by_message(aggregates: Aggregates, readings: Sequence[Reading], rng: random.Random) -> Partials:
    """Each batch folded elsewhere, sent as MessagePack, and merged in any order."""
    parts = []
    for batch in batches(readings, rng):
        sent = msgspec.msgpack.encode(aggregates.packed(of(aggregates, batch)))
        parts.append(aggregates.unpacked(msgspec.msgpack.decode(sent)))
    rng.shuffle(parts)
    by_row = [aggregates.take(part, np.array([row])) for row in range(ROWS) for part in parts]
    return aggregates.reduce(joined(by_row), np.arange(ROWS) * len(parts))


ROUTES: dict[str, Route] = {"fold": by_fold, "reduce": by_reduce, "pairs": by_pairs, "message": by_message}
