"""How panels look: Perspective's configuration of each, and the layouts that arrange them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from viewer.engine_tables import EngineTable, Shown

THEME = "Pro Dark"


class Cell(NamedTuple):
    """A panel's place: its kind, whether it shows readings or windows, and the ids of the viewers it needs."""

    kind: str
    of: str
    ids: list[str]


Cells = Sequence[Cell]

_LEGEND = {"legend_mode": "sidebar", "legend_size_mode": "fixed", "legend_width_px": 104}
_LINES = {"line_width_px": 1.5, "include_zero": False, **_LEGEND}
_STACKED = {"facet_mode": "overlay", "include_zero": True, "band_inner_frac": 0.9, "bar_inner_pad": 0.05, **_LEGEND}
# Bars in one plot are stacked, and a sum of means says nothing: each device has its own plot.
_BARS = {"facet_mode": "grid", "include_zero": True, "band_inner_frac": 0.9, "bar_inner_pad": 0.05}
# A value that rises or falls shows it for half a second, quietly: at many rows a second it must not flicker.
_PULSE = {"bg_mode": "pulse", "bg_color": "linear-gradient(#3f252c 0%, #1b1f24 50%, #1b3a2e 100%)"}
_COARSE_PREFIXES = ("k", "M", "G", "T")


def viewer(title: str, kind: str, table: EngineTable, columns: list[str]) -> dict[str, Any]:
    """Perspective's configuration of one panel: ``columns`` are the store's names."""
    device, time = table.label(table.source.key), table.label(table.source.time)
    labels = [table.label(name) for name in columns]
    shown = {column.label: column for column in table.columns}
    config: dict[str, Any] = {
        "table": table.name,
        "title": title,
        "theme": THEME,
        # The row that a table is born with holds nulls only.
        "filter": [[device, "is not null", None]],
        "columns_config": {label: _column(shown[label], table) for label in labels},
    }
    if kind in ("lines", "bars"):
        chart = "line" if kind == "lines" else "bar"
        looks = _LINES if kind == "lines" else _STACKED if all(adds_up(name) for name in columns) else _BARS
        return config | {
            "plugin": f"Y {chart.title()}",
            "columns": labels,
            "group_by": [time],
            "split_by": [device],
            "aggregates": dict.fromkeys(labels, "last"),
            "columns_config": {label: {"chart_type": chart} for label in labels},
            "plugin_config": looks,
        }
    order = [[time, "desc"]] if kind == "table" else [[device, "asc"]]
    return config | {"plugin": "Datagrid", "columns": labels, "sort": order}


def adds_up(column: str) -> bool:
    """Whether values of several devices may be stacked: counts and sums."""
    return column == "count" or column.endswith(("_count", "_sum"))


def bars(size_us: int) -> int:
    """How many bars of this width (µs) a chart shows: as many as put few labels on its time axis, for the
    charts give a label to each 1, 2 or 5 times a power of ten of milliseconds, however close these come.
    """
    return min(range(24, 11, -1), key=lambda count: round(_labels(count * size_us / 1000), 1))


def _labels(span_ms: float) -> float:
    range_ms = _nice(span_ms, (1, 2, 5, 10))
    return span_ms / _nice(range_ms / 6, (1.5, 3, 7, 10))


def _nice(value: float, bounds: tuple[float, float, float, float]) -> float:
    power: float = 10 ** math.floor(math.log10(value))
    digit = next((nice for nice, bound in zip((1, 2, 5, 10), bounds, strict=True) if value / power <= bound), 10)
    return digit * power


def _column(column: Shown, table: EngineTable) -> dict[str, Any]:
    if column.kind == "datetime":
        day = column.source != "end" or table.source.kind == "readings"
        parts: dict[str, Any] = {
            "format": "custom",
            "year": "disabled",
            "month": "short" if day else "disabled",
            "day": "2-digit" if day else "disabled",
            "hour": "2-digit",
            "minute": "2-digit",
            "second": "2-digit",
            "hour12": False,
        }
        if table.source.kind == "readings":
            parts["fractionalSecondDigits"] = 1
        return {"date_format": parts}
    if column.kind != "float":
        return {}
    source = table.source
    declared = next((c for c in (*source.columns, *source.tags) if c.name == column.source), None)
    unit = (declared.unit if declared else None) or ""
    decimals = 0 if declared and declared.type == "int" else 3 if unit[:1] in _COARSE_PREFIXES else 2
    style: dict[str, Any] = {"number_format": {"minimumFractionDigits": decimals, "maximumFractionDigits": decimals}}
    plain = declared in source.tags or (source.kind == "windows" and column.source in ("count", "revision"))
    if plain:
        return style | {"fg_mode": "disabled"}
    if table.shape == "last":
        style |= _PULSE
    return style


def wide(cells: Cells) -> dict[str, Any]:
    """The layout for a screen: each panel its place in one or two rows, or tabs by kind when there are many."""
    stacks = list(cells) if len(cells) <= 6 else _by_kind(cells)
    if len(stacks) <= 2:
        return _row(stacks)
    half = (len(stacks) + 1) // 2
    return _split("vertical", [_row(stacks[:half]), _row(stacks[half:])], [1, 1])


def narrow(cells: Cells) -> dict[str, Any]:
    """The layout for a narrow window: charts above, tables below, each a stack of tabs."""
    charts = [panel for cell in cells if cell.kind in ("lines", "bars") for panel in cell.ids]
    grids = [panel for cell in cells if cell.kind not in ("lines", "bars") for panel in cell.ids]
    stacks = [_tabs(stack) for stack in (charts, grids) if stack]
    return _split("vertical", stacks, [1] * len(stacks))


def _by_kind(cells: Cells) -> list[Cell]:
    stacks: dict[tuple[str, str], Cell] = {}
    for cell in cells:
        stacks.setdefault((cell.kind, cell.of), Cell(cell.kind, cell.of, [])).ids.extend(cell.ids)
    return list(stacks.values())


def _row(cells: Cells) -> dict[str, Any]:
    weights = [0.75 if cell.kind == "last" else 1 for cell in cells]
    return _split("horizontal", [_tabs(cell.ids) for cell in cells], weights)


def _tabs(ids: list[str]) -> dict[str, Any]:
    return {"type": "tab-layout", "tabs": ids, "selected": 0}


def _split(orientation: str, children: list[dict[str, Any]], weights: Sequence[float]) -> dict[str, Any]:
    if len(children) == 1:
        return children[0]
    sizes = [weight / sum(weights) for weight in weights]
    return {"type": "split-layout", "orientation": orientation, "children": children, "sizes": sizes}
