"""What a producer's declaration gets wrong beyond its types, with what to write instead."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from headrace.pipeline.model import Curve, Field, Replay, Simulate, Topic

Found = tuple[tuple[str | int, ...], str, str]
_PYTHON = {"float": (int, float), "int": (int,), "bool": (bool,), "text": (str,), "time": (str,)}


def producer_mistakes(producer: Simulate | Replay, topic: Topic) -> Iterator[Found]:
    """Every mistake as (path within the producer, problem, fix); names of fields are taken as checked."""
    yield from _names(producer)
    yield from _simulate(producer, topic) if isinstance(producer, Simulate) else _replay(producer, topic)
    if producer.linger <= 0:
        yield ("linger",), "a message cannot wait for no time", 'write one such as "100ms"'


def _names(producer: Simulate | Replay) -> Iterator[Found]:
    many = producer.devices > 1 and (isinstance(producer, Simulate) or producer.device is None)
    try:
        first, second = (producer.name.format(n=n, topic=producer.topic) for n in (1, 2))
    except (KeyError, IndexError, ValueError, AttributeError):
        return  # the pattern itself is a mistake, and noted as one
    if many and first == second:
        yield ("name",), f"{producer.devices} devices would all be called {first!r}", 'write {n}, as "meter-{n:04}"'


def _simulate(declared: Simulate, topic: Topic) -> Iterator[Found]:
    fields = {**topic.fields, **topic.tags}
    for name, curve in declared.curves.items():
        if name in fields:
            yield from _curve(name, curve, fields[name], tag=name in topic.tags)
    faults = declared.faults
    total = sum((faults.late, faults.repeated, faults.missing, faults.out_of_order, faults.future, faults.malformed))
    if total > 1 + 1e-9:
        yield ("faults",), f"the shares add up to {total:g}", "keep their sum at 1 or below: a reading has one fault"
    if faults.late and faults.late_by <= 0:
        yield ("faults", "late_by"), "a late reading that comes at once is not late", 'write one such as "20s"'
    if declared.rate / declared.devices > 1_000_000:
        yield (
            ("rate",),
            f"{declared.rate:g} readings a second of {declared.devices} devices put two of a device into a microsecond",
            "declare more devices, or a lower rate",
        )
    if declared.start is None and declared.count is None and declared.speed == 0:
        yield ("speed",), "as fast as possible without an end runs into the future", "add count = ... or start = ..."
    if declared.start is None and declared.speed not in (0, 1):
        yield ("speed",), "event time cannot run ahead of now", 'add start = ..., as "2026-01-01T00:00:00Z"'
    if declared.start is not None:
        try:
            datetime.fromisoformat(declared.start)
        except ValueError:
            yield ("start",), f"{declared.start!r} is no time", 'write it as "2026-01-01T00:00:00Z"'


def _curve(name: str, curve: Curve, field: Field, *, tag: bool) -> Iterator[Found]:
    at = ("curves", name)
    if curve.low is not None and curve.high is not None and curve.low > curve.high:
        yield (*at, "low"), f"{curve.low:g} is above high ({curve.high:g})", "exchange them"
    if curve.period <= 0:
        yield (*at, "period"), "a wave has a length", 'write one such as "60s"'
    if curve.absent and (tag or not field.optional):
        yield (*at, "absent"), f"{name} is not optional", f"write optional = true for {name}, or leave absent out"
    for choice in curve.choices:
        if not fits(choice, field):
            yield (*at, "choices"), f"{choice!r} is no {field.type}", f"write values of type {field.type}"


def _replay(declared: Replay, topic: Topic) -> Iterator[Found]:
    fields = {**topic.fields, **topic.tags}
    if not declared.time.columns:
        yield ("time", "columns"), "there is no column", 'name one at least, as ["date", "time"]'
    for name, value in declared.constants.items():
        if name in declared.fields:
            yield ("constants", name), f"{name} has a column already", "leave one of the two out"
        elif name in fields and not fits(value, fields[name]):
            yield ("constants", name), f"{value!r} is no {fields[name].type}", f"write a {fields[name].type}"
    if declared.device is not None and declared.devices > 1:
        yield ("devices",), "the device column says which devices there are", "leave out device or devices"
    if declared.loop and declared.speed == 0 and declared.shift == "now":
        yield (
            ("shift",),
            "as fast as possible and for ever cannot end now",
            "leave out shift or loop, or choose a speed",
        )


def fits(value: Any, field: Field) -> bool:
    """Whether a declared value is one of the field's type."""
    if isinstance(value, bool):
        return field.type == "bool"
    if not isinstance(value, _PYTHON[field.type]):
        return False
    if field.type == "time":
        try:
            return datetime.fromisoformat(str(value)).tzinfo is not None
        except ValueError:
            return False
    return True
