"""The times of a recording's rows, a chunk at a time, to µs since the epoch."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from headrace.batch import Int64s
from headrace.event_time import EPOCH, is_number, parser
from headrace.pipeline.model import ReplayTime, Time

_MINUTE_US = 60_000_000
# What glibc's strptime, which pyarrow calls, does otherwise than Python's or not at all.
_PYTHON_ONLY = ("%f", "%z", "%Z", "%b", "%B", "%a", "%A", "%p", "%j", "%U", "%W", "%c", "%x", "%X", "%G", "%u", "%V")


class NoTimeError(ValueError):
    """A row whose time cannot be read: its ``place`` in the chunk, and what it says."""

    def __init__(self, place: int, text: str) -> None:
        super().__init__(text)
        self.place = place
        self.text = text


def recorded_times(columns: Sequence[pa.Array], time: ReplayTime) -> tuple[Int64s, NDArray[np.bool_]]:
    """The times (µs) of a chunk's n rows, and which rows have one; a time that is null is 0 here.

    Raises NoTimeError for the first row that has a text or number that is no time.
    """
    zone: tzinfo = ZoneInfo(time.zone) if time.zone else UTC
    if len(columns) == 1 and pa.types.is_timestamp(columns[0].type):
        there = columns[0].is_valid().to_numpy(zero_copy_only=False)
        naive = columns[0].type.tz is None
        stamps = columns[0].cast(pa.timestamp("us", tz=columns[0].type.tz), safe=False).cast(pa.int64())
        return (_located(_numpy(stamps), zone) if naive else _numpy(stamps)), there
    joined = columns[0] if len(columns) == 1 else pc.binary_join_element_wise(*(_text(c) for c in columns), " ")
    there = joined.is_valid().to_numpy(zero_copy_only=False)
    present = joined.drop_null()
    made = np.zeros(len(joined), np.int64)
    declared = Time(field="", format=time.format, zone=time.zone)
    values: pa.Array = present
    try:
        if is_number(time.format):
            values = _number(present)
            made[there] = parser(declared)(values.to_numpy(zero_copy_only=False))
        else:
            values = _text(present)
            made[there] = _parsed(values, declared, zone)
    except (ValueError, TypeError, OverflowError):
        place, text = _first_bad(values, declared)
        raise NoTimeError(int(np.flatnonzero(there)[place]), text) from None
    return made, there


def _parsed(texts: pa.Array, time: Time, zone: tzinfo) -> Int64s:
    if time.format == "iso8601":
        for target in (pa.timestamp("us"), pa.timestamp("us", tz="UTC")):
            try:
                stamps = _numpy(texts.cast(target).cast(pa.int64()))
            except pa.ArrowInvalid:
                continue
            return _located(stamps, zone) if target.tz is None else stamps
    elif not any(code in time.format for code in _PYTHON_ONLY):
        parsed = pc.strptime(texts, format=time.format, unit="us", error_is_null=True)
        if parsed.null_count == 0:
            return _located(_numpy(parsed.cast(pa.int64())), zone)
    return parser(time)(texts.to_pylist())


def _located(local_us: Int64s, zone: tzinfo) -> Int64s:
    """Local times without a zone (as µs) to µs since the epoch, as headrace.event_time does it.

    A zone's offset is asked for once a minute of the recording, not once a row.
    """
    if zone is UTC or not len(local_us):
        return local_us
    minutes, of_row = np.unique(local_us // _MINUTE_US, return_inverse=True)
    offsets = np.array([_offset_us(int(minute) * _MINUTE_US, zone) for minute in minutes], np.int64)
    located: Int64s = local_us - offsets[of_row]
    return located


def _offset_us(local_us: int, zone: tzinfo) -> int:
    local = (EPOCH + timedelta(microseconds=local_us)).replace(tzinfo=zone, fold=0)
    offset = local.utcoffset()
    return 0 if offset is None else offset // timedelta(microseconds=1)


def _numpy(array: pa.Array) -> Int64s:
    made: Int64s = array.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    return made


def _text(array: pa.Array) -> pa.Array:
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        return array
    return array.cast(pa.string())


def _number(array: pa.Array) -> pa.Array:
    if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
        return array if pa.types.is_integer(array.type) else array.cast(pa.float64())
    try:
        return array.cast(pa.int64())
    except pa.ArrowInvalid:
        pass  # not all whole numbers: the fractions decide
    try:
        return array.cast(pa.float64())
    except pa.ArrowInvalid:
        return array


def _first_bad(values: pa.Array, time: Time) -> tuple[int, str]:
    """The first of the values that is no time; ValueError if each alone is one."""
    parse = parser(time)
    for place, value in enumerate(values.to_pylist()):
        try:
            parse([float(value)] if is_number(time.format) else [value])
        except (ValueError, TypeError, OverflowError):
            return place, str(value)
    raise ValueError("the times of this chunk cannot be read together")


def written(us: int) -> str:
    """A time as a person reads it."""
    return datetime.fromtimestamp(us / 1_000_000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
