"""Rows too old for the store's retention: said before they are sent, and counted where they are looked for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from test_sinks import Line, _line
from test_viewer_feed import START_US, Fed, fed, wait_for  # noqa: F401 - a fixture
from warm_start import run

from headrace.ledger import add_up, of_store
from headrace.pipeline.tables import all_tables
from headrace.settings import Settings
from headrace.status import Board
from servers.kafka import KafkaPart

pytestmark = pytest.mark.slow

DATA = Path(__file__).parent.parent / "data"
HOUSEHOLD = """
[topics.houses]
fields = {{ active_power = {{ type = "float", optional = true }} }}
[producers.houses]
kind = "replay"
topic = "houses"
file = "{folder}/household_power.csv"
time = {{ columns = ["date", "time"], format = "%d/%m/%Y %H:%M:%S", zone = "Europe/Paris" }}
fields = {{ active_power = "global_active_power" }}
{more}
"""
MACHINE = """
[topics.machines]
fields = {{ value = "float" }}
[producers.machines]
kind = "replay"
topic = "machines"
file = "{folder}/machine_temperature.csv"
time = {{ columns = ["timestamp"], format = "%Y-%m-%d %H:%M:%S" }}
{more}
"""


def check(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    path = folder / "pipeline.toml"
    path.write_text(text)
    return run("headrace.cli", "check", "--pipeline", str(path))


@pytest.mark.parametrize(
    ("declared", "span"),
    [
        (HOUSEHOLD, "2007-01-31T23:00:00Z to 2007-02-28T"),
        (MACHINE, "2013-12-02T21:15:00Z to 2014-02-19T15:25:00Z"),
    ],
    ids=["household", "machine"],
)
def test_check_refuses_a_recording_of_which_nothing_would_be_kept(tmp_path: Path, declared: str, span: str) -> None:
    found = check(tmp_path, declared.format(folder=DATA, more=""))
    assert found.returncode == 2
    line = next(n for n, text in enumerate(declared.splitlines(), 1) if text.startswith("file"))
    assert f"pipeline.toml:{line} producers." in found.stderr
    assert span in found.stderr
    assert "all of its rows are older than [store] keeps (3650d)" in found.stderr
    assert 'shift = "now" here' in found.stderr
    assert check(tmp_path, declared.format(folder=DATA, more='shift = "now"')).stdout.count("\n") == 1


@pytest.mark.parametrize(
    ("more", "note"),
    [
        ('shift = "now"\nspeed = 0\n[store]\nretention = "7d"', "it has rows that are older"),
        ('shift = "now"\nspeed = 0\n[store]\nretention = "90d"', None),
        ('loop = true\n[store]\nretention = "365d"', "it has rows that are older"),
        ('[store]\nretention = "36500d"', None),
    ],
)
def test_check_notes_a_recording_of_which_some_would_not_be_kept(tmp_path: Path, more: str, note: str | None) -> None:
    found = check(tmp_path, HOUSEHOLD.format(folder=DATA, more=more))
    assert found.returncode == 0, found.stderr
    assert (note is None) == ("note:" not in found.stdout)
    assert note is None or note in found.stdout


def test_the_retention_that_check_asks_for_is_enough(tmp_path: Path) -> None:
    declared = MACHINE.format(folder=DATA, more="")
    asked = check(tmp_path, declared).stderr.partition('write retention = "')[2].partition('"')[0]
    found = check(tmp_path, f'{declared}\n[store]\nretention = "{asked}"')
    assert (found.returncode, found.stdout.count("\n")) == (0, 1)


@pytest.fixture
def opened(embedded_broker: KafkaPart, name: str, tmp_path: Path) -> Iterator[Line]:
    settings = Settings(
        broker=embedded_broker.address, store=f"sqlite:///{tmp_path / 'store.db'}", data=tmp_path / "data"
    )
    yield from _line(settings, name, tmp_path)


def old(count: int, first: int = 0) -> list[tuple[str, bytes]]:
    """Readings of the year 2007."""
    begin_ms = 1_170_288_000_000
    made = [{"device": "house", "ts": begin_ms + n * 60_000, "current": 1.0} for n in range(first, first + count)]
    return [("house", json.dumps(reading).encode()) for reading in made]


def test_readings_that_are_too_old_are_logged_once_and_shown(opened: Line) -> None:
    opened.produce(old(300))
    opened.start()
    counts = opened.until_read(300)
    assert (counts["dropped:retention"], counts["stored"]) == (300, 0)
    opened.produce(old(200, first=300))
    opened.until_read(500)
    assert opened.end(signal.SIGTERM) == 0
    said = [line for line in opened.log().splitlines() if "older than the store keeps" in line]
    assert len(said) == 1
    assert "oldest=2007-02-01T00:00:00+00:00" in said[0]
    assert "`retention` in [store]" in said[0]
    assert opened.verdict() == []
    environment = {**os.environ, **opened.settings.environment()}
    shown = run("headrace.cli", "topics", "--pipeline", str(opened.settings.pipeline), env=environment)
    assert shown.returncode == 0, shown.stderr
    row = next(line.split() for line in shown.stdout.splitlines() if line.split()[:1] == [opened.topic])
    assert row[-1] == "500"
    assert f"{opened.topic}: 500 readings were dropped: older than [store] keeps them (3650d)" in shown.stdout


def test_the_board_shows_what_was_too_old(opened: Line) -> None:
    store, table = opened.store, all_tables(opened.pipeline)[opened.topic]
    assert table.kind == "readings"
    opened.produce(old(40))
    opened.start()
    opened.until_read(40)
    assert opened.end(signal.SIGTERM) == 0
    reading = store()
    board = Board(opened.pipeline, "http://127.0.0.1:1")
    board.take(add_up(of_store(reading.progress()), {}), 0, 0, 0.0)
    reading.close()
    console = Console(width=200)
    with console.capture() as drawn:
        console.print(board.render(1.0))
    assert f"40 readings of {opened.topic} were dropped: older than [store] keeps (3650d)" in drawn.get()
    assert "dropped 40" in board.line(1.0)


def test_the_page_is_told_what_was_too_old(fed: Fed) -> None:  # noqa: F811
    fed.line.put("meters", ["a"], [START_US], current=[1.0])
    fed.line.put("meters", ["a", "b"], [1_000_000, 2_000_000], current=[1.0, 2.0])
    fed.start()
    feed = fed.feed
    assert feed is not None
    wait_for(lambda: feed.status()["tables"]["meters"]["too_old"])
    assert feed.status()["tables"]["meters"]["too_old"] == 2
