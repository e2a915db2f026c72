"""Readings as the tests of windows write them, a stream over them, and what a window of them should say."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from headrace.batch import Batch
from headrace.pipeline import parse
from processors.windows import WindowSpec

SECOND = 1_000_000
FIELDS = {"current": "float", "energy": "int", "door": "bool", "note": "text", "checked": "time"}
NUMBERS = ("current", "energy")
EPOCH_NOON = 1_795_176_000 * SECOND
"""2026-11-20T12:00:00Z: the readable times of the tests are seconds from here."""
FOR_EVER_US = 400 * 365 * 86_400 * SECOND


@dataclass(frozen=True)
class Reading:
    """One reading, as it arrives."""

    device: str
    ts_us: int
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Tick:
    """The partition is silent, and so much time has passed since the last reading."""

    silent_us: int


Happening = Reading | Tick


def at(seconds: float) -> int:
    """µs since the epoch of a readable time."""
    return EPOCH_NOON + round(seconds * SECOND)


def spec_of(
    window: str = 'kind = "tumbling", size = "10s"',
    *,
    fields: Iterable[str] = FIELDS,
    aggregates: dict[str, list[str]] | None = None,
    unkeyed: str = "",
    **settings: str,
) -> WindowSpec:
    """A stream with every aggregate that its fields can have (but those that cost most), as the file says it.

    ``settings`` are further keys of the stream, as they are written in TOML; durations without quotes. ``unkeyed``:
    what its topic then says, and that it has several partitions.
    """
    if aggregates is None:
        aggregates = {name: list(aggregates_of(name)) for name in fields}
    lines = ["[topics.meters]", 'tags = { room = "text" }']
    lines += ["partitions = 4", f'unkeyed = "{unkeyed}"'] if unkeyed else ["partitions = 1"]
    lines += ["[topics.meters.fields]"]
    lines += [f'{name} = {{ type = "{kind}", optional = true }}' for name, kind in FIELDS.items()]
    lines += ['[streams.s]\nfrom = "meters"', f"window = {{ {window} }}"]
    for name, value in settings.items():
        plain = value[:1] in "[{\"'"
        lines.append(f"{name} = {value}" if plain else f"{name} = '{value}'")
    lines += ["[streams.s.aggregates]", *(f"{name} = {listed}" for name, listed in aggregates.items())]
    return WindowSpec.of(parse("\n".join(lines)), "s")


def aggregates_of(name: str) -> tuple[str, ...]:
    """All the aggregates of a field that are exact whatever the order."""
    numeric = ("sum", "min", "max", "range", "mean") if name in NUMBERS else ()
    return ("count", "missing", *numeric, "first", "last", "distinct")


def batch_of(readings: Sequence[Reading], spec: WindowSpec) -> Batch:
    """Readings as a batch, with all the columns that the spec may need."""
    names = [*FIELDS, "room"]
    return Batch(
        [reading.device for reading in readings],
        np.array([reading.ts_us for reading in readings], np.int64),
        {
            "device": [reading.device for reading in readings],
            **{name: [reading.values.get(name) for reading in readings] for name in names},
        },
    )


def summary(readings: Sequence[Reading], spec: WindowSpec) -> dict[str, Any]:
    """The aggregates of a window's readings."""
    result: dict[str, Any] = {"count": len(readings)}
    for measure in spec.measures:
        seen = [(r.ts_us, r.values[measure.field]) for r in readings if r.values.get(measure.field) is not None]
        for aggregate in measure.aggregates:
            result[f"{measure.field}_{aggregate}"] = _aggregate(aggregate, seen, len(readings))
    return result


def _aggregate(aggregate: str, seen: Sequence[tuple[int, Any]], readings: int) -> Any:
    values = [value for _, value in seen]
    if aggregate in ("count", "missing", "distinct"):
        return {"count": len(values), "missing": readings - len(values), "distinct": len(set(values))}[aggregate]
    if not values:
        return None
    simple: dict[str, Callable[[], Any]] = {
        "sum": lambda: _within_64_bits(sum(values)),
        "min": lambda: min(values),
        "max": lambda: max(values),
        "range": lambda: max(values) - min(values),
        "mean": lambda: sum(values) / len(values),
        "variance": lambda: math.fsum((v - math.fsum(values) / len(values)) ** 2 for v in values) / len(values),
        "first": lambda: min(seen)[1],
        "last": lambda: max(seen)[1],
        "delta": lambda: _within_64_bits(_increase(seen)),
        "rate": lambda: _per_second(seen, _increase(seen)),
        "time_weighted_mean": lambda: _weighted(seen),
    }
    return simple[aggregate]()


def _within_64_bits(total: Any) -> Any:
    """A whole number that no column can hold is none."""
    return None if isinstance(total, int) and not -(2**63) <= total < 2**63 else total


def _increase(seen: Sequence[tuple[int, Any]]) -> Any:
    pairs = pairwise(seen)
    return sum((new - old if new >= old else new) for (_, old), (_, new) in pairs)


def _per_second(seen: Sequence[tuple[int, Any]], increase: Any) -> float | None:
    length_us = seen[-1][0] - seen[0][0]
    return increase / (length_us / SECOND) if length_us else None


def _weighted(seen: Sequence[tuple[int, Any]]) -> float:
    length_us = seen[-1][0] - seen[0][0]
    if not length_us:
        return float(seen[0][1] + seen[-1][1]) / 2
    pairs = pairwise(seen)
    return float(sum((v0 + v1) / 2 * (t1 - t0) for (t0, v0), (t1, v1) in pairs) / length_us)
