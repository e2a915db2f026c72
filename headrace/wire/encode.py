"""From batches to the messages of a topic."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from headrace.batch import Batch
from headrace.event_time import formatter, iso
from headrace.pipeline.model import Topic


class Encoder:
    """From batches to the messages of one topic."""

    def __init__(self, topic: Topic) -> None:
        self.topic = topic
        self._format = formatter(topic.time)
        self._encode = msgspec.json.Encoder().encode
        self._times = {name for name, field in {**topic.fields, **topic.tags}.items() if field.type == "time"}

    def rows(self, batch: Batch) -> list[bytes]:
        """One JSON object a reading."""
        columns = self._columns(batch)
        names = list(columns)
        encode = self._encode
        return [encode(dict(zip(names, values, strict=True))) for values in zip(*columns.values(), strict=True)]

    def columns(self, batch: Batch) -> bytes:
        """The whole batch as one message."""
        return self._encode(self._columns(batch))

    def _columns(self, batch: Batch) -> dict[str, list[Any]]:
        topic = self.topic
        columns: dict[str, list[Any]] = {topic.key: batch.devices.tolist()} if topic.key_in == "value" else {}
        for tag in topic.tags:
            columns[tag] = self._written(tag, batch)
        columns[topic.time.field] = self._format(batch.ts_us)
        for name in topic.fields:
            columns[name] = self._written(name, batch)
        return columns

    def _written(self, name: str, batch: Batch) -> list[Any]:
        values = batch.column(name).tolist()
        return _dated(values) if name in self._times else values


def _dated(values: list[int | None]) -> list[str | None]:
    if None in values:
        return [None if value is None else iso(np.array([value], np.int64))[0] for value in values]
    return list(iso(np.array(values, np.int64)))
