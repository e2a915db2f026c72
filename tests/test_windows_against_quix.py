"""Our windows against Quix Streams' own over the same messages; where these are others, what both say."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from recordings import (
    BEGIN_US,
    DAY,
    FIELDS,
    MINUTE,
    TAGS,
    Row,
    batch_of,
    batches,
    houses,
    said_of,
    shuffled,
    spec_of,
)

from headrace.batch import Batch
from headrace.topics import CLIENT, ONCE_IN_ORDER
from processors.windows import WindowOperator
from servers.kafka import KafkaPart

pytestmark = pytest.mark.slow

with warnings.catch_warnings(record=True):
    from quixstreams import Application
    from quixstreams.dataframe import StreamingDataFrame
    from quixstreams.dataframe.windows import Count, Earliest, Latest, Max, Mean, Min, Sum

PATIENCE_S = 60.0
MS = 1_000
MINUTE_MS = MINUTE // MS
ASKED = {
    "power": ("count", "sum", "min", "max", "mean"),
    "meter": ("sum", "min", "max", "mean", "first", "last"),
}
OF_QUIX: dict[str, Callable[[str], Any]] = {
    "count": Count,
    "sum": Sum,
    "min": Min,
    "max": Max,
    "mean": Mean,
    "first": Earliest,
    "last": Latest,
}
Late = list[tuple[str, int]]
Define = Callable[[StreamingDataFrame, Callable[..., bool]], Any]
"""Makes a window of a dataframe and what is to be called with its late readings."""


@dataclass
class Quix:
    """Quix Streams on a broker: what its windows say of a topic of readings."""

    address: str
    folder: Path
    name: str
    late: Late = field(default_factory=list)
    """The readings (house, time in ms) that Quix said were late."""

    def send(self, readings: Batch) -> None:
        """Send the readings into a topic of one partition, in the order they come."""
        settings = {**CLIENT, "bootstrap.servers": self.address}
        admin = AdminClient(settings)
        for made in admin.create_topics([NewTopic(self.name, 1)]).values():
            made.result(PATIENCE_S)
        producer = Producer({**settings, **ONCE_IN_ORDER, "linger.ms": 5})
        times = (readings.ts_us // MS).tolist()
        columns = {name: readings.column(name) for name in ASKED}
        for place, (device, ts_ms) in enumerate(zip(readings.devices, times, strict=True)):
            value = {"ts": ts_ms, **{name: values[place] for name, values in columns.items()}}
            producer.produce(self.name, json.dumps(value).encode(), device.encode(), 0)
        assert producer.flush(PATIENCE_S) == 0

    def windows(self, define: Define, count: int, closing: dict[str, str] | None = None) -> list[Row]:
        """So many final windows, as ``said_of`` says ours."""
        quiet = {"enable.metrics.push": False}
        app = Application(
            broker_address=self.address,
            consumer_group=f"{self.name}-quix",
            auto_offset_reset="earliest",
            state_dir=self.folder / "quix",
            use_changelog_topics=False,
            loglevel=None,
            consumer_extra_config=quiet,
            producer_extra_config=quiet,
        )
        found: list[Row] = []

        def note(window: dict[str, Any], key: str, *_: object) -> None:
            bounds = {"start": window.pop("start") * MS, "end": window.pop("end") * MS}
            found.append({"group": key, **bounds, **window})

        def late(value: Any, key: Any, timestamp_ms: int, *_: Any) -> bool:
            self.late.append((key, timestamp_ms))
            return False

        source = app.topic(
            self.name,
            key_deserializer="str",
            value_deserializer="json",
            timestamp_extractor=lambda value, *_: value["ts"],
        )
        made = {f"{name}_{of}": OF_QUIX[of](name) for name, names in ASKED.items() for of in names}
        window = define(app.dataframe(source), late)
        window.agg(count=Count(), **made).final(**(closing or {})).update(note, metadata=True)
        app.run(count=count, timeout=PATIENCE_S / 2)
        return found


@pytest.fixture
def quix(embedded_broker: KafkaPart, tmp_path: Path, name: str) -> Quix:
    return Quix(embedded_broker.address, tmp_path, name)


def recorded(each: int = 700) -> Batch:
    """Three houses, on whole milliseconds; then two last readings of each, days later, which close all before them."""
    batch = houses(3, each)
    rows = [
        {"device": device, "ts": ts // MS * MS, "power": power, "meter": meter}
        for device, ts, power, meter in zip(
            batch.devices, batch.ts_us.tolist(), batch.column("power"), batch.column("meter"), strict=True
        )
    ]
    last = [reading(house, 1_440 * day, 1.0) for day in (5, 9) for house in sorted(set(batch.devices))]
    return readings_of([*rows, *last])


def reading(device: str, minute: float, power: float | None) -> Row:
    return {"device": device, "ts": BEGIN_US + round(minute * MINUTE), "power": power, "meter": round(minute)}


def readings_of(rows: Iterable[Row]) -> Batch:
    return batch_of([{"location": "Sceaux", "floor": 0, **row} for row in rows], {**FIELDS, **TAGS})


def ours(readings: Batch, window: str, *further: str, idle: str = "1000d", silence: bool = False) -> list[Row]:
    """What our windows say as long as readings come; ``silence``: and then when no more do."""
    return _said(readings, window, further, idle, silence)[0]


def counts_of(readings: Batch, window: str, *further: str, idle: str = "1000d") -> dict[str, int]:
    """What became of the readings."""
    return _said(readings, window, further, idle, silence=True)[1].counts


def _said(
    readings: Batch, window: str, further: Sequence[str], idle: str, silence: bool
) -> tuple[list[Row], WindowOperator]:
    lines = [f"window = {{ {window} }}", f'idle = "{idle}"', *further, "[streams.s.aggregates]"]
    spec = spec_of("\n".join([*lines, *(f"{name} = {list(of)}" for name, of in ASKED.items())]))
    return said_of(spec, batches(readings, 3), silence=silence)


def key_of(row: Row) -> tuple[Any, ...]:
    return (row["group"], row["start"], row["end"], row["count"])


def assert_same(mine: list[Row], theirs: list[Row]) -> None:
    """Each window once; whole numbers exactly; floats to one part in 10**9."""
    assert sorted(map(key_of, mine)) == sorted(map(key_of, theirs))
    assert len(set(map(key_of, theirs))) == len(theirs)
    for row, other in zip(sorted(mine, key=key_of), sorted(theirs, key=key_of), strict=True):
        assert row.keys() == other.keys()
        for name, value in row.items():
            expected = other[name]
            if row["power_count"] == 0 and name == "power_sum":
                # The sum of no values is none with us, and 0 with Quix.
                assert (value, expected) == (None, 0)
            elif isinstance(value, float) and expected is not None:
                assert math.isclose(value, expected, rel_tol=1e-9, abs_tol=1e-9), (name, row, other)
            else:
                assert value == expected, (name, row, other)


def moved(rows: list[Row], *, start: int = 0, end: int = 0) -> list[Row]:
    """The windows with other bounds (µs)."""
    return [{**row, "start": row["start"] + start, "end": row["end"] + end} for row in rows]


def tumbling(minutes: int, grace: int = 0) -> Define:
    return lambda frame, late: frame.tumbling_window(minutes * MINUTE_MS, grace * MINUTE_MS, on_late=late)


def hopping(minutes: int, step: int, grace: int = 0) -> Define:
    return lambda frame, late: frame.hopping_window(
        minutes * MINUTE_MS, step * MINUTE_MS, grace * MINUTE_MS, on_late=late
    )


def sliding(minutes: int, grace: int = 0) -> Define:
    return lambda frame, late: frame.sliding_window(minutes * MINUTE_MS, grace * MINUTE_MS, on_late=late)


def session(gap: int, grace: int = 0) -> Define:
    return lambda frame, late: frame.session_window(gap * MINUTE_MS, grace * MINUTE_MS, on_late=late)


GRACES = pytest.mark.parametrize("grace", [0, 6], ids=["in-order", "out-of-order"])


def arrived(grace: int) -> Batch:
    """The recording, out of order by less than ``grace`` minutes."""
    return shuffled(recorded(), grace * MINUTE, 1) if grace else recorded()


# ---- where both say the same


@GRACES
@pytest.mark.parametrize(
    ("window", "define"),
    [
        ('kind = "tumbling", size = "10m"', lambda grace: tumbling(10, grace)),
        ('kind = "hopping", size = "30m", step = "10m"', lambda grace: hopping(30, 10, grace)),
        ('kind = "hopping", size = "25m", step = "10m"', lambda grace: hopping(25, 10, grace)),
    ],
    ids=["tumbling", "hopping", "hopping-uneven"],
)
def test_tumbling_and_hopping_windows_are_the_same(
    quix: Quix, window: str, define: Callable[[int], Define], grace: int
) -> None:
    readings = arrived(grace)
    quix.send(readings)
    mine = ours(readings, window, f'grace = "{grace}m"')
    assert len(mine) > 3 * 60
    assert_same(mine, quix.windows(define(grace), len(mine)))
    assert quix.late == []


@pytest.mark.parametrize("grace", [0, 6])
def test_sliding_windows_are_the_same_in_order_but_that_quix_counts_both_ends_in(quix: Quix, grace: int) -> None:
    readings = recorded()
    quix.send(readings)
    # Times are whole milliseconds: with one more, ours reach as far as Quix's, which begin with ts - size.
    window = f'kind = "sliding", size = "{20 * MINUTE_MS + 1}ms"'
    mine = ours(readings, window, f'grace = "{grace}m"')
    # Ours are said once a reading's place in the order is sure, those of Quix after the next reading: the last are
    # not said.
    last = int(readings.ts_us.max())
    mine = moved([row for row in mine if row["end"] < last], start=MS)
    assert_same(mine, quix.windows(sliding(20, grace), len(mine)))


@GRACES
def test_sessions_are_the_same_but_that_quix_ends_them_a_millisecond_later(quix: Quix, grace: int) -> None:
    readings = arrived(grace)
    quix.send(readings)
    mine = ours(readings, 'kind = "session", gap = "3m"', f'grace = "{grace}m"')
    assert_same(moved(mine, end=MS), quix.windows(session(3, grace), len(mine)))


@pytest.mark.parametrize("step", [20, 10, 6])
def test_full_count_windows_are_the_same_in_order(quix: Quix, step: int) -> None:
    readings = recorded()
    quix.send(readings)
    mine = ours(readings, f'kind = "count", count = 20, step = {step}')
    theirs = quix.windows(
        lambda frame, _: frame.tumbling_count_window(20) if step == 20 else frame.hopping_count_window(20, step),
        len(mine),
    )
    assert all(row["count"] == 20 for row in mine)
    assert_same(mine, theirs)


# ---- where they differ


def test_a_sliding_window_is_without_what_is_just_its_size_old_and_quixs_is_with_it(quix: Quix) -> None:
    readings = readings_of([reading("a", minute, 1.0) for minute in (0, 10, 20, 40, 60, 80)])
    quix.send(readings)
    mine = ours(readings, 'kind = "sliding", size = "20m"')
    theirs = quix.windows(sliding(20), 5)
    assert [row["count"] for row in mine] == [1, 2, 2, 1, 1, 1]
    assert [row["count"] for row in theirs] == [1, 2, 3, 2, 2]


def test_a_sliding_window_of_a_reading_out_of_order_is_whole_and_lacks_earlier_ones_in_quix(quix: Quix) -> None:
    # That of minute 7 is within the grace, and minute 0 within its window; Quix has forgotten what it adds it to.
    readings = readings_of([reading("a", minute, 1.0) for minute in (0, 10, 12, 7, 60, 120)])
    quix.send(readings)
    mine = ours(readings, 'kind = "sliding", size = "20m"', 'grace = "6m"')
    theirs = quix.windows(sliding(20, 6), 5)
    counts = [{(row["end"] - BEGIN_US) // MINUTE: row["count"] for row in rows} for rows in (mine, theirs)]
    assert counts == [
        {0: 1, 7: 2, 10: 3, 12: 4, 60: 1},
        {0: 1, 7: 1, 10: 3, 12: 4, 60: 1},
    ]
    assert quix.late == []


def test_counts_go_by_event_time_and_in_quix_by_arrival(quix: Quix) -> None:
    readings = readings_of([reading("a", minute, float(minute)) for minute in (0, 2, 1, 3, 9, 8)])
    quix.send(readings)
    mine = ours(readings, 'kind = "count", count = 2', 'grace = "5m"', silence=True)
    theirs = quix.windows(lambda frame, _: frame.tumbling_count_window(2), 3)
    starts = [[(row["start"] - BEGIN_US) // MINUTE for row in rows] for rows in (mine, theirs)]
    ends = [[(row["end"] - BEGIN_US) // MINUTE for row in rows] for rows in (mine, theirs)]
    assert (starts, ends) == ([[0, 2, 8], [0, 1, 8]], [[1, 3, 9], [2, 3, 9]])


def test_the_sum_of_no_values_is_none_and_0_in_quix(quix: Quix) -> None:
    readings = readings_of([reading("a", 1, None), reading("a", 11, 2.0), reading("a", 21, 1.0)])
    quix.send(readings)
    mine = ours(readings, 'kind = "tumbling", size = "10m"')
    theirs = quix.windows(tumbling(10), 2)
    assert [[row["power_sum"] for row in rows] for rows in (mine, theirs)] == [[None, 2.0], [0, 2.0]]
    assert_same(mine, theirs)


def test_a_repeated_reading_is_left_out_and_counts_again_in_quix(quix: Quix) -> None:
    readings = readings_of([reading("a", minute, 1.0) for minute in (0, 1, 1, 2, 10, 20)])
    quix.send(readings)
    mine = ours(readings, 'kind = "tumbling", size = "10m"')
    kept = ours(readings, 'kind = "tumbling", size = "10m"', 'repeats = "keep"')
    theirs = quix.windows(tumbling(10), 2)
    assert [row["count"] for row in mine] == [3, 1]
    assert_same(kept, theirs)


def test_a_silent_houses_last_window_closes_by_its_neighbours_and_never_in_quix(quix: Quix) -> None:
    readings = readings_of([reading("b", 3, 1.0), *(reading("a", minute, 1.0) for minute in range(0, 61, 2))])
    quix.send(readings)
    mine = ours(readings, 'kind = "tumbling", size = "10m"', idle="20m")
    theirs = quix.windows(tumbling(10), 6)
    assert [row["count"] for row in mine if row["group"] == "b"] == [1]
    assert [row["count"] for row in theirs if row["group"] == "b"] == []
    assert_same([row for row in mine if row["group"] == "a"], theirs)


def test_a_late_reading_is_counted_as_late_and_lost_in_quix_where_the_partition_closes_windows(quix: Quix) -> None:
    # Those of minutes 5 and 25 come when the partition has closed all windows before minute 30.
    rows = [reading(house, minute, 1.0) for minute in range(0, 34, 2) for house in "ab"]
    late = [reading("a", 5, 1.0), reading("a", 25, 1.0)]
    readings = readings_of([*rows, *late, reading("a", 50, 1.0), reading("b", 70, 1.0)])
    quix.send(readings)
    window, further = 'kind = "tumbling", size = "10m"', ('clock = "partition"', 'grace = "2m"')
    mine = ours(readings, window, *further)
    theirs = quix.windows(tumbling(10, 2), len(mine), {"closing_strategy": "partition"})
    # The windows are the same, and the late readings are in none; but of that of minute 25 only we say so.
    assert_same(mine, theirs)
    assert counts_of(readings, window, *further)["late"] == 2
    assert quix.late == [("a", (BEGIN_US + 5 * MINUTE) // MS)]


def test_a_late_reading_is_said_to_be_late_by_both_where_each_house_closes_its_own(quix: Quix) -> None:
    rows = [reading("a", minute, 1.0) for minute in range(0, 34, 2)]
    readings = readings_of([*rows, reading("a", 5, 1.0), reading("a", 7, 1.0), reading("a", 50, 1.0)])
    quix.send(readings)
    window = 'kind = "tumbling", size = "10m"'
    mine = ours(readings, window, 'grace = "2m"')
    assert_same(mine, quix.windows(tumbling(10, 2), len(mine)))
    assert counts_of(readings, window, 'grace = "2m"')["late"] == len(quix.late) == 2
    assert [ts_ms for _, ts_ms in quix.late] == [(BEGIN_US + at * MINUTE) // MS for at in (5, 7)]


def test_the_last_readings_close_all_that_the_others_are_in() -> None:
    readings = recorded()
    assert np.count_nonzero(readings.ts_us >= BEGIN_US + 5 * DAY) == 2 * 3
    rows = ours(readings, 'kind = "tumbling", size = "10m"')
    assert sum(row["count"] for row in rows) == len(readings) - 3
