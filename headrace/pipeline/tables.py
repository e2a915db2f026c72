"""What follows from the pipeline file: which topics and supertables there are, and with which columns.

A stream's results are readings of a kind (device, start of the window, aggregates), so that raw and
window topics are decoded, stored and shown by the same code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from headrace.pipeline.model import Field, FieldType, Pipeline, Stream, Time, Topic

LEDGER_TOPIC = "headrace.ledger"
DLQ_SUFFIX = ".dlq"


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
    """The topic that a stream writes into, declared as a raw topic would be."""
    stream = pipeline.streams[name]
    source = pipeline.topics[stream.source]
    return Topic(
        fields=_result_fields(stream, source),
        tags={
            tag: Field(type=declared.type, unit=declared.unit, optional=True) for tag, declared in source.tags.items()
        },
        key=source.key,
        time=Time(field="start", format="iso8601"),
        partitions=stream.partitions or source.partitions,
        retention=stream.retention,
        # A window may lie as far ahead as its readings may, and no longer than its size beyond.
        max_future_skew=type(source.max_future_skew)(source.max_future_skew + stream.window.size),
        max_bytes=source.max_bytes,
    )


def _result_fields(stream: Stream, source: Topic) -> dict[str, Field]:
    fields = {"end": Field(type="time"), "count": Field(type="int")}
    for name, aggregates in stream.aggregates.items():
        declared = source.fields[name]
        for aggregate in aggregates:
            kind: FieldType = "int" if aggregate == "count" else declared.type
            if aggregate == "mean":
                kind = "float"
            unit = None if aggregate == "count" else declared.unit
            fields[f"{name}_{aggregate}"] = Field(type=kind, unit=unit, optional=aggregate != "count")
    fields["revision"] = Field(type="int")
    return fields


def expression_types(topic: Topic) -> dict[str, FieldType]:
    """The names that an expression over a topic may use, with their types: the key, the fields, the tags."""
    return {topic.key: "text", **{name: field.type for name, field in {**topic.fields, **topic.tags}.items()}}


def into(pipeline: Pipeline, name: str) -> str:
    """The name of the topic that a stream writes into."""
    return pipeline.streams[name].into or name


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
