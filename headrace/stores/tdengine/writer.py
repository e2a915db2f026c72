"""How a batch gets into a supertable: sorted by device and time, held against what is there, bound as columns."""

# ruff: noqa: S608 - every name and text that stands in a statement is quoted

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import taosws

from headrace.batch import Batch, Int64s
from headrace.column import Column
from headrace.field_types import FieldType
from headrace.pipeline.tables import Table
from headrace.stores.rows import RANKING, Tags, rank, ranked
from headrace.stores.tdengine.connection import Connection
from headrace.stores.tdengine.names import literal, quoted, supertable
from headrace.stores.tdengine.subtables import Subtables, selected

# One call of stmt2 takes at most 32,767 rows of a subtable.
SUBTABLE_ROWS = 10_000
CALL_BYTES = 8_000_000
ASKED_SUBTABLES = 200
ASKED_TIMES = 1_000

_VIEWS: dict[FieldType, Any] = {
    "float": taosws.doubles_to_column,
    "int": taosws.big_ints_to_column,
    "bool": taosws.bools_to_column,
    "text": taosws.varchar_to_column,
    "time": taosws.micros_timestamps_to_column,
}


Key = tuple[str, int]
"""A subtable and a time (µs)."""
Row = tuple[Any, ...]


@dataclass(frozen=True)
class Planned:
    """A batch held against what is stored: how it counts, and what is to be done.

    ``places`` are the batch's rows that change something, by ``slots`` and time; None is all of them as they are.
    """

    new: int
    updated: int
    duplicate: int
    too_long: int
    batch: Batch
    places: Int64s | None
    slots: Int64s
    columns: list[Column]
    devices: dict[int, str]
    tags: dict[int, Tags]


class Writer:
    """Writes batches into one supertable."""

    _still_ours: Callable[[], None]

    def __init__(self, connection: Connection, table: Table) -> None:
        self._connection = connection
        self._table = table
        self._subtables = Subtables(connection, table)
        names = [column.name for column in table.columns]
        self._ranking = [names.index(name) for name in RANKING] if ranked(table) else None
        columns = [table.time, *(c.name for c in table.columns)]
        tags = [table.key, *(c.name for c in table.tags)]
        self._insert = (
            f"INSERT INTO ? USING {quoted(supertable(table.name))}"
            f" ({', '.join(map(quoted, tags))}) TAGS ({', '.join('?' * len(tags))})"
            f" ({', '.join(map(quoted, columns))}) VALUES ({', '.join('?' * len(columns))})"
        )
        self._row_bytes = 8 * (len(columns) + 1)

    def plan(self, batch: Batch) -> Planned:
        """See which rows are new, which repeat others, and which change what is stored."""
        whole = len(batch)
        batch, slots = self._fitting(batch)
        places, starts = self._sorted(batch, slots)
        devices, tags, misfits = self._said(batch, slots, places, starts)
        if misfits:
            fitting = np.flatnonzero(~np.isin(slots, misfits))
            batch, slots = batch.take(fitting), slots[fitting]
            places, starts = self._sorted(batch, slots)
        columns = [batch.column(column.name) for column in self._table.columns]
        sorted_slots = slots if places is None else slots[places]
        sorted_us = batch.ts_us if places is None else batch.ts_us[places]
        rows, there, updated = len(sorted_slots), 0, 0
        useless: list[int] = []
        old = np.flatnonzero(sorted_us <= self._subtables.newest_us[sorted_slots])
        if len(old) or rows < len(batch):
            old_places = old if places is None else places[old]
            stored = self._stored(sorted_slots[old], batch.ts_us[old_places]) if len(old) else {}
            asked = old_places if rows == len(batch) else np.union1d(old_places, _repeats(slots, batch.ts_us))
            compared = _Compared(self._rows(asked, slots, batch.ts_us, columns), stored, self._ranking)
            there, useless = compared.useless(old, old_places)
            updated = compared.updates()
        if useless:
            places = np.delete(np.arange(rows) if places is None else places, useless)
            sorted_slots = np.delete(sorted_slots, useless)
        new, misfit = rows - there, whole - len(batch)
        duplicate = len(batch) - new - updated
        return Planned(new, updated, duplicate, misfit, batch, places, sorted_slots, columns, devices, tags)

    def run(self, planned: Planned, still_ours: Callable[[], None]) -> None:
        """Write the planned rows. Returns when they are on the server's disk.

        What was planned was compared with what is stored, so nothing may be written once another writer is there.
        """
        still_ours()
        self._still_ours = still_ours
        self._subtables.describe(planned.devices, planned.tags)
        slots, places = planned.slots, planned.places
        n = len(slots)
        if not n:
            return
        starts = _starts(slots)
        ends = np.append(starts[1:], n)
        sorted_us = planned.batch.ts_us if places is None else planned.batch.ts_us[places]
        columns = [(column if places is None else column.take(places)).tolist() for column in planned.columns]
        group_slots = slots[starts]
        self._bind(group_slots.tolist(), starts.tolist(), ends.tolist(), sorted_us.tolist(), columns)
        newest = self._subtables.newest_us
        newest[group_slots] = np.maximum(newest[group_slots], sorted_us[ends - 1])

    def _bind(
        self, slots: list[int], starts: list[int], ends: list[int], ts_us: list[int], columns: Sequence[Sequence[Any]]
    ) -> None:
        times, names, tags = taosws.micros_timestamps_to_column, self._subtables.names, self._subtables.views
        makers = [(_VIEWS[c.type], values) for c, values in zip(self._table.columns, columns, strict=True)]
        row_bytes = self._row_bytes + sum(
            max(map(len, filter(None, values)), default=0)
            for c, values in zip(self._table.columns, columns, strict=True)
            if c.type == "text"
        )
        most_rows = max(1, CALL_BYTES // row_bytes)
        bound: list[Any] = []
        rows = 0
        for slot, start, end in zip(slots, starts, ends, strict=True):
            for a in range(start, end, min(SUBTABLE_ROWS, most_rows)):
                b = min(a + SUBTABLE_ROWS, a + most_rows, end)
                if rows + b - a > most_rows:
                    self._connection.insert(self._insert, bound, self._still_ours)
                    bound, rows = [], 0
                views = [times(ts_us[a:b])]
                views += [maker(values[a:b]) for maker, values in makers]
                bound.append(taosws.stmt2_bind_param_view(names[slot], tags[slot], views))
                rows += b - a
        self._connection.insert(self._insert, bound, self._still_ours)

    def _fitting(self, batch: Batch) -> tuple[Batch, Int64s]:
        """The rows whose device and texts TDengine can hold, and the slots of their devices."""
        slots = self._subtables.slots(batch)
        misfit = slots < 0
        for name, width in self._subtables.widths.columns.items():
            values = batch.column(name).tolist()
            # At most 4 bytes a character: only texts that may be too long are looked at one by one.
            if max(map(len, filter(None, values)), default=0) * 4 > width:
                misfit |= np.array([v is not None and len(v.encode()) > width for v in values], dtype=bool)
        if misfit.any():
            fitting = np.flatnonzero(~misfit)
            return batch.take(fitting), slots[fitting]
        return batch, slots

    def _said(
        self, batch: Batch, slots: Int64s, places: Int64s | None, starts: Int64s
    ) -> tuple[dict[int, str], dict[int, Tags], list[int]]:
        """What the batch says about its devices, by slot: names and changed tags; and the slots that do not fit."""
        if not len(starts):
            return {}, {}, []
        # The last row in order of arrival says it, not the one with the greatest time.
        last = np.maximum.reduceat(np.arange(len(slots)) if places is None else places, starts).tolist()
        group_slots = slots[last].tolist()
        tags, misfits = self._subtables.said(batch, group_slots, last)
        return {slot: batch.devices[place] for slot, place in zip(group_slots, last, strict=True)}, tags, misfits

    def _sorted(self, batch: Batch, slots: Int64s) -> tuple[Int64s | None, Int64s]:
        """The places of the rows by slot and time, None when they are so already, and where each slot starts.

        Of rows with the same slot and time there is one: the last, or of windows the last of the highest rank.
        """
        ts_us = batch.ts_us
        steps = np.diff(slots)
        if ((steps > 0) | ((steps == 0) & (np.diff(ts_us) > 0))).all():
            return None, _starts(slots)
        # Two bytes are sorted by radix, which is faster.
        narrow = slots.astype(np.uint16) if int(slots.max()) < 2**16 else slots
        places = np.argsort(narrow, kind="stable")
        if ((np.diff(slots[places]) == 0) & (np.diff(ts_us[places]) <= 0)).any():
            places = np.lexsort((ts_us, slots))
            same = (np.diff(slots[places]) == 0) & (np.diff(ts_us[places]) == 0)
            if same.any():
                if self._ranking is not None:
                    ranks = map(rank, *(batch.column(name).tolist() for name in RANKING))
                    revisions, finals, counts = np.array(list(ranks), np.int64).T
                    places = np.lexsort((counts, finals, revisions, ts_us, slots))
                places = places[np.append(~same, True)]
        return places, _starts(slots[places])

    def _rows(self, places: Int64s, slots: Int64s, ts_us: Int64s, columns: list[Column]) -> dict[int, tuple[Key, Row]]:
        """The batch's rows at these places, with their subtables and times, as they are stored."""
        names = self._subtables.names
        keys = [(names[slot], us) for slot, us in zip(slots[places].tolist(), ts_us[places].tolist(), strict=True)]
        listed = [_without_nan(column.take(places).tolist()) for column in columns]
        return dict(zip(places.tolist(), zip(keys, zip(*listed, strict=True), strict=True), strict=True))

    def _stored(self, slots: Int64s, ts_us: Int64s) -> dict[tuple[str, int], tuple[Any, ...]]:
        """The stored rows of these subtables among these times, by (subtable, time)."""
        t = quoted(self._table.time)
        names = ", ".join(["tbname", f"CAST({t} AS BIGINT)", *(selected(c) for c in self._table.columns)])
        times = np.unique(ts_us)
        when = f"{t} >= {times[0]} AND {t} <= {times[-1]}"
        if len(times) <= ASKED_TIMES:
            when += f" AND {t} IN ({', '.join(map(str, times.tolist()))})"
        subtables = [literal(self._subtables.names[slot]) for slot in np.unique(slots).tolist()]
        found: dict[tuple[str, int], tuple[Any, ...]] = {}
        for first in range(0, len(subtables), ASKED_SUBTABLES):
            which = ", ".join(subtables[first : first + ASKED_SUBTABLES])
            rows = self._connection.query(
                f"SELECT {names} FROM {quoted(supertable(self._table.name))} WHERE tbname IN ({which}) AND {when}"
            )
            found.update(((row[0], row[1]), row[2:]) for row in rows)
        return found


class _Compared:
    """Rows of a batch held against those of the same device and time that are stored, or come before them."""

    def __init__(
        self, rows: Mapping[int, tuple[Key, Row]], stored: Mapping[Key, Row], ranking: Sequence[int] | None
    ) -> None:
        """``rows``: by their places in the batch, in the order in which they came."""
        self._rows = rows
        self._stored = stored
        self._ranking = ranking

    def useless(self, old: Int64s, places: Int64s) -> tuple[int, list[int]]:
        """Of the rows at these places how many are stored, and which of ``old`` would change nothing for the better."""
        there = 0
        useless: list[int] = []
        for i, place in zip(old.tolist(), places.tolist(), strict=True):
            key, row = self._rows[place]
            if (known := self._stored.get(key)) is not None:
                there += 1
                if not self._replaces(row, known):
                    useless.append(i)
        return there, useless

    def updates(self) -> int:
        """How many rows replace another, each looked at after those that came before it."""
        updates = 0
        last: dict[Key, Row] = {}
        for key, row in self._rows.values():
            before = last.get(key, self._stored.get(key))
            if before is None or self._replaces(row, before):
                updates += before is not None
                last[key] = row
        return updates

    def _replaces(self, row: Row, before: Row) -> bool:
        if row == before:
            return False
        return self._ranking is None or _rank(row, self._ranking) >= _rank(before, self._ranking)


def _repeats(slots: Int64s, ts_us: Int64s) -> Int64s:
    """The places of rows whose slot and time other rows have, too."""
    order = np.lexsort((ts_us, slots))
    same = (np.diff(slots[order]) == 0) & (np.diff(ts_us[order]) == 0)
    repeated: Int64s = order[np.append(same, False) | np.append(False, same)]
    return repeated


def _without_nan(values: list[Any]) -> list[Any]:
    """Values as they are stored: what is no number is nothing."""
    return [None if isinstance(value, float) and math.isnan(value) else value for value in values]


def _rank(row: Row, ranking: Sequence[int]) -> tuple[int, bool, int]:
    return rank(*(row[place] for place in ranking))


def _starts(slots: Int64s) -> Int64s:
    """Where each slot begins among sorted ones."""
    if not len(slots):
        return np.empty(0, dtype=np.int64)
    return np.append(0, np.flatnonzero(np.diff(slots)) + 1)
