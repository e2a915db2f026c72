"""The tables that the engine holds: a table of the store in one of three shapes.

- ``last``: one row a device, its newest;
- ``series``: the newest rows of a few devices, for charts;
- ``rows``: the newest rows of all devices, for tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from headrace.pipeline import Table
from viewer.positions import LastValues, Positions, Ring, Series

Shape = Literal["last", "series", "rows"]
Kind = Literal["float", "string", "boolean", "datetime"]
"""The types of the engine's columns."""

CHART_DEVICES = 10
"""A chart shows so many devices at the most: as many as there are colours."""


@dataclass(frozen=True)
class Shown:
    """A column of an engine table: what the page calls it, and where it comes from."""

    label: str
    source: str
    kind: Kind


@dataclass(frozen=True)
class EngineTable:
    """A table of the store in one shape, bounded by ``rows`` (devices, for ``last``).

    For ``series``: ``devices`` are shown at the most, ``per_device`` rows of each if given, and one row in
    each stretch of ``thin_us`` if that is not 0.
    """

    name: str
    source: Table
    shape: Shape
    rows: int
    columns: tuple[Shown, ...]
    devices: int = CHART_DEVICES
    per_device: int | None = None
    thin_us: int = 0

    def schema(self) -> dict[str, Kind]:
        """The engine's columns, without the index."""
        return {column.label: column.kind for column in self.columns}

    def label(self, source: str) -> str:
        """What the page calls a column of the store."""
        return next(column.label for column in self.columns if column.source == source)

    def positions(self) -> Positions:
        """New positions for its rows."""
        if self.shape == "last":
            return LastValues(self.rows)
        if self.shape == "series":
            return Series(self.rows, devices=self.devices, per_device=self.per_device, thin_us=self.thin_us)
        return Ring(self.rows)
