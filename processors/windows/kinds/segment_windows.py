"""Session, state and event windows: at most one is open in a group, and readings come in order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from headrace.batch import Int64s
from headrace.column import DTYPES, Bools, Column, as_array
from headrace.field_types import FieldType
from headrace.pipeline.model import Event, Session, State
from processors.windows.aggregates import Aggregates
from processors.windows.arrays import heads_of, with_room
from processors.windows.input.readings import Readings
from processors.windows.kinds import segments
from processors.windows.kinds.emitted import Emitted
from processors.windows.kinds.rows import Rows
from processors.windows.kinds.segments import NONE, Cut
from processors.windows.spec import ENDS, STARTS
from processors.windows.time.closed_up_to import ClosedUpTo


class SegmentWindows:
    """The open window of each group of one stream over one partition."""

    def __init__(self, window: Session | State | Event, aggregates: Aggregates, types: Mapping[str, FieldType]) -> None:
        self.window = window
        self.rows = Rows(aggregates)
        self.row: Int64s = np.empty(0, np.int64)
        """For each group the row of its open window, or -1."""
        self._value_type = DTYPES[types[window.field]] if isinstance(window, State) else None
        self._value = np.empty(0, self._value_type or np.int64)
        """For each group the value that its open window keeps, in state windows."""
        self.changed: list[Int64s] = []

    def add_groups(self, groups: int) -> None:
        """Know so many groups in all."""
        self.row = with_room(self.row, groups, -1)
        self._value = with_room(self._value, groups, "" if self._value.dtype.kind == "O" else 0)

    def take(self, readings: Readings) -> tuple[Emitted, int]:
        """Take readings in their order; the windows that they end, and how many of them are in no window."""
        slots, ts_us, columns = readings.slots, readings.ts_us, readings.columns
        heads = heads_of(slots)
        groups = slots[heads]
        open_rows = self.row[groups]
        cut = self._cut(heads, groups, open_rows, ts_us, columns)
        inside = np.flatnonzero(cut.inside)
        outside = len(slots) - len(inside)
        if not len(inside):
            return Emitted.none(), outside
        run = (np.cumsum(heads) - 1)[inside]
        begins, of = cut.begins[inside], slots[inside]
        # Windows in the order of their readings: one for each reading that begins one, and before these, in a
        # run that does not begin with one, the window that is open.
        first = heads_of(run)
        opens = first | begins
        number = np.cumsum(opens) - 1
        places = np.flatnonzero(opens)
        goes_on = ~begins[places]
        rows = np.empty(len(places), np.int64)
        rows[goes_on] = open_rows[run[places[goes_on]]]
        fresh = places[~goes_on]
        rows[~goes_on] = self.rows.take(of[fresh], ts_us[inside[fresh]])
        taken = {name: column.take(inside) for name, column in columns.items()} if outside else columns
        self.rows.aggregates.fold(self.rows.partials, rows[number], ts_us[inside], taken)
        # What was open and is followed by a beginning has ended, as has each window that another follows.
        replaced = open_rows[run[places[first[places] & begins[places]]]]
        followed = np.zeros(len(rows), np.bool_)
        followed[:-1] = ~first[places[1:]]
        over = followed | (np.bincount(number, cut.ends[inside], len(rows)) > 0)
        ended = np.concatenate([replaced[replaced >= 0], rows[over]])
        last = np.append(np.flatnonzero(first)[1:] - 1, len(inside) - 1)
        self.row[of[last]] = np.where(over[number[last]], -1, rows[number[last]])
        self.changed.append(rows[~over])
        return self._speak(ended, close=True), outside

    def _cut(self, heads: Any, groups: Int64s, open_rows: Int64s, ts_us: Int64s, columns: Mapping[str, Column]) -> Cut:
        window, partials = self.window, self.rows.partials
        is_open = open_rows >= 0
        if isinstance(window, Session):
            last, first = np.full(len(groups), NONE, np.int64), np.full(len(groups), NONE, np.int64)
            last[is_open] = partials["upto_us"][open_rows[is_open]]
            first[is_open] = partials["from_us"][open_rows[is_open]]
            longest = None if window.longest is None else int(window.longest)
            return segments.session(heads, ts_us, last, first, gap_us=int(window.gap), longest_us=longest)
        if isinstance(window, State):
            values, open_values = columns[window.field], Column(self._value[groups], is_open)
            cut = segments.state(heads, values, open_values)
            carried = segments.open_after_state(heads, values, open_values)
            self._value[groups] = carried.values
            return cut
        return segments.event(heads, columns[STARTS].values, columns[ENDS].values, is_open)

    def begin(self, groups: Int64s, closed_up_to: ClosedUpTo) -> None:
        """Nothing: windows follow the readings alone."""

    def advance(self, touched: Int64s, closed_up_to: ClosedUpTo) -> Emitted:  # noqa: ARG002 - any group's may end
        """The windows that end without a reading: sessions after their gap, others when their group is silent."""
        groups = np.flatnonzero(self.row >= 0)
        if isinstance(self.window, Session):
            last_us = self.rows.partials["upto_us"][self.row[groups]]
            over = last_us + int(self.window.gap) < closed_up_to.of(groups)
        else:
            over = closed_up_to.seen_us[groups] < closed_up_to.silent_us
        groups = groups[over]
        rows = self.row[groups]
        self.row[groups] = -1
        return self._speak(rows, close=True)

    def _speak(self, rows: Int64s, *, close: bool) -> Emitted:
        if not len(rows):
            return Emitted.none()
        aggregates = self.rows.aggregates
        rows = rows[np.lexsort((self.rows.slot[rows], self.rows.partials["from_us"][rows]))]
        partials = aggregates.take(self.rows.partials, rows)
        emitted = Emitted(
            self.rows.slot[rows].copy(), partials["from_us"], partials["upto_us"], aggregates.results(partials)
        )
        if close:
            self.rows.give_back(rows)
        return emitted

    def provisional(self) -> Emitted:
        """The open windows that have changed since they last emitted, as they are now."""
        if not self.changed:
            return Emitted.none()
        rows = np.unique(np.concatenate(self.changed))
        self.changed = []
        live = rows[self.rows.live[rows]]
        return self._speak(live, close=False)

    def forget_changes(self) -> None:
        """Count no window as changed."""
        self.changed.clear()

    @property
    def oldest_open_us(self) -> int | None:
        """The time of the oldest reading in an open window; None without any."""
        return self.rows.oldest_us

    def open_windows(self) -> int:
        """How many windows are open."""
        return len(self.rows)

    def open_readings(self) -> int:
        """How many readings these hold."""
        return self.rows.readings()

    def holds(self, groups: Int64s, unknown_us: int) -> Bools:  # noqa: ARG002 - as the other kinds
        """Of which of n groups a window is open."""
        held: Bools = self.row[groups] >= 0
        return held

    def forget(self, groups: Int64s) -> None:
        """Keep no value of these groups."""
        self._value[groups] = "" if self._value.dtype.kind == "O" else 0

    def packed(self, first: int, last: int) -> dict[str, Any]:
        """The open windows of the groups from ``first`` up to ``last``, for MessagePack."""
        rows = self.row[first:last]
        packed = self.rows.packed(rows[rows >= 0])
        if self._value_type is not None:
            packed["values"] = self._value[first:last][rows >= 0].tolist()
        return packed

    def unpack(self, packed: dict[str, Any], dtypes: dict[str, Any]) -> None:  # noqa: ARG002 - as the other kinds
        """Take up what was packed."""
        rows = self.rows.unpack(packed)
        if not len(rows):
            return
        slots = self.rows.slot[rows]
        self.row[slots] = rows
        if self._value_type is not None:
            self._value[slots] = as_array(packed["values"], self._value_type)
        self.changed.append(rows)
