"""What the stages have counted of a topic's messages, held against the topic and against one another."""

from __future__ import annotations

from dataclasses import astuple

from confluent_kafka import Consumer

from headrace.ledger import EXPIRED, SKIPPED, TOMBSTONES, Entry, Line
from headrace.pipeline import Pipeline
from headrace.pipeline.tables import DLQ_SUFFIX, devices_span, of_one_device
from headrace.topics import reaches
from headrace.verify.recount import Held, Recount, messages_of
from headrace.verify.verdict import Verdict, who


def check_messages(name: str, found: Recount, lines: list[Line], verdict: Verdict) -> None:
    """That each line of a topic counts the messages, readings and dead letters that the topic holds.

    What has expired since they were counted cannot be read again; there the lines must agree with one another.
    """
    if not found.whole:
        verdict.notes.append(f"{name}: the broker has let go of its oldest messages, so they cannot be recounted")
    expired: dict[int, dict[Held, Line]] = {}
    for line in lines:
        said, counted = Held(), Held()
        for partition, entry in line.entries.items():
            start, begin = entry.counts.get(SKIPPED, 0), found.begins.get(partition, 0)
            own, there = _said(entry, found), found.held(partition, max(start, begin), entry.next_offset)
            before = own.less(there)
            if not _may_have_expired(before, max(begin - start, 0) - entry.counts.get(EXPIRED, 0)):
                said, counted = said.plus(own), counted.plus(there)
            elif begin and not start and not entry.counts.get(EXPIRED):
                expired.setdefault(partition, {}).setdefault(before, line)
        for what, one, other in (
            ("messages", said.messages, counted.messages),
            ("readings", said.readings, counted.readings),
            ("dead letters", said.refused, counted.refused),
            ("tombstones", said.tombstones, counted.tombstones),
        ):
            if one != other:
                verdict.faults.append(f"{who(line)}: the ledger says {one} {what} of {name}, a recount finds {other}")
    for partition, ways in expired.items():
        if len(ways) > 1:
            differing = " and ".join(who(line) for line in ways.values())
            verdict.faults.append(f"{name}[{partition}]: {differing} differ in what they counted before it expired")


def check_partitions(pipeline: Pipeline, name: str, found: Recount, verdict: Verdict) -> None:
    """That each device of a topic of readings is in one partition, unless the topic declares that it need not be.

    The windows of one that is in several are computed in each, and replace each other.
    """
    topic = pipeline.topics.get(name)
    if topic is None or devices_span(topic) or not (spread := found.devices_in_several()):
        return
    device, partitions = next(iter(spread.items()))
    several = f"{name}: {len(spread)} devices are in several partitions, as {device!r} in {partitions}"
    streams = [
        one for one, stream in pipeline.streams.items() if stream.source == name and of_one_device(stream, topic)
    ]
    fix = 'let all producers choose the partition by the device alone, or declare unkeyed = "merge"'
    if streams:
        verdict.faults.append(f"{several}, so windows of {', '.join(streams)} replace each other; {fix}")
    else:
        verdict.notes.append(f"{several}; {fix}")


def _said(entry: Entry, found: Recount) -> Held:
    messages = entry.counts.get("messages", 0)
    if not found.decodes:
        return Held(messages)
    refused = sum(n for count, n in entry.counts.items() if count.startswith("refused:"))
    return Held(messages, entry.counts.get("read", 0), refused, entry.counts.get(TOMBSTONES, 0))


def _may_have_expired(before: Held, offsets: int) -> bool:
    """Whether so many offsets that the broker no longer has may have held this, and nothing if there are none."""
    if offsets <= 0:
        return before == Held()
    return before.messages <= offsets and min(astuple(before)) >= 0


def check_letters(consumer: Consumer, name: str, line: Line, verdict: Verdict) -> None:
    """That every message that a sink of the pipeline ``name`` has refused is a dead letter of its own."""
    dlq = line.topic + DLQ_SUFFIX
    if any(reach.begin for reach in reaches(consumer, dlq).values()):
        verdict.notes.append(f"{dlq}: the oldest dead letters have expired")
        return
    letters = set()
    for messages in messages_of(consumer, dlq):
        for message in messages:
            headers = dict(message.headers() or ())
            if "offset" not in headers or headers.get("line") != name.encode():
                continue  # a result that was too large for its topic, or what another line has refused
            partition, offset = int(headers["partition"]), int(headers["offset"])
            if offset < line.upto.get(partition, 0):
                letters.add((partition, offset))
    if len(letters) != line.refused:
        verdict.faults.append(f"{line.topic}: the ledger says {line.refused} dead letters, {dlq} has {len(letters)}")
