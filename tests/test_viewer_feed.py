"""The feed: from a real SQLite store into the engine, under repeats, corrections, late rows and absences."""

from __future__ import annotations

import doctest
import math
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from viewer_line import PIPELINE, START_US, Line, wait_for

import viewer.positions
from headrace.errors import StoreError, StoreUnavailable
from headrace.pipeline import parse
from headrace.stores import Store, open_store
from headrace.stores.sqlite import SQLiteStore
from viewer import feed as feed_module
from viewer import look, style
from viewer.engine import INDEX, Engine, arrow, column
from viewer.engine_tables import CHART_DEVICES, EngineTable
from viewer.feed import Feed
from viewer.look import Look
from viewer.panels import BAR_DEVICES, MAX_DEFAULTS, page
from viewer.positions import LastValues, Ring, Series, by_name, place_all
from viewer.shaping import MAX_TEXTS, OTHER, Shaping

SECOND_US = 1_000_000
WHOLE = """
[[panels]]
title = "now"
kind = "last"
of = "meters"
[[panels]]
title = "rows"
kind = "table"
of = "meters"
rows = 5
[[panels]]
title = "lines"
kind = "lines"
of = "meters"
columns = ["current"]
[[panels]]
title = "windows"
kind = "table"
of = "meters-10s"
[[panels]]
title = "bars"
kind = "bars"
of = "meters-10s"
columns = ["current_mean"]
"""


class Fed:
    """A line, its page's tables in an engine, and the feed between."""

    def __init__(self, folder: Path) -> None:
        self.line = Line(folder, PIPELINE + WHOLE)
        self.page = page(self.line.pipeline)
        self.engine = Engine()
        self.failures: list[BaseException] = []
        self.feed: Feed | None = None

    def start(self) -> None:
        self.feed = Feed(self.line.url, self.page.tables, self.engine, on_failure=self.failures.append)
        self.feed.start()

    def rows(self, table: str) -> list[dict[str, Any]]:
        """The rows of an engine table, without the one of nulls that it is born with."""
        return [row for row in self.engine.rows(table) if row["device"] is not None]

    def wait_for_rows(self, table: str, count: int) -> list[dict[str, Any]]:
        def read() -> list[dict[str, Any]] | None:
            rows = self.rows(table)
            return rows if len(rows) == count else None

        return wait_for(read)

    def close(self) -> None:
        if self.feed is not None:
            self.feed.stop()
        self.engine.close()
        self.line.close()


@pytest.fixture
def fed(tmp_path: Path) -> Iterator[Fed]:
    made = Fed(tmp_path)
    yield made
    made.close()
    assert not made.failures


LAST, ROWS, WINDOWS = "meters last 5000", "meters rows 5", "meters-10s rows 5000"


class Watched(Look):
    """A look at a store that notes its statements, and its kinds of waiting."""

    statements: ClassVar[list[str]] = []
    rests: ClassVar[list[None]] = []

    def __init__(self, store: Store, **how: Any) -> None:
        super().__init__(store, **how)
        assert isinstance(store, SQLiteStore)
        store._connection.set_trace_callback(self.statements.append)
        wait = store.wait

        def rest(seconds: float, stop: int) -> bool:
            self.rests.append(None)
            return wait(seconds, stop)

        monkey: Any = store
        monkey.wait = rest


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> type[Watched]:
    monkeypatch.setattr(feed_module, "Look", Watched)
    monkeypatch.setattr(Watched, "statements", [])
    monkeypatch.setattr(Watched, "rests", [])
    return Watched


# When the store is looked at


VERSION = "PRAGMA data_version"


def test_a_store_in_which_nothing_changes_is_asked_for_its_version_alone(fed: Fed, watched: type[Watched]) -> None:
    fed.line.put("meters", ["a"], [START_US], current=[1.0])
    fed.start()
    fed.wait_for_rows(ROWS, 1)
    # The tables have been read, and the counts.
    wait_for(lambda: any(":progress" in said for said in watched.statements))
    known = len(watched.statements)
    wait_for(lambda: len(watched.statements) >= known + 20)
    assert set(watched.statements[known:]) == {VERSION}
    fed.line.put("meters", ["a"], [START_US + SECOND_US], current=[1.0])
    fed.wait_for_rows(ROWS, 2)


def test_a_feed_at_rest_is_woken_by_a_row_and_by_its_stop(
    fed: Fed, watched: type[Watched], monkeypatch: pytest.MonkeyPatch
) -> None:
    if sys.platform != "linux":
        pytest.skip("nobody tells of SQLite's writes here")
    monkeypatch.setattr(look, "REST_S", 3_600.0)
    monkeypatch.setattr(look, "AWAKE_S", 0.1)
    fed.line.open()
    fed.start()
    for n in range(1, 4):
        # The second of two waits in a row is one for a write.
        rested = len(watched.rests)
        wait_for(lambda before=rested: len(watched.rests) >= before + 1)
        fed.line.put("meters", ["a"], [START_US + n * SECOND_US], current=[1.0])
        fed.wait_for_rows(ROWS, n)
    assert fed.feed is not None
    fed.feed.stop(timeout_s=60.0)
    assert "feed" not in {thread.name for thread in threading.enumerate()}


def test_what_is_written_between_the_question_and_the_reading_is_due_again(fed: Fed) -> None:
    fed.line.open()
    with closing(open_store(fed.line.url, readonly=True)) as store:
        looking = Look(store, read_rows=10, interval_s=0.01)
        assert looking.is_due()
        fed.line.put("meters", ["a"], [START_US], current=[1.0])
        looking.found([0])
        assert looking.is_due()
        looking.found([1])
        assert not looking.is_due()
        fed.line.put("meters", ["b"], [START_US], current=[1.0])
        assert looking.is_due()
        # As many as asked for: there may be more. Or reading has failed in the middle.
        looking.found([0, 10])
        assert looking.is_due()
        assert looking.is_due()


def test_counts_are_asked_for_again_when_asking_has_failed(fed: Fed) -> None:
    fed.line.open()
    with closing(open_store(fed.line.url, readonly=True)) as store:
        looking = Look(store, read_rows=10, interval_s=0.01)
        looking.is_due()
        asked, monkey = store.progress, cast(Any, store)

        def away() -> Any:
            raise StoreUnavailable("away", hint="wait")

        monkey.progress = away
        with pytest.raises(StoreUnavailable):
            looking.dropped()
        monkey.progress = asked
        assert looking.dropped() == {}
        assert looking.dropped() is None


# From the store to the engine


def test_rows_of_all_kinds_arrive_with_their_types(fed: Fed) -> None:
    fed.start()
    fed.line.put(
        "meters",
        ["a"],
        [START_US + 123_456],
        current=[1.25],
        energy=[2**60],
        door=[True],
        note=["open"],
        room=["hall"],
    )
    (row,) = fed.wait_for_rows(ROWS, 1)
    assert row == {
        INDEX: 0,
        "ts": START_US // 1000 + 123,
        "device": "a",
        "current (A)": 1.25,
        "energy (Wh)": float(2**60),
        "door": True,
        "note": "open",
        "room": "hall",
    }


def test_missing_values_stay_missing(fed: Fed) -> None:
    fed.start()
    fed.line.put("meters", ["a", "b"], [START_US, START_US], current=[1.0, math.nan], energy=[None, 3])
    rows = {row["device"]: row for row in fed.wait_for_rows(ROWS, 2)}
    assert rows["a"]["energy (Wh)"] is None
    assert (rows["b"]["current (A)"], rows["b"]["energy (Wh)"]) == (None, 3.0)
    assert rows["a"]["note"] is None


def test_corrected_window_overwrites_its_row(fed: Fed) -> None:
    fed.start()
    fed.line.windows(["a", "a"], [START_US, START_US + 10 * SECOND_US], [1.0, 2.0])
    fed.wait_for_rows(WINDOWS, 2)
    fed.line.windows(["a"], [START_US], [1.5], revision=1)
    wait_for(lambda: any(row["revision"] == 1 for row in fed.rows(WINDOWS)))
    assert sorted((row["start"], row["current_mean (A)"], row["revision"]) for row in fed.rows(WINDOWS)) == [
        (START_US // 1000, 1.5, 1),
        (START_US // 1000 + 10_000, 2.0, 0),
    ]
    bars = next(table.name for table in fed.page.tables if "bars" in table.name)
    wait_for(lambda: sorted(row["current_mean (A)"] for row in fed.rows(bars)) == [1.5, 2.0])


def test_repeated_and_late_readings_take_their_own_places(fed: Fed) -> None:
    fed.start()
    for shift, value in ((0, 1.0), (2, 3.0), (0, 1.0), (1, 2.0), (2, 3.5)):
        fed.line.put("meters", ["a"], [START_US + shift * SECOND_US], current=[value])
    wait_for(lambda: any(row["current (A)"] == 3.5 for row in fed.rows(ROWS)))
    rows = sorted((row["ts"] - START_US // 1000, row["current (A)"]) for row in fed.wait_for_rows(ROWS, 3))
    assert rows == [(0, 1.0), (1000, 2.0), (2000, 3.5)]
    (last,) = fed.rows(LAST)
    assert last["current (A)"] == 3.5


def test_table_never_grows_beyond_its_bound_and_keeps_the_newest(fed: Fed) -> None:
    fed.start()
    fed.line.put("meters", ["a"] * 50, [START_US + n * SECOND_US for n in range(50)], current=list(range(50)))
    wait_for(lambda: 49.0 in {row["current (A)"] for row in fed.rows(ROWS)})
    assert sorted(row["current (A)"] for row in fed.rows(ROWS)) == [45.0, 46.0, 47.0, 48.0, 49.0]
    assert len(fed.engine.rows(ROWS)) == 5


def test_what_the_store_held_before_is_shown(fed: Fed) -> None:
    fed.line.put("meters", ["a", "b"], [START_US, START_US + 1], current=[1.0, 2.0])
    fed.line.windows(["a"], [START_US], [1.0])
    fed.start()
    fed.wait_for_rows(LAST, 2)
    fed.wait_for_rows(WINDOWS, 1)


def test_feed_that_starts_again_shows_the_same(fed: Fed) -> None:
    times = [START_US + n * SECOND_US for n in range(20)]
    fed.line.put("meters", ["a", "b"] * 10, times, current=list(range(20)))
    fed.start()
    fed.wait_for_rows(ROWS, 5)
    before = [{k: v for k, v in row.items() if k != INDEX} for row in fed.rows(ROWS)]
    assert fed.feed is not None
    fed.feed.stop()
    fed.engine.close()
    fed.engine = Engine()
    fed.start()
    again = [{k: v for k, v in row.items() if k != INDEX} for row in fed.wait_for_rows(ROWS, 5)]
    assert sorted(again, key=lambda row: row["ts"]) == sorted(before, key=lambda row: row["ts"])


def test_store_is_waited_for_and_then_followed(fed: Fed) -> None:
    fed.start()
    assert fed.feed is not None
    feed = fed.feed
    wait_for(lambda: (feed.status()["waiting"] or "").startswith("waiting for the store"))
    fed.line.put("meters", ["a"], [START_US], current=[1.0])
    fed.wait_for_rows(LAST, 1)
    wait_for(lambda: feed.status()["waiting"] is None)


def test_store_made_anew_is_followed(fed: Fed) -> None:
    fed.line.put("meters", ["a"], [START_US], current=[1.0])
    fed.start()
    fed.wait_for_rows(LAST, 1)
    fed.line.close()
    for file in fed.line.folder.glob("store.db*"):
        file.unlink()
    assert fed.feed is not None
    feed = fed.feed
    wait_for(lambda: (feed.status()["waiting"] or "").startswith("waiting for the store"))
    fed.line.open()
    fed.line.put("meters", ["b"], [START_US], current=[2.0])
    assert {row["device"] for row in fed.wait_for_rows(LAST, 2)} == {"a", "b"}


def test_store_that_cannot_be_read_stops_the_feed(tmp_path: Path) -> None:
    made = Fed(tmp_path)
    (tmp_path / "store.db").write_bytes(b"no database at all, whatever its name says" * 100)
    made.start()
    failure = wait_for(lambda: made.failures)[0]
    assert isinstance(failure, StoreError)
    made.close()


def test_more_than_can_be_shown_jumps_to_the_newest(fed: Fed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("viewer.feed.READ_ROWS", 10)
    monkeypatch.setattr("viewer.feed.BEHIND_READS", 3)
    monkeypatch.setattr("viewer.feed.BACKLOG_ROWS", 20)
    fed.line.open()
    fed.start()
    fed.line.put("meters", ["a"] * 5000, [START_US + n for n in range(5000)], current=list(range(5000)))
    wait_for(lambda: 4999.0 in {row["current (A)"] for row in fed.rows(ROWS)})
    assert fed.feed is not None
    feed = fed.feed
    wait_for(lambda: feed.status()["tables"]["meters"]["jumps"] >= 1)
    assert sorted(row["current (A)"] for row in fed.rows(ROWS)) == [4995.0, 4996.0, 4997.0, 4998.0, 4999.0]


def test_status_says_what_is_shown(fed: Fed) -> None:
    fed.start()
    devices = [f"d{n}" for n in range(CHART_DEVICES + 3)]
    fed.line.put("meters", devices, [START_US] * len(devices), current=[1.0] * len(devices))
    fed.wait_for_rows(LAST, len(devices))
    assert fed.feed is not None
    feed = fed.feed
    wait_for(lambda: feed.status()["tables"]["meters"]["age_ms"] is not None)
    status = feed.status()["tables"]["meters"]
    assert status["rows"] == len(devices)
    assert status["newest_us"] == START_US
    assert status["shown"]["meters series 5000"] == {"rows": CHART_DEVICES, "hidden_devices": 3}


# Positions


def test_examples_of_positions() -> None:
    assert doctest.testmod(viewer.positions).failed == 0


def test_last_value_of_a_device_is_never_an_older_one() -> None:
    last = LastValues(2)
    assert [last.place("a", 5), last.place("a", 4), last.place("a", 5), last.place("b", 1)] == [0, None, 0, 1]
    assert last.place("c", 9) is None
    assert (last.used, last.hidden_devices) == (2, 1)


rows = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30)), max_size=80)


@given(rows=rows, size=st.integers(1, 12))
@settings(max_examples=300, deadline=None)
def test_ring_holds_the_newest_rows_each_once(rows: list[tuple[str, int]], size: int) -> None:
    ring = Ring(size)
    shown: dict[int, tuple[str, int]] = {}
    for device, at in rows:
        position = ring.place(device, at)
        if position is not None:
            shown[position] = (device, at)
    held = list(shown.values())
    assert len(held) == len(set(held)) == ring.used == min(size, len(set(rows)))
    assert all(0 <= position < size for position in shown)
    # Whatever the order of arrival, nothing newer than what is held was left out.
    if held and len(set(rows)) > size:
        oldest = min(at for _, at in held)
        assert {row for row in rows if row[1] > oldest} <= set(held)


def test_thinned_ring_keeps_the_latest_of_each_stretch() -> None:
    ring = Ring(10, thin_us=10)
    assert place_all(ring, ["a"] * 5, [1, 9, 4, 11, 10]) == {0: 1, 1: 3}


def test_chart_takes_the_first_devices_by_name() -> None:
    series = Series(10, devices=2)
    series.choose(["m-10", "m-2", "m-1"])
    assert [series.place(name, 1) is not None for name in ("m-1", "m-2", "m-10")] == [True, True, False]
    assert series.hidden_devices == 1


def test_bars_hold_so_many_rows_a_device() -> None:
    series = Series(100, devices=3, per_device=2)
    series.choose(["a"])
    for at in range(5):
        series.place("a", at)
    assert series.used == 2
    series.choose(["a", "b"])
    for at in range(5, 9):
        series.place("a", at)
        series.place("b", at)
    assert series.used == 4


def test_names_sort_by_their_numbers() -> None:
    assert sorted(["m10", "m9", "a", "m9b", "10", "9"], key=by_name) == ["9", "10", "a", "m9", "m9b", "m10"]


# Shaping


def shaping(kind: str = "table") -> Shaping:
    pipeline = parse(f'{PIPELINE}\n[[panels]]\ntitle = "x"\nkind = "{kind}"\nof = "meters"\n')
    return Shaping(page(pipeline).tables[0])


def test_texts_of_a_table_are_bounded() -> None:
    shaped = shaping()
    assert shaped._bounded(["a", None, "x" * 300]) == ["a", None, "x" * 199 + OTHER]
    shaped._bounded([f"id-{n}" for n in range(MAX_TEXTS)])
    assert shaped._bounded(["a", "unseen", "y" * 300, "id-5"]) == ["a", OTHER, OTHER, "id-5"]


def test_values_are_made_fit_for_the_engine() -> None:
    assert column([1, None, math.nan, math.inf, 2**63], "float").to_pylist() == [1.0, None, None, None, float(2**63)]
    assert column([1_999, None, -1], "datetime").cast("int64").to_pylist() == [1, None, -1]
    assert arrow({"a": column([True, None], "boolean")})


# Panels


def tables_of(text: str) -> tuple[EngineTable, ...]:
    return page(parse(PIPELINE + text)).tables


def test_panels_of_the_same_rows_share_a_table() -> None:
    panel = '[[panels]]\ntitle = "{0}"\nkind = "lines"\nof = "meters"\ncolumns = ["{0}"]\n'
    assert len(tables_of(panel.format("current") + panel.format("energy"))) == 1


def test_lines_of_several_columns_are_tabs_of_one_place() -> None:
    made = page(parse(PIPELINE + '[[panels]]\ntitle = "all"\nkind = "lines"\nof = "meters"\n'))
    assert [panel["title"] for panel in made.panels.values()] == ["current (A) · all", "energy (Wh) · all"]
    assert made.layouts["wide"] == {"type": "tab-layout", "tabs": ["panel-1", "panel-2"], "selected": 0}


def test_panel_of_a_stream_finds_the_topic_it_writes_into() -> None:
    text = PIPELINE.replace('from = "meters"', 'from = "meters"\ninto = "averages"')
    made = page(parse(text + '[[panels]]\ntitle = "w"\nkind = "table"\nof = "meters-10s"\ncolumns = ["current_max"]\n'))
    assert made.tables[0].source.name == "averages"
    assert made.panels["panel-1"]["columns"] == ["start", "device", "current_max (A)"]


def test_sums_are_stacked_and_means_are_not() -> None:
    text = PIPELINE.replace('"mean", "max"', '"mean", "sum"')
    panel = '[[panels]]\ntitle = "{0}"\nkind = "bars"\nof = "meters-10s"\ncolumns = ["{0}"]\n'
    made = page(parse(text + panel.format("current_sum") + panel.format("current_mean")))
    assert [panel["plugin_config"]["facet_mode"] for panel in made.panels.values()] == ["overlay", "grid"]
    assert [table.devices for table in made.tables] == [CHART_DEVICES, BAR_DEVICES]


def test_without_declared_panels_all_topics_and_streams_are_shown() -> None:
    made = page(parse(PIPELINE))
    assert [panel["title"] for panel in made.panels.values()] == [
        "Last values · meters",
        "current (A) · meters",
        "energy (Wh) · meters",
        "current_mean (A) · meters-10s",
        "Windows · meters-10s",
    ]
    many = PIPELINE + "".join(f"[topics.t{n}]\nfields = {{ v = 'float' }}\n" for n in range(9))
    assert len(page(parse(many)).panels) <= MAX_DEFAULTS + 1


def test_every_panel_stands_in_both_layouts_once() -> None:
    for count in range(1, 12):
        kinds = ("last", "lines", "bars", "table")
        cells = [style.Cell(kinds[n % 4], "readings", [f"p{n}", f"q{n}"]) for n in range(count)]
        for layout in (style.wide(cells), style.narrow(cells)):
            assert sorted(_ids(layout)) == sorted(name for cell in cells for name in cell.ids)


def _ids(layout: dict[str, Any]) -> list[str]:
    if layout["type"] == "tab-layout":
        return list(layout["tabs"])
    assert abs(sum(layout["sizes"]) - 1) < 1e-9
    return [name for child in layout["children"] for name in _ids(child)]


@pytest.mark.parametrize("size_s", [1, 5, 10, 30, 60, 300, 900, 3600, 86_400])
def test_bars_are_as_many_as_leave_the_time_axis_legible(size_s: int) -> None:
    assert style._labels(style.bars(size_s * SECOND_US) * size_s * 1000) <= 3.0
