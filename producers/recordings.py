"""Recordings in CSV and Parquet, read in chunks: a file of any size takes little memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from headrace.batch import Int64s
from headrace.errors import SourceError
from headrace.event_time import EPOCH
from headrace.pipeline.model import Field, Replay, Topic
from headrace.pipeline.nearest import nearest_name
from headrace.recorded_times import NoTimeError, recorded_times

CHUNK_BYTES = 1 << 20
KEPT_BYTES = 32 << 20
"""A file no larger than this is read once when several devices or rounds replay it."""
_TRUE, _FALSE = ("true", "t", "yes", "y", "on", "1"), ("false", "f", "no", "n", "off", "0")


@dataclass(frozen=True)
class Rows:
    """Rows of a recording that make readings.

    Of the rows ``first`` to ``next`` - 1 of the file (from 0) those in ``numbers`` are usable; the others
    miss their time, their device or a required field. ``columns`` are by the topic's names.
    """

    first: int
    next: int
    numbers: Int64s
    ts_us: Int64s
    devices: pa.Array | None
    columns: Mapping[str, pa.Array]

    def part(self, first: int, after: int) -> Rows:
        """The rows from ``first`` to ``after`` - 1 of these."""
        which = slice(*np.searchsorted(self.numbers, [first, after]).tolist())
        return Rows(
            first,
            after,
            self.numbers[which],
            self.ts_us[which],
            None if self.devices is None else self.devices[which],
            {name: values[which] for name, values in self.columns.items()},
        )


@dataclass(frozen=True)
class Survey:
    """What a look through the whole recording tells.

    ``first_us`` and ``last_us`` bound its times, ``step_us`` is their usual distance, ``rows`` is how many it
    holds, ``marks`` are (next row, latest time so far) after each chunk.
    """

    first_us: int
    last_us: int
    step_us: int
    rows: int
    marks: Sequence[tuple[int, int]]

    @property
    def period_us(self) -> int:
        """How long one round takes: at its end the first row follows the last at the usual distance."""
        return self.last_us - self.first_us + self.step_us


class Recording:
    """A recording as a declaration maps it to a topic. Opening it reads no more than its header.

    Raises SourceError for a file that is absent, empty or unreadable, and for a column that it lacks.
    """

    def __init__(self, path: Path, declared: Replay, topic: Topic) -> None:
        self.path = path
        self.declared = declared
        self._parquet = path.suffix in (".parquet", ".pq")
        self._kept: list[Rows] | None = None
        names = self._names()
        for column in [*declared.time.columns, *([declared.device] if declared.device else [])]:
            self._require(column, names)
        self.fields: dict[str, Field] = {**topic.fields, **topic.tags}
        self.mapped: dict[str, str] = {}
        self._required = [name for name, field in topic.fields.items() if not field.optional]
        for name, field in self.fields.items():
            column = declared.fields.get(name, name)
            if name in declared.fields:
                self._require(column, names)
            if column in names and name not in declared.constants:
                self.mapped[name] = column
            elif name in topic.fields and name not in declared.constants and not field.optional:
                raise SourceError(
                    f"{path} gives nothing for {name}, which {declared.topic} requires",
                    hint=f'name its column, as fields = {{ {name} = "{_guess(name, names)}" }}, or give it a constant',
                )

    def rows(self, first: int = 0) -> Iterator[Rows]:
        """The recording from row ``first`` (from 0) on, a chunk at a time.

        Raises SourceError, naming the row, for a value that is not of its field's type or no time.
        """
        again = self.declared.loop or self.declared.devices > 1
        if self._kept is None and again and self.path.stat().st_size <= KEPT_BYTES:
            self._kept = list(self._read(0))
        if self._kept is None:
            yield from self._read(first)
            return
        for rows in self._kept:
            if rows.next > first:
                yield rows if rows.first >= first else rows.part(first, rows.next)

    def _read(self, first: int) -> Iterator[Rows]:
        wanted = list(dict.fromkeys([*self._time_columns(), *self.mapped.values()]))
        for number, table in self._chunks(wanted, first):
            yield self._usable(number, table)

    def survey(self) -> Survey:
        """Look through the times of the whole recording. Raises SourceError when there is none."""
        first = last = None
        step = next_row = 0
        marks: list[tuple[int, int]] = []
        for number, table in self._chunks(self.declared.time.columns, 0):
            ts_us, there = self._times(number, table)
            times = ts_us[there]
            if len(times):
                steps = np.diff(times)
                steps = steps[steps > 0]
                if not step and len(steps):
                    step = int(np.median(steps))
                first = int(times[0]) if first is None else first
                last = int(times.max()) if last is None else max(last, int(times.max()))
            next_row = number + table.num_rows
            if last is not None:
                marks.append((next_row, last))
        if first is None or last is None:
            raise self._without_rows()
        return Survey(first, last, step or 1_000_000, next_row, marks)

    def start_row(self, survey: Survey, at_us: int) -> int:
        """The first usable row at ``at_us`` or later (0 if there is none)."""
        begin = 0
        for next_row, latest in survey.marks:
            if latest >= at_us:
                break
            begin = next_row
        for rows in self.rows(begin):
            found = np.flatnonzero(rows.ts_us >= at_us)
            if len(found):
                return int(rows.numbers[found[0]])
        return 0

    def _time_columns(self) -> list[str]:
        return [*self.declared.time.columns, *([self.declared.device] if self.declared.device else [])]

    def _names(self) -> list[str]:
        if not self.path.is_file():
            raise SourceError(
                f"the recording {self.path} is not there",
                hint="a relative path begins at the pipeline file's folder; for --file at the working folder",
            )
        if self.path.stat().st_size == 0:
            raise SourceError(f"the recording {self.path} is empty", hint="it needs a header and rows")
        with self._opened() as reader:
            return list(reader.schema_arrow.names if self._parquet else reader.schema.names)

    def _require(self, column: str, names: Sequence[str]) -> None:
        if column not in names:
            raise SourceError(f"{self.path} has no column {column!r}", hint=nearest_name(column, names))

    def _opened(self, columns: Sequence[str] = ()) -> Any:
        try:
            if self._parquet:
                return pq.ParquetFile(self.path)
            return pacsv.open_csv(
                str(self.path),
                read_options=pacsv.ReadOptions(block_size=CHUNK_BYTES, use_threads=False),
                parse_options=pacsv.ParseOptions(delimiter=self.declared.delimiter),
                convert_options=pacsv.ConvertOptions(
                    # All as text: what a value means is decided here, where its row is known.
                    column_types=dict.fromkeys(columns, pa.string()),
                    include_columns=list(columns),
                    strings_can_be_null=False,
                ),
            )
        except (pa.ArrowException, OSError) as error:
            raise self._unreadable(error) from None

    def _chunks(self, columns: Sequence[str], first: int) -> Iterator[tuple[int, pa.Table]]:
        """(number of its first row, chunk) from row ``first`` on."""
        number = 0
        with self._opened(columns) as reader:
            batches = reader.iter_batches(16_384, columns=list(columns)) if self._parquet else iter(reader)
            while True:
                try:
                    batch = next(batches, None)
                except (pa.ArrowException, OSError) as error:
                    raise self._unreadable(error, after=number) from None
                if batch is None:
                    return
                begin, number = number, number + batch.num_rows
                if number > first:
                    skip = max(0, first - begin)
                    yield begin + skip, batch.slice(skip)

    def _usable(self, number: int, table: Any) -> Rows:
        ts_us, keep = self._times(number, table)
        devices = None
        if self.declared.device is not None:
            devices = self._present(table.column(self.declared.device))
            devices = devices if pa.types.is_string(devices.type) else devices.cast(pa.string())
            keep = keep & devices.is_valid().to_numpy(zero_copy_only=False)
        columns = {}
        for name, column in self.mapped.items():
            values = columns[name] = self._typed(self._present(table.column(column)), name, column, number)
            if name in self._required:
                keep = keep & values.is_valid().to_numpy(zero_copy_only=False)
        places = np.flatnonzero(keep)
        if len(places) < table.num_rows:
            columns = {name: values.take(pa.array(places)) for name, values in columns.items()}
            devices = None if devices is None else devices.take(pa.array(places))
            ts_us = ts_us[places]
        return Rows(number, number + table.num_rows, number + places, ts_us, devices, columns)

    def _times(self, number: int, table: Any) -> tuple[Int64s, Any]:
        time = self.declared.time
        try:
            return recorded_times([self._present(table.column(name)) for name in time.columns], time)
        except NoTimeError as error:
            raise SourceError(
                f"{self.path}, row {number + error.place + 1}: {error.text!r} is no time of the format {time.format}",
                hint=f"correct the row, or the format of the time in {', '.join(time.columns)}",
            ) from None

    def _present(self, values: Any) -> pa.Array:
        """Texts trimmed, and null where they say that a value is missing."""
        if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
            return values
        trimmed = pc.utf8_trim_whitespace(values)
        gone = pc.is_in(trimmed, pa.array(self.declared.missing, trimmed.type))
        return pc.if_else(gone, pa.scalar(None, trimmed.type), trimmed)

    def _typed(self, values: pa.Array, name: str, column: str, number: int) -> pa.Array:
        convert = _CONVERSIONS[self.fields[name].type]
        if pa.types.is_string(values.type) and self.declared.decimal == "," and convert is not _text:
            values = pc.replace_substring(values, ",", ".")
        try:
            return convert(values)
        except (pa.ArrowException, ValueError):
            place = _first_bad(values, convert)
        text = str(values[place])
        kind = self.fields[name].type
        raise SourceError(
            f"{self.path}, row {number + place + 1}: {column} is {text!r}, and {name} is declared as {kind}",
            hint=f'correct the row, declare {name} otherwise, or add "{text}" to missing if it stands for no value',
        )

    def _unreadable(self, error: Exception, *, after: int | None = None) -> SourceError:
        text = str(error).splitlines()[0]
        where = "" if after is None else f" after row {after}"
        kind = "Parquet" if self._parquet else f"CSV with {self.declared.delimiter!r} between its columns"
        return SourceError(f"{self.path} cannot be read{where}: {text}", hint=f"it was read as {kind}")

    def _without_rows(self) -> SourceError:
        return SourceError(f"the recording {self.path} holds no row with a time", hint="look into the file")


def _guess(name: str, names: Sequence[str]) -> str:
    close = nearest_name(name, names)
    return close.removeprefix("write ") if not close.startswith(("write one of", "there")) else names[0]


def _float(values: pa.Array) -> pa.Array:
    made = values.cast(pa.float64(), safe=False)
    # NaN and infinities are how some recorders write that there is no value.
    return pc.if_else(pc.is_finite(made), made, pa.scalar(None, pa.float64()))


def _int(values: pa.Array) -> pa.Array:
    if pa.types.is_string(values.type):
        try:
            return values.cast(pa.int64())
        except pa.ArrowInvalid:
            values = _float(values)  # whole numbers may be written as 4.0
    elif pa.types.is_floating(values.type):
        values = _float(values)
    return values.cast(pa.int64())


def _bool(values: pa.Array) -> pa.Array:
    if pa.types.is_boolean(values.type):
        return values
    lower = pc.utf8_lower(values if pa.types.is_string(values.type) else _int(values).cast(pa.string()))
    true, false = (pc.is_in(lower, pa.array(words)) for words in (_TRUE, _FALSE))
    if not pc.all(pc.or_(pc.or_(true, false), lower.is_null())).as_py() and len(lower):
        raise ValueError("neither true nor false")
    return pc.if_else(lower.is_null(), pa.scalar(None, pa.bool_()), true)


def _text(values: pa.Array) -> pa.Array:
    return values if pa.types.is_string(values.type) else values.cast(pa.string())


def _time(values: pa.Array) -> pa.Array:
    if pa.types.is_timestamp(values.type):
        return values.cast(pa.timestamp("us", tz=values.type.tz or "UTC"), safe=False).cast(pa.int64())
    return pa.array([None if text is None else _zoned_us(text) for text in _text(values).to_pylist()], pa.int64())


def _zoned_us(text: str) -> int:
    moment = datetime.fromisoformat(text)
    return (moment.replace(tzinfo=moment.tzinfo or UTC) - EPOCH) // timedelta(microseconds=1)


_CONVERSIONS: dict[str, Callable[[pa.Array], pa.Array]] = {
    "float": _float,
    "int": _int,
    "bool": _bool,
    "text": _text,
    "time": _time,
}


def _first_bad(values: pa.Array, convert: Callable[[pa.Array], pa.Array]) -> int:
    for place in range(len(values)):
        try:
            convert(values.slice(place, 1))
        except (pa.ArrowException, ValueError):
            return place
    return 0
