"""What the command line says of a run of the benches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """``readings`` for the fast subjects, ``slow_readings`` for Quix and Bytewax; ``repeat`` rounds.

    Of ``soak``: ``rate`` readings a second for ``minutes``, drawn into the file ``picture``.
    """

    readings: int = 2_000_000
    slow_readings: int = 100_000
    repeat: int = 3
    rate: int = 10_000
    minutes: float = 60.0
    picture: Path | None = None
