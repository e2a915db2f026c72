"""From a message to readings, or to why there are none: with the standard library alone."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from faults.recount.declared import Topic

LONGEST_NAME = 512
"""A device's name may have so many characters where a topic declares nothing else."""


@dataclass(slots=True)
class Reading:
    """One reading: the time in µs, the values that all streams aggregate, and the tag (None: not said)."""

    device: str
    ts: int
    current: float
    voltage: int
    tag: str | None


class Refused(Exception):
    """The message is no reading; the text is the reason."""


def readings(topic: Topic, key: bytes | None, value: bytes, broker_ms: int) -> list[Reading]:
    """The readings of a message that is no tombstone. Raises Refused with the reason."""
    if len(value) > topic.max_bytes:
        raise Refused("too_large")
    try:
        said = _DECODER.decode(value.decode())
    except ValueError:
        raise Refused("not_json") from None
    if not isinstance(said, dict):
        raise Refused("unknown_shape")
    found = _columns(topic, key, said) if isinstance(said.get(topic.time), list) else [_one(topic, key, said)]
    latest = broker_ms * 1_000 + topic.skew_us
    for reading in found:
        if reading.ts > latest:
            raise Refused("future")
    return found


def _constant(_: str) -> Any:
    raise Refused("nan")


# json.loads() with an argument makes a decoder at each call, which takes longer than what it decodes.
_DECODER = json.JSONDecoder(parse_constant=_constant)


def _one(topic: Topic, key: bytes | None, said: dict[str, Any]) -> Reading:
    device = _device(topic, key, said.get(topic.key))
    for name in (topic.time, "current", "voltage"):
        if said.get(name) is None:
            raise Refused("missing_field")
    return Reading(
        device, _time(topic, said[topic.time]), *_values(said["current"], said["voltage"]), said.get(topic.tag)
    )


def _columns(topic: Topic, key: bytes | None, said: dict[str, Any]) -> list[Reading]:
    device = _device(topic, key, None)
    tags = said.get(topic.tag) or [None] * len(said[topic.time])
    return [
        Reading(device, _time(topic, at), *_values(current, voltage), tag)
        for at, current, voltage, tag in zip(said[topic.time], said["current"], said["voltage"], tags, strict=True)
    ]


def _device(topic: Topic, key: bytes | None, written: Any) -> str:
    name = written if not topic.key_in_message else key.decode() if key else None
    if name is None:
        raise Refused("missing_field")
    if len(name) > LONGEST_NAME:
        raise Refused("too_long")
    return str(name)


def _values(current: Any, voltage: Any) -> tuple[float, int]:
    if not isinstance(current, int | float) or not isinstance(voltage, int):
        raise Refused("wrong_type")
    return float(current), voltage


def _time(topic: Topic, written: Any) -> int:
    if topic.iso:
        at = datetime.fromisoformat(written)
        return round(at.timestamp() * 1_000_000)
    if not isinstance(written, int | float):
        raise Refused("wrong_type")
    if not math.isfinite(written) or abs(written) > 1e15:
        raise Refused("bad_time")
    return round(written * 1_000)
