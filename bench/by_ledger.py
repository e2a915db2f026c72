"""Measures processors by their ledger: how far each partition was, and when, by the entries that they publish.

For what cannot be measured by its results, because these come in bursts, or from several processes.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from bench.brokers import Broker
from bench.measured import Run
from bench.process import SAMPLE_S, TIMEOUT_S, Subject
from bench.streams import Stream
from bench.topic import Readings
from headrace import ledger
from headrace.pipeline import parse
from headrace.pipeline.tables import ledger_topic
from headrace.topics import reader


@dataclass(frozen=True)
class _At:
    """An entry of one partition: wall time, the next offset, the counts."""

    ms: int
    offset: int
    counts: dict[str, int]


@dataclass(frozen=True)
class _Used:
    """What the processes used together at a moment."""

    ms: float
    cpu_s: float
    rss: int


@dataclass
class Covered:
    """What was measured by a ledger.

    ``open`` is the most windows of a partition that were open at an entry, ``in_open`` the readings in them, and
    ``open_rss`` the memory of the processes at that moment.
    """

    run: Run
    open: int
    in_open: int
    open_rss: int


@dataclass
class _Seen:
    partitions: dict[int, list[_At]] = field(default_factory=dict)
    used: list[_Used] = field(default_factory=list)


def covered(
    broker: Broker,
    stream: Stream,
    readings: Readings,
    subjects: Sequence[Subject],
    *,
    ready: Callable[[], bool] = lambda: True,
    after: int = 0,
) -> Covered:
    """Watch the subjects until their ledger has all readings, and measure where all partitions flow.

    That is from when each partition has an entry after ``ready`` says so, to the last entry of the partition that ends
    first; what lies below the offset ``after`` is not measured. Entries come every half second, so too few readings
    raise RuntimeError, as do counts that do not add up.
    """
    seen, ready_ms = _watch(broker, stream, readings, subjects, ready)
    ends = {n: at[-1].offset for n, at in seen.partitions.items()}
    counts: dict[str, int] = {}
    for at in seen.partitions.values():
        for name, n in at[-1].counts.items():
            counts[name] = counts.get(name, 0) + n
    # What waits for its place in the order waits until more comes, or time passes.
    if counts.get("windowed", 0) + counts.get("waiting", 0) != readings.count or counts.get("late", 0):
        raise RuntimeError(f"the ledger of {stream.name} has not {readings.count} readings in windows: {counts}")
    # The entry that has all is published when the partition has been silent for a while: it is not of the flow.
    flowing = {n: [entry for entry in at if after <= entry.offset < ends[n]] for n, at in seen.partitions.items()}
    if not all(flowing.values()):
        raise RuntimeError("too few readings: a partition was done at its first entry; raise --readings")
    flowing = {n: [entry for entry in at if entry.ms >= ready_ms] for n, at in flowing.items()}
    if not all(flowing.values()):
        raise RuntimeError("too few readings: a partition was done before all flowed; raise --readings")
    begin_ms = max(at[0].ms for at in flowing.values())
    end_ms = min(at[-1].ms for at in flowing.values())
    if end_ms - begin_ms < 400:
        raise RuntimeError(f"too few readings: they flowed for {end_ms - begin_ms:.0f} ms only; raise --readings")
    messages = sum(
        _between([(entry.ms, entry.offset) for entry in at], end_ms)
        - _between([(entry.ms, entry.offset) for entry in at], begin_ms)
        for at in flowing.values()
    )
    cpu = [(used.ms, used.cpu_s) for used in seen.used]
    run = Run(
        readings=round(messages * readings.a_message),
        seconds=(end_ms - begin_ms) / 1_000,
        cpu_s=_between(cpu, end_ms) - _between(cpu, begin_ms),
        rss_mb=max(used.rss for used in seen.used) / 1e6,
    )
    fullest = max((entry for at in seen.partitions.values() for entry in at), key=lambda entry: entry.counts["open"])
    nearest = min(seen.used, key=lambda used: abs(used.ms - fullest.ms))
    return Covered(run, fullest.counts["open"], fullest.counts["in_open"], nearest.rss)


def _watch(
    broker: Broker, stream: Stream, readings: Readings, subjects: Sequence[Subject], ready: Callable[[], bool]
) -> tuple[_Seen, float]:
    consumer = reader(broker.address)
    consumer.assign([TopicPartition(ledger_topic(parse(stream.text)), 0, 0)])
    seen, ready_ms = _Seen(), 0.0
    deadline = time.monotonic() + TIMEOUT_S
    try:
        while sum(at[-1].offset for at in seen.partitions.values()) < readings.messages:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the ledger of {stream.name} has not all after {TIMEOUT_S:.0f} s")
            for message in consumer.consume(1_000, SAMPLE_S):
                error = message.error()
                if error is not None:
                    if error.code() != KafkaError._PARTITION_EOF:
                        raise KafkaException(error)
                    continue
                entry = ledger.decode(message.value())
                if entry.stage == "processors" and entry.name == stream.into:
                    at = _At(message.timestamp()[1], entry.next_offset, entry.counts)
                    seen.partitions.setdefault(entry.partition, []).append(at)
            for subject in subjects:
                subject.check()
            samples = [subject.sample(0) for subject in subjects]
            now_ms = time.time() * 1_000
            seen.used.append(_Used(now_ms, sum(s.cpu_s for s in samples), sum(s.rss for s in samples)))
            if not ready_ms and seen.partitions and ready():
                ready_ms = time.time() * 1_000
    finally:
        consumer.close()
    if not ready_ms:
        raise RuntimeError("too few readings: all were read before the processes had their partitions")
    return seen, ready_ms


def _between(points: Sequence[tuple[float, float]], at_ms: float) -> float:
    """The value at a moment, by the straight line between the points around it."""
    after = bisect_right(points, at_ms, key=lambda point: point[0])
    if after == 0 or after == len(points):
        return points[min(after, len(points) - 1)][1]
    (left_ms, left), (right_ms, right) = points[after - 1], points[after]
    return left + (right - left) * (at_ms - left_ms) / max(right_ms - left_ms, 1e-9)
