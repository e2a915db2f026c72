"""What a stream says, as messages: windows to its topic, late readings or their bounds to its late topic."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import msgspec
import numpy as np

from headrace.batch import Batch
from headrace.event_time import iso
from headrace.pipeline import Pipeline, into, stream_topic
from headrace.pipeline.model import Sliding
from headrace.pipeline.tables import late_topic
from headrace.runtime import Outgoing
from headrace.wire import Encoder
from processors.windows import Outcome
from processors.windows.late import LateReadings

MOST_ROWS = 500
"""The most windows in one message, where many of a device speak at once."""


class Results:
    """The messages of one stream."""

    def __init__(self, pipeline: Pipeline, name: str) -> None:
        stream = pipeline.streams[name]
        topic = stream_topic(pipeline, name)
        self._stream = name
        self._topic, self._encoder = into(pipeline, name), Encoder(topic)
        self._key = topic.key
        self._late_topic, self._heals = late_topic(pipeline, name), stream.late == "heal"
        self._source = pipeline.topics[stream.source]
        self._reading_encoder = Encoder(self._source)
        # A sliding window speaks with each reading: as columns, a message of many costs little more than one.
        self._in_columns = isinstance(stream.window, Sliding)

    def messages(self, outcome: Outcome, now_ms: int) -> Iterator[Outgoing]:
        """What a batch brought, keyed by device or group."""
        if outcome.results is not None:
            yield from self._windows(outcome.results, now_ms)
        if self._late_topic is not None:
            for late in outcome.late:
                encode = self._bounds if self._heals else self._readings
                yield from encode(late, self._late_topic, now_ms)

    def _windows(self, results: Batch, now_ms: int) -> Iterator[Outgoing]:
        if not self._in_columns:
            for device, value in zip(results.devices, self._encoder.rows(results), strict=True):
                yield Outgoing(self._topic, device.encode(), value, now_ms)
            return
        devices = np.array(results.devices)
        begins = np.concatenate([[0], np.flatnonzero(devices[1:] != devices[:-1]) + 1, [len(devices)]]).tolist()
        for begin, end in itertools.pairwise(begins):
            for first in range(begin, end, MOST_ROWS):
                part = results.take(np.arange(first, min(first + MOST_ROWS, end)))
                yield Outgoing(self._topic, part.devices[0].encode(), self._encoder.columns(part), now_ms)

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
        said: dict[tuple[str, str, str, str], dict[str, str]] = {}
        times = iso(late.readings.ts_us)
        for place, start, end in zip(which.tolist(), iso(starts), iso(ends), strict=True):
            group, reason = late.groups[place], late.reasons[place]
            said.setdefault(
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
        for bounds in said.values():
            yield Outgoing(topic, bounds[self._key].encode(), msgspec.json.encode(bounds), now_ms)
