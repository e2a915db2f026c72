"""Why a message is no reading, as a person would say it.

A message is refused by msgspec, which says why in words of its own that may change with any release. So the
reason, which dead letters, ledger and metrics carry, is found by a look of our own at the message, once it has been
refused; msgspec's words are the detail that goes with it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from headrace.event_time import is_number
from headrace.pipeline.model import Field, Topic

Reason = Literal[
    "not_json",
    "wrong_type",
    "missing_field",
    "nan",
    "bad_time",
    "future",
    "too_large",
    "too_long",
    "no_key",
    "unknown_shape",
]

OF_ENVELOPE = ("too_large", "no_key")
"""Why a message is refused before it is decoded."""

BAD = (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError)
"""What decoding a message may raise."""

LONGEST_WHOLE = 400
"""The most digits of a whole number that is looked at as one: no field takes more, nor does a float."""


@dataclass(frozen=True)
class Refused:
    """A message that is no reading: its place in the micro-batch, why, and the detail for a person."""

    place: int
    reason: Reason
    detail: str
    device: str | None = None
    """whose clock is wrong, of a message from the future"""


class RefusedError(Exception):
    """A message is no reading, and it is known why."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Judge:
    """Looks at messages of one topic that were refused. ``key`` is the member that names the device, if one does."""

    def __init__(self, topic: Topic, declared: Mapping[str, Field], key: str | None) -> None:
        self._topic = topic
        self._declared = declared
        self._key = key
        self._time = topic.time.field
        self._time_is_number = is_number(topic.time.format)

    def why(self, value: bytes, error: Exception) -> tuple[Reason, str]:
        """The reason for which a message was refused with ``error``, and the detail."""
        try:
            found = json.loads(value, parse_constant=_constant, parse_int=_whole)
        except RefusedError as refused:
            return refused.reason, refused.detail
        except (ValueError, RecursionError):
            return "not_json", str(error)
        if not isinstance(error, msgspec.ValidationError):
            # Python's reader is the more generous one: it takes UTF-16, byte order marks, half surrogates.
            return "not_json", str(error)
        return self._reason(found), str(error)

    def _reason(self, found: Any) -> Reason:
        if not isinstance(found, dict):
            return "unknown_shape"
        columns = isinstance(next(iter(found.values()), None), list)
        given = [name for name in (self._key, self._time, *self._declared) if name is not None and name in found]
        for name in given:
            if (reason := self._reason_of(name, found[name], columns=columns)) is not None:
                return reason
        if self._key is not None and self._key not in found:
            return "missing_field"
        return "bad_time" if self._time not in found else "missing_field" if self._lacks(found) else "wrong_type"

    def _lacks(self, found: Mapping[str, Any]) -> bool:
        return any(name not in found for name, field in self._declared.items() if not field.optional)

    def _reason_of(self, name: str, value: Any, *, columns: bool) -> Reason | None:
        if not columns:
            return self._reason_of_value(name, value)
        if not isinstance(value, list):
            absent = value is None and name in self._declared and self._declared[name].optional
            return None if absent else "bad_time" if name == self._time else "wrong_type"
        for one in value:
            if (reason := self._reason_of_value(name, one)) is not None:
                return reason
        return None

    def _reason_of_value(self, name: str, value: Any) -> Reason | None:  # noqa: PLR0911 - one return a reason
        """What is wrong with a value, or with one of a column; None if nothing is."""
        if name == self._time:
            kinds = (int, float) if self._time_is_number else (str,)
            return None if isinstance(value, kinds) and _is_plain(value) else "bad_time"
        if name == self._key:
            if not isinstance(value, str) or not value:
                return "wrong_type"
            return _length(value, self._topic.max_name)
        field = self._declared[name]
        if value is None:
            return None if field.optional else "wrong_type"
        match field.type:
            case "text":
                return _length(value, self._topic.max_text) if isinstance(value, str) else "wrong_type"
            case "time":
                return None if isinstance(value, str) else "wrong_type"
            case "bool":
                return None if isinstance(value, bool) else "wrong_type"
        if isinstance(value, float) and not math.isfinite(value):
            return "nan"
        if field.type == "float":
            if isinstance(value, int) and not isinstance(value, bool):
                return None if _is_float(value) else "nan"
            return None if isinstance(value, float) else "wrong_type"
        whole = isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63
        return None if whole else "wrong_type"


def _length(value: str, most: int) -> Reason | None:
    return "too_long" if len(value) > most else None


def _is_plain(value: float | str) -> bool:
    """Whether it is no truth value, and finite if it is a number."""
    return not isinstance(value, bool) and (isinstance(value, str) or _is_float(value))


def _is_float(value: float) -> bool:
    """Whether a number lies within what floats reach."""
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def _whole(digits: str) -> float:
    """A whole number; infinite when it has more digits than any field takes (Python reads no more than 4,300)."""
    if len(digits) <= LONGEST_WHOLE:
        return int(digits)
    return -math.inf if digits.startswith("-") else math.inf


def _constant(_name: str) -> float:
    raise RefusedError("nan", "a value is NaN or infinite")
