"""What a bench measured: runs by round, their medians and ratios, a table for people and lines for results.jsonl."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Run:
    """One subject, once: so many readings in so many seconds, with the CPU and memory of its process (all threads)."""

    readings: int
    seconds: float
    cpu_s: float
    rss_mb: float

    @property
    def per_s(self) -> float:
        """Readings a second."""
        return self.readings / self.seconds

    def times(self, factor: int) -> Run:
        """The same where what was counted is messages of ``factor`` readings each."""
        return replace(self, readings=self.readings * factor)


Round = Mapping[str, Run]
"""The runs of one round, by subject: one after the other, on the same topic and broker."""


@dataclass
class Line:
    """What is said of a subject: medians over the rounds, and ratios to other subjects of the same rounds."""

    bench: str
    subject: str
    readings: int
    readings_per_s: float | None = None
    cpu_s: float | None = None
    rss_mb: float | None = None
    ratio: dict[str, float] = field(default_factory=dict)
    cpu_ratio: dict[str, float] = field(default_factory=dict)
    p50_ms: float | None = None
    p99_ms: float | None = None
    figures: dict[str, float] = field(default_factory=dict)
    rounds: int = 1
    note: str = ""

    def record(self, circumstances: Mapping[str, Any]) -> dict[str, Any]:
        """The line as it is kept."""
        own = {name: value for name, value in vars(self).items() if value not in (None, "", {})}
        return {**own, "ratio": self.ratio, **circumstances}


def lines(
    bench: str,
    rounds: Sequence[Round],
    against: Mapping[str, str],
    notes: Mapping[str, str],
    pairs: Mapping[str, tuple[str, str]] | None = None,
) -> list[Line]:
    """A line for each subject. ``against``: the name of a ratio, and the peer that it is to; peers have none.

    ``pairs``: the name of a ratio that one subject alone has, and both. A ratio is the median of the rounds' own
    ratios, so that a slow spell of the machine, which falls on all subjects of a round, does not spoil it.
    ``cpu_ratio`` is of CPU seconds a reading.
    """
    made = []
    for subject in rounds[0]:
        runs = [round_[subject] for round_ in rounds]
        line = Line(
            bench=bench,
            subject=subject,
            readings=runs[0].readings,
            readings_per_s=round(statistics.median(run.per_s for run in runs)),
            cpu_s=round(statistics.median(run.cpu_s for run in runs), 2),
            rss_mb=round(statistics.median(run.rss_mb for run in runs), 1),
            rounds=len(rounds),
            note=notes.get(subject, ""),
        )
        own = {name: other for name, (one, other) in (pairs or {}).items() if one == subject}
        shared = {} if subject in against.values() else against
        for name, other in {**shared, **own}.items():
            if all(other in round_ for round_ in rounds):
                compared = [(round_[subject], round_[other]) for round_ in rounds]
                line.ratio[name] = figure(statistics.median(run.per_s / peer.per_s for run, peer in compared))
                line.cpu_ratio[name] = figure(
                    statistics.median(
                        (run.cpu_s / run.readings) / max(peer.cpu_s / peer.readings, 1e-9) for run, peer in compared
                    )
                )
        made.append(line)
    return made


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which this share (0 to 1) of the values lies."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def show(console: Console, measured: Sequence[Line]) -> None:
    """Print a table of one bench."""
    table = Table(title=measured[0].bench, title_justify="left", title_style="bold")
    table.add_column("subject")
    for heading in ("readings", "readings/s", "CPU s", "MB", "p50 ms", "p99 ms"):
        table.add_column(heading, justify="right")
    table.add_column("times as fast as (CPU a reading)")
    table.add_column("note")
    for line in measured:
        table.add_row(
            line.subject,
            f"{line.readings:,}",
            "" if line.readings_per_s is None else f"{line.readings_per_s:,.0f}",
            "" if line.cpu_s is None else f"{line.cpu_s:.2f}",
            "" if line.rss_mb is None else f"{line.rss_mb:.0f}",
            "" if line.p50_ms is None else f"{line.p50_ms:.1f}",
            "" if line.p99_ms is None else f"{line.p99_ms:.1f}",
            "\n".join(f"{name} {value:g}{_cpu(line, name)}" for name, value in line.ratio.items()),
            "; ".join([*(f"{name} {value:,g}" for name, value in line.figures.items()), *filter(None, [line.note])]),
        )
    console.print(table)


def _cpu(line: Line, name: str) -> str:
    return f" ({line.cpu_ratio[name]:g})" if name in line.cpu_ratio else ""


def append(path: Path, measured: Sequence[Line], circumstances: Mapping[str, Any]) -> None:
    """Append a line of JSON for each subject."""
    with path.open("a", encoding="utf-8") as file:
        for line in measured:
            file.write(json.dumps(line.record(circumstances)) + "\n")


def figure(value: float) -> float:
    """Three significant digits: more would be noise."""
    return float(f"{value:.3g}")
