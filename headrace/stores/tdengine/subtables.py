"""What the writer knows of a supertable's subtables: names, tags, and the newest time of each."""

# ruff: noqa: S608 - every name and text that stands in a statement is quoted

from __future__ import annotations

from typing import Any

import numpy as np
import taosws

from headrace.batch import Batch, Int64s
from headrace.field_types import FieldType
from headrace.pipeline.tables import Column, Table
from headrace.stores.rows import SaidTags, Tags
from headrace.stores.tdengine.connection import Connection
from headrace.stores.tdengine.names import literal, quoted, storable, subtable, supertable
from headrace.stores.tdengine.schema import Widths, widths

NEVER_US = -(2**63)

_TAG_VIEWS: dict[FieldType, Any] = {
    "float": taosws.double_to_tag,
    "int": taosws.big_int_to_tag,
    "bool": taosws.bool_to_tag,
    "text": taosws.varchar_to_tag,
    "time": lambda value: taosws.timestamp_to_tag(value, taosws.PyPrecision.Microseconds),
}


class Subtables:
    """The subtables of one supertable, each with a slot: its place in ``names``, ``views`` and ``newest_us``.

    True as long as no other process writes to the same partitions: the store forgets it when one did.
    """

    def __init__(self, connection: Connection, table: Table) -> None:
        self._connection = connection
        self._table = table
        self._slots: dict[str, int] = {}
        self._tags: list[Tags | None] = []
        self.widths: Widths = widths(connection, table)
        self.names: list[str] = []
        self.views: list[list[Any]] = []
        self.newest_us: Int64s = np.full(64, NEVER_US, dtype=np.int64)
        self._load()

    def slots(self, batch: Batch) -> Int64s:
        """The slot of each row's device; new devices get one, or -1 when their name is too long for a tag."""
        slots = self._slots
        try:
            return batch.devices.looked_up(slots)
        except KeyError:
            width = self.widths.tags[self._table.key]
            for device in dict.fromkeys(batch.devices):
                if device in slots:
                    continue
                if len(device.encode()) > width:
                    slots[device] = -1
                else:
                    self._add(device, subtable(self._table.name, device), None)
            return batch.devices.looked_up(slots)

    def said(self, batch: Batch, slots: list[int], places: list[int]) -> tuple[dict[int, Tags], list[int]]:
        """The tags that the batch changes, by slot, and the slots that have a tag too long to be held.

        ``places`` are the last rows of the devices in ``slots``.
        """
        tags = self._table.tags
        texts = [(i, self.widths.tags[column.name]) for i, column in enumerate(tags) if column.type == "text"]
        said = SaidTags(batch, [column.name for column in tags])
        changed: dict[int, Tags] = {}
        too_long = []
        for slot, place in zip(slots, places, strict=True):
            before = self._tags[slot]
            if before is not None and not tags:
                continue
            values = said.of(batch.devices[place], place, before)
            if values == before:
                continue
            values = tuple([storable(v) if isinstance(v, str) else v for v in values])
            if any(values[i] is not None and len(values[i].encode()) > width for i, width in texts):
                too_long.append(slot)
            elif values != before:
                changed[slot] = values
        return changed, too_long

    def describe(self, devices: dict[int, str], changed: dict[int, Tags]) -> None:
        """Change the tags of these slots on the server; new subtables are made with their first rows."""
        for slot, values in changed.items():
            before = self._tags[slot]
            if before is not None:
                changes = ", ".join(
                    f"{quoted(column.name)} = {_literal(value)}"
                    for column, value, known in zip(self._table.tags, values, before, strict=True)
                    if value != known
                )
                self._connection.execute(f"ALTER TABLE {quoted(self.names[slot])} SET TAG {changes}")
            self._remember(slot, devices[slot], values)

    def _load(self) -> None:
        """What the server holds already."""
        table = self._table
        name, key = quoted(supertable(table.name)), quoted(table.key)
        tags = "".join(f", {selected(column)}" for column in table.tags)
        for row in self._connection.query(f"SELECT TAGS tbname, {key}{tags} FROM {name}"):
            self._add(row[1], row[0], row[2:])
        places = {name: slot for slot, name in enumerate(self.names)}
        newest = f"CAST(LAST_ROW({quoted(table.time)}) AS BIGINT)"
        for row in self._connection.query(f"SELECT tbname, {newest} FROM {name} GROUP BY tbname"):
            slot = places.get(row[0])
            # One that is not known was made since the first question, by the sink of another partition.
            if slot is not None:
                self.newest_us[slot] = row[1]

    def _add(self, device: str, name: str, tags: Tags | None) -> None:
        slot = self._slots[device] = len(self.names)
        self.names.append(name)
        self._tags.append(None)
        self.views.append([])
        if slot >= len(self.newest_us):
            self.newest_us = np.concatenate([self.newest_us, np.full(len(self.newest_us), NEVER_US, dtype=np.int64)])
        if tags is not None:
            self._remember(slot, device, tags)

    def _remember(self, slot: int, device: str, tags: Tags) -> None:
        self._tags[slot] = tags
        views = [_TAG_VIEWS[column.type](value) for column, value in zip(self._table.tags, tags, strict=True)]
        self.views[slot] = [taosws.varchar_to_tag(device), *views]


def selected(column: Column) -> str:
    """A column as it is asked for: times as int µs, which the client would else give as text."""
    return f"CAST({quoted(column.name)} AS BIGINT)" if column.type == "time" else quoted(column.name)


def _literal(value: Any) -> str:
    if isinstance(value, str):
        return literal(value)
    return str(value).lower() if isinstance(value, bool) else repr(value)
