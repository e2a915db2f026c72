"""What goes wrong on purpose: which reading has which fault, and how a malformed message looks."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.event_time import is_number
from headrace.pipeline.model import Faults, Field, Topic
from producers.curves import DAY_US, stream

PLAIN, LATE, REPEATED, MISSING, OUT_OF_ORDER, FUTURE, MALFORMED = range(7)
NAMES = ("plain", "late", "repeated", "missing", "out_of_order", "future", "malformed")
AHEAD_US = DAY_US
"""How far ahead a ``future`` reading is dated."""

MALFORMED_KINDS = ("not_json", "wrong_type", "missing_field", "bad_time", "nan")
"""The kinds of malformed message, in the order in which they take turns."""


class FaultPlan:
    """Which fault each reading has: a pure function of the seed and the reading's number."""

    def __init__(self, faults: Faults, *, seed: int) -> None:
        shares = (
            faults.late,
            faults.repeated,
            faults.missing,
            faults.out_of_order,
            faults.future,
            faults.malformed,
        )
        self.any = any(shares)
        self._seed = seed
        self._bounds = np.cumsum(shares)

    def of_block(self, block: int, size: int) -> NDArray[np.int64]:
        """The faults (PLAIN, LATE, ...) of the block's readings."""
        if not self.any:
            return np.zeros(size, np.int64)
        drawn = stream(self._seed, "faults", block=block).random(size)
        # Below the first bound is LATE, below the second REPEATED, and so on; beyond the last is PLAIN.
        return ((np.searchsorted(self._bounds, drawn, side="right") + 1) % len(NAMES)).astype(np.int64)


def malformed(kind: str, message: bytes, topic: Topic) -> bytes:
    """A message of one good reading, spoilt: one of MALFORMED_KINDS."""
    if kind == "not_json":
        return message[: max(1, len(message) - 1)]
    value: dict[str, Any] = json.loads(message)
    name, field = _victim(topic)
    if kind == "bad_time":
        value[topic.time.field] = "no time at all"
    elif name is None or field is None:
        # Nothing but the time is required here.
        _spoil_time(value, kind, topic)
    elif kind == "wrong_type":
        value[name] = 12_345 if field.type in ("text", "time") else "not a value"
    elif kind == "missing_field":
        del value[name]
    else:
        value[name] = float("nan")
    return json.dumps(value, separators=(",", ":")).encode()


def _spoil_time(value: dict[str, Any], kind: str, topic: Topic) -> None:
    time = topic.time.field
    if kind == "wrong_type":
        value[time] = not is_number(topic.time.format)
    elif kind == "missing_field":
        del value[time]
    else:
        value[time] = float("nan")


def _victim(topic: Topic) -> tuple[str | None, Field | None]:
    """The first required field, a float if there is one."""
    required = [(name, field) for name, field in topic.fields.items() if not field.optional]
    required.sort(key=lambda item: item[1].type != "float")
    return required[0] if required else (None, None)
