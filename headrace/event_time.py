"""Event times as devices write them, to and from int microseconds since the epoch (UTC).

Formats: ``epoch_s``, ``epoch_ms``, ``epoch_us``, ``epoch_ns`` (numbers), ``iso8601`` (text, with or without a
zone), or a strptime pattern. A time without a zone is in the declared named zone, else UTC. In the hour
that daylight saving repeats the earlier of the two is meant; a time in the hour that it skips is moved
forward by the gap. 24:00 is midnight at the end of the day. Digits below the microsecond are cut off; only a
fraction of an epoch in s, ms or µs, which as a float is rarely exact, is rounded.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.batch import Int64s

EPOCH_FORMATS = {"epoch_s": 1_000_000.0, "epoch_ms": 1_000.0, "epoch_us": 1.0, "epoch_ns": 0.001}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# A reading outside these years has no event time that any store could keep.
EARLIEST_US = int((datetime(1900, 1, 1, tzinfo=UTC) - EPOCH) / timedelta(microseconds=1))
LATEST_US = int((datetime(2200, 1, 1, tzinfo=UTC) - EPOCH) / timedelta(microseconds=1))
_END_OF_DAY = re.compile(r"([^:]{8,10}[Tt ])24((?::?00(?::?00(?:[.,]0+)?)?)?(?:Z|[+-].*)?)", re.ASCII)


Parser = Callable[[Sequence[Any]], Int64s]
Formatter = Callable[[Int64s], list[Any]]


class Written(Protocol):
    """How times are written: ``epoch_ms`` and its like, ``iso8601``, or a strptime pattern; in which zone."""

    @property
    def format(self) -> str:
        """One of EPOCH_FORMATS, iso8601, or a pattern."""

    @property
    def zone(self) -> str | None:
        """The named zone of times that carry none."""


def is_number(format: str) -> bool:  # noqa: A002 - the file's own word
    """Whether times of this format are numbers (else text)."""
    return format in EPOCH_FORMATS


def parser(time: Written) -> Parser:
    """A function from n written times to n int64 µs.

    It raises ValueError (or OverflowError, TypeError) if any of them is no time, or lies outside the years
    1900 to 2199.
    """
    scale = EPOCH_FORMATS.get(time.format)
    if scale is not None:
        return lambda values: _bounded(_scaled(values, time.format))
    zone = ZoneInfo(time.zone) if time.zone else UTC
    if time.format == "iso8601":
        return lambda values: _bounded(_parse_iso(values, zone))
    return lambda values: _bounded(np.array([_one(datetime.strptime(v, time.format), zone) for v in values], np.int64))  # noqa: DTZ007 - the zone follows


def whole_parser(time: Written) -> Parser:
    """As :func:`parser`, for an epoch format and times that are known to be whole numbers."""
    return lambda values: _bounded(_scaled_whole(np.fromiter(values, np.int64, len(values)), time.format))


def formatter(time: Written) -> Formatter:
    """A function from n int64 µs to n times as the topic writes them."""
    if time.format in EPOCH_FORMATS:
        if time.format == "epoch_ns":
            return lambda us: (us * 1_000).tolist()
        divisor = int(EPOCH_FORMATS[time.format])
        return lambda us: _divided(us, divisor)
    zone = ZoneInfo(time.zone) if time.zone else None
    if time.format == "iso8601":
        if zone is None:
            return iso
        return lambda us: [_local(int(u), zone).isoformat(timespec="microseconds") for u in us]
    return lambda us: [_local(int(u), zone or UTC).strftime(time.format) for u in us]


def iso(us: Int64s) -> list[str]:
    """ISO 8601 text in UTC with microseconds, as 2026-11-20T20:00:10.000000Z."""
    return [text + "Z" for text in np.datetime_as_string(us.view("datetime64[us]"), unit="us").tolist()]


def to_datetime(us: int) -> datetime:
    """The aware datetime (UTC) of µs since the epoch."""
    return EPOCH + timedelta(microseconds=us)


def _divided(us: Int64s, divisor: int) -> list[Any]:
    whole = us // divisor
    times: list[Any] = (whole if (whole * divisor == us).all() else us / divisor).tolist()
    return times


def _scaled_whole(array: Int64s, format: str) -> Int64s:  # noqa: A002
    factor = int(EPOCH_FORMATS[format])
    limit = LATEST_US // factor + 1 if factor else LATEST_US * 1_000
    if len(array) and (int(array.max()) > limit or int(array.min()) < -limit):
        raise ValueError("a time lies outside the years 1900 to 2199")
    return array.astype(np.int64) * factor if factor else array.astype(np.int64) // 1_000


def _scaled(values: Sequence[Any], format: str) -> Int64s:  # noqa: A002
    array = np.array(values)
    if array.dtype.kind in "iu":
        return _scaled_whole(array, format)
    if array.dtype.kind != "f":
        raise TypeError("a time is no number")
    if format == "epoch_ns" and any(isinstance(value, int) for value in values):
        # Whole nanoseconds would lose digits beside a fraction: a time must not depend on its neighbours.
        return np.array([_scaled([value], format)[0] for value in values], np.int64)
    factor_us = EPOCH_FORMATS[format]
    if len(array) and not np.abs(array).max() <= LATEST_US / factor_us:  # NaN neither
        raise ValueError("a time lies outside the years 1900 to 2199")
    if format == "epoch_ns":
        # As whole nanoseconds are: 1999.0 is 1999.
        us: Int64s = np.floor(array).astype(np.int64) // 1_000
        return us
    return np.rint(array * factor_us).astype(np.int64)


def _bounded(us: Int64s) -> Int64s:
    if len(us) and (int(us.min()) < EARLIEST_US or int(us.max()) >= LATEST_US):
        raise ValueError("a time lies outside the years 1900 to 2199")
    return us


def _parse_iso(values: Sequence[str], zone: Any) -> Int64s:
    if all(value[-1:] == "Z" for value in values):
        # The common case, by pyarrow's vectorised cast (some 50 ns each). It knows fewer ways of writing a
        # time than Python does, and whether one is understood must not depend on its neighbours.
        with contextlib.suppress(pa.ArrowInvalid):
            parsed = pc.cast(pa.array(values, pa.string()), pa.timestamp("us", tz="UTC"))
            us: Int64s = parsed.cast(pa.int64()).to_numpy(zero_copy_only=False).astype(np.int64)
            return us
    return np.array([_one(_from_iso(value), zone) for value in values], np.int64)


def _from_iso(value: str) -> datetime:
    """What Python reads as ISO 8601 and, as the standard and RFC 3339 have them, 24:00 and a lowercase z."""
    if value[-1:] == "z":
        value = value[:-1] + "Z"
    midnight = _END_OF_DAY.fullmatch(value)
    if midnight is None:
        return datetime.fromisoformat(value)
    return datetime.fromisoformat(f"{midnight[1]}00{midnight[2]}") + timedelta(days=1)


def _one(moment: datetime, zone: Any) -> int:
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone, fold=0)
    return (moment - EPOCH) // timedelta(microseconds=1)


def _local(us: int, zone: Any) -> datetime:
    return to_datetime(us).astimezone(zone)
