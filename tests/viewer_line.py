"""A small line for the viewer's tests: a pipeline, a real SQLite store that rows are put into, a real viewer."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from headrace.batch import Batch
from headrace.pipeline import Pipeline, Table, all_tables, parse
from headrace.stores import Position, Store, open_store

PIPELINE = """
name = "houses"

[topics.meters]
tags = { room = "text" }

[topics.meters.fields]
current = { type = "float", unit = "A" }
energy = { type = "int", unit = "Wh", optional = true }
door = { type = "bool", optional = true }
note = { type = "text", optional = true }

[streams.meters-10s]
from = "meters"
window = { kind = "tumbling", size = "10s" }
aggregates = { current = ["mean", "max"] }
"""
START_US = 1_790_000_000_000_000
Result = TypeVar("Result")


def wait_for(what: Callable[[], Result | None], *, timeout_s: float = 30.0) -> Result:
    """What ``what`` gives once it gives something true."""
    end = time.monotonic() + timeout_s
    while True:
        found = what()
        if found:
            return found
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


class Line:
    """The store of a pipeline, and rows put into it as a sink would."""

    def __init__(self, folder: Path, text: str = PIPELINE) -> None:
        self.folder = folder
        self.file = folder / "pipeline.toml"
        self.file.write_text(text, encoding="utf-8")
        self.pipeline: Pipeline = parse(text)
        self.tables: dict[str, Table] = all_tables(self.pipeline)
        self.url = f"sqlite:///{folder / 'store.db'}"
        self._store: Store | None = None
        self._offset = 0

    def open(self) -> None:
        """Make the store, as a sink does at its start."""
        self._store = open_store(self.url)
        self._store.prepare(list(self.tables.values()), self.pipeline.store.retention)

    def put(self, name: str, devices: Sequence[str], times_us: Sequence[int], **columns: Sequence[Any]) -> None:
        """Write rows; columns and tags that are not named are null."""
        if self._store is None:
            self.open()
        assert self._store is not None
        table = self.tables[name]
        whole = {c.name: list(columns.get(c.name, [None] * len(devices))) for c in (*table.columns, *table.tags)}
        batch = Batch(list(devices), np.array(times_us, dtype=np.int64), whole)
        position = Position(name, 0, self._offset, self._offset + len(devices))
        self._offset = position.next_offset
        self._store.write(table, batch, position)

    def windows(
        self, devices: Sequence[str], starts_us: Sequence[int], mean: Sequence[float], revision: int = 0
    ) -> None:
        """Write windows of ten seconds."""
        count = len(devices)
        self.put(
            "meters-10s",
            devices,
            starts_us,
            end=[start + 10_000_000 for start in starts_us],
            count=[10] * count,
            current_mean=mean,
            current_max=[value + 1 for value in mean],
            revision=[revision] * count,
        )

    def close(self) -> None:
        """Close the store."""
        if self._store is not None:
            self._store.close()


class Viewer:
    """``python -m viewer`` as a process of its own."""

    def __init__(
        self,
        line: Line,
        *,
        port: int = 0,
        program: Sequence[str] = ("-m", "viewer"),
        flags: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
    ) -> None:
        command = [sys.executable, *program, "--pipeline", str(line.file), "--store", line.url]
        self.log = line.folder / "viewer.log"
        with self.log.open("a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [*command, "--port", str(port), *flags], stdout=subprocess.PIPE, stderr=log, text=True, env=environ
            )
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        assert said.startswith("the page is at http://"), said + self.log.read_text(encoding="utf-8")
        self.url = said.split()[-1].replace("localhost", "127.0.0.1")
        self.port = int(self.url.rstrip("/").rpartition(":")[2])

    def get(self, path: str, **headers: str) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body of an address."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.url + path.lstrip("/"), headers=named)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, refused.headers, refused.read()

    def status(self) -> dict[str, Any]:
        """What /status says."""
        return json.loads(self.get("status")[2])

    def rows(self, table: str) -> int:
        """How many rows of a table the page has."""
        return self.status()["tables"].get(table, {}).get("rows", 0)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Stop it, and give its exit code."""
        self.process.send_signal(number)
        try:
            return self.process.wait(timeout=60)
        finally:
            self.kill()

    def kill(self) -> None:
        """Make sure that it is gone."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


@contextmanager
def viewing(line: Line, **settings: Any) -> Iterator[Viewer]:
    """A viewer for as long as it is needed."""
    viewer = Viewer(line, **settings)
    try:
        yield viewer
    finally:
        viewer.kill()
