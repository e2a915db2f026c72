"""What follows from the pipeline file: which topics and supertables there are, and with which columns.

A stream's results are readings of a kind (device, start of the window, aggregates), so that raw and
window topics are decoded, stored and shown by the same code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from headrace.expression import parse
from headrace.field_types import FieldType
from headrace.pipeline.model import Aggregate, Field, Pipeline, Stream, Time, Topic

LEDGER_SUFFIX = ".ledger"
DLQ_SUFFIX = ".dlq"
LATE_SUFFIX = ".late"
REPARTITION_SUFFIX = ".repartition"

RESULT_BYTES = 1_000_000
"""How long a result may be at the least, however short its readings are."""

GROUP = "group"
"""The key of results that are of several devices, or of parts of one."""

ALWAYS_THERE: tuple[Aggregate, ...] = ("count", "missing", "distinct")
"""The aggregates that are numbers even where a window has no value of the field."""

ORDERED_AGGREGATES: tuple[Aggregate, ...] = ("delta", "rate", "time_weighted_mean")
"""The aggregates that depend on the order of readings, so that these wait until their place is sure."""

_RESULT_TYPES: dict[Aggregate, FieldType] = {
    **dict.fromkeys(ALWAYS_THERE, "int"),
    **dict.fromkeys(("mean", "variance", "stddev", "rate", "time_weighted_mean"), "float"),
}


@dataclass(frozen=True)
class Column:
    """A column of a supertable. ``time`` columns hold int µs since the epoch."""

    name: str
    type: FieldType
    unit: str | None = None


@dataclass(frozen=True)
class Table:
    """A supertable: one subtable a device, rows upserted by (device, ``time``).

    ``kind`` is ``readings`` (a raw topic; ``time`` is the topic's event-time field) or ``windows`` (a
    stream; ``time`` is ``start``, and a row never replaces one of a higher ``revision``).
    """

    name: str
    kind: Literal["readings", "windows"]
    key: str
    time: str
    columns: tuple[Column, ...]
    tags: tuple[Column, ...]


def stream_topic(pipeline: Pipeline, name: str) -> Topic:
    """The topic that a stream writes into, declared as a raw topic would be.

    A result of one device is keyed by it and carries its tags. One of several is keyed by ``group`` (the
    values of its ``by``, joined) and carries those values as tags.
    """
    stream = pipeline.streams[name]
    source = pipeline.topics[stream.source]
    types = stream_types(stream, source)
    if by_device(stream, source):
        key, tags = source.key, {tag: _optional(source.tags[tag]) for tag in source.tags}
    else:
        key, tags = GROUP, {part: Field(type=types[part], optional=True) for part in stream.by or ()}
    return Topic(
        fields=_result_fields(stream, source, types),
        tags=tags,
        key=key,
        time=Time(field="start", format="iso8601"),
        partitions=stream.partitions or source.partitions,
        retention=stream.retention,
        # A window may begin as far ahead as its readings may.
        max_future_skew=source.max_future_skew,
        # What a result may be follows from its readings: it is as long as it must be.
        max_bytes=(longest := max(source.max_bytes, RESULT_BYTES)),
        max_name=longest,
        # All are keyed; but a device whose name is empty has a key that is empty.
        unkeyed="merge",
        max_text=longest,
    )


def _optional(field: Field) -> Field:
    return Field(type=field.type, unit=field.unit, optional=True)


def _result_fields(stream: Stream, source: Topic, types: Mapping[str, FieldType]) -> dict[str, Field]:
    fields = {"end": Field(type="time"), "count": Field(type="int")}
    for name, aggregates in stream.aggregates.items():
        declared = source.fields.get(name)
        unit = None if declared is None else declared.unit
        for aggregate in aggregates:
            kind = _RESULT_TYPES.get(aggregate, types[name])
            fields[result_name(name, aggregate)] = Field(
                type=kind,
                unit=None if unit is None else _result_unit(aggregate, unit),
                optional=aggregate not in ALWAYS_THERE,
            )
    fields["revision"] = Field(type="int")
    fields["final"] = Field(type="bool")
    return fields


def result_name(field: str, aggregate: Aggregate) -> str:
    """What a result calls an aggregate of a field."""
    return f"{field}_{aggregate}"


def _result_unit(aggregate: Aggregate, unit: str) -> str | None:
    if aggregate in ALWAYS_THERE:
        return None
    return {"variance": f"({unit})²", "rate": f"{unit}/s"}.get(aggregate, unit)


def by_device(stream: Stream, source: Topic) -> bool:
    """Whether a stream aggregates each device for itself."""
    return stream.by is None or stream.by == [source.key]


def of_one_device(stream: Stream, source: Topic) -> bool:
    """Whether each group of a stream is within one device."""
    return stream.by is None or source.key in stream.by


def devices_span(source: Topic) -> bool:
    """Whether one device's readings may be in several partitions of a topic."""
    return source.unkeyed == "merge" and source.partitions > 1


def groups_span(stream: Stream, source: Topic) -> bool:
    """Whether one group's readings may be in several partitions, so that these must be brought together."""
    return source.partitions > 1 and (devices_span(source) or not of_one_device(stream, source))


def expression_types(topic: Topic) -> dict[str, FieldType]:
    """The names that an expression over a topic may use, with their types: the key, the fields, the tags."""
    return {topic.key: "text", **{name: field.type for name, field in {**topic.fields, **topic.tags}.items()}}


def stream_types(stream: Stream, source: Topic) -> dict[str, FieldType]:
    """The names that a stream may use, with their types: those of its topic and its computed fields.

    Raises ExpressionError for a computed field that cannot be understood.
    """
    types = expression_types(source)
    for name, text in stream.computed.items():
        types[name] = parse(text, types).type
    return types


def into(pipeline: Pipeline, name: str) -> str:
    """The name of the topic that a stream writes into."""
    return pipeline.streams[name].into or name


def late_topic(pipeline: Pipeline, name: str) -> str | None:
    """The topic that a stream's late readings, or the bounds of their windows, go to; None if to none."""
    return None if pipeline.streams[name].late == "drop" else into(pipeline, name) + LATE_SUFFIX


def repartition_topic(pipeline: Pipeline, name: str) -> str | None:
    """The topic in which a stream's groups that span partitions come together; None if it needs none."""
    stream = pipeline.streams[name]
    if not groups_span(stream, pipeline.topics[stream.source]):
        return None
    return f"{pipeline.name}.{name}{REPARTITION_SUFFIX}"


def ledger_topic(pipeline: Pipeline) -> str:
    """The topic of the processors' counts. It carries the line's name: lines that share a cluster have one each."""
    return pipeline.name + LEDGER_SUFFIX


def all_topics(pipeline: Pipeline) -> dict[str, Topic]:
    """Every topic of readings or windows, by name: what the sinks read."""
    streams = {into(pipeline, name): stream_topic(pipeline, name) for name in pipeline.streams}
    return {**pipeline.topics, **streams}


def all_tables(pipeline: Pipeline) -> dict[str, Table]:
    """Every supertable, by the name of the topic it is filled from."""
    streams = {into(pipeline, name) for name in pipeline.streams}
    return {
        name: Table(
            name=name,
            kind="windows" if name in streams else "readings",
            key=topic.key,
            time=topic.time.field,
            columns=tuple(Column(n, f.type, f.unit) for n, f in topic.fields.items()),
            tags=tuple(Column(n, f.type, f.unit) for n, f in topic.tags.items()),
        )
        for name, topic in all_topics(pipeline).items()
    }
