"""To test a pipeline's streams: readings in, windows out, without broker, store or clock.

>>> PIPELINE = '''
... [topics.meters]
... time = { format = "epoch_s" }
... fields = { current = "float" }
... [streams.meters_10s]
... from = "meters"
... window = { kind = "tumbling", size = "10s" }
... aggregates = { current = ["max"] }
... '''
>>> readings = [{"device": "a", "ts": 3, "current": 7.5}, {"device": "a", "ts": 8, "current": 9.0}]
>>> for window in windows_of(PIPELINE, "meters_10s", readings):
...     print(window["start"], window["end"], window["count"], window["current_max"])
1970-01-01T00:00:00.000000Z 1970-01-01T00:00:10.000000Z 2 9.0

:class:`StreamRun` is the same step by step: what each reading, or silence, brings.

>>> run = StreamRun(PIPELINE, "meters_10s")
>>> run.send(*readings)
[]
>>> run.send({"device": "a", "ts": 10, "current": 1.0}) == windows_of(PIPELINE, "meters_10s", readings)
True
>>> run.counts["read"], run.counts["windowed"]
(3, 3)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec

from headrace.duration import Duration
from headrace.errors import SettingsError, SourceError
from headrace.event_time import EPOCH, parser
from headrace.pipeline import Pipeline, parse, stream_topic
from headrace.pipeline.model import Time
from headrace.pipeline.tables import DLQ_SUFFIX, LATE_SUFFIX
from headrace.runtime import DeclaredLimits
from headrace.wire import Decoded, Decoder
from processors.results import Results
from processors.windows import Outcome, WindowOperator, WindowSpec

Reading = Mapping[str, Any]
"""A reading as it stands in a message: the key, the time as the topic writes it, fields and tags."""

Window = dict[str, Any]
"""A result as it stands in the stream's topic."""

_FOR_LONG_US = int(Duration.parse("36500d"))


@dataclass(frozen=True)
class Late:
    """A message of the stream's late topic: its value, decoded, and its headers."""

    value: dict[str, Any]
    headers: dict[str, str]


class StreamRun:
    """One stream of a pipeline over a topic of one partition, with a clock that the test moves.

    ``pipeline``: as text (TOML) or parsed. Raises PipelineError for a text with mistakes, and SettingsError for
    a stream that it does not declare.
    """

    def __init__(self, pipeline: Pipeline | str, stream: str) -> None:
        declared = parse(pipeline) if isinstance(pipeline, str) else pipeline
        if stream not in declared.streams:
            raise SettingsError(f"there is no stream {stream!r}", hint=f"name one of {', '.join(declared.streams)}")
        self.topic = declared.topics[declared.streams[stream].source]
        self.late: list[Late] = []
        """the messages of the late topic so far"""
        self.refused: list[tuple[str, str]] = []
        """of each reading, or result, that would be a dead letter the reason and the detail"""
        self._decoder = Decoder(self.topic)
        self._operator = WindowOperator(WindowSpec.of(declared, stream))
        self._results = Results(declared, stream, DeclaredLimits(declared))
        self._key = stream_topic(declared, stream).key
        self._now_us: int | None = None

    def send(self, *readings: Reading, at: datetime | str | None = None) -> list[Window]:
        """The results that these readings bring, one after the other.

        A reading arrives ``at`` that time, aware or ISO 8601; by default when the newest so far was measured: so
        one with an older time comes late, and the others at once.
        """
        return [window for reading in readings for window in self._send(reading, at)]

    def silence(self, length: Duration | str) -> list[Window]:
        """The results that it brings when the topic is silent for so long, as ``"30s"``."""
        length_us = int(Duration.parse(length) if isinstance(length, str) else length)
        self._now_us = (self._now_us or 0) + length_us
        return self._said(self._operator.tick(self._now_us))

    @property
    def counts(self) -> dict[str, int]:
        """The stream's counts as the ledger has them, and how many readings wait for their place in the order."""
        return {**self._operator.counts, "waiting": self._operator.gauges["waiting"]}

    def _send(self, reading: Reading, at: datetime | str | None) -> list[Window]:
        value, key = dict(reading), b""
        if self.topic.key_in == "message":
            key = str(value.pop(self.topic.key, "")).encode()
        written = msgspec.json.encode(value)
        # Judged by its own time, nothing comes from the future.
        decoded = self._decoder.decode([written], _Envelope(2**61, key))
        if at is not None:
            self._now_us = _us(at)
            decoded = self._decoder.decode([written], _Envelope(self._now_us, key))
        elif len(decoded.batch):
            newest_us = int(decoded.batch.ts_us.max())
            self._now_us = newest_us if self._now_us is None else max(self._now_us, newest_us)
        return self._take(decoded)

    def _take(self, decoded: Decoded) -> list[Window]:
        self.refused += [(refused.reason, refused.detail) for refused in decoded.refused]
        return self._said(self._operator.add(decoded.batch, self._now_us or 0))

    def _said(self, outcome: Outcome) -> list[Window]:
        windows: list[Window] = []
        for message in self._results.messages(outcome, 0, self._operator.counts):
            headers = {name: value.decode() for name, value in message.headers}
            if message.topic.endswith(DLQ_SUFFIX):
                self.refused.append((headers["reason"], headers["detail"]))
            elif message.topic.endswith(LATE_SUFFIX):
                self.late.append(Late(msgspec.json.decode(message.value), headers))
            else:
                windows += self._rows(msgspec.json.decode(message.value))
        return windows

    def _rows(self, value: dict[str, Any]) -> list[Window]:
        """The results of a message, which has one of them or many as columns."""
        if not isinstance(value[self._key], list):
            return [value]
        return [dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)]


def windows_of(pipeline: Pipeline | str, stream: str, readings: Iterable[Reading]) -> list[Window]:
    """All results of a stream when these readings come, in their order, and then nothing for ever.

    A result is what stands in the stream's topic, with the times as text. Raises PipelineError and SettingsError
    as :class:`StreamRun`, and SourceError for a reading that is none of the topic's.
    """
    run = StreamRun(pipeline, stream)
    windows = []
    for reading in readings:
        windows += run.send(reading)
        if run.refused:
            reason, detail = run.refused[0]
            raise SourceError(
                f"{reading} would be a dead letter: {reason}, {detail}",
                hint="write it as the topic declares it; StreamRun goes on, and has `refused`",
            )
    return windows + run.silence(Duration(_FOR_LONG_US))


@dataclass(frozen=True)
class _Envelope:
    """What a decoder asks about a message, which is the only one."""

    arrived_us: int
    message_key: bytes

    def timestamp_ms(self, place: int) -> int:  # noqa: ARG002 - there is but one
        return self.arrived_us // 1_000

    def key(self, place: int) -> bytes | None:  # noqa: ARG002 - there is but one
        return self.message_key

    def all_keyed(self) -> bool:
        # Whoever tests a stream sends readings, and leaves to others how they travel.
        return True


def _us(at: datetime | str) -> int:
    if isinstance(at, str):
        return int(parser(Time(format="iso8601"))([at])[0])
    return (at - EPOCH) // timedelta(microseconds=1)
