"""The types that a topic's messages are decoded by, made from its declaration."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from headrace.event_time import is_number
from headrace.field_types import FieldType
from headrace.pipeline.model import Field, Topic

_INT64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
TYPES: dict[FieldType, Any] = {"float": float, "int": _INT64, "bool": bool, "text": str, "time": str}


def optional(field: Field) -> Field:
    """The field, which may be missing."""
    return Field(type=field.type, unit=field.unit, optional=True)


def struct_of(
    topic: Topic, declared: dict[str, Field], key: str | None, *, columns: bool, time: Any = None
) -> type[msgspec.Struct]:
    """The type of a message: one reading, or lists of them."""

    def shaped(kind: Any) -> Any:
        return list[kind] if columns else kind

    name_of_device = Annotated[str, Meta(min_length=1, max_length=topic.max_name)]
    types = {**TYPES, "text": Annotated[str, Meta(max_length=topic.max_text)]}
    required: list[tuple[str, Any]] = [] if key is None else [(key, shaped(name_of_device))]
    required.append((topic.time.field, shaped(time or (int | float if is_number(topic.time.format) else str))))
    may_lack: list[tuple[str, Any, Any]] = []
    for name, field in declared.items():
        if field.optional:
            kind = types[field.type] | None
            may_lack.append((name, shaped(kind) | None if columns else kind, None))
        else:
            required.append((name, shaped(types[field.type])))
    return msgspec.defstruct("Columns" if columns else "Reading", [*required, *may_lack], gc=False)
