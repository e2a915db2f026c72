"""Event times as devices write them: every format, zones and their odd hours, none depending on its neighbours."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.event_time import EARLIEST_US, EPOCH, LATEST_US, formatter, iso, parser, to_datetime
from headrace.pipeline.model import Time

EVENING = "2026-11-20T20:00:10.123456+00:00"
NOT_A_TIME = (ValueError, TypeError, OverflowError)
REFUSED = object()


def us(text: str) -> int:
    """µs since the epoch of an ISO text with a zone."""
    return (datetime.fromisoformat(text) - EPOCH) // timedelta(microseconds=1)


def parsed(time: Time, *written: Any) -> list[int]:
    found: list[int] = parser(time)(written).tolist()
    return found


def parsed_alone(time: Time, written: Any) -> object:
    try:
        return parsed(time, written)[0]
    except NOT_A_TIME:
        return REFUSED


@pytest.mark.parametrize(
    ("time", "written", "meant"),
    [
        (Time(format="epoch_s"), 1_795_204_810, "2026-11-20T20:00:10+00:00"),
        (Time(format="epoch_s"), 1_795_204_810.25, "2026-11-20T20:00:10.25+00:00"),
        (Time(format="epoch_ms"), 1_795_204_810_123, "2026-11-20T20:00:10.123+00:00"),
        (Time(format="epoch_us"), 1_795_204_810_123_456, EVENING),
        (Time(format="epoch_ns"), 1_795_204_810_123_456_789, EVENING),
        (Time(format="epoch_ms"), -1, "1969-12-31T23:59:59.999+00:00"),
        (Time(format="epoch_ns"), -1, "1969-12-31T23:59:59.999999+00:00"),
        (Time(format="epoch_ns"), 1999, "1970-01-01T00:00:00.000001+00:00"),
        (Time(format="epoch_ns"), 1999.0, "1970-01-01T00:00:00.000001+00:00"),
        (Time(format="epoch_ns"), 1999.9, "1970-01-01T00:00:00.000001+00:00"),
        (Time(format="epoch_ns"), -1.0, "1969-12-31T23:59:59.999999+00:00"),
        (Time(format="epoch_ns"), -0.5, "1969-12-31T23:59:59.999999+00:00"),
        (Time(format="iso8601"), "2026-11-20T20:00:10.123456Z", EVENING),
        (Time(format="iso8601"), "2026-11-20T20:00:10.123456z", EVENING),
        (Time(format="iso8601"), "2026-11-20t20:00:10.123456z", EVENING),
        (Time(format="iso8601"), "2026-11-20T24:00:00Z", "2026-11-21T00:00:00+00:00"),
        (Time(format="iso8601"), "2026-12-31T24:00:00.000z", "2027-01-01T00:00:00+00:00"),
        (Time(format="iso8601"), "2026-02-28 24:00+01:00", "2026-02-28T23:00:00+00:00"),
        (Time(format="iso8601"), "20261120T240000Z", "2026-11-21T00:00:00+00:00"),
        (Time(format="iso8601"), "2026-W47-5T24Z", "2026-11-21T00:00:00+00:00"),
        (Time(format="iso8601", zone="Europe/Paris"), "2026-11-20T24:00:00", "2026-11-20T23:00:00+00:00"),
        (Time(format="iso8601"), "2026-11-20T21:00:10.123456+01:00", EVENING),
        (Time(format="iso8601"), "2026-11-20T20:00:10.123456789Z", EVENING),
        (Time(format="iso8601"), "2026-11-20T20:00:10.123456789", EVENING),
        (Time(format="iso8601"), "2026-11-20 20:00", "2026-11-20T20:00:00+00:00"),
        (Time(format="iso8601"), "20261120T200010Z", "2026-11-20T20:00:10+00:00"),
        (Time(format="iso8601", zone="Europe/Paris"), "2026-11-20T21:00:10", "2026-11-20T20:00:10+00:00"),
        (Time(format="iso8601", zone="Europe/Paris"), "2026-11-20T21:00:10Z", "2026-11-20T21:00:10+00:00"),
        (Time(format="%d/%m/%Y %H:%M:%S"), "20/11/2026 20:00:10", "2026-11-20T20:00:10+00:00"),
        (Time(format="%d/%m/%Y %H:%M", zone="Asia/Kolkata"), "21/11/2026 01:30", "2026-11-20T20:00:00+00:00"),
        (
            Time(format="%Y-%m-%d %H:%M:%S%z", zone="Asia/Tokyo"),
            "2026-11-20 21:00:10+0100",
            "2026-11-20T20:00:10+00:00",
        ),
    ],
)
def test_a_written_time_is_understood(time: Time, written: Any, meant: str) -> None:
    assert parsed(time, written) == [us(meant)]


def test_the_repeated_hour_is_its_first_turn_and_the_skipped_one_moves_forward() -> None:
    paris = Time(format="iso8601", zone="Europe/Paris")
    assert parsed(paris, "2026-10-25T02:30:00") == [us("2026-10-25T00:30:00+00:00")]
    assert parsed(paris, "2026-03-29T02:30:00") == [us("2026-03-29T03:30:00+02:00")]


@pytest.mark.parametrize(
    ("time", "written"),
    [
        (Time(format="iso8601"), "soon"),
        (Time(format="iso8601"), ""),
        (Time(format="iso8601"), "2026-13-20T20:00:00Z"),
        (Time(format="iso8601"), "2026-11-20T20:00:60Z"),
        (Time(format="iso8601"), "2026-11-20T24:00:01Z"),
        (Time(format="iso8601"), "2026-11-20T24:01Z"),
        (Time(format="iso8601"), "2026-11-20T24:00:00.001Z"),
        (Time(format="iso8601"), "2026-02-30T24:00:00Z"),
        (Time(format="iso8601"), "2026-11-20T24:00:00zz"),
        (Time(format="iso8601"), "1899-12-31T23:59:59Z"),
        (Time(format="iso8601"), "2200-01-01T00:00:00Z"),
        (Time(format="%d/%m/%Y"), "2026-11-20"),
        (Time(format="epoch_s"), float("nan")),
        (Time(format="epoch_s"), float("inf")),
        (Time(format="epoch_s"), 1_795_204_810_123),
        (Time(format="epoch_s"), 1e308),
        (Time(format="epoch_ms"), -(2**63)),
        (Time(format="epoch_us"), 2**63 - 1),
        (Time(format="epoch_ns"), 2**63),
        (Time(format="epoch_ns"), 2**64 - 1),
        (Time(format="epoch_ns"), 2**70),
        (Time(format="epoch_ms"), "1795204810123"),
    ],
)
def test_what_is_no_time_is_refused_alone_and_among_good_ones(time: Time, written: Any) -> None:
    good = formatter(time)(np.array([us(EVENING)]))[0]
    for values in ([written], [good, written], [written, good]):
        with pytest.raises(NOT_A_TIME):
            parser(time)(values)


def test_the_first_and_the_last_time_that_are_kept() -> None:
    time = Time(format="epoch_us")
    assert parsed(time, EARLIEST_US, LATEST_US - 1) == [us("1900-01-01T00:00:00+00:00"), LATEST_US - 1]
    for beyond in (EARLIEST_US - 1, LATEST_US):
        assert parsed_alone(time, beyond) is REFUSED


def test_no_times_at_all_are_an_empty_array() -> None:
    for format in ("epoch_s", "epoch_ns", "iso8601", "%Y"):  # noqa: A001
        assert parsed(Time(format=format)) == []


# Until 2105: from there on a float of seconds, which is how JSON carries a fraction, no longer tells µs apart.
moments = st.integers(EARLIEST_US, us("2105-01-01T00:00:00+00:00"))


@given(
    times=st.lists(moments, min_size=1, max_size=5),
    time=st.sampled_from(
        [
            *(Time(format=f"epoch_{unit}") for unit in ("s", "ms", "us", "ns")),
            Time(format="iso8601"),
            Time(format="iso8601", zone="America/St_Johns"),
            Time(format="%d.%m.%Y %H:%M:%S.%f"),
        ]
    ),
)
def test_a_time_comes_back_as_it_was_written(times: list[int], time: Time) -> None:
    assert parsed(time, *formatter(time)(np.array(times, np.int64))) == times


@given(moments)
def test_iso_text_and_datetimes_say_the_same(moment: int) -> None:
    assert datetime.fromisoformat(iso(np.array([moment]))[0]) == to_datetime(moment)
    assert to_datetime(moment).tzinfo is UTC


iso_texts = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["2026-11-20", "20261120", "1899-12-31", "2199-12-31", "2026-02-30", "2026-W47-5", ""]),
        st.sampled_from(["T", " ", "t", ""]),
        st.sampled_from(["20:00:10", "200010", "20:00", "20", "24:00:00", "20:00:60", "2:00:00", ""]),
        st.sampled_from(["", ".5", ",5", ".123456", ".123456789", ".1234567", ".", ".12a"]),
        st.sampled_from(["Z", "z", "+01:00", "-0130", "+00:00Z", "+01", " Z", ""]),
    ),
)


@given(st.lists(iso_texts, min_size=1, max_size=4), st.sampled_from([None, "Europe/Paris"]))
def test_an_iso_time_is_judged_alike_alone_and_beside_others(texts: list[str], zone: str | None) -> None:
    judged_alike(Time(format="iso8601", zone=zone), texts)


@given(
    st.lists(
        st.one_of(
            st.integers(-(2**65), 2**65), moments, moments.map(lambda n: n * 1_000), moments.map(float), st.floats()
        ),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from(["epoch_s", "epoch_ms", "epoch_us", "epoch_ns"]),
)
def test_a_number_is_judged_alike_alone_and_beside_others(numbers: list[float], format: str) -> None:  # noqa: A002
    judged_alike(Time(format=format), numbers)


def judged_alike(time: Time, written: list[Any]) -> None:
    alone = [parsed_alone(time, value) for value in written]
    if REFUSED in alone:
        with pytest.raises(NOT_A_TIME):
            parser(time)(written)
    else:
        assert parsed(time, *written) == alone
