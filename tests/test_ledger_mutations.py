"""The ledger can fail: a line is broken in a hundred ways and more, and every one of them turns the verdict."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator

import msgspec
import pytest
from ledger_line import MutableLine, Stage, copied
from ledger_mutations import Broken, broken, tampered

import headrace.verify
from headrace.batch import Batch
from headrace.duration import Duration
from headrace.pipeline import Pipeline, all_tables
from headrace.stores import Position, Store, open_store
from headrace.topics import reaches, reader
from headrace.verify import LOOK_AGAIN_AFTER_S, Verdict
from headrace.verify.rows import Look, look_at
from servers.kafka import KafkaPart

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def line(embedded_broker: KafkaPart, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MutableLine]:
    """The line, and no second look at what stands still."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(headrace.verify, "LOOK_AGAIN_AFTER_S", ())
        yield MutableLine(embedded_broker.address, "mutations", tmp_path_factory.mktemp("mutations"))


def test_what_is_not_broken_is_sound(line: MutableLine) -> None:
    assert line.verdict(line.pipeline, copied(line)).faults == []
    for pipeline, file, _ in (line.run_sinks(), line.run_both(), line.run_both(runs=2)):
        found = line.verdict(pipeline, file)
        assert found.faults == []
        assert all(one.counts["gaps"] == 4 for one in found.lines if one.topic == line.topic)


def test_a_line_that_runs_is_sound_at_every_look(line: MutableLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headrace.verify, "LOOK_AGAIN_AFTER_S", LOOK_AGAIN_AFTER_S)
    looks: list[Verdict] = []
    ended = threading.Event()

    def results(name: str) -> int:
        consumer = reader(line.address)
        try:
            return sum(reach.end for reach in reaches(consumer, name).values())
        finally:
            consumer.close()

    def look_after_more(pipeline: Pipeline, store: Store) -> Look:
        """Look at the store when there are more windows than when the ledger was read."""
        (stream,) = pipeline.streams
        before = results(stream)
        while not ended.is_set() and results(stream) == before:
            pass
        return look_at(pipeline, store)

    def look_on(stage: Stage) -> None:
        def look() -> None:
            while not ended.is_set():
                looks.append(line.verdict(stage.pipeline, stage.file, drained=False))

        thread = threading.Thread(target=look)
        thread.start()
        looking.callback(thread.join)
        looking.callback(ended.set)

    monkeypatch.setattr(headrace.verify, "look_at", look_after_more)
    with contextlib.ExitStack() as looking:
        pipeline, file, _ = line.run_both(look_on)
    assert [fault for found in looks for fault in found.faults] == []
    assert any(one.behind for one in looks[0].lines)
    monkeypatch.undo()
    assert line.verdict(pipeline, file).faults == []


def test_what_retention_has_deleted_is_no_loss(line: MutableLine) -> None:
    """The readings are of 2024: a store that keeps rows for a month lets go of them when it is next written to."""
    retention = Duration.parse("30d")
    pipeline = msgspec.structs.replace(
        line.pipeline, store=msgspec.structs.replace(line.pipeline.store, retention=retention)
    )
    file, tables = copied(line), all_tables(pipeline)
    store = open_store(f"sqlite:///{file}")
    store.prepare(list(tables.values()), retention)
    for table in tables.values():
        names = [column.name for column in (*table.columns, *table.tags)]
        store.write(table, Batch.joined((), names), Position(f"another-{table.name}", 0, 0, 1))
        assert store.count(table) == 0
    store.close()
    with sqlite3.connect(file) as connection:
        connection.execute("DELETE FROM \":progress\" WHERE topic LIKE 'another-%'")
    connection.close()
    found = line.verdict(pipeline, file)
    assert found.faults == []
    assert any("1434 rows are older than the retention" in note for note in found.notes)
    # With the retention that they were kept by they would be missed.
    assert not line.verdict(line.pipeline, file).sound


@pytest.mark.parametrize("fault", list(broken()), ids=lambda fault: fault.name)
def test_a_broken_stage_turns_the_verdict(line: MutableLine, fault: Broken) -> None:
    if fault.stage == "sinks":
        pipeline, file, struck = line.run_sinks(fault.plant)
    else:
        pipeline, file, struck = line.run_both(fault.plant, runs=fault.runs)
    assert struck, "it was never broken"
    assert line.verdict(pipeline, file).faults


def test_whatever_is_tampered_with_turns_the_verdict(line: MutableLine) -> None:
    tried, unseen = 0, []
    for change in tampered(line):
        file = copied(line)
        with contextlib.closing(sqlite3.connect(file)) as store, store:
            if change.statement:
                assert store.execute(change.statement).rowcount > 0, change.name
        with change.ledger(line):
            tried += 1
            if line.verdict(line.pipeline, file).sound:
                unseen.append(change.name)
    assert tried >= 50
    assert unseen == []
    assert line.verdict(line.pipeline, copied(line)).faults == []


def test_there_are_a_hundred(line: MutableLine) -> None:
    """How many ways there are is said by the tests' own names and number."""
    assert len(list(broken())) + len(list(tampered(line))) >= 100
