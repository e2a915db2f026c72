"""From rows of the store to the rows that an engine table is to show, as Arrow."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from headrace.stores import Columns
from viewer.engine import INDEX, arrow, column
from viewer.engine_tables import EngineTable
from viewer.positions import Series, place_all

MAX_TEXTS = 20_000
"""So many different texts may enter a table: the engine keeps each for ever."""
MAX_TEXT = 200
OTHER = "…"
"""What stands for a text beyond these bounds."""


class Shaping:
    """One engine table: takes the store's rows and says what changes in it. Not for two threads at once."""

    def __init__(self, table: EngineTable) -> None:
        self.table = table
        self.positions = table.positions()
        self._texts: set[str] = set()

    def rows(self, columns: Columns) -> bytes | None:
        """The upserts for these rows (oldest first, as a Tail gives them), as Arrow; None if none shows."""
        source = self.table.source
        thin_us = self.table.thin_us
        devices, times_us = columns[source.key], columns[source.time]
        if isinstance(self.positions, Series):
            self.positions.choose(devices)
        placed = place_all(self.positions, devices, times_us)
        if not placed:
            return None
        arrays = {INDEX: pa.array(list(placed), pa.int32())}
        for shown in self.table.columns:
            values = columns[shown.source]
            taken = [values[index] for index in placed.values()]
            if shown.source == source.time and thin_us:
                taken = [ts_us - ts_us % thin_us for ts_us in taken]
            arrays[shown.label] = column(self._bounded(taken) if shown.kind == "string" else taken, shown.kind)
        return arrow(arrays)

    def _bounded(self, values: list[Any]) -> list[str | None]:
        texts = self._texts
        bounded: list[str | None] = []
        for value in values:
            if value is None or value in texts:
                bounded.append(value)
            elif len(texts) < MAX_TEXTS and len(value) <= MAX_TEXT:
                texts.add(value)
                bounded.append(value)
            else:
                bounded.append(OTHER if len(value) <= MAX_TEXT else self._shortened(value))
        return bounded

    def _shortened(self, value: str) -> str:
        short = value[: MAX_TEXT - 1] + OTHER
        if short not in self._texts:
            if len(self._texts) >= MAX_TEXTS:
                return OTHER
            self._texts.add(short)
        return short
