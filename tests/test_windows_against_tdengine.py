"""Our windows against a real TDengine's over the same rows; where its meaning is another, what both say."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import taosws
from recordings import (
    BEGIN_US,
    DAY,
    FIELDS,
    HOUR,
    MINUTE,
    SECOND,
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
from servers.tdengine import TDenginePart

pytestmark = pytest.mark.slow

TYPES = {"float": "DOUBLE", "int": "BIGINT", "text": "NCHAR(16)", "bool": "BOOL"}
ROWS_A_STATEMENT = 1_000
# Of each field: our aggregate, and TDengine's function of the same name or meaning.
FUNCTIONS = {
    "count": "count({})",
    "sum": "sum({})",
    "min": "min({})",
    "max": "max({})",
    "range": "spread({})",
    "mean": "avg({})",
    "variance": "var_pop({})",
    "stddev": "stddev({})",
    "first": "first({})",
    "last": "last({})",
    "time_weighted_mean": "twa({})",
    "distinct": "hyperloglog({})",
}
Asked = dict[str, Sequence[str]]
ANY_ORDER = ("count", "sum", "min", "max", "range", "mean", "variance", "stddev")
NUMBERS: Asked = {"power": ANY_ORDER, "meter": ANY_ORDER}
OF_A_DEVICE: Asked = {
    "power": (*ANY_ORDER, "first", "last"),
    "meter": (*ANY_ORDER, "first", "last"),
    "mode": ("count", "first", "last", "distinct"),
    "on": ("count", "first", "last"),
}
# TDengine's twa of an INTERVAL reaches beyond the window: see below.
IN_ORDER: Asked = {**OF_A_DEVICE, "power": (*OF_A_DEVICE["power"], "time_weighted_mean")}


@dataclass(frozen=True)
class Line:
    """A database of readings on TDengine, one table a device."""

    connection: Any

    def windows(
        self, kind: str, asked: Asked, partition: str = "tbname", where: str = "", table: str = "houses"
    ) -> list[Row]:
        """What TDengine says of all rows, as ``said_of`` says it."""
        functions = [FUNCTIONS[name].format(f"`{field}`") for field, names in asked.items() for name in names]
        names = [f"{field}_{name}" for field, names in asked.items() for name in names]
        group, by = (partition, f"PARTITION BY {partition}") if partition else ("'all'", "")
        chosen = f"WHERE {where}" if where else ""
        query = f"""SELECT {group}, cast(_wstart AS BIGINT), cast(_wend AS BIGINT), count(*)
            {"".join(f", {function}" for function in functions)} FROM {table} {chosen} {by} {kind}"""
        keys = ["group", "start", "end", "count", *names]
        return [dict(zip(keys, row, strict=True)) for row in self.query(query)]

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        return list(self.connection.query(statement))

    def refused(self, statement: str) -> str:
        """Why TDengine does not do this."""
        with pytest.raises(taosws.QueryError) as refusal:
            self.query(statement)
        return str(refusal.value)

    def write(self, readings: Batch) -> None:
        """Write the readings, in the order they come."""
        names = list(FIELDS)
        columns = [readings.ts_us.tolist(), *(readings.column(name) for name in names)]
        tags = [readings.column(name) for name in TAGS]
        for first in range(0, len(readings), ROWS_A_STATEMENT):
            rows = []
            for place in range(first, min(first + ROWS_A_STATEMENT, len(readings))):
                of_device = ",".join(literal(tag[place]) for tag in tags)
                values = ",".join(literal(column[place]) for column in columns)
                rows.append(f"`{readings.devices[place]}` USING houses TAGS ({of_device}) VALUES ({values})")
            self.connection.execute(f"INSERT INTO {' '.join(rows)}")


def literal(value: Any) -> str:
    if value is None:
        return "NULL"
    return f"'{value}'" if isinstance(value, str) else str(value)


def opened(server: TDenginePart, name: str) -> Line:
    connection = taosws.connect(server.dsn)
    # The recording is of 2007.
    connection.execute(f"CREATE DATABASE {name} PRECISION 'us' KEEP 36500 VGROUPS 1")
    connection.execute(f"USE {name}")
    columns = ", ".join(f"`{field}` {TYPES[kind]}" for field, kind in FIELDS.items())
    tags = ", ".join(f"`{tag}` {TYPES[kind]}" for tag, kind in TAGS.items())
    connection.execute(f"CREATE STABLE houses (ts TIMESTAMP, {columns}) TAGS ({tags})")
    return Line(connection)


@pytest.fixture
def line(tdengine: TDenginePart) -> Iterator[Line]:
    """An empty database."""
    name = f"w_{uuid.uuid4().hex[:12]}"
    opened_line = opened(tdengine, name)
    yield opened_line
    opened_line.connection.execute(f"DROP DATABASE {name}")
    opened_line.connection.close()


READINGS = houses(each=1_500)


@pytest.fixture(scope="module")
def recorded(tdengine: TDenginePart) -> Iterator[Line]:
    """The houses, written out of order."""
    name = f"w_{uuid.uuid4().hex[:12]}"
    opened_line = opened(tdengine, name)
    opened_line.write(shuffled(READINGS, 10 * MINUTE, 1))
    yield opened_line
    opened_line.connection.execute(f"DROP DATABASE {name}")
    opened_line.connection.close()


def ours(readings: Batch, window: str, asked: Asked, *further: str, grace: str = "10m") -> list[Row]:
    """What our windows say, each house's, of readings that come out of order and then no more."""
    listed = (f"{field} = {list(names)}" for field, names in asked.items())
    lines = [f"window = {{ {window} }}", f'grace = "{grace}"', 'idle = "1000d"', *further, "[streams.s.aggregates]"]
    parts = batches(shuffled(readings, 10 * MINUTE, 2) if grace != "0s" else readings, 2)
    return said_of(spec_of("\n".join([*lines, *listed])), parts)[0]


def readings_of(*rows: tuple[float, Row], device: str = "house-0") -> Batch:
    """Readings of one house, by minute."""
    said = [{"device": device, "ts": BEGIN_US + round(minute * MINUTE), **row} for minute, row in rows]
    return batch_of([{"location": "Sceaux", "floor": 0, **row} for row in said], {**FIELDS, **TAGS})


def powers(*rows: tuple[float, float | None]) -> Batch:
    return readings_of(*((minute, {"power": power}) for minute, power in rows))


def column(rows: list[Row], name: str) -> list[Any]:
    """One value of each window, in the order of their starts (bounds in minutes)."""
    values = [row[name] for row in sorted(rows, key=lambda row: (row["start"], row["end"]))]
    return [(value - BEGIN_US) / MINUTE for value in values] if name in ("start", "end") else values


def key_of(row: Row) -> tuple[Any, ...]:
    return (row["group"], row["start"], row["end"], row["count"])


def assert_same(mine: list[Row], theirs: list[Row]) -> None:
    """Whole numbers, texts and bools exactly; floats to one part in 10**9, where TDengine has as many digits."""
    assert sorted(map(key_of, mine)) == sorted(map(key_of, theirs))
    others = {key_of(row): row for row in theirs}
    assert len(others) == len(theirs)
    for row in mine:
        other = others[key_of(row)]
        for name, value in row.items():
            expected = other[name]
            if isinstance(value, float) and expected is not None:
                # TDengine takes the deviation from the sum of squares, and loses half its digits where it is small.
                off = 1e-7 if name.endswith(("stddev", "variance")) else 1e-9
                assert math.isclose(value, expected, rel_tol=1e-9, abs_tol=off), (name, row, other)
            else:
                assert value == expected, (name, row, other)


# ---- where both say the same

TIME_KINDS = {
    "tumbling": ('kind = "tumbling", size = "10m"', "INTERVAL(10m)"),
    "tumbling-offset": ('kind = "tumbling", size = "1h", offset = "7m"', "INTERVAL(1h, 7m)"),
    "tumbling-day": ('kind = "tumbling", size = "1d"', "INTERVAL(1d)"),
    "tumbling-week": ('kind = "tumbling", size = "7d"', "INTERVAL(1w)"),
    "hopping": ('kind = "hopping", size = "30m", step = "10m"', "INTERVAL(30m) SLIDING(10m)"),
    "hopping-uneven": (
        'kind = "hopping", size = "25m", step = "10m", offset = "3m"',
        "INTERVAL(25m, 3m) SLIDING(10m)",
    ),
}
ORDERED_KINDS = {
    "session": ('kind = "session", gap = "3m"', "SESSION(ts, 3m)"),
    "count": ('kind = "count", count = 20', "COUNT_WINDOW(20)"),
    "count-overlapping": ('kind = "count", count = 20, step = 6', "COUNT_WINDOW(20, 6)"),
}
STATES = {
    "mode": ('kind = "state", field = "mode"', "STATE_WINDOW(mode)"),
    "heating": ('kind = "state", field = "heating"', "STATE_WINDOW(heating)"),
    "on": ('kind = "state", field = "on"', "STATE_WINDOW(`on`)"),
}
EVENTS = {
    "event": (
        'kind = "event", start = "power > 2.5", end = "power < 1.5"',
        "EVENT_WINDOW START WITH power > 2.5 END WITH power < 1.5",
    ),
    "event-of-one-reading": (
        'kind = "event", start = "heating > 15", end = "power > 2"',
        "EVENT_WINDOW START WITH heating > 15 END WITH power > 2",
    ),
}


@pytest.mark.parametrize("name", TIME_KINDS)
def test_intervals_of_each_device_are_the_same(recorded: Line, name: str) -> None:
    window, kind = TIME_KINDS[name]
    assert_same(ours(READINGS, window, OF_A_DEVICE), recorded.windows(kind, OF_A_DEVICE))


@pytest.mark.parametrize("by", ['by = ["location"]', "by = []"])
@pytest.mark.parametrize("name", [*TIME_KINDS, "session"])
def test_intervals_and_sessions_of_several_devices_are_the_same(recorded: Line, name: str, by: str) -> None:
    window, kind = {**TIME_KINDS, "session": ('kind = "session", gap = "30s"', "SESSION(ts, 30s)")}[name]
    theirs = recorded.windows(kind, NUMBERS, "location" if "location" in by else "")
    assert_same(ours(READINGS, window, NUMBERS, by), theirs)


@pytest.mark.parametrize("name", ["session", "count", "count-overlapping"])
def test_sessions_and_counts_are_the_same(recorded: Line, name: str) -> None:
    window, kind = ORDERED_KINDS[name]
    assert_same(ours(READINGS, window, IN_ORDER), recorded.windows(kind, IN_ORDER))


@pytest.mark.parametrize("field", STATES)
def test_states_are_the_same_where_every_reading_has_one(recorded: Line, field: str) -> None:
    window, kind = STATES[field]
    # Ours are not told: readings without the field are in no window by themselves.
    assert_same(ours(READINGS, window, IN_ORDER), recorded.windows(kind, IN_ORDER, where=f"`{field}` IS NOT NULL"))


@pytest.mark.parametrize("name", ["tumbling", "hopping", "session", "count"])
def test_a_condition_leaves_the_same_rows(recorded: Line, name: str) -> None:
    window, kind = {**TIME_KINDS, **ORDERED_KINDS}[name]
    mine = ours(READINGS, window, OF_A_DEVICE, 'where = "voltage > 240 and power < 4"')
    assert_same(mine, recorded.windows(kind, OF_A_DEVICE, where="voltage > 240 AND power < 4"))


@pytest.mark.parametrize("name", EVENTS)
def test_events_are_the_same_but_for_those_that_have_no_end_yet(recorded: Line, name: str) -> None:
    window, kind = EVENTS[name]
    mine, theirs = ours(READINGS, window, IN_ORDER), recorded.windows(kind, IN_ORDER)
    ended = {key_of(row) for row in theirs}
    unfinished = [row for row in mine if key_of(row) not in ended]
    assert_same([row for row in mine if row not in unfinished], theirs)
    # Each is the last of its house, and goes on to its last reading.
    assert len(unfinished) <= 4
    last = dict(zip(READINGS.devices, READINGS.ts_us.tolist(), strict=True))
    assert all(row["end"] == last[row["group"]] for row in unfinished)


# ---- where they differ: (ours, theirs)


def test_an_event_without_an_end_speaks_when_its_house_is_silent_and_never_in_tdengine(line: Line) -> None:
    readings = powers((0, 3.0), (1, 1.0), (2, 3.0), (3, 4.0))
    line.write(readings)
    mine = ours(readings, 'kind = "event", start = "power > 2", end = "power < 2"', {"power": ["count"]})
    theirs = line.windows("EVENT_WINDOW START WITH power > 2 END WITH power < 2", {"power": ["count"]})
    assert (column(mine, "end"), column(theirs, "end")) == ([1, 3], [1])


def test_a_reading_without_the_state_is_in_no_window_and_in_tdengine_takes_the_place_of_a_later_one(line: Line) -> None:
    rows: list[tuple[float, str | None, float]] = [(0, "a", 1.0), (1, None, 10.0), (2, "a", 100.0), (3, "b", 1_000.0)]
    readings = readings_of(*((at, {"mode": mode, "power": power}) for at, mode, power in [*rows, (9, None, 5.0)]))
    line.write(readings)
    asked: Asked = {"power": ["sum", "last"]}
    mine = ours(readings, 'kind = "state", field = "mode"', asked)
    theirs = line.windows("STATE_WINDOW(mode)", asked)
    assert column(mine, "count") == column(theirs, "count") == [2, 1]
    # TDengine counts the readings with a state, but aggregates as many from the window's first on.
    assert (column(mine, "power_sum"), column(theirs, "power_sum")) == ([101.0, 1_000.0], [11.0, 1_000.0])
    assert (column(mine, "power_last"), column(theirs, "power_last")) == ([100.0, 1_000.0], [10.0, 1_000.0])
    # And it ends the last window with the last reading, even one without the state.
    assert (column(mine, "end"), column(theirs, "end")) == ([2, 3], [2, 9])
    assert_same(mine, line.windows("STATE_WINDOW(mode)", asked, where="mode IS NOT NULL"))


def test_a_small_deviation_of_great_values_is_exact_and_lost_in_tdengine(line: Line) -> None:
    readings = powers((0, 1e9), (1, 1e9 + 1), (2, 1e9 + 2))
    line.write(readings)
    asked: Asked = {"power": ["stddev", "variance"]}
    mine, theirs = ours(readings, 'kind = "tumbling", size = "4m"', asked), line.windows("INTERVAL(4m)", asked)
    assert mine[0]["power_stddev"] == pytest.approx(math.sqrt(2 / 3), rel=1e-12)
    assert (theirs[0]["power_stddev"], theirs[0]["power_variance"]) == (0.0, 0.0)


def test_twa_of_an_interval_reaches_to_its_neighbours_and_ours_is_of_the_windows_readings_alone(line: Line) -> None:
    readings = powers((1, 2.0), (3, 4.0), (5, 8.0))
    line.write(readings)
    asked: Asked = {"power": ["time_weighted_mean"]}
    mine = ours(readings, 'kind = "tumbling", size = "4m"', asked)
    theirs = line.windows("INTERVAL(4m)", asked)
    assert column(mine, "power_time_weighted_mean") == [3.0, 8.0]
    # The line from (3, 4) to (5, 8) is at 6 where the first window ends, a microsecond before minute 4.
    first = (2 * 3.0 + 1 * 5.0) / 3, (1 * 7.0) / 1
    assert column(theirs, "power_time_weighted_mean") == pytest.approx(first, rel=1e-6)
    # Without neighbours, and in windows that readings make, it is the same.
    assert column(line.windows("SESSION(ts, 2m)", asked), "power_time_weighted_mean") == [
        *column(ours(readings, 'kind = "session", gap = "2m"', asked), "power_time_weighted_mean")
    ]


def test_a_second_reading_of_the_same_time_is_left_out_and_replaces_the_first_in_tdengine(line: Line) -> None:
    readings = powers((0, 1.0), (1, 2.0), (1, 9.0), (2, 1.0))
    line.write(readings)
    asked: Asked = {"power": ["sum"]}
    mine = ours(readings, 'kind = "tumbling", size = "4m"', asked, grace="0s")
    kept = ours(readings, 'kind = "tumbling", size = "4m"', asked, 'repeats = "keep"', grace="0s")
    theirs = line.windows("INTERVAL(4m)", asked)
    sums = [[(row["count"], row["power_sum"]) for row in rows] for rows in (mine, kept, theirs)]
    assert sums == [[(3, 4.0)], [(4, 13.0)], [(3, 11.0)]]


def test_a_quantile_is_one_of_the_values_and_tdengines_lies_between_two(line: Line) -> None:
    readings = powers((0, 1.0), (1, 2.0), (2, 3.0), (3, 10.0))
    line.write(readings)
    mine = ours(readings, 'kind = "tumbling", size = "4m"', {"power": ["p50", "p90"]})
    assert (mine[0]["power_p50"], mine[0]["power_p90"]) == (2.0, 10.0)
    exact = line.query("SELECT percentile(power, 50, 90) FROM `house-0`")
    assert [float(value) for value in str(exact[0][0]).strip("[]").split(",")] == pytest.approx([2.5, 7.9])
    # An estimate from a histogram of the values' range: of four values already.
    rough = line.query("SELECT apercentile(power, 50), apercentile(power, 50, 't-digest') FROM houses INTERVAL(4m)")
    assert 1.0 < rough[0][0] < 3.0
    assert 1.5 < rough[0][1] < 3.0
    refused = line.refused("SELECT percentile(power, 50) FROM houses PARTITION BY tbname INTERVAL(4m)")
    assert "only supported in single table query" in refused


def test_distinct_counts_of_many_values_are_exact_and_an_estimate_in_tdengine(recorded: Line) -> None:
    window, kind = TIME_KINDS["tumbling-day"]
    asked: Asked = {"voltage": ["distinct"]}
    mine = {key_of(row): row["voltage_distinct"] for row in ours(READINGS, window, asked)}
    theirs = {key_of(row): row["voltage_distinct"] for row in recorded.windows(kind, asked)}
    said = list(zip(READINGS.devices, READINGS.ts_us.tolist(), READINGS.column("voltage"), strict=True))
    for (device, start, end, count), distinct in mine.items():
        assert distinct == len({v for of, ts, v in said if of == device and start <= ts < end and v is not None})
        assert theirs[device, start, end, count] == pytest.approx(distinct, rel=0.03)


def test_a_rate_is_of_the_whole_window_and_irate_of_its_last_two_readings(line: Line) -> None:
    readings = readings_of(*((minute, {"meter": meter}) for minute, meter in [(0, 100), (1, 160), (2, 40), (3, 100)]))
    line.write(readings)
    mine = ours(readings, 'kind = "session", gap = "2m"', {"meter": ["delta", "rate"]})
    # Both take a fall as a counter that began again at 0.
    assert (mine[0]["meter_delta"], mine[0]["meter_rate"]) == (160, 160 / 180)
    assert line.query("SELECT irate(meter) FROM houses PARTITION BY tbname SESSION(ts, 2m)") == [(1.0,)]
    until = "SELECT irate(meter) FROM houses WHERE ts <= {} PARTITION BY tbname SESSION(ts, 2m)"
    fallen = line.query(until.format(BEGIN_US + 2 * MINUTE))
    assert fallen[0][0] == pytest.approx(40 / 60)
    assert "not supported in window query" in line.refused(
        "SELECT diff(meter) FROM houses PARTITION BY tbname INTERVAL(4m)"
    )


def test_a_sum_beyond_64_bits_is_none_and_wraps_around_in_tdengine(line: Line) -> None:
    readings = readings_of((0, {"meter": 2**63 - 1}), (1, {"meter": 2**63 - 1}))
    line.write(readings)
    mine = ours(readings, 'kind = "tumbling", size = "4m"', {"meter": ["sum", "mean"]})
    theirs = line.windows("INTERVAL(4m)", {"meter": ["sum", "mean"]})
    assert [(row["meter_sum"], row["meter_mean"]) for row in (mine[0], theirs[0])] == [(None, 2.0**63), (-2, 2.0**63)]


def test_local_days_are_those_of_the_streams_zone_and_in_tdengine_always_those_of_the_server(
    tdengine: TDenginePart, line: Line
) -> None:
    midnight = 1_174_690_800 * SECOND  # of 2007-03-24 in Paris, where the clocks went forward a day later
    hourly = [{"device": "house-0", "ts": midnight + n * HOUR, "power": 1.0} for n in range(3 * 24 - 1)]
    readings = batch_of([{"location": "Sceaux", "floor": 0, **row} for row in hourly], {**FIELDS, **TAGS})
    line.write(readings)
    mine = ours(readings, 'kind = "tumbling", size = "1d", zone = "Europe/Paris"', {"power": ["count"]})
    assert [(row["start"] - midnight, row["count"]) for row in sorted(mine, key=key_of)] == [
        (0, 24),
        (DAY, 23),
        (2 * DAY - HOUR, 24),
    ]
    database = str(line.query("SELECT database()")[0][0])
    abroad = taosws.connect(tdengine.database(database) + "?timezone=Europe/Paris")
    theirs = Line(abroad).windows("INTERVAL(1d)", {"power": ["count"]})
    abroad.close()
    assert theirs == line.windows("INTERVAL(1d)", {"power": ["count"]})
    # The server's zone is UTC, an hour behind Paris's winter.
    assert [(row["start"] - midnight, row["count"]) for row in sorted(theirs, key=key_of)] == [
        (HOUR - DAY, 1),
        (HOUR, 24),
        (DAY + HOUR, 24),
        (2 * DAY + HOUR, 22),
    ]


def test_kinds_and_sizes_that_only_we_have(line: Line) -> None:
    readings = powers((0, 1.0), (1, 1.0), (2, 2.0), (9, 2.0))
    line.write(readings)
    asked: Asked = {"power": ["sum"]}
    assert column(ours(readings, 'kind = "count", count = 1', asked), "count") == [1, 1, 1, 1]
    assert "must exceed 1" in line.refused("SELECT count(*) FROM `house-0` COUNT_WINDOW(1)")
    assert column(ours(readings, 'kind = "state", field = "power"', asked), "count") == [2, 2]
    assert "integer/bool/varchar" in line.refused("SELECT count(*) FROM `house-0` STATE_WINDOW(power)")
    longest = ours(readings, 'kind = "session", gap = "10m", longest = "2m"', asked)
    assert column(longest, "count") == [2, 1, 1]
    assert column(line.windows("SESSION(ts, 10m)", asked), "count") == [4]
    assert column(ours(readings, 'kind = "sliding", size = "2m"', asked), "power_sum") == [1.0, 2.0, 3.0, 2.0]


# ---- edges on which both agree, said with their own values


def test_edges_are_the_same(line: Line) -> None:
    readings = powers((0, 1.0), (1, None), (2, 3.0), (3, 5.0), (4, None), (5, 1.0), (8, 3.0))
    line.write(readings)
    asked: Asked = {"power": ["count", "first", "last", "stddev"]}

    def both(window: str, kind: str, name: str) -> list[Any]:
        mine, theirs = ours(readings, window, asked), line.windows(kind, asked)
        assert_same(mine, theirs)
        return column(mine, name)

    # An interval's end is its successor's start; first and last are of values, not of readings without one.
    assert both('kind = "tumbling", size = "2m"', "INTERVAL(2m)", "end") == [2, 4, 6, 10]
    assert both('kind = "tumbling", size = "2m"', "INTERVAL(2m)", "power_last") == [1.0, 5.0, 1.0, 3.0]
    # The standard deviation is the population's: of 3 and 5 it is 1; of one value 0.
    assert both('kind = "tumbling", size = "2m"', "INTERVAL(2m)", "power_stddev") == [0.0, 1.0, 0.0, 0.0]
    # A gap is within a session up to its full length; a session ends with its last reading.
    assert both('kind = "session", gap = "3m"', "SESSION(ts, 3m)", "end") == [8]
    assert both('kind = "session", gap = "2m"', "SESSION(ts, 2m)", "end") == [5, 8]
    # What is left at the end makes windows that are not full.
    assert both('kind = "count", count = 3, step = 2', "COUNT_WINDOW(3, 2)", "count") == [3, 3, 3, 1]
    # A reading without the value neither begins nor ends an event, but is in it.
    window = 'kind = "event", start = "power < 2", end = "power > 4"'
    begun = ours(readings, window, asked)
    ended = line.windows("EVENT_WINDOW START WITH power < 2 END WITH power > 4", asked)
    assert (column(begun, "count"), column(ended, "count")) == ([4, 2], [4])
    # One that fits both is a window of its own.
    window = 'kind = "event", start = "power > 2", end = "power > 2"'
    assert both(window, "EVENT_WINDOW START WITH power > 2 END WITH power > 2", "start") == [2, 3, 8]
