"""The contract of the store port, held against both stores: what a sink and a viewer may rely on."""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from headrace.batch import Batch
from headrace.column import Column as Values
from headrace.duration import Duration
from headrace.errors import DataFolderError, SettingsError, StoreError, StoreUnavailable
from headrace.pipeline.tables import Column, Table
from headrace.stores import Position, Store, Tail, open_store, sqlite_reader, sqlite_scan
from headrace.stores.port import Progress
from headrace.stores.tdengine import scan as tdengine_scan
from headrace.stores.tdengine import store as store_module
from headrace.stores.tdengine.names import PROGRESS, subtable, supertable
from headrace.stores.tdengine.store import TDengineStore

sys.path.insert(0, str(Path(__file__).parent))
from servers.tdengine import NativeTDengine, TDenginePart, which_tdengine

pytestmark = pytest.mark.slow

YEARS = Duration.parse("3650d")
SECOND_US = 1_000_000
DAY_US = 86_400 * SECOND_US
# A fixed moment within every retention used here, on a whole second.
T0 = int(time.time()) * SECOND_US - 3_600 * SECOND_US

METERS = Table(
    name="meters",
    kind="readings",
    key="device",
    time="ts",
    columns=(
        Column("current", "float"),
        Column("voltage", "int"),
        Column("on", "bool"),
        Column("note", "text"),
        Column("seen", "time"),
    ),
    tags=(Column("location", "text"), Column("floor", "int")),
)
MEANS = Table(
    name="means-10s",
    kind="windows",
    key="device",
    time="start",
    columns=(
        Column("end", "time"),
        Column("count", "int"),
        Column("current_mean", "float"),
        Column("revision", "int"),
        Column("final", "bool"),
    ),
    tags=(Column("location", "text"),),
)
NASTY = [
    "plain",
    "Plain",
    "hall/1.meter 7",
    "hall_1_meter_7",
    "it's",
    'a "quoted" one',
    "`back` \\ slash",
    "%s {braces} ?",
    "Zürich-热-😀",
    "select",
    "a-b",
    "a",
    "1",
    "x" * 300,
    "x" * 299 + "y",
    "ü" * 300,
]


@dataclass
class Place:
    """One store under test: opened as often as wanted, all closed and removed at the end."""

    url: str
    part: TDenginePart | None = None
    opened: list[Store] = field(default_factory=list)

    def open(self, *, readonly: bool = False) -> Store:
        store = open_store(self.url, readonly=readonly)
        self.opened.append(store)
        return store

    def prepared(self, *tables: Table, retention: Duration = YEARS) -> Store:
        store = self.open()
        store.prepare(tables or (METERS, MEANS), retention)
        return store

    def remove(self) -> None:
        for store in self.opened:
            store.close()
        store = open_store(self.url)
        store.reset()
        store.close()


@pytest.fixture(params=["sqlite", "tdengine"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "sqlite":
        made = Place(f"sqlite:///{tmp_path}/store.db")
    else:
        part = request.getfixturevalue("tdengine")
        made = Place(part.database(f"t_{uuid.uuid4().hex[:12]}"), part)
    yield made
    made.remove()


@pytest.fixture
def tdengine_place(tdengine: TDenginePart) -> Iterator[Place]:
    made = Place(tdengine.database(f"t_{uuid.uuid4().hex[:12]}"), tdengine)
    yield made
    made.remove()


def meters(*rows: tuple[str, int, float | None], **columns: list[Any]) -> Batch:
    """Readings of (device, seconds after T0, current); the other columns as given, else made up."""
    n = len(rows)
    return Batch(
        [device for device, _, _ in rows],
        np.array([T0 + round(second * SECOND_US) for _, second, _ in rows], dtype=np.int64),
        {
            "current": [current for _, _, current in rows],
            "voltage": [220] * n,
            "on": [True] * n,
            "note": ["ok"] * n,
            "seen": [T0] * n,
            "location": ["hall"] * n,
            "floor": [1] * n,
            **columns,
        },
    )


def means(*rows: tuple[str, int, int, int], final: bool = True) -> Batch:
    """Windows of (device, start in seconds after T0, count, revision)."""
    return Batch(
        [device for device, *_ in rows],
        np.array([T0 + start * SECOND_US for _, start, _, _ in rows], dtype=np.int64),
        {
            "end": [T0 + (start + 10) * SECOND_US for _, start, _, _ in rows],
            "count": [count for _, _, count, _ in rows],
            "current_mean": [float(count) for _, _, count, _ in rows],
            "revision": [revision for *_, revision in rows],
            "final": [final] * len(rows),
            "location": ["hall"] * len(rows),
        },
    )


class Sink:
    """Writes batches one after the other, as the messages of partition 0."""

    def __init__(self, store: Store, table: Table, *, at: int = 0) -> None:
        self.store, self.table, self.next = store, table, at

    def write(self, batch: Batch, **counts: int) -> dict[str, int]:
        """The partition's counts after the batch."""
        first, self.next = self.next, self.next + max(1, len(batch))
        progress = self.store.write(self.table, batch, Position(self.table.name, 0, first, self.next, counts))
        assert progress.next_offset == self.next
        return dict(progress.counts)


def rows(columns: dict[str, list[Any]], *names: str) -> list[tuple[Any, ...]]:
    """The rows with these columns; times in seconds after T0."""
    if not columns:
        return []
    values = [
        [(v - T0) / SECOND_US for v in columns[name]] if name in ("ts", "start") else columns[name] for name in names
    ]
    return list(zip(*values, strict=True))


def everything(store: Store, table: Table) -> list[tuple[Any, ...]]:
    columns = store.latest(table, 100_000)
    return sorted(zip(*columns.values(), strict=True), key=repr) if columns else []


def collect(tail: Tail, wanted: int, *names: str, seconds: float = 30.0) -> list[tuple[Any, ...]]:
    """Read until there are as many rows as wanted, and once more to see that there are no more of them."""
    found: list[tuple[Any, ...]] = []
    deadline = time.monotonic() + seconds
    while len(found) < wanted:
        assert time.monotonic() < deadline, f"{len(found)} of {wanted} rows came: {found}"
        try:
            columns = tail.read(1_000)
        except StoreUnavailable:
            columns = {}
        if not columns:
            time.sleep(0.01)
        found += rows(columns, *names)
    return found + rows(tail.read(1_000), *names)


# Making tables


def test_prepare_twice_changes_nothing(place: Place) -> None:
    store = place.prepared()
    Sink(store, METERS).write(meters(("m1", 0, 1.0)))
    before = everything(store, METERS)
    place.prepared()
    assert everything(store, METERS) == before
    assert len(before) == 1


def test_new_column_and_tag_are_added_and_older_rows_have_none(place: Place) -> None:
    older = replace(METERS, columns=METERS.columns[:1], tags=METERS.tags[:1])
    Sink(place.prepared(older), older).write(meters(("m1", 0, 1.0)))
    store = place.prepared(METERS)
    Sink(store, METERS, at=1).write(meters(("m1", 1, 2.0), ("m2", 1, 3.0)))
    found = store.latest(METERS, 10)
    by_row = dict(zip(rows(found, "device", "ts"), rows(found, "current", "voltage", "note"), strict=True))
    assert by_row == {("m1", 0): (1.0, None, None), ("m1", 1): (2.0, 220, "ok"), ("m2", 1): (3.0, 220, "ok")}
    assert set(found["floor"]) == {1}
    assert store.progress()[("meters", 0)].counts["stored"] == 3


def test_column_taken_out_of_the_pipeline_stays_out_of_the_way(place: Place) -> None:
    Sink(place.prepared(METERS), METERS).write(meters(("m1", 0, 1.0)))
    fewer = replace(METERS, columns=METERS.columns[:1], tags=())
    store = place.prepared(fewer)
    Sink(store, fewer, at=1).write(meters(("m1", 1, 2.0), ("m2", 0, 3.0)))
    assert sorted(rows(store.latest(fewer, 10), "device", "ts", "current")) == [
        ("m1", 0, 1.0),
        ("m1", 1, 2.0),
        ("m2", 0, 3.0),
    ]


@pytest.mark.parametrize(
    ("changed", "place_named"),
    [
        (replace(METERS, columns=(Column("current", "text"), *METERS.columns[1:])), "meters.current"),
        (replace(METERS, tags=(Column("location", "text"), Column("floor", "float"))), "meters.floor"),
        (replace(METERS, time="at"), "meters"),
        (replace(METERS, key="meter"), "meters"),
    ],
    ids=["column", "tag", "time", "key"],
)
def test_changed_type_or_name_is_refused_with_its_place(place: Place, changed: Table, place_named: str) -> None:
    place.prepared(METERS)
    with pytest.raises(StoreError, match=place_named) as refused:
        place.prepared(changed)
    assert not isinstance(refused.value, StoreUnavailable)
    assert "--reset" in refused.value.hint


def test_topic_with_a_dot_has_a_table(place: Place) -> None:
    table = replace(METERS, name="site.1.meters")
    store = place.prepared(table)
    Sink(store, table).write(meters(("m1", 0, 1.0)))
    assert store.count(table) == 1
    assert ("site.1.meters", 0) in store.progress()


def test_write_before_prepare_is_refused(place: Place) -> None:
    with pytest.raises(StoreError, match="not prepared"):
        Sink(place.open(), METERS).write(meters(("m1", 0, 1.0)))


def test_reset_drops_rows_and_counts(place: Place) -> None:
    store = place.prepared()
    Sink(store, METERS).write(meters(("m1", 0, 1.0)))
    store.reset()
    store.prepare([METERS, MEANS], YEARS)
    assert (store.count(METERS), store.latest(METERS, 5), store.progress()) == (0, {}, {})
    assert Sink(store, METERS).write(meters(("m1", 0, 1.0))) == {"stored": 1, "updated": 0, "duplicate": 0}


# Writing and counting


def test_rows_counts_and_what_the_caller_adds_are_there_after_write(place: Place) -> None:
    store = place.prepared()
    sink = Sink(store, METERS)
    sink.write(meters(("m1", 0, 1.0), ("m2", 0, 2.0)), produced=3, dead_lettered=1)
    counts = sink.write(meters(("m1", 1, 3.0)), produced=1)
    assert counts == {"stored": 3, "updated": 0, "duplicate": 0, "produced": 4, "dead_lettered": 1}
    reader = place.open(readonly=True)
    assert reader.progress()[("meters", 0)].counts == counts
    assert reader.progress()[("meters", 0)].next_offset == 3
    assert sorted(rows(reader.latest(METERS, 9), "device", "ts", "current")) == [
        ("m1", 0, 1.0),
        ("m1", 1, 3.0),
        ("m2", 0, 2.0),
    ]


def test_batch_of_refused_messages_only_moves_the_counts(place: Place) -> None:
    sink = Sink(place.prepared(), METERS)
    assert sink.write(meters(), dead_lettered=1) == {"stored": 0, "updated": 0, "duplicate": 0, "dead_lettered": 1}
    assert sink.write(meters(), dead_lettered=1)["dead_lettered"] == 2


def test_partitions_and_topics_have_counts_of_their_own(place: Place) -> None:
    store = place.prepared()
    store.write(METERS, meters(("m1", 0, 1.0)), Position("meters", 0, 0, 1))
    store.write(METERS, meters(("m2", 0, 1.0), ("m2", 1, 1.0)), Position("meters", 1, 40, 42))
    store.write(MEANS, means(("m1", 0, 5, 0)), Position("means-10s", 0, 7, 8))
    assert {key: (p.next_offset, p.counts["stored"]) for key, p in store.progress().items()} == {
        ("meters", 0): (1, 1),
        ("meters", 1): (42, 2),
        ("means-10s", 0): (8, 1),
    }


def test_same_rows_again_are_duplicates_and_change_nothing(place: Place) -> None:
    store = place.prepared()
    sink = Sink(store, METERS)
    batch = meters(("m1", 0, 1.0), ("m2", 0, None), ("m1", 1, 3.0))
    sink.write(batch)
    before = everything(store, METERS)
    assert sink.write(batch) == {"stored": 3, "updated": 0, "duplicate": 3}
    assert everything(store, METERS) == before


def test_another_value_at_the_same_time_replaces_the_row_whole(place: Place) -> None:
    store = place.prepared()
    sink = Sink(store, METERS)
    sink.write(meters(("m1", 0, 1.0)))
    assert sink.write(meters(("m1", 0, 9.0), note=[None])) == {"stored": 1, "updated": 1, "duplicate": 0}
    assert rows(store.latest(METERS, 5), "ts", "current", "note") == [(0, 9.0, None)]


def test_repeats_inside_one_batch_are_counted_and_the_last_wins(place: Place) -> None:
    store = place.prepared()
    counts = Sink(store, METERS).write(
        meters(("m1", 0, 1.0), ("m2", 0, 5.0), ("m1", 0, 2.0), ("m1", 1, 4.0), ("m1", 0, 3.0))
    )
    assert counts == {"stored": 3, "updated": 2, "duplicate": 0}
    assert sorted(rows(store.latest(METERS, 5), "device", "ts", "current")) == [
        ("m1", 0, 3.0),
        ("m1", 1, 4.0),
        ("m2", 0, 5.0),
    ]


def test_rows_out_of_order_are_new_and_not_duplicates(place: Place) -> None:
    sink = Sink(place.prepared(), METERS)
    sink.write(meters(("m1", 100, 1.0), ("m2", 100, 1.0)))
    assert sink.write(meters(("m1", 50, 1.0), ("m1", 20, 1.0), ("m2", 99, 1.0)))["stored"] == 5
    # One that is there, one between, one repeated in the batch, one ahead.
    counts = sink.write(meters(("m1", 50, 1.0), ("m1", 30, 1.0), ("m1", 30, 1.0), ("m1", 101, 1.0)))
    assert counts == {"stored": 7, "updated": 0, "duplicate": 2}


def test_counts_are_exact_over_many_disordered_batches_and_a_reopened_store(place: Place) -> None:
    random = np.random.default_rng(7)
    seen: dict[tuple[str, int], float] = {}
    store, at, updates, duplicates = place.prepared(), 0, 0, 0
    for round_ in range(12):
        if round_ == 6:
            store.close()
            store = place.prepared()
        n = int(random.integers(1, 400))
        picked = [
            (f"m{random.integers(0, 9)}", int(random.integers(0, 150)), float(random.integers(0, 3))) for _ in range(n)
        ]
        for device, second, current in picked:
            updates += seen.get((device, second), current) != current
            duplicates += seen.get((device, second)) == current
            seen[device, second] = current
        counts = Sink(store, METERS, at=at).write(meters(*picked))
        at += n
        assert counts == {"stored": len(seen), "updated": updates, "duplicate": duplicates}
    found = rows(store.latest(METERS, 100_000), "device", "ts", "current")
    assert {(device, ts): current for device, ts, current in found} == seen
    assert store.count(METERS) == len(seen) == len(found)


def test_replay_after_a_crash_is_upserted_and_not_counted(place: Place) -> None:
    first = meters(("m1", 0, 1.0), ("m1", 1, 2.0))
    store = place.prepared()
    Sink(store, METERS).write(first, produced=2)
    counted = store.progress()
    store.close()
    again = place.prepared()
    progress = again.write(METERS, first, Position("meters", 0, 0, 2, {"produced": 2}))
    assert progress == counted[("meters", 0)] == again.progress()[("meters", 0)]
    assert again.count(METERS) == 2


_WRITER = """
import sys
sys.path.insert(0, {tests!r})
import test_stores
from test_stores import METERS, YEARS, meters
test_stores.T0 = {t0}
from headrace.stores import sqlite_reader, sqlite_scan
from headrace.stores import Position, open_store
store = open_store({url!r})
store.prepare([METERS], YEARS)
at = int(sys.argv[1])
while True:
    batch = meters(*[(f"m{{i % 7}}", at + i, float(at + i)) for i in range(50)])
    store.write(METERS, batch, Position("meters", 0, at, at + 50, {{"produced": 50}}))
    at += 50
    print(at, flush=True)
"""


def test_writer_killed_at_any_point_leaves_counts_that_add_up(place: Place) -> None:
    program = _WRITER.format(tests=str(Path(__file__).parent), url=place.url, t0=T0)
    committed = 0
    for attempt in range(4):
        writer = subprocess.Popen([sys.executable, "-c", program, str(committed)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        for _ in range(3 + attempt):
            committed = int(writer.stdout.readline())
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        # The broker's offset lags behind what was written: some of it comes again.
        committed -= 50
        writer.stdout.close()
    store = place.prepared(METERS)
    before = store.progress()[("meters", 0)]
    # The last writer may have died between its counts and its rows: what is not committed comes again.
    for at in range(committed, before.next_offset, 50):
        batch = meters(*[(f"m{i % 7}", at + i, float(at + i)) for i in range(50)])
        store.write(METERS, batch, Position("meters", 0, at, at + 50, {"produced": 50}))
    progress = store.progress()[("meters", 0)]
    assert progress == before
    assert progress.counts == {
        "stored": progress.next_offset,
        "updated": 0,
        "duplicate": 0,
        "produced": progress.next_offset,
    }
    assert store.count(METERS) == progress.next_offset


def test_failure_between_counts_and_rows_is_healed_by_writing_again(
    tdengine_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headrace.stores.tdengine.writer import Writer

    store = tdengine_place.prepared()
    batch, position = meters(("m1", 0, 1.0), ("m1", 1, 2.0)), Position("meters", 0, 0, 2)
    with monkeypatch.context() as patched:

        def fails(*_: Any) -> None:
            raise StoreUnavailable("the power went", hint="")

        patched.setattr(Writer, "run", fails)
        with pytest.raises(StoreUnavailable):
            store.write(METERS, batch, position)
    assert store.count(METERS) == 0
    assert store.write(METERS, batch, position).counts == {"stored": 2, "updated": 0, "duplicate": 0}
    assert store.count(METERS) == 2


def test_writes_together_are_undone_together_where_the_store_can(tmp_path: Path) -> None:
    place = Place(f"sqlite:///{tmp_path}/store.db")
    store = place.prepared()
    with pytest.raises(RuntimeError), store.together():
        Sink(store, METERS).write(meters(("m1", 0, 1.0)))
        raise RuntimeError("stopped")
    assert (store.count(METERS), store.progress()) == (0, {})
    place.remove()


def test_writes_together_are_there_at_the_end(place: Place) -> None:
    store, reader = place.prepared(), place.open(readonly=True)
    with store.together():
        Sink(store, METERS).write(meters(("m1", 0, 1.0)))
        Sink(store, MEANS).write(means(("m1", 0, 1, 0)))
    assert (reader.count(METERS), reader.count(MEANS)) == (1, 1)
    assert set(reader.progress()) == {("meters", 0), ("means-10s", 0)}


def test_two_writers_of_different_partitions_count_each_their_own(place: Place) -> None:
    one, other = place.prepared(), place.prepared()
    for i in range(5):
        one.write(METERS, meters(("m1", i, 1.0)), Position("meters", 0, i, i + 1))
        other.write(METERS, meters(("m2", i, 1.0)), Position("meters", 1, i, i + 1))
    assert [one.progress()[("meters", p)].counts["stored"] for p in (0, 1)] == [5, 5]
    assert other.count(METERS) == 10


def test_partition_that_moves_to_another_writer_and_back_is_counted_exactly(place: Place) -> None:
    one, other = place.prepared(), place.prepared()
    one.write(METERS, meters(("m1", 0, 1.0)), Position("meters", 0, 0, 1))
    batch = meters(("m1", 5, 1.0), ("m1", 6, 1.0), location=["attic", "attic"])
    other.write(METERS, batch, Position("meters", 0, 1, 3))
    counts = one.write(METERS, meters(("m1", 5, 1.0), ("m1", 7, 1.0)), Position("meters", 0, 3, 5)).counts
    assert counts == {"stored": 4, "updated": 0, "duplicate": 1}
    assert set(one.latest(METERS, 9)["location"]) == {"hall"}


def test_partition_that_is_taken_over_for_the_first_time_is_counted_exactly(place: Place) -> None:
    one, other = place.prepared(), place.prepared()
    one.write(METERS, meters(("m1", 0, 1.0)), Position("meters", 0, 0, 1))
    other.write(METERS, meters(("m2", 0, 1.0)), Position("meters", 1, 0, 1))
    one.write(METERS, meters(("m1", 5, 1.0), ("m1", 6, 1.0)), Position("meters", 0, 1, 3))
    # A repeat of what the first one wrote since the second one has looked at the devices.
    counts = other.write(METERS, meters(("m1", 6, 1.0), ("m1", 7, 1.0)), Position("meters", 0, 3, 5)).counts
    assert counts == {"stored": 4, "updated": 0, "duplicate": 1}


def test_a_writer_that_was_suspended_within_a_write_does_not_replace_newer_counts(
    tdengine_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, other = tdengine_place.prepared(), tdengine_place.prepared()
    assert isinstance(slow, TDengineStore)
    slow.write(METERS, meters(("m1", 0, 1.0)), Position("meters", 0, 0, 1))
    intend = slow._intend

    def suspended(*arguments: Any) -> None:
        # What is to be written is decided; now others take over, and go on.
        other.write(METERS, meters(("m1", 1, 1.0)), Position("meters", 0, 1, 2))
        other.write(METERS, meters(("m1", 2, 1.0), ("m1", 3, 1.0)), Position("meters", 0, 2, 4))
        intend(*arguments)

    monkeypatch.setattr(slow, "_intend", suspended)
    slow.write(METERS, meters(("m1", 1, 1.0)), Position("meters", 0, 1, 2))
    assert other.progress()["meters", 0] == Progress(4, {"stored": 4, "updated": 0, "duplicate": 0})
    counts = other.write(METERS, meters(("m1", 4, 1.0)), Position("meters", 0, 4, 5)).counts
    assert counts == {"stored": 5, "updated": 0, "duplicate": 0}


def test_older_counts_are_deleted(tdengine_place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "PRUNE_EVERY", 4)
    store = tdengine_place.prepared()
    assert isinstance(store, TDengineStore)
    for i in range(10):
        store.write(METERS, meters(("m1", i, 1.0)), Position("meters", 0, i, i + 1))
    assert store.progress()["meters", 0] == Progress(10, {"stored": 10, "updated": 0, "duplicate": 0})
    assert store._connection.query(f"SELECT COUNT(*) FROM `{PROGRESS}`") == [(3,)]


def test_a_subtable_that_another_writer_makes_meanwhile_stops_nobody(
    tdengine_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = tdengine_place.prepared(), tdengine_place.prepared()
    assert isinstance(one, TDengineStore)
    other.write(METERS, meters(("m1", 0, 1.0)), Position("meters", 1, 0, 1))
    query, made = one._connection.query, []

    def with_company(statement: str) -> Any:
        found = query(statement)
        if "SELECT TAGS tbname" in statement and not made:
            made.append(other.write(METERS, meters(("m2", 0, 1.0)), Position("meters", 1, 1, 2)))
        return found

    monkeypatch.setattr(one._connection, "query", with_company)
    one.write(METERS, meters(("m3", 0, 1.0)), Position("meters", 0, 0, 1))
    assert made
    assert one.count(METERS) == 3


# Revisions


def test_higher_revision_replaces_and_lower_never_does(place: Place) -> None:
    store = place.prepared()
    sink = Sink(store, MEANS)
    sink.write(means(("m1", 0, 5, 0), ("m1", 10, 7, 0)))
    assert sink.write(means(("m1", 0, 6, 1))) == {"stored": 2, "updated": 1, "duplicate": 0}
    assert sink.write(means(("m1", 0, 5, 0))) == {"stored": 2, "updated": 1, "duplicate": 1}
    assert rows(store.latest(MEANS, 5), "start", "count", "revision") == [(0, 6, 1), (10, 7, 0)]
    assert sink.write(means(("m1", 0, 8, 1))) == {"stored": 2, "updated": 2, "duplicate": 1}
    assert rows(store.latest(MEANS, 5), "start", "count", "revision") == [(0, 8, 1), (10, 7, 0)]


def test_highest_revision_in_a_batch_wins_whatever_its_order(place: Place) -> None:
    store = place.prepared()
    counts = Sink(store, MEANS).write(
        means(("m1", 0, 7, 2), ("m1", 0, 6, 1), ("m2", 0, 1, 0), ("m2", 0, 2, 1), ("m1", 0, 5, 0))
    )
    assert counts == {"stored": 2, "updated": 1, "duplicate": 2}
    assert sorted(rows(store.latest(MEANS, 5), "device", "count", "revision")) == [("m1", 7, 2), ("m2", 2, 1)]


def test_a_window_never_goes_back(place: Place) -> None:
    store = place.prepared()
    sink = Sink(store, MEANS)

    def stored() -> list[Any]:
        return rows(store.latest(MEANS, 5), "count", "revision", "final")

    for count in (3, 5, 4):
        sink.write(means(("m1", 0, count, 0), final=False))
    assert stored() == [(5, 0, False)]
    # It is another result of as many readings: of two groups that were merged, say.
    sink.write(means(("m1", 0, 5, 0), final=False))
    assert sink.write(means(("m1", 0, 5, 0))) == {"stored": 1, "updated": 2, "duplicate": 2}
    sink.write(means(("m1", 0, 9, 0), final=False))
    assert stored() == [(5, 0, True)]
    # What is final is replaced by what is final, and a correction may take readings away.
    sink.write(means(("m1", 0, 4, 0)))
    assert stored() == [(4, 0, True)]
    sink.write(means(("m1", 0, 2, 1), final=False))
    assert stored() == [(2, 1, False)]


def test_of_the_rows_of_a_window_in_one_batch_the_furthest_is_stored(place: Place) -> None:
    batch = means(("m1", 0, 7, 0), ("m1", 0, 6, 0), ("m1", 0, 5, 0), ("m2", 0, 3, 0), ("m2", 0, 2, 0))
    batch = batch.with_columns({"final": Values.of([False, True, False, False, False])})
    store = place.prepared()
    assert Sink(store, MEANS).write(batch) == {"stored": 2, "updated": 1, "duplicate": 2}
    assert sorted(rows(store.latest(MEANS, 5), "device", "count", "final")) == [("m1", 6, True), ("m2", 3, False)]


# Values


def test_every_value_comes_back_as_it_was(place: Place) -> None:
    notes = ['it\'s "quoted" \\ `so`', "Zürich 热 😀", "", "line\nbreak\ttab", "{0} %s ?", None]
    currents = [1.5, -0.0, 1e308, 5e-324, math.pi, None]
    voltages = [2**63 - 1, -(2**63) + 1, 0, 2**53 + 1, -1, None]
    seen = [T0, 0, T0 + 1, T0 - 1, -1, None]
    store = place.prepared()
    Sink(store, METERS).write(
        meters(
            *[("m1", i, current) for i, current in enumerate(currents)],
            note=notes,
            voltage=voltages,
            seen=seen,
            on=[True, False, None, True, False, True],
        )
    )
    found = place.open(readonly=True).between(METERS, "m1", T0, T0 + 60 * SECOND_US)
    assert list(found) == ["device", "ts", "current", "voltage", "on", "note", "seen", "location", "floor"]
    assert found["current"] == currents
    assert found["voltage"] == voltages
    assert found["seen"] == seen
    assert found["note"] == notes
    assert found["on"] == [True, False, None, True, False, True]
    assert all(type(value) in (bool, type(None)) for value in found["on"])


def test_nan_is_no_value(place: Place) -> None:
    store = place.prepared()
    sink = Sink(store, METERS)
    sink.write(meters(("m1", 0, math.nan), ("m1", 1, None), ("m1", 2, 1.0)))
    assert rows(store.latest(METERS, 5), "ts", "current") == [(0, None), (1, None), (2, 1.0)]
    assert sink.write(meters(("m1", 0, None), ("m1", 1, math.nan)))["duplicate"] == 2


def test_nasty_device_names_stay_apart_and_come_back(place: Place) -> None:
    store = place.prepared()
    sink = Sink(store, METERS)
    sink.write(meters(*[(name, 0, float(i)) for i, name in enumerate(NASTY)]))
    sink.write(meters(*[(name, 1, float(i)) for i, name in enumerate(NASTY)], location=NASTY))
    assert sink.write(meters(*[(name, 0, float(i)) for i, name in enumerate(NASTY)]))["duplicate"] == len(NASTY)
    reopened = place.prepared()
    counts = Sink(reopened, METERS, at=sink.next).write(meters(*[(name, 1, float(i)) for i, name in enumerate(NASTY)]))
    assert counts == {"stored": 2 * len(NASTY), "updated": 0, "duplicate": 2 * len(NASTY)}
    for i, name in enumerate(NASTY):
        found = store.between(METERS, name, T0, T0 + 2 * SECOND_US)
        assert rows(found, "device", "ts", "current") == [(name, 0, float(i)), (name, 1, float(i))]
    values = store.last_values(METERS)
    assert dict(zip(values["device"], values["current"], strict=True)) == {n: float(i) for i, n in enumerate(NASTY)}


def test_subtable_names_are_safe_and_never_the_same() -> None:
    names = [subtable(topic, device) for topic in ("a", "a.b", "A") for device in [*NASTY, "", "\0", ".", "é", "e"]]
    assert len({name.lower() for name in names}) == len(names)
    assert all(len(name.encode()) <= 192 and name.replace("_", "").isalnum() and name.isascii() for name in names)
    topics = ["meters", "Meters", "site.meters", "site_meters", supertable("site.meters"), "a-b", "_x", "9", "ü" * 90]
    assert len({supertable(topic) for topic in topics}) == len(topics)
    assert all(len(supertable(topic).encode()) <= 192 and "." not in supertable(topic) for topic in topics)


# Tags


def test_tags_change_for_all_rows_of_the_device(place: Place) -> None:
    store = place.prepared()
    sink = Sink(store, METERS)
    sink.write(meters(("m1", 0, 1.0), ("m2", 0, 1.0)))
    sink.write(meters(("m1", 1, 1.0), ("m1", 2, 1.0), location=["attic", "it's \\ 'the' cellar"], floor=[1, -1]))
    found = place.open(readonly=True).latest(METERS, 9)
    assert set(rows(found, "device", "location", "floor")) == {("m1", "it's \\ 'the' cellar", -1), ("m2", "hall", 1)}


def test_tag_that_a_reading_leaves_out_stays_as_it_was(place: Place) -> None:
    store = place.prepared()
    sink = Sink(store, METERS)
    sink.write(meters(("m1", 0, 1.0), ("m1", 1, 1.0), location=["attic", None], floor=[None, None]))
    assert set(rows(store.latest(METERS, 9), "location", "floor")) == {("attic", None)}
    sink.write(meters(("m1", 2, 1.0), location=[None], floor=[3]))
    assert set(rows(store.latest(METERS, 9), "location", "floor")) == {("attic", 3)}


# Reading


def test_latest_gives_the_greatest_times_oldest_first(place: Place) -> None:
    store = place.prepared()
    assert store.latest(METERS, 3) == {}
    Sink(store, METERS).write(meters(("m1", 5, 5.0), ("m2", 9, 9.0), ("m1", 7, 7.0), ("m2", 1, 1.0)))
    assert rows(store.latest(METERS, 3), "ts", "device") == [(5, "m1"), (7, "m1"), (9, "m2")]


def test_last_values_are_those_of_the_greatest_time_even_when_missing(place: Place) -> None:
    store = place.prepared()
    assert store.last_values(METERS) == {}
    sink = Sink(store, METERS)
    sink.write(meters(("m1", 5, 5.0), ("m2", 9, 9.0), ("m1", 7, None)))
    sink.write(meters(("m1", 6, 6.0), ("m2", 9, 10.0)))
    assert sorted(rows(store.last_values(METERS), "device", "ts", "current")) == [("m1", 7, None), ("m2", 9, 10.0)]


def test_between_takes_the_start_and_leaves_the_end(place: Place) -> None:
    store = place.prepared()
    Sink(store, METERS).write(meters(*[("m1", i, float(i)) for i in (3, 1, 2, 4)], ("m2", 2, 0.0)))
    found = store.between(METERS, "m1", T0 + 2 * SECOND_US, T0 + 4 * SECOND_US)
    assert rows(found, "device", "ts") == [("m1", 2), ("m1", 3)]
    assert store.between(METERS, "unknown", T0, T0 + 60 * SECOND_US) == {}


def test_count_and_total(place: Place) -> None:
    store = place.prepared()
    assert (store.count(MEANS), store.total(MEANS, "count")) == (0, 0)
    sink = Sink(store, MEANS)
    sink.write(means(("m1", 0, 5, 0), ("m1", 10, 7, 0), ("m2", 0, 2**40, 0), ("m2", 0, 2**41, 1)))
    assert (store.count(MEANS), store.total(MEANS, "count")) == (3, 12 + 2**41)
    # What is said provisionally does not count, until it is said for the last time.
    sink.write(means(("m3", 0, 100, 0), final=False))
    assert (store.count(MEANS), store.total(MEANS, "count")) == (4, 12 + 2**41)
    sink.write(means(("m3", 0, 101, 0)))
    assert (store.count(MEANS), store.total(MEANS, "count")) == (4, 113 + 2**41)


def test_reader_waits_for_a_sink_to_have_made_the_store(place: Place) -> None:
    with pytest.raises(StoreUnavailable, match="yet"):
        place.open(readonly=True)
    place.prepared(METERS)
    reader = place.open(readonly=True)
    assert reader.count(METERS) == 0
    for look in (reader.latest, lambda table, _: reader.tail(table, backlog=0)):
        with pytest.raises(StoreUnavailable, match="yet"):
            look(MEANS, 1)


def test_reader_never_writes(place: Place) -> None:
    place.prepared()
    reader = place.open(readonly=True)
    for forbidden in (
        lambda: reader.prepare([METERS], YEARS),
        reader.reset,
        lambda: Sink(reader, METERS).write(meters()),
    ):
        with pytest.raises(StoreError, match="reading"):
            forbidden()


# Retention


def test_rows_older_than_the_retention_are_dropped_and_counted(place: Place) -> None:
    store = place.prepared(METERS, retention=Duration.parse("2d"))
    sink = Sink(store, METERS)
    old = -3 * 86_400
    counts = sink.write(meters(("m1", old, 1.0), ("m1", 0, 2.0), ("m2", old - 40_000 * 86_400, 1.0)))
    assert counts == {"stored": 1, "updated": 0, "duplicate": 0, "dropped:retention": 2}
    assert sink.write(meters(("m1", old, 1.0)))["dropped:retention"] == 3
    assert rows(store.latest(METERS, 9), "device", "ts") == [("m1", 0)]


def test_shorter_and_longer_retention_take_effect(place: Place) -> None:
    sink = Sink(place.prepared(METERS, retention=Duration.parse("30d")), METERS)
    assert sink.write(meters(("m1", -20 * 86_400, 1.0)))["stored"] == 1
    sink.store = place.prepared(METERS, retention=Duration.parse("12h"))
    assert sink.write(meters(("m1", -86_400, 1.0)))["dropped:retention"] == 1
    sink.store = place.prepared(METERS, retention=Duration.parse("90d"))
    assert sink.write(meters(("m1", -80 * 86_400, 1.0)))["dropped:retention"] == 1
    assert ("m1", -80 * 86_400) in rows(sink.store.latest(METERS, 9), "device", "ts")


def test_expired_rows_leave_sqlite(tmp_path: Path) -> None:
    place = Place(f"sqlite:///{tmp_path}/store.db")
    Sink(place.prepared(METERS, retention=Duration.parse("30d")), METERS).write(
        meters(("m1", -20 * 86_400, 1.0), ("m1", 0, 1.0))
    )
    store = place.prepared(METERS, retention=Duration.parse("2d"))
    Sink(store, METERS, at=2).write(meters(("m1", 1, 1.0)))
    assert rows(store.latest(METERS, 9), "ts") == [(0,), (1,)]
    place.remove()


def test_text_too_long_for_tdengine_is_dropped_and_counted(tdengine_place: Place) -> None:
    store = tdengine_place.prepared()
    counts = Sink(store, METERS).write(
        meters(
            *[("m1", i, 1.0) for i in range(3)],
            ("d" * 3_000, 3, 1.0),
            ("m2", 4, 1.0),
            note=["é" * 2_048, "é" * 2_049, "x" * 4_096, "", ""],
            location=["hall", "hall", "hall", "hall", "x" * 5_000],
        )
    )
    assert counts == {"stored": 2, "updated": 0, "duplicate": 0, "dropped:too_long": 3}
    assert store.latest(METERS, 9)["note"] == ["é" * 2_048, "x" * 4_096]


# Tails


def test_tail_begins_with_the_backlog_and_goes_on_with_what_is_new(place: Place) -> None:
    store = place.prepared()
    sink = Sink(store, METERS)
    for second in range(5):
        sink.write(meters(("m1", second, float(second))))
    tail = place.open(readonly=True).tail(METERS, backlog=3)
    assert collect(tail, 3, "ts", "current") == [(2, 2.0), (3, 3.0), (4, 4.0)]
    sink.write(meters(("m1", 5, 5.0), ("m2", 5, 6.0)))
    assert sorted(collect(tail, 2, "device", "ts", "current", "location")) == [
        ("m1", 5, 5.0, "hall"),
        ("m2", 5, 6.0, "hall"),
    ]
    assert tail.read(10) == {}
    tail.close()


def test_tail_gives_late_rewritten_and_new_rows_once_each_in_order_of_arrival(place: Place) -> None:
    store = place.prepared()
    sink = Sink(store, METERS)
    sink.write(meters(("m1", 100, 1.0), ("m2", 100, 1.0)))
    tail = place.open(readonly=True).tail(METERS, backlog=0)
    sink.write(meters(("m1", 101, 2.0)))
    sink.write(meters(("m2", 3, 3.0)))
    sink.write(meters(("m1", 100, 1.0)))
    sink.write(meters(("m1", 100, 4.0)))
    sink.write(meters(("m1", 101, 2.0), ("m1", 102, 5.0)))
    expected = [("m1", 101, 2.0), ("m2", 3, 3.0), ("m1", 100, 4.0), ("m1", 102, 5.0)]
    assert collect(tail, 4, "device", "ts", "current") == expected
    sink.write(meters(("m2", 104, 6.0)))
    assert collect(tail, 1, "device", "ts", "current") == [("m2", 104, 6.0)]


def test_tail_reads_no_more_than_asked_for_and_loses_nothing(place: Place) -> None:
    sink = Sink(place.prepared(), METERS)
    tail = place.open(readonly=True).tail(METERS, backlog=0)
    for part in range(6):
        sink.write(meters(*[(f"m{i % 10}", part * 1_000 + i // 10, float(i)) for i in range(2_500)]))
    found: list[tuple[Any, ...]] = []
    deadline = time.monotonic() + 30
    while len(found) < 15_000 and time.monotonic() < deadline:
        columns = tail.read(700)
        assert len(columns.get("ts", [])) <= 700
        found += rows(columns, "device", "ts")
    assert len(found) == len(set(found)) == 15_000
    assert tail.read(10) == {}


def test_two_tails_each_get_all_rows(place: Place) -> None:
    sink = Sink(place.prepared(), METERS)
    tails = [place.open(readonly=True).tail(METERS, backlog=0) for _ in range(2)]
    sink.write(meters(("m1", 1, 1.0), ("m1", 2, 2.0)))
    for tail in tails:
        assert collect(tail, 2, "ts") == [(1,), (2,)]
    tails[0].close()
    sink.write(meters(("m1", 3, 3.0)))
    assert collect(tails[1], 1, "ts") == [(3,)]


def test_tail_of_windows_gives_each_revision(place: Place) -> None:
    sink = Sink(place.prepared(), MEANS)
    tail = place.open(readonly=True).tail(MEANS, backlog=10)
    sink.write(means(("m1", 0, 5, 0)))
    sink.write(means(("m1", 0, 6, 1)))
    sink.write(means(("m1", 0, 5, 0)))
    sink.write(means(("m1", 10, 7, 0)))
    # Read in one go or one by one: the lower revision never comes after the higher.
    deadline, found = time.monotonic() + 30, []
    while ("m1", 10, 7, 0) not in found and time.monotonic() < deadline:
        found += rows(tail.read(10), "device", "start", "count", "revision")
    assert found[-2:] == [("m1", 0, 6, 1), ("m1", 10, 7, 0)]


def test_tail_goes_on_when_the_store_is_reset_and_made_anew_in_sqlite(tmp_path: Path) -> None:
    place = Place(f"sqlite:///{tmp_path}/store.db")
    store = place.prepared()
    Sink(store, METERS).write(meters(("m1", 0, 1.0), ("m1", 1, 1.0)))
    tail = place.open(readonly=True).tail(METERS, backlog=9)
    assert len(collect(tail, 2, "ts")) == 2
    store.reset()
    with pytest.raises(StoreUnavailable):
        tail.read(9)
    store.prepare([METERS], YEARS)
    Sink(store, METERS).write(meters(("m1", 5, 1.0)))
    assert collect(tail, 1, "ts") == [(5,)]
    store.close()
    for path in tmp_path.glob("store.db*"):
        path.unlink()
    Sink(place.prepared(), METERS).write(meters(("m1", 6, 1.0)))
    assert collect(tail, 1, "ts") == [(6,)]
    place.remove()


# Being told that something is new


class Pipe:
    """A descriptor that can be read from when it is told so."""

    def __enter__(self) -> Pipe:
        self.read, self.write = os.pipe()
        return self

    def tell(self) -> None:
        os.write(self.write, b"!")

    def __exit__(self, *error: Any) -> None:
        os.close(self.read)
        os.close(self.write)


def quiet(store: Store, stop: Pipe) -> None:
    """Wait until the store tells of nothing more."""
    while store.wait(0.2, stop.read):
        pass


def test_a_wait_ends_with_what_is_written_and_the_tail_then_gives_it(place: Place) -> None:
    if place.part is None and sys.platform != "linux":
        pytest.skip("nobody tells of SQLite's writes here")
    sink = Sink(place.prepared(), METERS)
    store = place.open(readonly=True)
    tail = store.tail(METERS, backlog=0)
    with Pipe() as stop:
        for second in range(3):
            quiet(store, stop)
            sink.write(meters(("m1", second, 1.0)))
            # It says so once, and would wait for an hour if it did not.
            assert store.wait(3_600.0, stop.read)
            assert collect(tail, 1, "ts") == [(second,)]
    tail.close()


def test_a_wait_ends_when_it_is_told_to(place: Place) -> None:
    place.prepared()
    store = place.open(readonly=True)
    tail = store.tail(METERS, backlog=0)
    with Pipe() as stop:
        quiet(store, stop)
        stop.tell()
        assert not store.wait(3_600.0, stop.read)
    tail.close()


def test_writes_to_other_files_of_its_folder_do_not_concern_a_store(tmp_path: Path) -> None:
    place = Place(f"sqlite:///{tmp_path}/store.db")
    place.prepared()
    store = place.open(readonly=True)
    with Pipe() as stop:
        store.wait(0.0, stop.read)
        quiet(store, stop)
        (tmp_path / "else.txt").write_text("x")
        assert not store.wait(0.1, stop.read)
    place.remove()


def test_where_nobody_tells_of_writes_a_wait_ends_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    place = Place(f"sqlite:///{tmp_path}/store.db")
    place.prepared()
    store = place.open(readonly=True)
    with Pipe() as stop:
        assert all(store.wait(3_600.0, stop.read) for _ in range(3))
    place.remove()


def test_version_changes_with_each_write_of_another_and_with_another_file(tmp_path: Path) -> None:
    place = Place(f"sqlite:///{tmp_path}/store.db")
    writer = place.prepared()
    sink, store = Sink(writer, METERS), place.open(readonly=True)
    seen = [store.version()]
    for second in range(3):
        sink.write(meters(("m1", second, 1.0)))
        seen.append(store.version())
        assert store.latest(METERS, 1)
        assert store.version() == seen[-1]
    writer.close()
    for path in tmp_path.glob("store.db*"):
        path.unlink()
    place.prepared()
    seen.append(store.version())
    assert len(set(seen)) == len(seen) == 5
    place.remove()


def test_closed_tail_leaves_no_subscription_behind(tdengine_place: Place) -> None:
    store = tdengine_place.prepared()
    tail = store.tail(METERS, backlog=0)
    Sink(store, METERS).write(meters(("m1", 1, 1.0)))
    assert collect(tail, 1, "ts") == [(1,)]
    tail.close()
    from headrace.stores.tdengine.connection import Connection

    asked = Connection(tdengine_place.url)
    database = asked.address.database
    assert asked.query(f"SELECT * FROM information_schema.ins_topics WHERE db_name = '{database}'") == []


def test_reset_under_an_open_tail_drops_all(tdengine_place: Place) -> None:
    store = tdengine_place.prepared()
    tail = tdengine_place.open(readonly=True).tail(METERS, backlog=0)
    store.reset()
    store.prepare([METERS, MEANS], YEARS)
    Sink(store, METERS).write(meters(("m1", 1, 1.0)))
    assert store.count(METERS) == 1
    tail.close()


def test_tail_whose_follower_is_killed_goes_on_where_it_stopped(tdengine_place: Place) -> None:
    sink = Sink(tdengine_place.prepared(), METERS)
    tail: Any = tdengine_place.open(readonly=True).tail(METERS, backlog=0)
    expected = []
    found: list[tuple[Any, ...]] = []
    for second in range(4):
        sink.write(meters(("m1", second, float(second)), ("m2", second, 0.5)))
        expected += [("m1", second), ("m2", second)]
        found += sorted(collect(tail, 2, "device", "ts"))
        tail._process.kill()
        tail._process.wait()
        if second == 2:
            # Rewritten while nobody follows, next to what was given already.
            sink.write(meters(("m1", 2, 9.0)))
            expected.append(("m1", 2))
            found += collect(tail, 1, "device", "ts")
    assert found == expected


def test_tail_whose_follower_is_killed_within_a_large_write_loses_nothing(tdengine_place: Place) -> None:
    sink = Sink(tdengine_place.prepared(), METERS)
    tail: Any = tdengine_place.open(readonly=True).tail(METERS, backlog=0)
    sink.write(meters(("m0", 0, 0.0)))
    sink.write(meters(*[(f"m{i % 4}", 1 + i // 4, float(i)) for i in range(20_000)]))
    found: list[tuple[Any, ...]] = []
    began = tail._sure
    while tail._sure == began:
        # Read so slowly that the follower says it is sure of what it gave in the middle of the write.
        found += rows(tail.read(1_000), "device", "ts")
        time.sleep(0.3)
    assert len(found) < 20_001
    tail._process.kill()
    tail._process.wait()
    found += collect(tail, 20_001 - len(found), "device", "ts")
    assert len(found) == len(set(found)) == 20_001


# Outages


def test_unreachable_tdengine_is_unavailable_and_says_so() -> None:
    with pytest.raises(StoreUnavailable, match="does not answer") as unreachable:
        open_store("taosws://root:taosdata@127.0.0.1:1/nowhere")
    assert "--store" in unreachable.value.hint


@pytest.mark.parametrize(
    "url",
    [
        "taosws://root:taosdata@127.0.0.1:6041",
        "taosws://root@h:x/y",
        "taosws:///",
        "taosws://h:1/Not-A-Name",
        "sqlite:///",
    ],
)
def test_url_that_cannot_be_used_is_a_settings_error(url: str) -> None:
    with pytest.raises(SettingsError, match="--store"):
        open_store(url)


def test_wrong_password_is_no_outage(tdengine: TDenginePart) -> None:
    wrong = tdengine.database("t_login").replace(":taosdata@", ":wrong@")
    with pytest.raises(StoreError, match="login") as refused:
        open_store(wrong)
    assert not isinstance(refused.value, StoreUnavailable)


def test_database_of_another_precision_is_refused(tdengine_place: Place) -> None:
    from headrace.stores.tdengine.connection import Connection

    connection = Connection(tdengine_place.url)
    connection.execute_on_server(f"CREATE DATABASE {connection.address.database} PRECISION 'ms' VGROUPS 1")
    with pytest.raises(StoreError, match="counts time in ms"):
        tdengine_place.prepared()


@pytest.fixture
def own_tdengine() -> Iterator[NativeTDengine]:
    """A TDengine that nobody else uses, to be restarted."""
    if not which_tdengine().startswith("native"):
        pytest.skip(f"a TDengine of its own needs taosd and taosadapter on PATH; there is {which_tdengine()}")
    # Below /tmp: it has little room for its paths.
    folder = Path(tempfile.mkdtemp(prefix="headrace-tdengine-"))
    server = NativeTDengine(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def test_writer_and_tail_recover_from_a_restarted_adapter(own_tdengine: NativeTDengine) -> None:
    server, place = own_tdengine, Place(f"{own_tdengine.dsn}/restarted")
    store = place.prepared()
    tail = place.open(readonly=True).tail(METERS, backlog=0)
    found: list[tuple[Any, ...]] = []
    at = 0

    def write(until: Callable[[], bool]) -> None:
        """Write one row after the other, each again until it is taken, and read beside it."""
        nonlocal at
        while True:
            done = until()
            try:
                store.write(METERS, meters(("m1", at, float(at))), Position("meters", 0, at, at + 1))
                at += 1
            except StoreUnavailable:
                time.sleep(0.05)
            try:
                found.extend(rows(tail.read(1_000), "ts"))
            except StoreUnavailable:
                time.sleep(0.05)
            if done:
                return

    write(lambda: len(found) >= 20)
    # A restart so short that connections recover by themselves, and subscriptions go dead without a word.
    server.stop_adapter()
    server.start_adapter()
    mark = at + 20
    write(lambda: at >= mark)
    write(lambda: len(found) > mark)
    # An outage that no handle survives.
    server.stop_adapter()
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        while time.monotonic() - began < 60:
            store.write(METERS, meters(("m1", at, float(at))), Position("meters", 0, at, at + 1))
            at += 1
    with pytest.raises(StoreUnavailable):
        store.count(METERS)
    server.start_adapter()
    mark = at + 20
    write(lambda: at >= mark)
    deadline = time.monotonic() + 60
    while len(found) < at and time.monotonic() < deadline:
        write(lambda: True)
    found += collect(tail, at - len(found), "ts", seconds=60)
    assert [ts for (ts,) in found] == list(range(at))
    assert store.progress()[("meters", 0)].counts == {"stored": at, "updated": 0, "duplicate": 0}
    assert store.count(METERS) == at
    place.remove()


# Scanning


def scanned(batches: Iterable[Batch], table: Table = METERS) -> list[tuple[Any, ...]]:
    """The rows of a scan: device, time, columns and tags."""
    found: list[tuple[Any, ...]] = []
    for batch in batches:
        assert len(batch)
        columns = [batch.column(column.name).tolist() for column in (*table.columns, *table.tags)]
        found += zip(batch.devices.tolist(), batch.ts_us.tolist(), *columns, strict=True)
    return found


def in_order(store: Store, table: Table) -> list[tuple[Any, ...]]:
    """All rows of a table as they are to come: by time, then by device."""
    return sorted(everything(store, table), key=lambda row: (row[1], row[0]))


def disordered(store: Store, seconds: int = 60, devices: int = 8) -> Sink:
    """Rows of some devices at times that many of them share, out of order, in several writes."""
    sink, random = Sink(store, METERS), np.random.default_rng(7)
    pairs = [(f"m{d}", second) for d in range(devices) for second in range(d % 3, seconds)]
    order = random.permutation(len(pairs))
    for part in np.array_split(order, 5):
        some = [pairs[place] for place in part]
        sink.write(
            meters(
                *[(device, second, None if second % 7 == 3 else second / 8) for device, second in some],
                voltage=[None if second % 5 == 1 else second for _, second in some],
                on=[None if second % 3 == 2 else second % 2 == 0 for _, second in some],
                note=[None if second % 4 == 2 else f"{device} at {second}" for device, second in some],
                location=[f"hall {int(device[1:]) % 3}" for device, _ in some],
                floor=[None if device == "m1" else int(device[1:]) for device, _ in some],
            )
        )
    return sink


@pytest.fixture(params=["as it is", "all by the process"])
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How SQLite is read: few rows by the store itself, more by a process. TDengine has one way."""
    name: str = request.param
    if name == "all by the process":
        if request.getfixturevalue("place").part is not None:
            pytest.skip("TDengine has one way")
        pytest.importorskip("adbc_driver_sqlite", reason="what is installed is older than the lock: run make setup")
        monkeypatch.setattr(sqlite_scan, "OWN_ROWS", 0)
    return name


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_scan_gives_all_rows_in_order_of_time_and_device(place: Place, how: str, size: int) -> None:
    store = place.prepared()
    disordered(store)
    wanted = in_order(store, METERS)
    reader = place.open(readonly=True)
    batches = list(reader.scan(METERS, T0, T0 + DAY_US, rows=size))
    assert scanned(batches) == wanted
    assert len(wanted) == store.count(METERS) > 400
    kinds = {c.name: batches[0].column(c.name).dtype.kind for c in (*METERS.columns, *METERS.tags)}
    assert kinds == {"current": "f", "voltage": "i", "on": "b", "note": "O", "seen": "i", "location": "O", "floor": "i"}
    # No batch ends within the rows of one time, and none is much larger than was asked for.
    assert all(one.ts_us[-1] < other.ts_us[0] for one, other in itertools.pairwise(batches))
    assert all(len(batch) <= size + 8 for batch in batches)


def test_scan_of_a_span_some_columns_and_some_devices(place: Place, how: str) -> None:
    store = place.prepared()
    disordered(store)
    wanted = in_order(store, METERS)
    start_us, end_us = T0 + 10 * SECOND_US, T0 + 20 * SECOND_US
    assert scanned(store.scan(METERS, start_us, end_us)) == [row for row in wanted if start_us <= row[1] < end_us]
    # Few are found by their index, most by the times.
    for names in (["m3"], ["m6", "m1", "absent"], [f"m{n}" for n in range(1, 8)], [], ["absent"]):
        for size in (1, 5, 1_000):
            found = scanned(store.scan(METERS, T0, T0 + DAY_US, devices=names, rows=size))
            assert found == [row for row in wanted if row[0] in names], (names, size)
    (batch,) = store.scan(METERS, start_us, start_us + 1, names=["floor", "current"])
    assert [batch.has(c.name) for c in (*METERS.columns, *METERS.tags)] == [True, *[False] * 5, True]
    (batch,) = store.scan(METERS, start_us, start_us + 1, names=[])
    assert batch.devices.tolist() == [f"m{n}" for n in range(8)]
    assert list(store.scan(METERS, end_us, start_us)) == []
    with pytest.raises(StoreError, match="no column or tag watts"):
        store.scan(METERS, T0, T0 + 1, names=["watts"])


def test_scan_of_more_devices_than_a_statement_names(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    store = place.prepared()
    disordered(store)
    monkeypatch.setattr(sqlite_scan, "LISTED_DEVICES", 1)
    monkeypatch.setattr(tdengine_scan, "LISTED_DEVICES", 1)
    found = scanned(store.scan(METERS, T0, T0 + DAY_US, devices=["m2", "m5"], rows=9))
    assert found == [row for row in in_order(store, METERS) if row[0] in ("m2", "m5")]


def test_scan_gives_every_value_as_it_is_stored(place: Place, how: str) -> None:
    store = place.prepared()
    values = {
        "current": [1.5, -0.0, 1e308, 5e-324, math.pi, None],
        "voltage": [2**63 - 1, -(2**63) + 1, 0, 2**53 + 1, -1, None],
        "on": [True, False, None, True, False, True],
        "note": ['it\'s "quoted"', "Zürich 热 😀", "", "line\nbreak", None, "n" * 4_000],
        "seen": [T0, 0, T0 + 1, T0 - 1, -1, None],
    }
    Sink(store, METERS).write(meters(*[("m1", i, None) for i in range(6)], **values))
    (batch,) = store.scan(METERS, T0, T0 + DAY_US)
    for name, listed in values.items():
        assert batch.column(name).tolist() == listed
        assert list(map(type, batch.column(name).tolist())) == list(map(type, listed))
    # One that is missing in all rows has its type.
    (batch,) = store.scan(METERS, T0 + 5 * SECOND_US, T0 + DAY_US)
    assert batch.column("voltage").dtype.kind == "i"
    assert batch.column("current").dtype.kind == "f"


def test_scan_tells_devices_apart_whatever_their_names(place: Place, how: str) -> None:
    store = place.prepared()
    names = [*NASTY, "", "12345678", "123456789", "123456780", "1234567812345678", "8765432112345678"]
    Sink(store, METERS).write(
        meters(*[(name, second, float(i)) for second in range(2) for i, name in enumerate(names)], location=names * 2)
    )
    found = scanned(store.scan(METERS, T0, T0 + DAY_US))
    assert [(row[0], row[2], row[7]) for row in found] == 2 * sorted((n, float(i), n) for i, n in enumerate(names))


def test_scan_of_windows_gives_each_as_it_stands(place: Place, how: str) -> None:
    store = place.prepared()
    sink = Sink(store, MEANS)
    sink.write(means(("m1", 0, 5, 0), ("m2", 0, 5, 0), ("m1", 10, 3, 0)))
    sink.write(means(("m1", 0, 6, 1)))
    found = scanned(store.scan(MEANS, T0, T0 + DAY_US), MEANS)
    at = {start: T0 + start * SECOND_US for start in (0, 10, 20)}
    assert found == [
        ("m1", at[0], at[10], 6, 6.0, 1, True, "hall"),
        ("m2", at[0], at[10], 5, 5.0, 0, True, "hall"),
        ("m1", at[10], at[20], 3, 3.0, 0, True, "hall"),
    ]


def test_span_is_of_the_least_and_the_greatest_time(place: Place) -> None:
    store = place.prepared()
    assert store.span(METERS) is None
    assert list(store.scan(METERS, 0, 2**62)) == []
    sink = Sink(store, METERS)
    sink.write(meters(("m1", 5, 1.0), ("m2", 9, 1.0)))
    sink.write(meters(("m2", 2, 1.0)))
    assert store.span(METERS) == (T0 + 2 * SECOND_US, T0 + 9 * SECOND_US)


def test_scan_goes_over_gaps_and_from_few_rows_to_many(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tdengine_scan, "ROWS_A_DEVICE", 5)
    store = place.prepared()
    sink = Sink(store, METERS)
    for first in (-1_000 * 86_400, -86_400, 0):
        sink.write(
            meters(*[(f"m{d}", first + second / 1_000, 1.0) for d in range(3) for second in range(first % 7 + 2)])
        )
    sink.write(meters(*[("m1", 1 + n / 1_000_000, float(n)) for n in range(500)]))
    wanted = in_order(store, METERS)
    for devices in (None, ["m1"], ["m0", "m2"]):
        found = scanned(store.scan(METERS, 0, 2**60, devices=devices, rows=10))
        assert found == [row for row in wanted if devices is None or row[0] in devices]


def test_scan_sees_what_is_written_before_it_and_nothing_twice(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tdengine_scan, "ROWS_A_DEVICE", 1)
    store = place.prepared()
    sink = disordered(store)
    before = in_order(store, METERS)
    scan = place.open(readonly=True).scan(METERS, T0, T0 + DAY_US, rows=3)
    first = next(scan)
    # Behind it, which it does not see; and so far before it that it does: of a device that is new and has a longer
    # name than all, too.
    behind = [("m4", 0.5, -1.0), ("another", 0.5, -1.0)]
    ahead = [("m4", 7_000.5, -1.0), ("another", 7_000.5, -1.0)]
    sink.write(meters(*behind, *ahead, location=["hall 1"] * 4, floor=[4] * 4))
    found = scanned([first, *scan])
    assert [row for row in found if row[2] != -1.0] == before
    assert [row[0] for row in found if row[2] == -1.0][-2:] == ["another", "m4"]
    assert len({row[:2] for row in found}) == len(found)


def test_scan_that_is_given_up_leaves_nothing_behind(place: Place, how: str) -> None:
    store = place.prepared()
    disordered(store)
    threads, children = threading.active_count(), set(psutil.Process().children())
    scan = store.scan(METERS, T0, T0 + DAY_US, rows=3)
    next(scan)
    assert isinstance(scan, Generator)
    scan.close()
    assert threading.active_count() == threads
    assert set(psutil.Process().children()) <= children
    # And the store goes on.
    assert len(scanned(store.scan(METERS, T0, T0 + DAY_US))) == store.count(METERS)


def test_scan_of_a_table_that_is_not_there_yet_waits_for_a_sink(place: Place) -> None:
    place.prepared(MEANS)
    with pytest.raises(StoreUnavailable, match="does not hold that yet"):
        next(place.open(readonly=True).scan(METERS, T0, T0 + DAY_US))


def test_scan_ends_when_sqlite_goes_away_and_goes_on_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(f"sqlite:///{tmp_path}/store.db")
    for own_rows in (10**9, 50):
        monkeypatch.setattr(sqlite_scan, "OWN_ROWS", own_rows)
        disordered(place.prepared())
        wanted = in_order(place.open(readonly=True), METERS)
        reader = place.open(readonly=True)
        for store in place.opened[:-1]:
            store.close()
        scan = reader.scan(METERS, T0, T0 + DAY_US, rows=20)
        found = [next(scan) for _ in range(5)]
        for file in tmp_path.iterdir():
            file.rename(f"{file}.away")
        with pytest.raises(StoreUnavailable, match="there is no store"):
            found.extend(scan)
        for file in tmp_path.iterdir():
            file.rename(str(file).removesuffix(".away"))
        rest = place.open(readonly=True).scan(METERS, int(found[-1].ts_us[-1]) + 1, T0 + DAY_US)
        assert scanned([*found, *rest]) == wanted
        place.remove()


def test_scan_ends_when_tdengine_goes_away_and_goes_on_from_there(own_tdengine: NativeTDengine) -> None:
    place = Place(f"{own_tdengine.dsn}/scanned")
    store = place.prepared()
    disordered(store, seconds=1_000)
    wanted = in_order(store, METERS)
    reader = place.open(readonly=True)
    scan = reader.scan(METERS, T0, T0 + DAY_US, devices=["m1", "m2"], rows=20)
    found = [next(scan)]
    own_tdengine.stop_adapter()
    with pytest.raises(StoreUnavailable, match="does not answer"):
        found.extend(scan)
    with pytest.raises(StoreUnavailable, match="does not answer"):
        next(reader.scan(METERS, T0, T0 + DAY_US))
    own_tdengine.start_adapter()
    rest = reader.scan(METERS, int(found[-1].ts_us[-1]) + 1, T0 + DAY_US, devices=["m1", "m2"])
    assert scanned([*found, *rest]) == [row for row in wanted if row[0] in ("m1", "m2")]
    place.remove()


def test_scan_goes_on_when_its_process_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("adbc_driver_sqlite", reason="what is installed is older than the lock: run make setup")
    monkeypatch.setattr(sqlite_scan, "OWN_ROWS", 0)
    monkeypatch.setattr(sqlite_reader, "PIPE_BYTES", 4_096)
    place = Place(f"sqlite:///{tmp_path}/store.db")
    store = place.prepared()
    disordered(store, seconds=600)
    wanted = in_order(store, METERS)
    scan = store.scan(METERS, T0, T0 + DAY_US, rows=100)
    # The first is read by the store itself.
    found = [next(scan), next(scan)]
    (child,) = psutil.Process().children()
    child.kill()
    assert scanned([*found, *scan]) == wanted
    assert "is read without it" in caplog.text
    place.remove()


def test_the_write_ahead_log_stays_in_proportion_while_a_scan_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("adbc_driver_sqlite", reason="what is installed is older than the lock: run make setup")
    monkeypatch.setattr(sqlite_scan, "OWN_ROWS", 1_000)
    # It reads ahead as far as there is room.
    monkeypatch.setattr(sqlite_reader, "PIPE_BYTES", 4_096)
    place = Place(f"sqlite:///{tmp_path}/store.db")
    sink, reader = Sink(place.prepared(), METERS), place.open(readonly=True)
    sink.write(meters(*[(f"m{n}", i, float(n)) for i in range(50) for n in range(200)]))
    scan = reader.scan(METERS, T0, T0 + DAY_US, rows=200)
    for i in range(50, 150):
        sink.write(meters(*[(f"m{n}", i, float(n)) for n in range(200)]))
        assert len(next(scan)) == 200
        assert log_bytes(place) <= 2 * max(2**20, file_bytes(place) / 4)
    assert sum(map(len, scan)) == 50 * 200
    place.remove()


# SQLite's own


def log_bytes(place: Place) -> int:
    return Path(place.url.removeprefix("sqlite:///") + "-wal").stat().st_size


def file_bytes(place: Place) -> int:
    return Path(place.url.removeprefix("sqlite:///")).stat().st_size


def test_the_write_ahead_log_stays_in_proportion_while_a_tail_follows(tmp_path: Path) -> None:
    place = Place(f"sqlite:///{tmp_path}/store.db")
    sink, reader = Sink(place.prepared(), METERS), place.open(readonly=True)
    tail = reader.tail(METERS, backlog=10)
    for i in range(100):
        sink.write(meters(*[(f"m{n}", i, float(n)) for n in range(200)]))
        assert len(tail.read(1_000)["ts"]) == 200
        # A mebibyte is the least, and the pages of the write that goes beyond it come on top.
        assert log_bytes(place) <= 2 * max(2**20, file_bytes(place) / 4)
    assert log_bytes(place) < file_bytes(place)
    place.remove()


def test_the_write_ahead_log_is_cut_when_a_long_reader_has_gone(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    place = Place(f"sqlite:///{path}")
    sink = Sink(place.prepared(), METERS)
    sink.write(meters(("m1", 0, 1.0)))
    with sqlite3.connect(path) as long_reader:
        long_reader.execute("BEGIN")
        long_reader.execute('SELECT count(*) FROM "meters:rows"').fetchall()
        for i in range(1, 60):
            sink.write(meters(*[(f"m{n}", i, float(n)) for n in range(200)]))
        grown = log_bytes(place)
        assert grown > file_bytes(place)
    long_reader.close()
    for i in range(60, 63):
        sink.write(meters(*[(f"m{n}", i, float(n)) for n in range(200)]))
    assert log_bytes(place) <= 2 * max(2**20, file_bytes(place) / 4) < grown
    place.remove()


def test_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataFolderError) as refused:
        open_store(f"sqlite:///{tmp_path}/file/store.db")
    assert "--store" in refused.value.hint


def test_file_that_is_no_database_says_so(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreError, match="cannot be read"):
        open_store(f"sqlite:///{tmp_path}/store.db").prepare([METERS], YEARS)


def test_second_writer_that_holds_the_lock_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import headrace.stores.sqlite as module

    monkeypatch.setattr(module, "BUSY_S", 0.1)
    place = Place(f"sqlite:///{tmp_path}/store.db")
    one, other = place.prepared(), place.prepared()
    with one.together():
        Sink(one, METERS).write(meters(("m1", 0, 1.0)))
        with pytest.raises(StoreUnavailable, match="locked"):
            Sink(other, METERS).write(meters(("m2", 0, 1.0)))
    assert one.count(METERS) == 1
    place.remove()


def test_names_that_differ_in_case_alone_are_refused_by_sqlite(tmp_path: Path) -> None:
    place = Place(f"sqlite:///{tmp_path}/store.db")
    with pytest.raises(StoreError, match="Voltage"):
        place.prepared(replace(METERS, columns=(Column("voltage", "int"), Column("Voltage", "int"))))
    with pytest.raises(StoreError, match="Meters"):
        place.prepared(METERS, replace(METERS, name="Meters"))
    place.remove()


def test_people_find_a_view_with_the_name_of_the_topic(tmp_path: Path) -> None:
    import sqlite3

    place = Place(f"sqlite:///{tmp_path}/store.db")
    Sink(place.prepared(), METERS).write(meters(("m1", 0, 1.5)))
    connection = sqlite3.connect(tmp_path / "store.db")
    assert connection.execute("SELECT device, current, location FROM meters").fetchall() == [("m1", 1.5, "hall")]
    counts = connection.execute('SELECT counts FROM ":progress"').fetchone()[0]
    assert json.loads(counts) == {"stored": 1, "updated": 0, "duplicate": 0}
    connection.close()
    place.remove()


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (0x0130, "Database is starting up"),
        (0x0131, "Database is closing down"),
        (0x0396, "Database in creating status"),
        (0x0529, "Vnode stopped"),
        (0x0914, "Sync leader is restoring"),
    ],
)
def test_a_tdengine_that_starts_or_stops_is_waited_for(code: int, text: str) -> None:
    """A sink that met one of these while the server came back has ended for good."""
    from headrace.stores.tdengine.connection import Connection

    connection = Connection("taosws://root:secret@127.0.0.1:6041/headrace")
    assert isinstance(connection.meaning(Exception(f"Internal error: `[0x{code:04X}] {text}`")), StoreUnavailable)
    refused = connection.meaning(Exception("Internal error: `[0x2600] syntax error`"))
    assert not isinstance(refused, StoreUnavailable)
