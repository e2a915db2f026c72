"""The fault suite, short: both stores and both guarantees, disturbed side by side, and recounted by code of its own."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.outer import Broker, Store
from faults.recount.comparison import Recount
from faults.run import Options, Run

from servers.kafka import which_kafka

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
DISTURBANCES = "suspend-and-kill,kill-sink,store,delete-state"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: TDengine opens no vnode where its own paths become longer than it has room for."""
    with tempfile.TemporaryDirectory(prefix="headrace-") as made:
        yield Path(made)


@pytest.mark.timeout(600)
def test_nothing_is_lost_wrong_or_falsely_alarmed(folder: Path) -> None:
    broker = "kafka" if which_kafka().startswith("native") else "embedded"
    runs = {"sqlite": "at-least-once"}
    if shutil.which("taosd") and shutil.which("taosadapter"):
        runs["tdengine"] = "exactly-once"
    begun = {}
    for store, guarantee in runs.items():
        own = folder / store
        own.mkdir()
        command = [sys.executable, "-m", "faults", "--minutes", "0.6", "--rate", "1200", "--seed", "11"]
        command += ["--store", store, "--guarantee", guarantee, "--broker", broker, "--only", DISTURBANCES]
        command += ["--data", str(own / "data"), "--results", str(own / "results.jsonl")]
        environment = {**os.environ, "PYTHONPATH": str(HERE)}
        with (own / "output.log").open("wb") as output:
            begun[store] = subprocess.Popen(
                command, cwd=HERE.parent, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
    try:
        for store, run in begun.items():
            run.wait()
            said = (folder / store / "output.log").read_text(errors="replace")
            assert run.returncode == 0, said
            verdict = json.loads((folder / store / "results.jsonl").read_text())
            assert verdict["passed"]
            assert verdict["readings"] > 30_000
            assert sum(verdict["events"].values()) >= 1
    finally:
        for run in begun.values():
            run.kill()
            run.wait()


TAMPERING = """
DELETE FROM "meters:rows" WHERE rowid = (SELECT min(rowid) FROM "meters:rows");
UPDATE "meters:rows" SET current = current + 0.25 WHERE rowid = (SELECT max(rowid) FROM "meters:rows");
DELETE FROM "probes_last:rows" WHERE rowid = (SELECT min(rowid) FROM "probes_last:rows");
UPDATE "meters_10s:rows" SET count = count + 1 WHERE rowid = (SELECT min(rowid) FROM "meters_10s:rows");
UPDATE "meters_hops:rows" SET start = start + 1 WHERE rowid = (SELECT min(rowid) FROM "meters_hops:rows");
UPDATE ":progress" SET counts = json_set(counts, '$.stored', 1) WHERE topic = 'meters' AND partition = 2;
"""


class Tampered(Run):
    """A run whose store is tampered with after a first recount; ``again`` is what a second one makes of it."""

    again: Recount

    def recount(self, broker: Broker, store: Store) -> Recount:
        first = super().recount(broker, store)
        with sqlite3.connect(store.url.removeprefix("sqlite:///"), timeout=30) as connection:
            connection.executescript(TAMPERING)
        self.again = super().recount(broker, store)
        return first


@pytest.mark.timeout(300)
def test_the_recount_finds_each_row_and_count_that_was_tampered_with(tmp_path: Path) -> None:
    run = Tampered(Options(minutes=0.1, rate=400, broker="embedded", data=tmp_path, kinds={}))
    verdict = run.run()
    assert verdict.findings.compared["windows of meters_10s"] > 10
    before, after = verdict.findings, run.again.findings
    assert after.lost - before.lost == {"rows of meters": 1, "windows of probes_last": 1, "windows of meters_hops": 1}
    assert after.wrong - before.wrong == {
        "rows of meters": 1,
        "windows of meters_10s": 1,
        "windows of meters_hops": 1,
        "ledger of sinks": 1,
    }
    # The ledger is what headrace verify looks at: it must not call this sound.
    assert not verdict.sound_at_end, verdict.text()
