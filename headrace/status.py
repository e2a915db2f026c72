"""What the demo shows of a running line: rates, lag, watermarks, windows and the ledger."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from headrace.event_time import to_datetime
from headrace.ledger import Line
from headrace.pipeline import Pipeline
from headrace.stores import TOO_OLD
from headrace.verify import Verdict

OVER_S = 5.0
"""Rates are means over so many seconds."""

Key = tuple[str, str, str]


class Board:
    """Keeps what was seen of late, and draws it."""

    def __init__(self, pipeline: Pipeline, address: str) -> None:
        self._pipeline = pipeline
        self._address = address
        self._seen: deque[tuple[float, dict[Key, Line]]] = deque()
        self._lines: list[Line] = []
        self._rows = 0
        self._clients = 0

    def take(self, lines: Sequence[Line], rows: int, clients: int, now_s: float) -> None:
        """Take the ledger's lines as they are at ``now_s`` (a monotonic time)."""
        order = {"sinks": 0, "processors": 1}
        self._lines = sorted(lines, key=lambda line: (order[line.stage], line.name))
        self._rows, self._clients = rows, clients
        self._seen.append((now_s, {(line.stage, line.name, line.topic): line for line in lines}))
        while len(self._seen) > 2 and now_s - self._seen[0][0] > OVER_S:
            self._seen.popleft()

    def render(self, ran_s: float) -> RenderableType:
        """The live status."""
        head = Text.assemble(
            (f" {self._pipeline.name} ", "bold reverse"),
            f"  {_clock(ran_s)}   page {self._address}  ({self._rows:,} rows, {self._clients} open)",
        )
        return Group(
            head, self._raw(), self._windows(), *self._too_old(), Text(" Ctrl-C stops everything in order", "dim")
        )

    def line(self, ran_s: float) -> str:
        """The status in one line, for logs."""
        sinks = [line for line in self._lines if line.stage == "sinks" and line.topic in self._pipeline.topics]
        streams = [line for line in self._lines if line.stage == "processors"]
        return (
            f"{_clock(ran_s)}  in {sum(map(self._produced_rate, sinks)):,.0f}/s"
            f"  stored {sum(line.counts.get('stored', 0) for line in sinks):,}"
            f"  behind {sum(line.behind for line in self._lines):,}"
            f"  windows closed {sum(line.counts.get('closed', 0) for line in streams):,}"
            f"  late {sum(line.counts.get('late', 0) for line in streams):,}"
            f"  dead letters {sum(line.refused for line in sinks):,}"
            f"{self._dropped()}"
            f"  page rows {self._rows:,}"
            f"  ledger {'adds up' if all(line.sound for line in self._lines) else 'DOES NOT ADD UP'}"
        )

    def summary(self, verdict: Verdict, unchecked: str | None = None) -> str:
        """The ledger in the end, a line each; ``unchecked`` says why it was not recounted, if it was not."""
        rows = []
        for line in self._lines:
            # Which devices send from the future the ledger says; how many such readings there are is among these.
            counts = {name: n for name, n in sorted(line.counts.items()) if n and _is_shown(name)}
            listed = ", ".join(f"{name} {n:,}" for name, n in counts.items())
            rows.append(f"  {line.stage:10} {line.name:20} of {line.produced:,} messages: {listed}")
        said = "THE LEDGER DOES NOT ADD UP"
        if verdict.sound and unchecked is None:
            said = "the ledger adds up"
        elif verdict.sound:
            said = f"the ledger was not recounted: {unchecked}"
        waiting = sum(line.behind for line in self._lines)
        if waiting:
            said += f"; {waiting:,} messages wait in the broker and are read at the next start"
        return "\n".join([*rows, said])

    def _dropped(self) -> str:
        dropped = sum(line.dropped for line in self._lines if line.stage == "sinks")
        return f"  dropped {dropped:,}" if dropped else ""

    def _too_old(self) -> list[Text]:
        """A line for each topic whose readings the store does not keep."""
        keeps = self._pipeline.store.retention
        return [
            Text(
                f" {line.counts[TOO_OLD]:,} readings of {line.name} were dropped: older than [store] keeps ({keeps})",
                "yellow",
            )
            for line in self._lines
            if line.stage == "sinks" and line.counts.get(TOO_OLD)
        ]

    def _raw(self) -> Grid:
        kept = ("stored", "updated", "duplicate")
        grid = _grid("topic to store", "in/s", "stored/s", "lag", *kept, "dead letters", "dropped", "ledger")
        for line in self._lines:
            if line.stage == "sinks":
                grid.add_row(
                    line.name,
                    f"{self._produced_rate(line):,.0f}",
                    f"{self._rate(line, 'stored'):,.0f}",
                    f"{line.behind:,}",
                    *(f"{line.counts.get(name, 0):,}" for name in kept),
                    f"{line.refused:,}",
                    f"{line.dropped:,}",
                    _mark(line),
                )
        return grid

    def _windows(self) -> Grid:
        grid = _grid("stream", "read/s", "lag", "watermark", "open", "closed", "windowed", "late", "repeated", "ledger")
        for line in self._lines:
            if line.stage == "processors":
                count = line.counts.get
                grid.add_row(
                    line.name,
                    f"{self._rate(line, 'read'):,.0f}",
                    f"{line.behind:,}",
                    _watermark(line.watermark_us),
                    f"{count('open', 0):,}",
                    f"{count('closed', 0):,}",
                    f"{count('windowed', 0):,}",
                    f"{count('late', 0):,}",
                    f"{count('repeated', 0):,}",
                    _mark(line),
                )
        return grid

    def _rate(self, line: Line, name: str) -> float:
        then_s, then = self._seen[0]
        before = then.get((line.stage, line.name, line.topic))
        passed = self._seen[-1][0] - then_s
        if before is None or passed <= 0:
            return 0.0
        return (line.counts.get(name, 0) - before.counts.get(name, 0)) / passed

    def _produced_rate(self, line: Line) -> float:
        then_s, then = self._seen[0]
        before = then.get((line.stage, line.name, line.topic))
        passed = self._seen[-1][0] - then_s
        return 0.0 if before is None or passed <= 0 else (line.produced - before.produced) / passed


def _is_shown(name: str) -> bool:
    return name not in ("messages", "devices", "remembered") and not name.startswith("future:")


def _grid(first: str, *rest: str) -> Grid:
    grid = Grid(box=None, pad_edge=False, header_style="bold", padding=(0, 2))
    grid.add_column(first, min_width=16)
    for name in rest:
        grid.add_column(name, justify="right")
    return grid


def _mark(line: Line) -> Text:
    if line.sound:
        return Text("adds up", "green")
    return Text(f"{line.gap or line.missed:+,} off", "bold red")


def _watermark(us: int | None) -> str:
    if us is None:
        return "-"
    behind_s = time.time() - us / 1_000_000
    moment = to_datetime(us).strftime("%H:%M:%S")
    return (
        f"{moment} ({behind_s:,.1f} s ago)" if 0 <= behind_s < 3_600 else to_datetime(us).strftime("%Y-%m-%d %H:%M:%S")
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes:02}:{rest:02}"
