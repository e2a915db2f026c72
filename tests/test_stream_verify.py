"""``headrace verify`` holds a stream's ledger against a store that real sinks have filled."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from processor_line import MakeLine, ProcessorLine, fill_the_store, last_readings, making_lines, rooms, until

from headrace.ledger import LedgerReader
from headrace.stores import open_store
from headrace.topics import reader
from headrace.verify import Verdict, verify
from servers.kafka import KafkaPart

pytestmark = pytest.mark.slow

DEVICES = 12


@pytest.fixture
def lines(name: str, tmp_path: Path) -> Iterator[MakeLine]:
    """Makes lines on a broker, with their topics; their readers are closed at the end."""
    with making_lines(name, tmp_path) as make:
        yield make


HOPPING = {"window": 'kind = "hopping", size = "10s", step = "2s"'}


@pytest.mark.parametrize("settings", [{"by": '["room"]'}, HOPPING], ids=["groups", "hopping"])
def test_verify_adds_the_stream_up_against_the_store(
    settings: dict[str, str], embedded_broker: KafkaPart, lines: MakeLine
) -> None:
    line = lines(embedded_broker.address, **settings)
    line.send([*rooms(DEVICES, 150), *last_readings(DEVICES, 60)])
    in_closed = line.counts()["in_closed"]
    with line.processor() as processor:
        line.await_windows([processor])
        if line.repartition is None:
            line.await_ledger([processor])
        else:
            line.await_both_lines([processor], in_closed)
        assert processor.stop() == 0
    fill_the_store(line)
    found = verdict(line)
    assert found.faults == []
    assert not [note for note in found.notes if "compared" in note]
    # And it would find out if a window were gone from the store.
    with contextlib.closing(sqlite3.connect(line.settings.store.removeprefix("sqlite:///"))) as store, store:
        rows = f'"{line.stream}:rows"'
        gone = store.execute(f"DELETE FROM {rows} WHERE _arrival = (SELECT min(_arrival) FROM {rows})")
        assert gone.rowcount == 1
    assert any(line.stream in fault for fault in verdict(line).faults)


def test_a_stream_that_was_started_over_is_not_held_against_its_older_windows(
    embedded_broker: KafkaPart, lines: MakeLine
) -> None:
    line = lines(embedded_broker.address)
    line.send([*rooms(DEVICES, 150), *last_readings(DEVICES, 60)])
    with line.processor() as processor:
        line.await_windows([processor])
        line.await_ledger([processor])
        assert processor.stop() == 0
    line.send(last_readings(DEVICES, 120))
    with line.processor("--reset-state") as processor:
        until(
            lambda: (found := line.line()) and found.counts.get("started_over"), "the new ledger", running=[processor]
        )
        assert processor.stop() == 0
    fill_the_store(line)
    found = verdict(line)
    assert found.faults == []
    assert any("started over" in note for note in found.notes)


def verdict(line: ProcessorLine) -> Verdict:
    """What ``headrace verify`` finds."""
    consumer, entries = reader(line.address), LedgerReader(reader(line.address), line.pipeline)
    store = open_store(line.settings.store, readonly=True)
    try:
        return verify(consumer, line.pipeline, entries, store)
    finally:
        store.close()
        entries.close()
        consumer.close()
