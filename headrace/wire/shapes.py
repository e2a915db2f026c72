"""What a topic's messages are, from its declaration: the types that they are decoded by, and how times are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta

from headrace.batch import Int64s
from headrace.column import Column
from headrace.event_time import is_number, parser, whole_parser
from headrace.field_types import FieldType
from headrace.pipeline.model import Field, Time, Topic
from headrace.wire.reasons import BAD, RefusedError

_INT64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
_TYPES: dict[FieldType, Any] = {"float": float, "int": _INT64, "bool": bool, "text": str, "time": str}


class Shape:
    """The members of one topic's messages: the key if it is one, the time, fields and tags."""

    def __init__(self, topic: Topic) -> None:
        self.topic = topic
        self.key = topic.key if topic.key_in == "value" else None
        """the member that names the device, if one does"""
        self.time = topic.time.field
        self.declared = {**topic.fields, **{tag: _optional(field) for tag, field in topic.tags.items()}}
        self.names = tuple(self.declared)
        self.times = [name for name, field in self.declared.items() if field.type == "time"]
        """the fields and tags that are times"""
        number = is_number(topic.time.format)
        self.parse_time = parser(topic.time)
        # Nearly all epochs are whole, and are parsed faster when that is known beforehand.
        self.parse_usual = whole_parser(topic.time) if number else self.parse_time
        self._usual_time: Any = int if number else str
        self._any_time: Any = int | float if number else str
        self._parse_iso = parser(Time(format="iso8601"))
        self._name_of_device = Annotated[str, Meta(min_length=1, max_length=topic.max_name)]
        self._types = {**_TYPES, "text": Annotated[str, Meta(max_length=topic.max_text)]}

    def struct(self, *, columns: bool, usual: bool, raw: Sequence[str] = ()) -> type[msgspec.Struct]:
        """The type of a message: one reading, or ``columns``: lists of them.

        ``usual``: of times that are epochs only whole ones. The members ``raw`` are left as they are written.
        """

        def shaped(kind: Any) -> Any:
            return _list_of(kind) if columns else kind

        required: list[tuple[str, Any]] = [(self.time, shaped(self._usual_time if usual else self._any_time))]
        if self.key is not None:
            required.insert(0, (self.key, msgspec.Raw if self.key in raw else shaped(self._name_of_device)))
        may_lack: list[tuple[str, Any, Any]] = []
        for name, field in self.declared.items():
            if name in raw:
                may_lack.append((name, msgspec.Raw, None))
            elif field.optional:
                kind = self._types[field.type] | None
                may_lack.append((name, shaped(kind) | None if columns else kind, None))
            else:
                required.append((name, shaped(self._types[field.type])))
        return msgspec.defstruct("Columns" if columns else "Reading", [*required, *may_lack], gc=False)

    def listed(self, name: str) -> Any:
        """The type of a member of columns: the key, or a field or tag that may lack."""
        if name == self.key:
            return _list_of(self._name_of_device)
        return _list_of(self._types[self.declared[name].type] | None) | None

    def times_of(self, times: Sequence[Any]) -> Int64s:
        """Event times as messages have them, as µs. Raises RefusedError if one is none."""
        try:
            return self.parse_time(times)
        except BAD as error:
            raise RefusedError("bad_time", f"{self.time}: {error}") from None

    def dates(self, texts: Sequence[str | None]) -> Column:
        """A column of times from their texts, None where one is missing. Raises one of BAD if one is no time."""
        if None not in texts:
            return Column(self._parse_iso(texts))
        valid = np.array([text is not None for text in texts], np.bool_)
        times = np.zeros(len(texts), np.int64)
        times[valid] = self._parse_iso([text for text in texts if text is not None])
        return Column(times, valid)

    def dates_of(self, name: str, texts: Sequence[str | None]) -> Column:
        """As :meth:`dates`, of the field or tag ``name``. Raises RefusedError if one is no time."""
        try:
            return self.dates(texts)
        except BAD as error:
            raise RefusedError("wrong_type", f"{name}: {error}") from None

    def column(self, name: str, listed: list[Any]) -> Column:
        """A column of the values that messages have of a field or tag."""
        field = self.declared[name]
        return Column.of(listed, field.type, whole=not field.optional, has_nan=False)


def _list_of(kind: Any) -> Any:
    return list[kind]


def _optional(field: Field) -> Field:
    return Field(type=field.type, unit=field.unit, optional=True)
