"""How simulated fields move: pure functions of the seed, the device, the reading's number and its time."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from headrace.batch import Float64s, Int64s
from headrace.event_time import EPOCH
from headrace.pipeline.model import Curve, Field

DAY_US = 86_400_000_000
_PEAK_US = 16 * 3_600_000_000
# Three waves whose periods have no common multiple worth the name look like wandering.
_DRIFT = ((0.55, 5.3), (0.3, 13.7), (0.15, 31.1))

_PLAIN = {
    "float": Curve(base=20.0, spread=1.0, swing=4.0, daily=2.0, drift=0.5, noise=0.2),
    "int": Curve(base=100.0, spread=5.0, swing=20.0, drift=5.0, noise=2.0),
    "bool": Curve(base=0.5, swing=0.5, noise=0.1),
    "text": Curve(choices=["ok", "busy", "idle"]),
    "time": Curve(),
}


def stream(seed: int, *words: object, block: int = 0) -> np.random.Generator:
    """Random numbers that depend on nothing but the seed, the words that name their use, and the block.

    Every block is a stream of its own, so that reading number n is the same however the readings before it
    were asked for.
    """
    name = "/".join(str(word) for word in (seed, *words))
    key = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=16).digest(), "little")
    # The counter's upper half is the block's: no stream is long enough to run into the next.
    return np.random.Generator(np.random.Philox(key=key, counter=(block << 128) % (1 << 256)))


class FieldCurve:
    """One field of all devices.

    ``devices`` is how many there are; places below are theirs, from 0.
    """

    def __init__(self, name: str, field: Field, curve: Curve | None, *, devices: int, seed: int) -> None:
        self.name = name
        self.field = field
        self.curve = curve or _PLAIN[field.type]
        self._seed = seed
        own = stream(seed, name, "devices").random((devices, 2 + len(_DRIFT)))
        self._offset = stream(seed, name, "spread").standard_normal(devices) * self.curve.spread
        self._phase = own[:, 1]
        self._drift = own[:, 2:]
        self._choices = _choices(self.curve.choices, field)

    def values(self, block: int, places: Int64s, ts_us: Int64s) -> list[Any]:
        """The values of the block's n readings, of n devices at n times (µs); None where absent.

        Floats and ints are Python's own, texts str, times int µs.
        """
        made = self._chosen(places, ts_us) if self._choices else self._typed(self._levels(block, places, ts_us), ts_us)
        if self.curve.absent:
            gone = stream(self._seed, self.name, "absent", block=block).random(len(places)) < self.curve.absent
            for place in np.flatnonzero(gone).tolist():
                made[place] = None
        return made

    def _levels(self, block: int, places: Int64s, ts_us: Int64s) -> Float64s:
        curve = self.curve
        level = curve.base + self._offset[places]
        if curve.swing:
            level += curve.swing * _wave(ts_us, int(curve.period), self._phase[places])
        if curve.daily:
            # cos: highest where its angle is 0.
            level += curve.daily * _wave(ts_us - _PEAK_US, DAY_US, 0.25)
        if curve.drift:
            for n, (share, periods) in enumerate(_DRIFT):
                level += curve.drift * share * _wave(ts_us, int(curve.period * periods), self._drift[places, n])
        if curve.noise:
            level += curve.noise * stream(self._seed, self.name, "noise", block=block).standard_normal(len(places))
        if curve.low is not None or curve.high is not None:
            level = np.clip(level, curve.low, curve.high)
        return level

    def _typed(self, level: Float64s, ts_us: Int64s) -> list[Any]:
        if self.field.type == "time":
            return list((ts_us + round(self.curve.base * 1_000_000)).tolist())
        return _as_typed(level, self.field, self.curve)

    def _chosen(self, places: Int64s, ts_us: Int64s) -> list[Any]:
        """A choice that lasts a period; each device changes at a time of its own."""
        period = int(self.curve.period)
        turn = (ts_us + (self._phase[places] * period).astype(np.int64)) // period
        mixed = _mix(turn.astype(np.uint64) ^ _mix(places.astype(np.uint64) + np.uint64(self._seed & 0xFFFFFFFF)))
        index = (mixed % np.uint64(len(self._choices))).astype(np.int64).tolist()
        return [self._choices[i] for i in index]


def tag_values(name: str, field: Field, curve: Curve | None, names: Sequence[str], *, seed: int) -> list[Any]:
    """The value of a tag for each device, for good.

    Choices are dealt out evenly. Without a curve a text tag is the device's name, and another its number.
    """
    n = len(names)
    if curve is None:
        if field.type == "text":
            return list(names)
        numbered: dict[str, list[Any]] = {
            "float": [float(i) for i in range(1, n + 1)],
            "int": list(range(1, n + 1)),
            "bool": [False] * n,
            "time": [0] * n,
        }
        return numbered[field.type]
    choices = _choices(curve.choices, field)
    if choices:
        # Not device number modulo choices: two tags with as many choices would always go together.
        order = np.argsort(stream(seed, name, "deal").random(n), kind="stable")
        rank = np.empty(n, np.int64)
        rank[order] = np.arange(n)
        return [choices[r % len(choices)] for r in rank.tolist()]
    if field.type == "text":
        return list(names)
    level = curve.base + stream(seed, name, "spread").standard_normal(n) * curve.spread
    if curve.low is not None or curve.high is not None:
        level = np.clip(level, curve.low, curve.high)
    return _as_typed(level * 1_000_000 if field.type == "time" else level, field, curve)


def _as_typed(level: Float64s, field: Field, curve: Curve) -> list[Any]:
    made: list[Any]
    if field.type in ("int", "time"):
        made = np.rint(level).astype(np.int64).tolist()
    elif field.type == "bool":
        made = (level >= 0.5).tolist()
    else:
        # Adding zero turns -0.0, which would be written with its sign, into 0.0.
        made = (np.round(level, curve.decimals) + 0.0).tolist()
    return made


def _choices(choices: Sequence[str | int | float | bool], field: Field) -> list[Any]:
    if field.type == "time":
        return [(datetime.fromisoformat(str(text)) - EPOCH) // timedelta(microseconds=1) for text in choices]
    return [float(choice) for choice in choices] if field.type == "float" else list(choices)


def _wave(ts_us: Int64s, period_us: int, phase: Float64s | float) -> Float64s:
    """A sine between -1 and 1; the angle is made from integers, so that it is exact at today's times."""
    share = (ts_us % period_us) / period_us
    made: Float64s = np.sin((share + phase) * (2 * math.pi))
    return made


def _mix(x: np.ndarray[Any, np.dtype[np.uint64]]) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Each number to one that looks unrelated (the finaliser of MurmurHash3)."""
    x = (x ^ (x >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    x = (x ^ (x >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return x ^ (x >> np.uint64(33))
