"""Rows into TDengine, by the store or by raw stmt2: the same rows in the same shape, each call durable.

    python -m bench.subjects.tdengine_write store|stmt2 URL SUBTABLES ROWS CALLS

Both begin with Python lists: the store with a batch of readings as they come from a topic (devices in turn),
stmt2 with a list for each subtable and column, ready to be bound, which is more than it would get from a topic.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import taosws

from bench.subjects.itself import Watch
from headrace.batch import Batch
from headrace.duration import Duration
from headrace.pipeline.tables import Column, Table
from headrace.stores import Position, open_store

TABLE = Table(
    name="readings",
    kind="readings",
    key="device",
    time="ts",
    columns=(Column("current", "float"), Column("voltage", "int")),
    tags=(),
)
STEP_US = 10_000


def main(how: str, url: str, subtables: int, rows: int, calls: int) -> None:
    """Write ``calls`` times ``subtables * rows`` rows, and say how fast; the first call is not measured."""
    store = open_store(url)
    store.reset()
    store.prepare([TABLE], Duration.parse("3650d"))
    start_us = time.time_ns() // 1_000 - (calls * rows + 360_000) * STEP_US
    write = _by_store(url, subtables, rows) if how == "store" else _by_stmt2(url, subtables, rows)
    works = [write(call, start_us + call * rows * STEP_US) for call in range(calls)]
    watch, a_call = Watch(), subtables * rows
    for call, work in enumerate(works, start=1):
        work()
        watch.started(call * a_call)
    watch.say(calls * a_call)
    if how == "store":
        kept = store.count(TABLE)
        if kept != calls * a_call:
            raise RuntimeError(f"{kept} rows are there, and {calls * a_call} were written")
    store.reset()
    store.close()


def _by_store(url: str, subtables: int, rows: int) -> Callable[[int, int], Callable[[], object]]:
    store = open_store(url)
    store.prepare([TABLE], Duration.parse("3650d"))
    devices = [f"meter-{n:04}" for n in range(subtables)] * rows
    n = len(devices)

    def write(call: int, start_us: int) -> Callable[[], object]:
        ts_us = start_us + np.arange(n) // subtables * STEP_US
        columns: dict[str, list[Any]] = {"current": [8 + i * 0.01 for i in range(n)], "voltage": list(range(n))}
        batch = Batch(list(devices), ts_us, columns)
        position = Position("readings", 0, call * n, (call + 1) * n, {"messages": n, "read": n})
        return lambda: store.write(TABLE, batch, position)

    return write


def _by_stmt2(url: str, subtables: int, rows: int) -> Callable[[int, int], Callable[[], object]]:
    connection = taosws.connect(url)
    connection.execute(
        "CREATE STABLE IF NOT EXISTS raw (ts TIMESTAMP, current DOUBLE, voltage BIGINT) TAGS (device VARCHAR(64))"
    )
    statement = connection.stmt2_statement()
    statement.prepare("INSERT INTO ? USING raw (device) TAGS (?) (ts, current, voltage) VALUES (?, ?, ?)")
    names = [f"raw_{n:04}" for n in range(subtables)]
    tags = [[taosws.varchar_to_tag(name)] for name in names]

    def write(_call: int, start_us: int) -> Callable[[], object]:
        ts = [start_us + row * STEP_US for row in range(rows)]
        data = [
            (list(ts), [8 + (row * subtables + n) * 0.01 for row in range(rows)], list(range(n, n + rows)))
            for n in range(subtables)
        ]

        def work() -> None:
            statement.bind(
                [
                    taosws.stmt2_bind_param_view(
                        name,
                        tag,
                        [
                            taosws.micros_timestamps_to_column(times),
                            taosws.doubles_to_column(currents),
                            taosws.big_ints_to_column(voltages),
                        ],
                    )
                    for name, tag, (times, currents, voltages) in zip(names, tags, data, strict=True)
                ]
            )
            statement.execute()

        return work

    return write


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
