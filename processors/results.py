"""What a stream emits, as messages: windows to its topic, late readings or their bounds to its late topic.

What the topic does not take, as it is too large, becomes a dead letter of the stream's topic.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import msgspec
import numpy as np

from headrace.batch import Batch
from headrace.event_time import iso
from headrace.pipeline import Pipeline, into, stream_topic
from headrace.pipeline.model import Sliding
from headrace.pipeline.tables import DLQ_SUFFIX, late_topic
from headrace.runtime import Limits, Outgoing, dead_letter, size_of
from headrace.wire import Encoder
from processors.windows import Outcome
from processors.windows.input.late import LateReadings

MOST_ROWS = 500
"""The most windows in one message, where many of a device are emitted at once."""


class Results:
    """The messages of one stream."""

    def __init__(self, pipeline: Pipeline, name: str, limits: Limits) -> None:
        stream = pipeline.streams[name]
        topic = stream_topic(pipeline, name)
        self._stream, self._limits = name, limits
        self._topic, self._encoder = into(pipeline, name), Encoder(topic)
        self._key, self._longest = topic.key, topic.max_bytes
        self._late_topic, self._heals = late_topic(pipeline, name), stream.late == "heal"
        self._source = pipeline.topics[stream.source]
        self._reading_encoder = Encoder(self._source)
        # A sliding window emits with each reading: as columns, a message of many costs little more than one.
        self._in_columns = isinstance(stream.window, Sliding)

    def messages(self, outcome: Outcome, now_ms: int, counts: dict[str, int]) -> Iterator[Outgoing]:
        """What a batch brought, keyed by device or group; windows that are too large to be emitted are counted."""
        if outcome.results is not None:
            yield from self._windows(outcome.results, now_ms, counts)
        if self._late_topic is not None:
            for late in outcome.late:
                encode = self._bounds if self._heals else self._readings
                for message in encode(late, self._late_topic, now_ms):
                    yield message if self._fits(message) else self._dead_letter(message, {})

    def _windows(self, results: Batch, now_ms: int, counts: dict[str, int]) -> Iterator[Outgoing]:
        if not self._in_columns:
            for place, (device, value) in enumerate(zip(results.devices, self._encoder.rows(results), strict=True)):
                message = Outgoing(self._topic, device.encode(), value, now_ms)
                if self._fits(message):
                    yield message
                else:
                    yield from self._too_large(message, results, place, counts)
            return
        devices = results.devices.values
        begins = np.concatenate([[0], np.flatnonzero(devices[1:] != devices[:-1]) + 1, [len(devices)]]).tolist()
        for begin, end in itertools.pairwise(begins):
            for first in range(begin, end, MOST_ROWS):
                part = results.take(np.arange(first, min(first + MOST_ROWS, end)))
                yield from self._columns(part, now_ms, counts)

    def _columns(self, results: Batch, now_ms: int, counts: dict[str, int]) -> Iterator[Outgoing]:
        """Windows of one device in one message, or in as many as they need."""
        message = Outgoing(self._topic, results.devices[0].encode(), self._encoder.columns(results), now_ms)
        if self._fits(message):
            yield message
        elif len(results) == 1:
            yield from self._too_large(message, results, 0, counts)
        else:
            half = len(results) // 2
            for places in (np.arange(half), np.arange(half, len(results))):
                yield from self._columns(results.take(places), now_ms, counts)

    def _fits(self, message: Outgoing) -> bool:
        return len(message.value) <= self._longest and size_of(message) <= self._limits.of(message.topic)

    def _too_large(self, message: Outgoing, results: Batch, place: int, counts: dict[str, int]) -> Iterator[Outgoing]:
        """The dead letter of a window; a provisional one has none, as its final one will."""
        if not results.value("final", place):
            return
        counts["too_large"] = counts.get("too_large", 0) + 1
        counts["in_too_large"] = counts.get("in_too_large", 0) + results.value("count", place)
        start, end = iso(np.array([results.ts_us[place], results.value("end", place)], np.int64))
        yield self._dead_letter(message, {"start": start, "end": end})

    def _dead_letter(self, message: Outgoing, said: dict[str, str]) -> Outgoing:
        of, most = message.topic, self._limits.of(message.topic)
        detail = f"{size_of(message)} bytes with all that is around them, and {of} takes {most}"
        if len(message.value) > self._longest:
            detail = f"{len(message.value)} bytes, and {self._longest} are allowed"
        headers = {"reason": "too_large", "detail": detail, "topic": of, "stream": self._stream, **said}
        return dead_letter(replace(message, topic=self._topic + DLQ_SUFFIX), headers, self._limits)

    def _readings(self, late: LateReadings, topic: str, now_ms: int) -> Iterator[Outgoing]:
        """The late readings themselves, as their topic writes them; why and where they are missing in the headers."""
        which, starts, ends = late.windows
        # A reading may be missing from several windows: the first that lacks it and the last.
        bounds: dict[int, list[int]] = {}
        for place, start, end in zip(which.tolist(), starts.tolist(), ends.tolist(), strict=True):
            known = bounds.setdefault(place, [start, end])
            known[:] = [min(known[0], start), max(known[1], end)]
        for place, value in enumerate(self._reading_encoder.rows(late.readings)):
            start, end = iso(np.array(bounds[place], np.int64))
            headers = [
                ("reason", late.reasons[place].encode()),
                ("stream", self._stream.encode()),
                ("start", start.encode()),
                ("end", end.encode()),
            ]
            yield Outgoing(topic, late.readings.devices[place].encode(), value, now_ms, headers)

    def _bounds(self, late: LateReadings, topic: str, now_ms: int) -> Iterator[Outgoing]:
        """The bounds of each window that lacks a reading, once a batch and reason."""
        which, starts, ends = late.windows
        bounds_of: dict[tuple[str, str, str, str], dict[str, str]] = {}
        times = iso(late.readings.ts_us)
        for place, start, end in zip(which.tolist(), iso(starts), iso(ends), strict=True):
            group, reason = late.groups[place], late.reasons[place]
            bounds_of.setdefault(
                (group, start, end, reason),
                {
                    self._key: group,
                    "start": start,
                    "end": end,
                    "reason": reason,
                    "device": late.readings.devices[place],
                    "reading": times[place],
                },
            )
        for bounds in bounds_of.values():
            yield Outgoing(topic, bounds[self._key].encode(), msgspec.json.encode(bounds), now_ms)
