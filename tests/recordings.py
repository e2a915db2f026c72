"""The recordings in `data/` as readings of several devices, and what our windows say of them.

A household's month becomes several houses, each begun on another day; some minutes, and at times an hour or two,
are missing, and some values. A machine's temperature is as it was recorded, with the times that it says twice.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from headrace.batch import Batch
from headrace.pipeline import parse
from processors.windows import WindowOperator, WindowSpec

DATA = Path(__file__).parent.parent / "data"
SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
FOR_EVER_US = 4_000 * DAY
BEGIN_US = 1_170_288_000 * SECOND
"""2007-02-01T00:00:00Z, when the household's recording begins."""

FLOATS = ("power", "voltage", "intensity")
INTS = ("kitchen", "heating", "meter")
OTHERS = {"mode": "text", "on": "bool"}
FIELDS = dict.fromkeys(FLOATS, "float") | dict.fromkeys(INTS, "int") | OTHERS
TAGS = {"location": "text", "floor": "int"}
_LOCATIONS = ("Sceaux", "Antony", "Sceaux", "Massy")
_METER_ROUND = 4_000
"""The meter counts watt-hours and begins again at 0 beyond this."""

Row = dict[str, Any]


def houses(devices: int = 4, each: int = 1_200, *, begin_us: int = BEGIN_US, seed: int = 1) -> Batch:
    """Readings of so many houses (those of ``each`` minutes, less the gaps), in the order of their times.

    Gaps are of a few minutes, or of one to three hours. Some houses read within the same instant.
    """
    rows: list[Row] = []
    for n in range(devices):
        rng = random.Random(seed * 1_000 + n)
        rows += _house(f"house-{n}", n, _household()[n * 8_000 :][:each], begin_us, rng)
    rows.sort(key=lambda row: row["ts"])
    return batch_of(rows, {**FIELDS, **TAGS})


def _house(name: str, n: int, minutes: list[list[float | None]], begin_us: int, rng: random.Random) -> Iterator[Row]:
    skip, meter = 0, 0.0
    for minute, (power, voltage, intensity, kitchen, heating) in enumerate(minutes):
        meter += 1_000 / 60 * (power or 0.0)
        skip -= 1
        if skip > 0:
            continue
        if rng.random() < 0.05:
            skip = rng.choice([1, 2, 4, 6] * 6 + [60, 150])
        level = "off" if (intensity or 0.0) < 1.5 else "low" if (intensity or 0.0) < 6 else "high"
        yield {
            "device": name,
            "ts": begin_us + minute * MINUTE + (rng.randrange(40 * SECOND) if minute % 4 else 0),
            "power": None if rng.random() < 0.05 else power,
            "voltage": voltage,
            "intensity": intensity,
            "kitchen": None if kitchen is None else int(kitchen),
            "heating": None if heating is None or rng.random() < 0.03 else int(heating),
            "meter": int(meter) % _METER_ROUND,
            "mode": None if rng.random() < 0.04 else level,
            "on": None if heating is None else heating > 0,
            "location": _LOCATIONS[n % 4],
            "floor": n // 2,
        }


@cache
def _household() -> list[list[float | None]]:
    """Minute by minute: active power (kW), voltage (V), intensity (A), two sub-meters (Wh)."""
    names = ("global_active_power", "voltage", "global_intensity", "sub_metering_1", "sub_metering_3")
    with (DATA / "household_power.csv").open(encoding="utf-8", newline="") as file:
        return [[None if row[name] == "NA" else float(row[name]) for name in names] for row in csv.DictReader(file)]


def machine() -> Batch:
    """The machine's temperature as field ``power`` (the others missing), in the order of the recording."""
    with (DATA / "machine_temperature.csv").open(encoding="utf-8", newline="") as file:
        rows = [
            {
                "device": "machine",
                "ts": int(datetime.fromisoformat(row["timestamp"]).replace(tzinfo=UTC).timestamp()) * SECOND,
                "power": float(row["value"]),
            }
            for row in csv.DictReader(file)
        ]
    return batch_of(rows, {**FIELDS, **TAGS})


def batch_of(rows: Iterable[Row], names: Iterable[str]) -> Batch:
    """Rows (``device``, ``ts`` in µs, what they say of ``names``) as a batch."""
    rows = list(rows)
    devices = [row["device"] for row in rows]
    columns = {name: [row.get(name) for row in rows] for name in names}
    return Batch(devices, np.array([row["ts"] for row in rows], np.int64), {"device": devices, **columns})


def arrow(batch: Batch) -> pa.Table:
    """The readings as a table: device, ts (µs), fields, tags, and ``arrival``: their places in the batch."""
    types = {"float": pa.float64(), "int": pa.int64(), "text": pa.string(), "bool": pa.bool_()}
    columns = {name: pa.array(batch.column(name).tolist(), types[kind]) for name, kind in {**FIELDS, **TAGS}.items()}
    places = pa.array(np.arange(len(batch)))
    return pa.table(
        {"device": pa.array(batch.devices.tolist()), "ts": pa.array(batch.ts_us), "arrival": places, **columns}
    )


def shuffled(batch: Batch, grace_us: int, seed: int) -> Batch:
    """The readings in another order: none arrives after one that is ``grace_us`` or more beyond it."""
    jitter = np.random.default_rng(seed).integers(0, max(grace_us, 1), len(batch))
    return batch.take(np.argsort(batch.ts_us + jitter, kind="stable"))


def batches(batch: Batch, seed: int) -> Iterator[Batch]:
    """The readings, cut anywhere."""
    rng, place = random.Random(seed), 0
    while place < len(batch):
        size = rng.choice([1, 1, 7, 40, 200, 1_000])
        yield batch.take(np.arange(place, min(place + size, len(batch))))
        place += size


def spec_of(stream: str) -> WindowSpec:
    """A stream over the houses, as the pipeline file says it (without its ``from``)."""
    lines = ["[topics.houses]", "partitions = 1", 'retention = "30d"', "[topics.houses.tags]"]
    lines += [f'{name} = "{kind}"' for name, kind in TAGS.items()]
    lines += ["[topics.houses.fields]"]
    lines += [f'{name} = {{ type = "{kind}", optional = true }}' for name, kind in FIELDS.items()]
    return WindowSpec.of(parse("\n".join([*lines, "[streams.s]", 'from = "houses"', stream])), "s")


def said_of(spec: WindowSpec, parts: Iterable[Batch], *, silence: bool = True) -> tuple[list[Row], WindowOperator]:
    """The final windows of readings that come in these batches (and then, with ``silence``, no more for ever).

    Columns: ``group``, ``start`` and ``end`` (µs), ``count``, the aggregates.
    """
    windowed, now_us, rows = WindowOperator(spec), BEGIN_US, []
    for part in parts:
        now_us += SECOND
        rows += _rows(spec, windowed.add(part, now_us).results)
    if silence:
        rows += _rows(spec, windowed.tick(now_us + FOR_EVER_US).results)
    return rows, windowed


def names_of(spec: WindowSpec) -> list[str]:
    """The names of what a window of this stream says of its fields."""
    return [f"{measure.field}_{aggregate}" for measure in spec.measures for aggregate in measure.aggregates]


def _rows(spec: WindowSpec, results: Batch | None) -> list[Row]:
    if results is None:
        return []
    names = ["end", "count", *names_of(spec)]
    columns = [results.devices, results.ts_us.tolist(), *map(results.column, names)]
    assert all(results.column("final"))
    return [dict(zip(["group", "start", *names], values, strict=True)) for values in zip(*columns, strict=True)]
