"""From the pipeline file to the page: which tables the engine holds, which panels look at them, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from headrace.errors import SettingsError
from headrace.pipeline import Column, Pipeline, Table, all_tables, into
from headrace.pipeline.model import Hopping, Panel, Tumbling
from viewer import style
from viewer.engine_tables import CHART_DEVICES, EngineTable, Kind, Shape, Shown

BAR_DEVICES = 8
"""Bars of each device are in a small chart of their own, and so many fit beside each other."""
SPAN_US = 120_000_000
"""However fast a topic is, its lines are thinned so that a full chart spans this much event time."""
BAR_US = 5_000_000
"""A bar chart of readings has a bar for each such stretch of event time."""
MAX_DEFAULTS = 8
"""Without declared panels, as many topics and streams are shown as give no more panels than this."""

_KINDS: dict[str, Kind] = {
    "float": "float",
    "int": "float",
    "bool": "boolean",
    "text": "string",
    "time": "datetime",
}
_SHAPES: dict[str, Shape] = {"last": "last", "lines": "series", "bars": "series", "table": "rows"}


@dataclass(frozen=True)
class Page:
    """All that a page needs: the engine's tables, and panels by id with the two layouts that arrange them."""

    line: str
    tables: tuple[EngineTable, ...]
    panels: dict[str, dict[str, Any]]
    layouts: dict[str, dict[str, Any]]


def page(pipeline: Pipeline) -> Page:
    """The page of a pipeline: its declared panels, or else sensible ones.

    Raises SettingsError for a panel of what is not there (``headrace check`` finds it earlier).
    """
    sources = all_tables(pipeline)
    sizes_us = {
        into(pipeline, name): int(stream.window.step if isinstance(stream.window, Hopping) else stream.window.size)
        for name, stream in pipeline.streams.items()
        if isinstance(stream.window, Tumbling | Hopping)
    }
    tables: dict[EngineTable, EngineTable] = {}
    panels: dict[str, dict[str, Any]] = {}
    cells: list[style.Cell] = []
    for panel in pipeline.panels or defaults(pipeline):
        source = _source(pipeline, sources, panel)
        ids = []
        for title, wanted in _split(panel, source):
            made = _engine_table(source, panel, wanted, sizes_us.get(source.name))
            table = tables.setdefault(made, made)
            ids.append(f"panel-{len(panels) + 1}")
            panels[ids[-1]] = style.viewer(title, panel.kind, table, wanted)
        cells.append(style.Cell(panel.kind, source.kind, ids))
    return Page(
        line=pipeline.name,
        tables=tuple(tables),
        panels=panels,
        layouts={"wide": style.wide(cells), "narrow": style.narrow(cells)},
    )


def defaults(pipeline: Pipeline) -> list[Panel]:
    """Panels for a pipeline that declares none: for each topic last values and lines by device, for each
    stream lines of its means and a table of its windows.
    """
    tables = all_tables(pipeline)
    panels: list[Panel] = []
    for topic in sorted(pipeline.topics, key=lambda name: all(s.source != name for s in pipeline.streams.values())):
        panels.append(Panel(title=f"Last values · {topic}", kind="last", of=topic))
        if numbers := _numeric(tables[topic]):
            panels.append(_lines(topic, numbers))
        for name, stream in pipeline.streams.items():
            if stream.source == topic:
                numbers = _numeric(tables[into(pipeline, name)])
                means = [column for column in numbers if column.name.endswith("_mean")]
                panels.append(_lines(name, means or numbers))
                panels.append(Panel(title=f"Windows · {name}", kind="table", of=name))
    return panels[:MAX_DEFAULTS]


def _lines(name: str, columns: Sequence[Column]) -> Panel:
    title = f"{_label(columns[0])} · {name}" if len(columns) == 1 else name
    return Panel(title=title, kind="lines", of=name, columns=[column.name for column in columns])


def _source(pipeline: Pipeline, sources: dict[str, Table], panel: Panel) -> Table:
    name = into(pipeline, panel.of) if panel.of in pipeline.streams else panel.of
    if name not in sources:
        raise SettingsError(
            f"the panel {panel.title!r} is of {panel.of!r}, which is no topic or stream",
            hint="run `headrace check`",
        )
    table = sources[name]
    known = {table.key, table.time, *(column.name for column in (*table.columns, *table.tags))}
    for column in panel.columns:
        if column not in known:
            raise SettingsError(
                f"the panel {panel.title!r} shows {column!r}, which {panel.of!r} does not have",
                hint="run `headrace check`",
            )
    return table


def _engine_table(source: Table, panel: Panel, wanted: list[str], size_us: int | None) -> EngineTable:
    """The engine table that a panel looks at; equal for panels that can share one."""
    shape = _SHAPES[panel.kind]
    times, device = Column(source.time, "time"), Column(source.key, "text")
    if shape == "series":
        ordered: Sequence[Column] = (times, device, *_numeric(source))
    elif shape == "last":
        ordered = (device, *source.tags, *source.columns, times)
    else:
        ordered = (times, device, *source.columns, *source.tags)
    columns = tuple(Shown(_label(column), column.name, _KINDS[column.type]) for column in ordered)
    name = f"{source.name} {shape} {panel.rows}"
    if panel.kind == "lines":
        thin_us = SPAN_US * CHART_DEVICES // panel.rows if source.kind == "readings" else 0
        return EngineTable(name, source, shape, panel.rows, columns, thin_us=thin_us)
    if panel.kind != "bars":
        return EngineTable(name, source, shape, panel.rows, columns)
    stacked = all(style.adds_up(column) for column in wanted)
    devices = CHART_DEVICES if stacked else BAR_DEVICES
    windows = style.bars(size_us or BAR_US)
    return EngineTable(
        f"{source.name} {'stacked ' if stacked else ''}bars {panel.rows}",
        source,
        shape,
        min(panel.rows, windows * devices),
        columns,
        devices=devices,
        per_device=windows,
        thin_us=0 if size_us else BAR_US,
    )


def _numeric(table: Table) -> list[Column]:
    """The columns that a chart can show: numbers, except what is bookkeeping."""
    numbers = [column for column in table.columns if column.type in ("float", "int")]
    return [column for column in numbers if table.kind == "readings" or column.name != "revision"]


def _label(column: Column) -> str:
    return f"{column.name} ({column.unit})" if column.unit else column.name


def _split(panel: Panel, source: Table) -> list[tuple[str, list[str]]]:
    """The panel as the viewers it needs: one, or for charts one a column (axes of different units do not mix)."""
    if panel.kind in ("lines", "bars"):
        numeric = {column.name: column for column in _numeric(source)}
        columns = [name for name in panel.columns or numeric if name in numeric]
        if not columns:
            raise SettingsError(
                f"the panel {panel.title!r} is of kind {panel.kind}, and nothing that it shows is a number",
                hint='name columns that are numbers, or make it kind = "table"',
            )
        if len(columns) == 1:
            return [(panel.title, columns)]
        return [(f"{_label(numeric[name])} · {panel.title}", [name]) for name in columns]
    around = [source.time, source.key] if panel.kind == "table" else [source.key]
    wanted = panel.columns or [column.name for column in (*source.columns, *source.tags)]
    rest = [name for name in wanted if name not in (source.key, source.time)]
    if panel.kind == "table":
        return [(panel.title, [*around, *rest])]
    return [(panel.title, [*around, *rest, source.time])]
