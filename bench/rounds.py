"""Rounds: all subjects of a bench, one after the other, as often as is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rich.console import Console

from bench.brokers import settle
from bench.measured import Round, Run


def rounds(bench: str, subjects: Mapping[str, Callable[[int], Run]], repeat: int, console: Console) -> list[Round]:
    """Measure all subjects in each round; each is told the round's number, to name by it what it leaves behind."""
    measured: list[Round] = []
    for number in range(1, repeat + 1):
        round_: dict[str, Run] = {}
        for name, measure in subjects.items():
            settle()
            round_[name] = measure(number)
            console.print(f"{bench}: round {number}, {name}: {round_[name].per_s:,.0f} readings/s")
        measured.append(round_)
    return measured
