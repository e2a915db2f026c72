"""What both stores do with the rows of a scan: name their devices, add their tags, put them in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from headrace.batch import Batch, Int64s
from headrace.column import BLANKS, DTYPES, Array, as_array
from headrace.column import Column as Values
from headrace.errors import StoreError
from headrace.pipeline.tables import Column, Table

Chosen = tuple[tuple[Column, ...], tuple[Column, ...]]


def chosen(table: Table, names: Sequence[str] | None) -> Chosen:
    """The columns and the tags of these names (all if None), each in the table's order. StoreError for another name."""
    if names is None:
        return table.columns, table.tags
    there = {column.name for column in (*table.columns, *table.tags)}
    for name in names:
        if name not in there:
            raise StoreError(f"{table.name} has no column or tag {name}", hint=f"it has {', '.join(sorted(there))}")
    return tuple(c for c in table.columns if c.name in names), tuple(c for c in table.tags if c.name in names)


class Devices:
    """The devices of a table by code: its place in order of name. With their tags, as they were when it was made."""

    def __init__(self, tags: Sequence[Column], rows: Sequence[tuple[Any, ...]]) -> None:
        """``rows`` are (name, tags), in order of name."""
        self.names: list[str] = [row[0] for row in rows]
        self.places = {name: place for place, name in enumerate(self.names)}
        self._tags = [(tag.name, _Tag(tag, [row[place] for row in rows])) for place, tag in enumerate(tags, start=1)]

    def batch(self, codes: Int64s, ts_us: Int64s, columns: dict[str, Values]) -> Batch:
        """The rows of these devices and times, in order of time, and of device name where times are equal."""
        columns |= {name: tag.of(codes) for name, tag in self._tags}
        batch = Batch(Values.coded(self.names, codes), ts_us, columns)
        order = _order(codes, ts_us, len(self.names))
        return batch if order is None else batch.take(order)


class _Tag:
    """The values of a tag, by the code of the device."""

    def __init__(self, tag: Column, listed: list[Any]) -> None:
        self._words: list[str] | None = None
        self._valid = None if None not in listed else as_array([value is not None for value in listed], bool)
        if tag.type == "text" and self._valid is None:
            self._words = list(dict.fromkeys(listed))
            places = {word: place for place, word in enumerate(self._words)}
            self._values: Array = np.fromiter(map(places.__getitem__, listed), np.int64, len(listed))
            return
        dtype = DTYPES[tag.type]
        blank = BLANKS[dtype.kind]
        self._values = as_array([blank if value is None else value for value in listed], dtype)

    def of(self, codes: Int64s) -> Values:
        values = self._values[codes]
        if self._words is not None:
            return Values.coded(self._words, values)
        return Values(values, None if self._valid is None else self._valid[codes])


def _order(codes: Int64s, ts_us: Int64s, devices: int) -> Int64s | None:
    """The places of the rows in order of time and device; None if they are in order."""
    if len(ts_us) < 2:
        return None
    least = int(ts_us.min())
    if (int(ts_us.max()) - least + 1) * devices < 2**63:
        key = (ts_us - least) * devices + codes
        return None if (key[1:] > key[:-1]).all() else np.argsort(key)
    return np.lexsort((codes, ts_us))
