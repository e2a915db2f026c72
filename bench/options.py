"""What the command line says of a run of the benches."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """``readings`` for the fast subjects, ``slow_readings`` for Quix and Bytewax; ``repeat`` rounds."""

    readings: int = 2_000_000
    slow_readings: int = 100_000
    repeat: int = 3
