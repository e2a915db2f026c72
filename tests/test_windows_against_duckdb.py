"""Our windows against SQL over the whole table, in DuckDB: every kind, every aggregate, by device, tag and nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import duckdb
import pytest
from recordings import (
    BEGIN_US,
    DAY,
    FIELDS,
    HOUR,
    INTS,
    MINUTE,
    TAGS,
    Row,
    arrow,
    batch_of,
    batches,
    houses,
    machine,
    said_of,
    shuffled,
    spec_of,
)

from headrace.batch import Batch
from processors.windows import WindowSpec

pytestmark = pytest.mark.slow

Sql = str
OF_ANYTHING = ("count", "missing", "first", "last", "distinct")
UNORDERED = (*OF_ANYTHING, "sum", "min", "max", "range", "mean", "variance", "stddev")
ORDERED = ("delta", "rate", "time_weighted_mean")
QUANTILES = {"p01": 0.01, "p05": 0.05, "p10": 0.1, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p90": 0.9, "p95": 0.95}
QUANTILES |= {"p99": 0.99, "p999": 0.999}
NUMBERS = {"power": UNORDERED, "meter": UNORDERED, "mode": OF_ANYTHING, "on": OF_ANYTHING}
IN_ORDER = {"power": (*UNORDERED, *ORDERED), "meter": (*UNORDERED, *ORDERED)}
Asked = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Kind:
    """A kind of window: how the pipeline file says it, and SQL for the readings ``r`` with what they are in.

    ``members`` is a query for the columns of ``r`` and ``wid``, which tells a group's windows apart, and, where
    they do not follow from the readings, ``start`` and ``end``.
    """

    window: str
    members: Sql
    bounded: bool = True


def along_time(size: int, step: int, offset: int = 0) -> Sql:
    """Every window that there is along event time, joined with what lies in it."""
    return f"""
        WITH w AS (
            SELECT unnest(generate_series(
                (SELECT (min(ts) - {offset}) // {step} * {step} + {offset} - {-(-size // step) * step} FROM r),
                (SELECT max(ts) FROM r), {step}::BIGINT)) AS start
        )
        SELECT r.*, w.start AS wid, w.start, w.start + {size} AS "end"
        FROM r JOIN w ON r.ts >= w.start AND r.ts < w.start + {size}"""


def sliding(size: int) -> Sql:
    return f"""
        SELECT r.*, w."end" AS wid, w."end" - {size} AS start, w."end"
        FROM r JOIN (SELECT DISTINCT g, ts AS "end" FROM r) w
        ON w.g = r.g AND r.ts > w."end" - {size} AND r.ts <= w."end\""""


def session(gap: int) -> Sql:
    return f"""
        SELECT *, sum(opens) OVER (PARTITION BY g ORDER BY n) AS wid
        FROM (SELECT *, CASE WHEN ts - lag(ts) OVER (PARTITION BY g ORDER BY n) <= {gap} THEN 0 ELSE 1 END AS opens
              FROM r)"""


def session_of_at_most(gap: int, longest: int) -> Sql:
    """From one beginning to the next: the first reading beyond a gap, or ``longest`` from the beginning."""
    return f"""
        WITH RECURSIVE gaps AS (
            SELECT *, coalesce(ts - lag(ts) OVER (PARTITION BY g ORDER BY n) > {gap}, TRUE) AS apart FROM r
        ), begins AS (
            SELECT g, min(ts) AS ts FROM gaps GROUP BY g
            UNION ALL
            SELECT begins.g, min(gaps.ts)
            FROM begins JOIN gaps ON gaps.g = begins.g AND gaps.ts > begins.ts
                AND (gaps.apart OR gaps.ts >= begins.ts + {longest})
            GROUP BY begins.g
        )
        SELECT r.*, begins.ts AS wid FROM r ASOF JOIN begins ON r.g = begins.g AND r.ts >= begins.ts"""


def state(field: str, silence: int | None = None) -> Sql:
    silent = "FALSE" if silence is None else f"ts - lag(ts) OVER w > {silence}"
    return f"""
        SELECT *, sum(opens) OVER (PARTITION BY g ORDER BY n) AS wid
        FROM (SELECT *, CASE WHEN {field} IS DISTINCT FROM lag({field}) OVER w OR {silent} THEN 1 ELSE 0 END AS opens
              FROM r WHERE {field} IS NOT NULL WINDOW w AS (PARTITION BY g ORDER BY n))"""


def count(size: int, step: int) -> Sql:
    return f"""
        SELECT r.*, w.first AS wid
        FROM r JOIN (SELECT unnest(generate_series(0, (SELECT max(n) FROM r), {step})) AS first) w
        ON r.n >= w.first AND r.n < w.first + {size}"""


def event(start: str, end: str) -> Sql:
    """Between one reading that fits ``end`` and the next there is at most one window: from the first that fits."""
    return f"""
        SELECT * FROM (
            SELECT *, max(fits) OVER (PARTITION BY g, wid ORDER BY n) AS inside FROM (
                SELECT *, coalesce({start}, FALSE)::INT AS fits,
                    coalesce(sum(coalesce({end}, FALSE)::INT) OVER (
                        PARTITION BY g ORDER BY n ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS wid
                FROM r))
        WHERE inside = 1"""


def local(size: str, step: str, zone: str) -> Sql:
    """Windows that begin whenever the zone's clocks show a multiple of the step since midnight."""
    return f"""
        WITH l AS (
            SELECT unnest(generate_series(
                timezone('{zone}', make_timestamptz((SELECT min(ts) FROM r)))::DATE - INTERVAL 8 DAY,
                timezone('{zone}', make_timestamptz((SELECT max(ts) FROM r)))::DATE + INTERVAL 1 DAY,
                INTERVAL '{step}')) AS shown
        ), w AS (
            SELECT first_shown(shown, '{zone}') AS start,
                first_shown(shown + INTERVAL '{size}', '{zone}') AS "end" FROM l
        )
        SELECT r.*, w.start AS wid, w.start, w."end" FROM r JOIN w ON r.ts >= w.start AND r.ts < w."end\""""


KINDS = {
    "tumbling": Kind('kind = "tumbling", size = "10m"', along_time(10 * MINUTE, 10 * MINUTE)),
    "tumbling-offset": Kind(
        'kind = "tumbling", size = "1h", offset = "7m"', along_time(60 * MINUTE, 60 * MINUTE, 7 * MINUTE)
    ),
    "hopping": Kind('kind = "hopping", size = "30m", step = "10m"', along_time(30 * MINUTE, 10 * MINUTE)),
    "hopping-uneven": Kind(
        'kind = "hopping", size = "25m", step = "10m", offset = "3m"',
        along_time(25 * MINUTE, 10 * MINUTE, 3 * MINUTE),
    ),
    "sliding": Kind('kind = "sliding", size = "20m"', sliding(20 * MINUTE)),
    "session": Kind('kind = "session", gap = "3m"', session(3 * MINUTE), bounded=False),
    "session-longest": Kind(
        'kind = "session", gap = "5m", longest = "45m"', session_of_at_most(5 * MINUTE, 45 * MINUTE), bounded=False
    ),
    "state-text": Kind('kind = "state", field = "mode"', state("mode"), bounded=False),
    "state-int": Kind('kind = "state", field = "heating"', state("heating"), bounded=False),
    "state-bool": Kind('kind = "state", field = "on"', state('"on"'), bounded=False),
    "count": Kind('kind = "count", count = 20', count(20, 20), bounded=False),
    "count-overlapping": Kind('kind = "count", count = 20, step = 6', count(20, 6), bounded=False),
    "event": Kind(
        'kind = "event", start = "power > 2.5", end = "power < 1.5"', event("power > 2.5", "power < 1.5"), bounded=False
    ),
    "event-of-one-reading": Kind(
        'kind = "event", start = "heating > 15", end = "power > 2"', event("heating > 15", "power > 2"), bounded=False
    ),
}
GROUPS = {
    "device": ("", "device"),
    "device-and-field": ('by = ["device", "mode"]', "device || '/' || coalesce(mode, '-')"),
    "tag": ('by = ["location"]', "location"),
    "tag-and-device": ('by = ["location", "device"]', "location || '/' || device"),
    "tag-and-tag": ('by = ["location", "floor"]', "location || '/' || floor"),
    "field": ('by = ["on"]', """CASE WHEN "on" THEN 'true' WHEN NOT "on" THEN 'false' ELSE '-' END"""),
    "nothing": ("by = []", "'all'"),
}


def aggregate_sql(field: str, aggregate: str) -> Sql:
    """An aggregate of the members ``s`` of a window; ``_before`` is what the value before in the window was."""
    v, t, first, last = f's."{field}"', f"s.{field}_ts", f"s.{field}_before", f"s.{field}_before_ts"
    # Readings of one instant have no length: the mean of the first and the last of them.
    edges = f"(first({v} ORDER BY s.n) FILTER ({v} IS NOT NULL) + last({v} ORDER BY s.n) FILTER ({v} IS NOT NULL)) / 2"
    delta = f"sum(CASE WHEN {first} IS NULL OR {v} IS NULL THEN 0 WHEN {v} < {first} THEN {v} ELSE {v} - {first} END)"
    delta = f"CASE WHEN count({v}) > 0 THEN {delta} END"
    length = f"nullif(max({t}) - min({t}), 0)"
    known: dict[str, Sql] = {
        "count": f"count({v})",
        "missing": f"count(*) - count({v})",
        "range": f"max({v}) - min({v})",
        "mean": f"avg({v})",
        "variance": f"var_pop({v})",
        "stddev": f"stddev_pop({v})",
        # Of several at the first (last) time the least (greatest).
        "first": f"first({v} ORDER BY s.ts, {v}) FILTER ({v} IS NOT NULL)",
        "last": f"last({v} ORDER BY s.ts, {v}) FILTER ({v} IS NOT NULL)",
        "distinct": f"count(DISTINCT {v})",
        "delta": delta,
        "rate": f"({delta}) / ({length} / 1e6)",
        "time_weighted_mean": f"coalesce(sum(({v} + {first}) / 2 * ({t} - {last})) / {length}, {edges})",
    }
    if aggregate in QUANTILES:
        return f"quantile_disc({v}::DOUBLE, {QUANTILES[aggregate]})"
    return known.get(aggregate, f"{aggregate}({v})")


@pytest.fixture(scope="module")
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"threads": 1}) as connection:
        # Of an hour that the clocks show twice DuckDB takes the second showing, and we the first.
        connection.execute(
            """CREATE MACRO first_shown(shown, zone) AS epoch_us(CASE
                WHEN timezone(zone, timezone(zone, shown) - INTERVAL 1 HOUR) = shown
                THEN timezone(zone, shown) - INTERVAL 1 HOUR ELSE timezone(zone, shown) END)"""
        )
        yield connection


def duckdb_says(
    database: duckdb.DuckDBPyConnection, readings: Batch, kind: Kind, by: Sql, asked: Asked, *, where: Sql = "TRUE"
) -> list[Row]:
    """The windows over the whole table."""
    database.register("arrived", arrow(readings))
    before = []
    for field in asked:
        if "delta" in asked[field]:
            seen = f'CASE WHEN "{field}" IS NOT NULL THEN ts END'
            before += [f"{seen} AS {field}_ts", f'lag("{field}" IGNORE NULLS) OVER w AS {field}_before']
            before += [f"lag({seen} IGNORE NULLS) OVER w AS {field}_before_ts"]
    bounds = 'start, "end"' if kind.bounded else 'min(s.ts) AS start, max(s.ts) AS "end"'
    said = [f"{aggregate_sql(field, name)} AS {field}_{name}" for field, names in asked.items() for name in names]
    database.execute(
        f"""CREATE OR REPLACE TEMP TABLE r AS
        SELECT *, {by} AS g, row_number() OVER (PARTITION BY {by} ORDER BY ts, device, arrival) - 1 AS n
        FROM arrived WHERE {where}"""
    )
    query = f"""
        SELECT s.g AS "group", {bounds}, count(*) AS count, {", ".join(said)}
        FROM (SELECT {", ".join(["*", *before])} FROM ({kind.members})
              WINDOW w AS (PARTITION BY g, wid ORDER BY n)) s
        GROUP BY s.g, s.wid{', start, "end"' if kind.bounded else ""}"""
    found = database.sql(query).to_arrow_table().to_pylist()
    return [{name: int(v) if _whole(name, v) else v for name, v in row.items()} for row in found]


def _whole(name: str, value: Any) -> bool:
    """DuckDB's sums of whole numbers are decimals, or 128 bits wide."""
    return value is not None and name.rpartition("_")[0] in INTS and name.rpartition("_")[2] in ("sum", "delta")


def key_of(row: Row) -> tuple[Any, ...]:
    """By group and bounds; windows of the same readings' times are told apart by what they say of whole numbers."""
    return (row["group"], row["start"], row["end"], row["count"], str([v for v in row.values() if type(v) is int]))


def assert_same(ours: list[Row], theirs: list[Row]) -> None:
    """Whole numbers, texts and bools exactly; floats to one part in 10**9."""
    ours, theirs = sorted(ours, key=key_of), sorted(theirs, key=key_of)
    bounds = [[key_of(row)[:4] for row in rows] for rows in (ours, theirs)]
    assert bounds[0] == bounds[1]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.keys() == other.keys()
        for name, value in mine.items():
            expected = other[name]
            if isinstance(value, float) and expected is not None:
                assert math.isclose(value, expected, rel_tol=1e-9, abs_tol=1e-9), (name, mine, other)
            else:
                assert value == expected, (name, mine, other)


def stream(window: str, asked: Asked, *further: str) -> WindowSpec:
    """The stream's spec; nothing falls silent in it unless it says so."""
    idle = () if any(line.startswith("idle") for line in further) else ('idle = "1000d"',)
    listed = (f"{field} = {list(names)}" for field, names in asked.items())
    return spec_of("\n".join([f"window = {{ {window} }}", *further, *idle, "[streams.s.aggregates]", *listed]))


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_says_what_sql_says(database: duckdb.DuckDBPyConnection, name: str, group: str) -> None:
    kind, (by, grouped) = KINDS[name], GROUPS[group]
    # What follows one device's values is refused where a group has several.
    asked = {**NUMBERS, **IN_ORDER} if "device" in group else NUMBERS
    seed = sum(map(ord, name + group))
    readings = houses(each=600, seed=seed)
    spec = stream(kind.window, asked, by, 'grace = "10m"')
    ours, windowed = said_of(spec, batches(shuffled(readings, 10 * MINUTE, seed), seed))
    assert_same(ours, duckdb_says(database, readings, kind, grouped, asked))
    assert (windowed.counts["late"], windowed.gauges["waiting"]) == (0, 0)
    assert windowed.counts["in_closed"] == sum(row["count"] for row in ours)


@pytest.mark.parametrize("clock", ["device", "partition"])
@pytest.mark.parametrize("name", ["tumbling", "hopping-uneven", "sliding", "session", "event"])
def test_a_condition_and_a_computed_field_are_sqls_own(
    database: duckdb.DuckDBPyConnection, name: str, clock: str
) -> None:
    kind = KINDS[name]
    asked: Asked = {"apparent": UNORDERED}
    spec = stream(
        kind.window,
        asked,
        'grace = "10m"',
        'where = "voltage > 240 and heating > 0"',
        f'clock = "{clock}"',
        'computed = { apparent = "voltage * intensity / 1000" }',
    )
    readings = houses(each=1_200)
    ours, _ = said_of(spec, batches(shuffled(readings, 10 * MINUTE, 5), 5))
    members = f"SELECT *, voltage * intensity / 1000 AS apparent FROM ({kind.members})"
    computed = Kind(kind.window, members, kind.bounded)
    theirs = duckdb_says(database, readings, computed, "device", asked, where="voltage > 240 AND heating > 0")
    assert_same(ours, theirs)
    assert ours


def test_sliding_windows_are_sqls_range_frames(database: duckdb.DuckDBPyConnection) -> None:
    readings = houses(each=1_200)
    asked: Asked = {"power": ("sum", "min", "max", "mean", "count"), "meter": ("sum",)}
    spec = stream('kind = "sliding", size = "15m"', asked, 'grace = "4m"')
    ours, _ = said_of(spec, batches(shuffled(readings, 4 * MINUTE, 2), 2))
    database.register("arrived", arrow(readings))
    theirs = database.sql(
        f"""SELECT device AS "group", ts - {15 * MINUTE} AS start, ts AS "end", count(*) OVER w AS count,
            sum(power) OVER w AS power_sum, min(power) OVER w AS power_min, max(power) OVER w AS power_max,
            avg(power) OVER w AS power_mean, count(power) OVER w AS power_count, sum(meter) OVER w AS meter_sum
        FROM arrived
        WINDOW w AS (PARTITION BY device ORDER BY ts RANGE BETWEEN {15 * MINUTE - 1} PRECEDING AND CURRENT ROW)"""
    ).to_arrow_table()
    assert_same(ours, [{**row, "meter_sum": int(row["meter_sum"])} for row in theirs.to_pylist()])


def count_until_silent(silence: int) -> Sql:
    return f"""
        WITH part AS (SELECT *, sum(opens) OVER (PARTITION BY g ORDER BY n) AS part FROM (
            SELECT *, CASE WHEN ts - lag(ts) OVER (PARTITION BY g ORDER BY n) <= {silence} THEN 0 ELSE 1 END AS opens
            FROM r)),
        m AS (SELECT * REPLACE (row_number() OVER (PARTITION BY g, part ORDER BY n) - 1 AS n) FROM part)
        SELECT m.*, (part, w.first) AS wid
        FROM m JOIN (SELECT unnest(generate_series(0, (SELECT max(n) FROM m), 7)) AS first) w
        ON m.n >= w.first AND m.n < w.first + 20"""


def event_until_silent(silence: int) -> Sql:
    return f"""
        SELECT * FROM (
            SELECT *, max(fits) OVER (PARTITION BY g, wid ORDER BY n) AS inside FROM (
                SELECT *, coalesce(power > 2.5, FALSE)::INT AS fits, sum(opens) OVER (PARTITION BY g ORDER BY n) AS wid
                FROM (SELECT *, CASE WHEN ts - lag(ts) OVER w > {silence} OR lag(coalesce(power < 1.5, FALSE)) OVER w
                             THEN 1 ELSE 0 END AS opens
                      FROM r WINDOW w AS (PARTITION BY g ORDER BY n))))
        WHERE inside = 1"""


SILENT: dict[str, tuple[str, Callable[[int], Sql]]] = {
    "state": ('kind = "state", field = "mode"', lambda silence: state("mode", silence)),
    "count": ('kind = "count", count = 20, step = 7', count_until_silent),
    "event": ('kind = "event", start = "power > 2.5", end = "power < 1.5"', event_until_silent),
}


@pytest.mark.parametrize("name", SILENT)
def test_a_house_that_falls_silent_begins_anew(database: duckdb.DuckDBPyConnection, name: str) -> None:
    # No gap of the houses is between 10 minutes and 60, and never are all of them silent for long.
    window, members = SILENT[name]
    readings = houses(each=1_200)
    spec = stream(window, NUMBERS, 'grace = "5m"', 'idle = "30m"')
    ours, _ = said_of(spec, batches(shuffled(readings, 5 * MINUTE, 3), 3))
    theirs, without = (
        duckdb_says(database, readings, Kind(window, members(silence), bounded=False), "device", NUMBERS)
        for silence in (35 * MINUTE, DAY)
    )
    assert_same(ours, theirs)
    assert len(theirs) > len(without)


def test_groups_of_a_house_that_take_turns_lose_no_window_however_they_are_cut(
    database: duckdb.DuckDBPyConnection,
) -> None:
    # The house's time passes the windows of the one group while only the other has readings.
    rows = [(1, "off"), (50, "on"), (51, "off")]
    said = [{"device": "a", "ts": BEGIN_US + at * MINUTE, "mode": mode, "meter": at} for at, mode in rows]
    asked: Asked = {"meter": ("sum",)}
    kind = Kind('kind = "hopping", size = "20m", step = "10m"', along_time(20 * MINUTE, 10 * MINUTE))
    together, grouped = 'by = ["device", "mode"]', GROUPS["device-and-field"][1]
    theirs = duckdb_says(database, batch_of(said, {**FIELDS, **TAGS}), kind, grouped, asked)
    for parts in ([said], [[row] for row in said], [said[:1], said[1:]], [said[:2], said[2:]]):
        cut = [batch_of(part, {**FIELDS, **TAGS}) for part in parts]
        assert_same(said_of(stream(kind.window, asked, together), cut)[0], theirs)
    # And they are said as soon as the house is beyond them.
    first_two = [batch_of([row], {**FIELDS, **TAGS}) for row in said[:2]]
    prompt, _ = said_of(stream(kind.window, asked, together), first_two, silence=False)
    assert [(row["group"], row["end"] - BEGIN_US) for row in prompt] == [("a/off", 10 * MINUTE), ("a/off", 20 * MINUTE)]


def us(*utc: int) -> int:
    return int(datetime(*utc, tzinfo=UTC).timestamp()) * 1_000_000  # type: ignore[misc, arg-type]


@pytest.mark.parametrize("begin", [(2007, 3, 24, 5), (2007, 10, 27, 5), (2007, 3, 10, 17), (2007, 11, 3, 9)])
@pytest.mark.parametrize("zone", ["Europe/Paris", "America/New_York", "Asia/Kolkata", "Australia/Sydney"])
@pytest.mark.parametrize(
    ("size", "step"), [("1d", "1d"), ("1d", "6h"), ("6h", "6h"), ("12h", "4h"), ("2h", "2h"), ("7d", "1d")]
)
def test_local_days_and_hours_are_those_of_duckdbs_time_zones(
    database: duckdb.DuckDBPyConnection, size: str, step: str, zone: str, begin: tuple[int, ...]
) -> None:
    kind = "tumbling" if size == step else "hopping"
    window = f'kind = "{kind}", size = "{size}", zone = "{zone}"' + ("" if size == step else f', step = "{step}"')
    readings = houses(3, 3_600, begin_us=us(*begin))
    asked: Asked = {"power": ("mean", "count"), "meter": ("sum", "last")}
    ours, _ = said_of(stream(window, asked, 'grace = "1h"'), batches(shuffled(readings, HOUR, 4), 4))
    theirs = duckdb_says(database, readings, Kind(window, local(size, step, zone)), "device", asked)
    assert_same(ours, theirs)


def test_the_days_the_clocks_change_have_23_and_25_hours() -> None:
    lengths = []
    for begin in ((2007, 3, 24, 5), (2007, 10, 27, 5)):
        readings = houses(1, 3_600, begin_us=us(*begin))
        spec = stream('kind = "tumbling", size = "1d", zone = "Europe/Paris"', {"power": ("mean",)})
        lengths += [(row["end"] - row["start"]) // HOUR for row in said_of(spec, [readings])[0]]
    assert lengths == [24, 23, 24, 24, 25, 24]


@pytest.mark.parametrize("name", ["tumbling", "hopping", "sliding", "session", "count-overlapping"])
def test_what_a_recording_says_twice_is_taken_once(database: duckdb.DuckDBPyConnection, name: str) -> None:
    kind, readings = KINDS[name], machine()
    asked: Asked = {"power": (*UNORDERED, *ORDERED)}
    kind = {
        "tumbling": Kind('kind = "tumbling", size = "6h"', along_time(6 * HOUR, 6 * HOUR)),
        "hopping": Kind('kind = "hopping", size = "6h", step = "2h"', along_time(6 * HOUR, 2 * HOUR)),
        "sliding": Kind('kind = "sliding", size = "1h"', sliding(HOUR)),
    }.get(name, kind)
    spec = stream(kind.window, asked, 'grace = "2h"')
    # In the order it was recorded: shuffled, another of the two would be the first.
    ours, windowed = said_of(spec, batches(readings, 8))
    first = "arrival IN (SELECT min(arrival) FROM arrived GROUP BY device, ts)"
    assert_same(ours, duckdb_says(database, readings, kind, "device", asked, where=first))
    assert windowed.counts["repeated"] + windowed.counts["corrected"] == 12
    assert windowed.counts["read"] == len(readings) == windowed.counts["windowed"] + 12


@pytest.mark.parametrize("name", ["sliding", "tumbling", "count", "session-longest"])
def test_quantiles_of_up_to_200_values_are_exact(database: duckdb.DuckDBPyConnection, name: str) -> None:
    kind, readings = KINDS[name], houses(each=1_200)
    asked: Asked = {"power": tuple(QUANTILES), "meter": ("p50", "p90")}
    ours, _ = said_of(stream(kind.window, asked, 'grace = "10m"'), batches(shuffled(readings, 10 * MINUTE, 6), 6))
    assert max(row["count"] for row in ours) <= 200
    assert_same(ours, duckdb_says(database, readings, kind, "device", asked))


@pytest.mark.parametrize("window", ['kind = "tumbling", size = "1d"', 'kind = "hopping", size = "2d", step = "6h"'])
def test_quantiles_of_many_values_are_off_by_no_more_than_the_sketch_says(
    database: duckdb.DuckDBPyConnection, window: str
) -> None:
    # 1.33 % of the values at 99 % confidence: by chance never are five in a hundred off by more, or one by 4 %.
    readings = houses(3, 8_000)
    spec = stream(window, {"voltage": tuple(QUANTILES)}, "by = []", 'grace = "10m"')
    ours, _ = said_of(spec, batches(shuffled(readings, 10 * MINUTE, 7), 7))
    database.register("arrived", arrow(readings))
    off = []
    for row in ours:
        for name, share in QUANTILES.items():
            value = row[f"voltage_{name}"]
            below, upto, values = database.execute(
                "SELECT count(*) FILTER (voltage < $1), count(*) FILTER (voltage <= $1), count(voltage)"
                " FROM arrived WHERE ts >= $2 AND ts < $3",
                [value, row["start"], row["end"]],
            ).fetchall()[0]
            off.append(max(below / values - share, share - upto / values, 0.0))
    assert max(row["count"] for row in ours) > 3_000
    assert max(off) < 0.04
    assert sum(one > 0.0133 for one in off) <= 0.05 * len(off)


def test_every_aggregate_is_held_against_sql() -> None:
    from typing import get_args

    from headrace.pipeline.model import Aggregate

    assert {*UNORDERED, *ORDERED, *QUANTILES} == set(get_args(Aggregate))
    assert {"float", "int", "text", "bool"} == {FIELDS[name] for name in NUMBERS}
