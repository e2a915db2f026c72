"""Recordings whose rows the store would not keep: their times against its retention, by a look into the file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from headrace.batch import Int64s
from headrace.duration import Duration
from headrace.pipeline import Pipeline
from headrace.pipeline.model import Replay
from headrace.recorded_times import NoTimeError, recorded_times, written

DAY_US = 86_400_000_000


@dataclass(frozen=True)
class Outdated:
    """A replay of rows that are too old: all of them, or the first ones. ``name`` is the producer's."""

    name: str
    whole: bool
    problem: str
    fix: str


def outdated_recordings(pipeline: Pipeline, folder: Path, now_us: int) -> Iterator[Outdated]:
    """The replays that send what ``[store] retention`` does not keep, as of now; paths begin at ``folder``.

    A recording that is absent or cannot be read is none: the producers say what is wrong with it.
    """
    keeps = pipeline.store.retention
    for name, producer in pipeline.producers.items():
        # What is replayed under the time of sending is never old.
        if not isinstance(producer, Replay) or (producer.shift == "now" and producer.speed > 0):
            continue
        span = _span(folder / producer.file, producer, now_us - keeps)
        if span is None:
            continue
        first_us, last_us = span
        moved_us = now_us - last_us if producer.shift == "now" else 0
        if first_us + moved_us >= now_us - keeps:
            continue
        # In rounds the times go on past the end of the recording.
        whole = last_us + moved_us < now_us - keeps and not producer.loop
        yield Outdated(
            name, whole, _problem(first_us, last_us, keeps, whole=whole), _fix(producer, first_us, last_us, now_us)
        )


def _problem(first_us: int, last_us: int, keeps: Duration, *, whole: bool) -> str:
    what = "all of its rows are" if whole else "it has rows that are"
    return (
        f"the recording is from {written(first_us)} to {written(last_us)}: {what} older than [store] keeps ({keeps}),"
        " and would be dropped"
    )


def _fix(producer: Replay, first_us: int, last_us: int, now_us: int) -> str:
    length_us = last_us - first_us if producer.shift == "now" else now_us - first_us
    other = "a speed above 0" if producer.shift == "now" else 'shift = "now"'
    return f'write retention = "{length_us // DAY_US + 2}d" in [store], or {other} here'


def _span(path: Path, declared: Replay, oldest_us: int) -> tuple[int, int] | None:
    """The first and the latest time in a recording; the first alone, twice, when that is not older than ``oldest_us``.

    None when it cannot be read, or has no time.
    """
    first = last = None
    try:
        for times in _times(path, declared):
            if len(times):
                first = int(times[0]) if first is None else first
                last = max(int(times.max()), int(times.max()) if last is None else last)
                if declared.shift == "none" and first >= oldest_us:
                    break
    except (OSError, pa.ArrowException, KeyError, NoTimeError):
        return None
    return None if first is None or last is None else (first, last)


def _times(path: Path, declared: Replay) -> Iterator[Int64s]:
    """The times of its rows, a chunk at a time."""
    columns = declared.time.columns
    for chunk in _chunks(path, declared):
        ts_us, there = recorded_times([_present(chunk.column(name), declared) for name in columns], declared.time)
        yield ts_us[np.flatnonzero(there)]


def _chunks(path: Path, declared: Replay) -> Iterator[pa.RecordBatch]:
    columns = list(declared.time.columns)
    if path.suffix in (".parquet", ".pq"):
        with pq.ParquetFile(path) as parquet:
            yield from parquet.iter_batches(columns=columns)
        return
    with pacsv.open_csv(
        str(path),
        read_options=pacsv.ReadOptions(use_threads=False),
        parse_options=pacsv.ParseOptions(delimiter=declared.delimiter),
        convert_options=pacsv.ConvertOptions(
            column_types=dict.fromkeys(columns, pa.string()), include_columns=columns, strings_can_be_null=False
        ),
    ) as csv:
        yield from csv


def _present(values: pa.Array, declared: Replay) -> pa.Array:
    """Texts trimmed, and null where they say that a value is missing."""
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        return values
    trimmed = pc.utf8_trim_whitespace(values)
    gone = pc.is_in(trimmed, pa.array(declared.missing, trimmed.type))
    return pc.if_else(gone, pa.scalar(None, trimmed.type), trimmed)
