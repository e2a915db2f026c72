"""What types alone cannot say: names that must exist, kinds that must fit, lengths that must agree."""

from __future__ import annotations

import re

from headrace.event_time import EPOCH_FORMATS
from headrace.pipeline.check_producers import producer_mistakes
from headrace.pipeline.check_streams import RESULT_NAMES, TOPIC_NAME, Note, stream_is_sound
from headrace.pipeline.model import Pipeline, Replay, Simulate, Topic
from headrace.pipeline.nearest import nearest_name
from headrace.pipeline.tables import (
    DLQ_SUFFIX,
    LATE_SUFFIX,
    LEDGER_SUFFIX,
    REPARTITION_SUFFIX,
    all_tables,
    into,
    repartition_topic,
)
from headrace.pipeline.zones import unknown_zone

_FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_DAY_US = 86_400_000_000
OUR_SUFFIXES = (DLQ_SUFFIX, LATE_SUFFIX, LEDGER_SUFFIX, REPARTITION_SUFFIX)
LONGEST_TOPIC = 249
"""The longest name that a broker allows."""
_CHANGELOG = "changelog__{group}-processors-xxxxxxxx--{topic}--default"
"""The longest of the names that are made of those in the file: a topic's changelog, with room for the group's."""


def check(pipeline: Pipeline, unreadable: set[tuple[str | int, ...]], note: Note) -> None:
    """Call ``note(path, problem, fix)`` for every mistake in a pipeline of the right types.

    ``unreadable`` are the places of entries that were left out because their own text is wrong; that
    something names one of these is no further mistake.
    """
    if not TOPIC_NAME.fullmatch(pipeline.name):
        note(("name",), f"{pipeline.name!r} is no name", "write letters, digits, - and _")
    if not pipeline.topics and not unreadable:
        note(("topics",), "there is no topic", "declare one as [topics.NAME]")
    for name, topic in pipeline.topics.items():
        _topic(name, topic, note)
    sound = [
        name
        for name, stream in pipeline.streams.items()
        if ("topics", stream.source) not in unreadable and stream_is_sound(pipeline, name, note)
    ]
    _targets(pipeline, note)
    _lengths(pipeline, note)
    for name, producer in pipeline.producers.items():
        if ("topics", producer.topic) not in unreadable:
            _producer(pipeline, name, producer, note)
    if pipeline.store.retention < _DAY_US:
        note(("store", "retention"), f"{pipeline.store.retention} is less than a day", 'write at least "1d"')
    if len(sound) == len(pipeline.streams) and not unreadable:
        _panels(pipeline, note)


def _topic(name: str, topic: Topic, note: Note) -> None:
    at = ("topics", name)
    if not TOPIC_NAME.fullmatch(name) or name in (".", ".."):
        note(at, f"{name!r} is no topic name", "write letters, digits, '.', '-' and '_', 180 at the most")
    if name.endswith(OUR_SUFFIXES):
        note(at, f"{name!r} is a name that Headrace uses itself", "choose another name")
    if not topic.fields:
        note((*at, "fields"), "there is no field", "declare at least one measured field")
    if topic.key in RESULT_NAMES:
        note((*at, "key"), f"{topic.key!r} is a name that window results use", "choose another name")
    taken: dict[str, str] = {topic.key: "the key"}
    if topic.time.field in taken:
        note((*at, "time", "field"), f"{topic.time.field!r} is the key already", "name another field")
    taken[topic.time.field] = "the event time"
    for part, declared in (("fields", topic.fields), ("tags", topic.tags)):
        for field in declared:
            if not _FIELD_NAME.fullmatch(field):
                note((*at, part, field), f"{field!r} is no field name", "write letters, digits and _, a letter first")
            if field in taken:
                note((*at, part, field), f"{field!r} is {taken[field]} already", "choose another name")
            if field in RESULT_NAMES:
                note((*at, part, field), f"{field!r} is a name that window results use", "choose another name")
            taken[field] = f"one of the {part}"
    _format(topic.time.format, (*at, "time", "format"), note)
    _zone(topic.time.zone, (*at, "time", "zone"), note)


def _format(text: str, path: tuple[str | int, ...], note: Note) -> None:
    if text not in EPOCH_FORMATS and text != "iso8601" and "%" not in text:
        note(path, f"{text!r} is no format", nearest_name(text, [*EPOCH_FORMATS, "iso8601", "%Y-%m-%d %H:%M:%S"]))


def _zone(zone: str | None, path: tuple[str | int, ...], note: Note) -> None:
    unknown = None if zone is None else unknown_zone(zone)
    if unknown is not None:
        note(path, *unknown)


def _targets(pipeline: Pipeline, note: Note) -> None:
    taken = {name: f"topics.{name}" for name in pipeline.topics}
    for name in pipeline.streams:
        target = into(pipeline, name)
        if target in taken:
            note(
                ("streams", name, "into"),
                f"{taken[target]} has the topic {target!r} already",
                "name another with into = ...",
            )
        taken[target] = f"streams.{name}"
        if not TOPIC_NAME.fullmatch(target) or target.endswith(OUR_SUFFIXES):
            note(("streams", name, "into"), f"{target!r} cannot be a stream's topic", "choose another name")


def _lengths(pipeline: Pipeline, note: Note) -> None:
    """Note where a name that is made of the line's and another one is longer than the broker allows."""
    for name, stream in pipeline.streams.items():
        if stream.source in pipeline.topics:
            read = [stream.source, repartition_topic(pipeline, name) or ""]
            longest = max((_CHANGELOG.format(group=pipeline.name, topic=topic) for topic in read), key=len)
            if len(longest) > LONGEST_TOPIC:
                problem = f"the topics made of this name and the line's have up to {len(longest)} letters"
                note(("streams", name), problem, f"shorten a name: a broker allows {LONGEST_TOPIC}")


def _producer(pipeline: Pipeline, name: str, producer: Simulate | Replay, note: Note) -> None:
    at = ("producers", name)
    topic = pipeline.topics.get(producer.topic)
    if topic is None:
        note((*at, "topic"), f"there is no topic {producer.topic!r}", nearest_name(producer.topic, pipeline.topics))
        return
    names = [*topic.fields, *topic.tags]
    if isinstance(producer, Simulate):
        for field in producer.curves:
            if field not in names:
                note((*at, "curves", field), f"{producer.topic} has no field {field!r}", nearest_name(field, names))
    else:
        for part, mapped in (("fields", producer.fields), ("constants", producer.constants)):
            for field in mapped:
                if field not in names:
                    note((*at, part, field), f"{producer.topic} has no field {field!r}", nearest_name(field, names))
        _format(producer.time.format, (*at, "time", "format"), note)
        _zone(producer.time.zone, (*at, "time", "zone"), note)
    try:
        producer.name.format(n=1, topic=producer.topic)
    except (KeyError, IndexError, ValueError):
        note((*at, "name"), f"{producer.name!r} is no pattern", 'write {n} for the number, as "meter-{n:04}"')
    for path, problem, fix in producer_mistakes(producer, topic):
        note((*at, *path), problem, fix)


def _panels(pipeline: Pipeline, note: Note) -> None:
    tables = all_tables(pipeline)
    by_name = {**tables, **{name: tables[into(pipeline, name)] for name in pipeline.streams}}
    for place, panel in enumerate(pipeline.panels):
        table = by_name.get(panel.of)
        if table is None:
            note(("panels", place, "of"), f"there is no topic or stream {panel.of!r}", nearest_name(panel.of, by_name))
            continue
        names = [table.key, table.time, *(c.name for c in table.columns), *(c.name for c in table.tags)]
        for column in panel.columns:
            if column not in names:
                note(("panels", place, "columns"), f"{panel.of} has no column {column!r}", nearest_name(column, names))
