"""A recording replayed: which rows are due when, under which times and devices. Time is an argument."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from headrace.batch import Batch, Int64s
from headrace.column import Column
from headrace.errors import SourceError
from headrace.event_time import parser
from headrace.pipeline.model import Replay, Time, Topic
from producers.pace import Pace
from producers.portion import Portion
from producers.recordings import Recording, Rows, Survey


@dataclass(frozen=True)
class Place:
    """How far a replay has come: the rows that each device has had, by device, and what its times are moved by.

    Rows are counted from the device's first on, over the end of the recording.
    """

    rows: tuple[int, ...]
    moved_us: int


class Places(Protocol):
    """Where a replay's place is kept over a stop."""

    def load(self) -> Place | None:
        """The place kept, if any."""
        ...

    def save(self, place: Place) -> None:
        """Keep the place; it stays whole whenever the process dies."""
        ...


class Cursor:
    """One device's way through a recording: from its own first row to the end, and over it to where it began.

    A row's progress is its time since ``origin_us``, in µs, going on over the end of the recording. ``taken``
    is how many rows, usable or not, have been come to. Without a survey there is one round, from the first row.
    """

    def __init__(
        self,
        recording: Recording,
        survey: Survey | None,
        *,
        start_row: int = 0,
        origin_us: int = 0,
        taken: int = 0,
        loop: bool = False,
    ) -> None:
        self.taken = taken
        self._start = start_row
        self._origin_us = origin_us
        self._total = 0 if survey is None else survey.rows
        self._period_us = 0 if survey is None else survey.period_us
        self._end = None if survey is None or loop else start_row + survey.rows
        self._pieces = self._read(recording)
        self._round = 0
        self._rows: Rows | None = None
        self._used = 0
        self._progress = self._due = np.empty(0, np.int64)

    def due(self, ahead: int = 1) -> int | None:
        """The progress at which the next ``ahead`` rows are due (or as many as are read); None at the end."""
        if not self._filled():
            return None
        return int(self._due[min(self._used + ahead, len(self._due)) - 1])

    def take(self, horizon: int) -> Taken | None:
        """The usable rows due at ``horizon``; None when there is none."""
        if not self._filled() or self._rows is None:
            return None
        begin = self._used
        end = begin + int(np.searchsorted(self._due[begin:], horizon, side="right"))
        if end == begin:
            return None
        self._used = end
        # The unusable rows behind the last usable one of a chunk go with it.
        row = self._rows.next if end == len(self._due) else int(self._rows.numbers[end - 1]) + 1
        self.taken = self._round * self._total + row - self._start
        which = slice(begin, end)
        return Taken(self._progress[which], self._due[which], self._rows, which)

    def _filled(self) -> bool:
        """Whether a usable row is at hand, after reading on if need be."""
        unusable = 0
        while self._used >= len(self._due):
            piece = next(self._pieces, None)
            if piece is None:
                return False
            self._round, rows = piece
            self._rows, self._used = rows, 0
            if not len(rows.numbers):
                self._due = self._due[-1:]
                self._used = len(self._due)
                self.taken = self._round * self._total + rows.next - self._start
                unusable += rows.next - rows.first
                if self._total and unusable > self._total:
                    return False  # a whole round without a usable row: so will be all others
                continue
            self._progress = rows.ts_us - self._origin_us + self._round * self._period_us
            # A row that is older than those before it is due with them, as it was when it was recorded.
            before = self._due[-1:]
            self._due = np.maximum.accumulate(np.concatenate([before, self._progress]))[len(before) :]
        return True

    def _read(self, recording: Recording) -> Iterator[tuple[int, Rows]]:
        """(round, rows) from the first row that has not been taken to the device's last."""
        absolute = self._start + self.taken
        while self._end is None or absolute < self._end:
            number, row = divmod(absolute, self._total) if self._total else (0, absolute)
            for rows in recording.rows(row):
                end = None if self._end is None else self._end - number * self._total
                yield number, rows if end is None or rows.next <= end else rows.part(rows.first, end)
                absolute = number * self._total + rows.next
                if self._end is not None and absolute >= self._end:
                    return
            if not self._total:
                return


@dataclass(frozen=True)
class Taken:
    """Rows that a cursor gave: their progress and when they are due, by progress, and ``which`` of ``rows``."""

    progress: Int64s
    due: Int64s
    rows: Rows
    which: slice


class Replaying:
    """A Source (see producers.portion) of a recording's readings.

    Counts: generated (rows come to), skipped (rows without a time, a device or a required field), sent.
    Always generated = sent + skipped.
    """

    def __init__(
        self, name: str, declared: Replay, topic: Topic, recording: Recording, places: Places, *, now_us: int
    ) -> None:
        self.name = name
        self.topic_name = declared.topic
        self.topic = topic
        self.columns = declared.columns
        self.linger_us = int(declared.linger)
        self.counts: Counter[str] = Counter()
        self.keeps_place = True
        self._declared = declared
        self._places = places
        n = 1 if declared.device else declared.devices
        ends_now = declared.speed == 0 and declared.shift == "now"
        survey = recording.survey() if declared.loop or n > 1 or ends_now else None
        place = places.load()
        self.resumed = place is not None and len(place.rows) == n
        taken = place.rows if place is not None and self.resumed else (0,) * n
        self._first_us = 0 if survey is None else survey.first_us
        self._moved_us = now_us - survey.last_us if ends_now and survey is not None else 0
        if place is not None and self.resumed and ends_now:
            # Moved as before, so that what is sent again is the same reading.
            self._moved_us = place.moved_us
        self._cursors = [_cursor(recording, survey, k, taken, loop=declared.loop) for k in range(n)]
        self._begun = self._saved = taken
        starts = [due for cursor in self._cursors if (due := cursor.due()) is not None]
        if not starts and not any(taken):
            raise SourceError(
                f"the recording {recording.path} holds no usable row",
                hint=f"each lacks its time, its device or a field that {declared.topic} requires",
            )
        self._pace = Pace(min(starts, default=0), now_us, declared.speed)
        self._names = [declared.name.format(n=k + 1, topic=declared.topic) for k in range(n)]
        self._constants = [_constants(declared, topic, k + 1) for k in range(n)]

    def due_us(self) -> int | None:
        """What the clock shows when the next row is to be sent; None after the last."""
        dues = [due for cursor in self._cursors if (due := cursor.due()) is not None]
        self._count()
        return self._pace.due(min(dues)) if dues else None

    def take(self, now_us: int, limit: int) -> Portion | None:
        """The readings due at ``now_us``, about ``limit`` at the most, all devices at the same progress."""
        share = max(1, limit // len(self._cursors))
        horizon = min([self._pace.reached(now_us), *(due for c in self._cursors if (due := c.due(share)) is not None)])
        taken = [(k, part) for k, cursor in enumerate(self._cursors) if (part := cursor.take(horizon)) is not None]
        batch = None
        if taken:
            batch = Batch.joined([self._batch(k, part) for k, part in taken], [*self.topic.tags, *self.topic.fields])
            if len(taken) > 1:
                batch = batch.take(np.argsort(np.concatenate([part.due for _, part in taken]), kind="stable"))
            self.counts["sent"] += len(batch)
        self._count()
        return None if batch is None else Portion(batch)

    def drain(self) -> Portion | None:
        """Nothing is held back."""
        return None

    def mark(self) -> None:
        """Keep the place: all taken so far has been acknowledged."""
        rows = tuple(cursor.taken for cursor in self._cursors)
        if rows != self._saved:
            self._places.save(Place(rows, self._moved_us))
            self._saved = rows

    def _count(self) -> None:
        come = sum(cursor.taken for cursor in self._cursors) - sum(self._begun)
        self.counts["generated"] = come
        self.counts["skipped"] = come - self.counts["sent"]

    def _batch(self, k: int, part: Taken) -> Batch:
        n, which = len(part.progress), part.which
        columns: dict[str, Column] = {}
        for name, declared in {**self.topic.tags, **self.topic.fields}.items():
            values = part.rows.columns.get(name)
            listed = [self._constants[k].get(name)] * n if values is None else values[which].to_pylist()
            columns[name] = Column.of(listed, declared.type)
        devices = [self._names[k]] * n if part.rows.devices is None else part.rows.devices[which].to_pylist()
        return Batch(devices, self._event_times(part.progress), columns)

    def _event_times(self, progress: Int64s) -> Int64s:
        pace = self._pace
        if self._declared.shift == "now" and pace.speed:
            passed = progress - pace.event_us
            return pace.wall_us + (passed if pace.speed == 1 else (passed / pace.speed).astype(np.int64))
        return progress + (self._first_us + self._moved_us)


def _cursor(recording: Recording, survey: Survey | None, k: int, taken: tuple[int, ...], *, loop: bool) -> Cursor:
    """The cursor of device ``k``, begun at its share of the recording's length."""
    if survey is None:
        return Cursor(recording, None, taken=taken[k])
    origin_us = survey.first_us + k * survey.period_us // len(taken)
    row = recording.start_row(survey, origin_us) if k else 0
    return Cursor(recording, survey, start_row=row, origin_us=origin_us, taken=taken[k], loop=loop)


def _constants(declared: Replay, topic: Topic, number: int) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in declared.constants.items():
        kind = {**topic.fields, **topic.tags}[name].type
        if isinstance(value, str) and "{n" in value:
            made[name] = value.format(n=number, topic=declared.topic)
        elif kind == "time":
            made[name] = int(parser(Time(format="iso8601"))([value])[0])
        else:
            made[name] = float(value) if kind == "float" else value
    return made
