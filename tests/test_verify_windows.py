"""``headrace verify --windows``: whatever is tampered with in the store is found, by value, and named."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from processor_line import MakeLine, ProcessorLine, Reading, fill_the_store, last_readings, making_lines, rooms
from warm_start import run

from headrace.pipeline import all_tables
from headrace.stores import open_store
from headrace.stores.tdengine.connection import Connection
from headrace.stores.tdengine.names import quoted, supertable
from servers.kafka import KafkaPart
from servers.tdengine import TDenginePart

pytestmark = pytest.mark.slow

DEVICES = 8
READINGS = 150


@pytest.fixture
def lines(name: str, tmp_path: Path) -> Iterator[MakeLine]:
    """Makes lines on a broker, with their topics; their readers are closed at the end."""
    with making_lines(name, tmp_path) as make:
        yield make


def filled(line: ProcessorLine, late: Sequence[Reading] = ()) -> None:
    """Run processors and sinks until every reading has been taken and all of it is in the store."""
    line.send([*rooms(DEVICES, READINGS), *late, *last_readings(DEVICES, 120)])
    with line.processor() as processor:
        line.await_windows([processor])
        if line.repartition is None:
            line.await_ledger([processor])
        else:
            line.await_both_lines([processor], line.counts()["in_closed"])
        assert processor.stop() == 0
    fill_the_store(line)


def verified(line: ProcessorLine, *arguments: str, store: Path | None = None) -> subprocess.CompletedProcess[str]:
    """What the command finds in the line's store, or in a copy of it."""
    settings = line.settings if store is None else replace(line.settings, store=f"sqlite:///{store}")
    environment = {**os.environ, **settings.environment()}
    return run("headrace.cli", "verify", "--windows", *arguments, env=environment)


def tampered(line: ProcessorLine, copy: Path, statement: str) -> None:
    """Change a copy of the line's store behind everybody's back; ``{rows}`` and ``{raw}`` stand for the tables."""
    whole = line.settings.store.removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(whole)) as store:
        store.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    copy.write_bytes(Path(whole).read_bytes())
    rows, raw = f'"{line.stream}:rows"', f'"{line.topic}:rows"'
    with contextlib.closing(sqlite3.connect(copy)) as store, store:
        changed = store.execute(statement.format(rows=rows, raw=raw))
        assert changed.rowcount == 1, statement


ONE = "_arrival = (SELECT min(_arrival) FROM {rows})"
TAMPERING = {
    "a window is deleted": (f"DELETE FROM {{rows}} WHERE {ONE}", "is not stored"),
    "a value is changed": (f"UPDATE {{rows}} SET current_max = current_max + 0.001 WHERE {ONE}", "current_max is"),
    "a value is taken away": (f"UPDATE {{rows}} SET energy_sum = NULL WHERE {ONE}", "energy_sum is None"),
    "an end is moved": (f"UPDATE {{rows}} SET end = end + 1 WHERE {ONE}", "end is"),
    "a window is moved": (f"UPDATE {{rows}} SET start = start + 1 WHERE {ONE}", "is no window of the stored readings"),
    "a reading is deleted": (
        "DELETE FROM {raw} WHERE _arrival = (SELECT min(_arrival) FROM {raw})", "fault: "
    ),
    "a reading is changed": (
        "UPDATE {raw} SET current = 99.5 WHERE _arrival = (SELECT min(_arrival) FROM {raw})", "computed"
    ),
}  # fmt: skip
NEWEST_CHANGED = "UPDATE {rows} SET energy_sum = energy_sum + 1 WHERE _arrival = (SELECT max(_arrival) FROM {rows})"


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"by": '["room"]'},
        {"window": 'kind = "hopping", size = "10s", step = "2s"'},
        {"window": 'kind = "session", gap = "3s"'},
        {"window": 'kind = "count", count = 7'},
    ],
    ids=["tumbling", "groups", "hopping", "session", "count"],
)
def test_what_was_stored_in_order_is_found_right_and_what_is_tampered_with_is_named(
    settings: dict[str, str], embedded_broker: KafkaPart, lines: MakeLine, tmp_path: Path
) -> None:
    line = lines(embedded_broker.address, **settings)
    filled(line)
    sound = verified(line)
    assert (sound.returncode, sound.stderr) == (0, "")
    assert f"{line.stream}: " in sound.stdout
    assert "all are as computed again" in sound.stdout
    for what, (statement, told) in TAMPERING.items():
        copy = tmp_path / "tampered.db"
        tampered(line, copy, statement)
        found = verified(line, store=copy)
        assert found.returncode == 1, what
        assert told in found.stderr, (what, found.stderr)
        assert "rows were changed, or lost, after they were stored" in found.stderr, what


@pytest.mark.parametrize("settings", [{}, {"by": '["room"]'}], ids=["tumbling", "groups"])
def test_late_readings_explain_what_windows_lack_and_no_more_than_that(
    settings: dict[str, str], embedded_broker: KafkaPart, lines: MakeLine, tmp_path: Path
) -> None:
    line = lines(embedded_broker.address, **settings)
    on_time = rooms(DEVICES, READINGS)
    # Of times that nobody has sent, and older than what has closed by then.
    late = [replace(reading, ts_us=reading.ts_us + 37_000) for reading in on_time[: 3 * DEVICES : DEVICES]]
    filled(line, late)
    found = verified(line)
    assert (found.returncode, found.stderr) == (0, "")
    assert "3 of its readings came late and 0 corrected others" in found.stdout
    assert "computed" in found.stdout
    copy = tmp_path / "tampered.db"
    tampered(line, copy, NEWEST_CHANGED)
    found = verified(line, store=copy)
    assert found.returncode == 1
    assert "which does not explain all of it" in found.stderr


def test_what_is_tampered_with_in_tdengine_is_named(
    embedded_broker: KafkaPart, tdengine: TDenginePart, lines: MakeLine
) -> None:
    line = lines(embedded_broker.address)
    line.settings = replace(line.settings, store=tdengine.database(f"t{uuid.uuid4().hex[:12]}"))
    filled(line)
    sound = verified(line)
    assert (sound.returncode, sound.stderr) == (0, "")
    connection = Connection(line.settings.store)
    try:
        windows = quoted(supertable(line.stream))
        [[table, start_us, greatest]] = connection.query(
            f"SELECT tbname, CAST(`start` AS BIGINT), `current_max` FROM {windows} ORDER BY `start`, tbname LIMIT 1"
        )
        for statement, told in (
            (
                f"INSERT INTO {quoted(table)} (`start`, `current_max`) VALUES ({start_us}, {greatest + 1})",
                "current_max is",
            ),
            (f"DELETE FROM {quoted(table)} WHERE `start` = {start_us}", "is not stored"),
        ):
            connection.execute(statement)
            found = verified(line)
            assert found.returncode == 1
            assert told in found.stderr
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nosuch"], "there is no stream 'nosuch'"),
        (["--from", "yesterday"], "--from is 'yesterday', which is no time"),
        ([], "there is no window to compare"),
    ],
)
def test_what_cannot_be_asked_is_told_in_two_lines(
    arguments: list[str], told: str, embedded_broker: KafkaPart, lines: MakeLine
) -> None:
    line = lines(embedded_broker.address)
    open_store(line.settings.store).prepare(list(all_tables(line.pipeline).values()), line.pipeline.store.retention)
    found = verified(line, *arguments)
    assert found.returncode == 2
    first, second = found.stderr.strip().splitlines()
    assert told in first
    assert second.startswith("hint: ")
