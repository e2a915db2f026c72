"""The rows of a store, by its scan, or by the plainest columnar read of the same rows: no order, no names, no tags.

    python -m bench.subjects.store_scan fill|scan|plain URL DEVICES ROWS

Plain is for SQLite the table as it lies there, by ADBC; for TDengine its binary blocks as they come.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

import numpy as np

from bench.subjects.itself import Watch
from headrace.batch import Batch
from headrace.column import Column as Values
from headrace.duration import Duration
from headrace.field_types import FieldType
from headrace.pipeline.tables import Column, Table
from headrace.stores import Position, open_store
from headrace.stores.tdengine.blocks import Blocks, columns
from headrace.stores.tdengine.connection import Connection

TABLE = Table(
    name="readings",
    kind="readings",
    key="device",
    time="ts",
    columns=(Column("current", "float"), Column("voltage", "int")),
    tags=(Column("location", "text"),),
)
STEP_US = 100_000
A_WRITE = 200_000


def main(how: str, url: str, devices: int, rows: int) -> None:
    """Fill the store, or say how fast its rows are read; all of them are measured."""
    if how == "fill":
        fill(url, devices, rows)
        print("{}")
        return
    watch = Watch()
    watch.started(0)
    count = scan(url) if how == "scan" else plain_sqlite(url) if url.startswith("sqlite") else plain_tdengine(url)
    if count != devices * rows:
        raise RuntimeError(f"{count} rows were read, and {devices * rows} are there")
    # With the process that reads SQLite.
    times = os.times()
    watch.say(count, children_cpu_s=times.children_user + times.children_system)


def fill(url: str, devices: int, rows: int) -> None:
    """Write the rows as they come from a topic: in order of time, devices in turn."""
    store = open_store(url)
    store.reset()
    store.prepare([TABLE], Duration.parse("3650d"))
    start_us = time.time_ns() // 1_000 - rows * STEP_US - 3_600_000_000
    names = [f"meter-{n:05}" for n in range(devices)]
    places = [f"hall-{n % 7}" for n in range(devices)]
    for first in range(0, devices * rows, A_WRITE):
        k = np.arange(first, min(first + A_WRITE, devices * rows))
        batch = Batch(
            Values.coded(names, k % devices),
            start_us + k // devices * STEP_US,
            {"current": Values(8 + k * 0.01), "voltage": Values(k), "location": Values.coded(places, k % devices)},
        )
        store.write(TABLE, batch, Position("readings", 0, first, first + len(k)))
    store.close()


def scan(url: str) -> int:
    """By the store."""
    store = open_store(url, readonly=True)
    span = store.span(TABLE)
    if span is None:
        return 0
    count = sum(len(batch) for batch in store.scan(TABLE, span[0], span[1] + 1))
    store.close()
    return count


def plain_sqlite(url: str) -> int:
    """The columns into Arrow, in the order in which they lie there."""
    import adbc_driver_sqlite.dbapi as adbc

    file = url.removeprefix("sqlite:///")
    with adbc.connect(f"file:{file}?mode=ro", autocommit=True) as connection, connection.cursor() as cursor:
        cursor.adbc_statement.set_options(**{"adbc.sqlite.query.batch_rows": "100000"})
        cursor.execute('SELECT _device, ts, current, voltage FROM "readings:rows"')
        return sum(batch.num_rows for batch in cursor.fetch_record_batch())


def plain_tdengine(url: str) -> int:
    """The columns as arrays, in the order in which they come."""

    async def read() -> int:
        blocks = Blocks(Connection(url))
        try:
            types: list[FieldType] = ["time", "float", "int"]
            found = await blocks.fetch("SELECT ts, current, voltage FROM readings")
            return sum(len(columns(block, types)[0]) for block in found)
        finally:
            await blocks.close()

    return asyncio.run(read())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
