"""How a stage consumes: the size of micro-batches, the time between checkpoints, the session with its group."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.errors import SettingsError


@dataclass(frozen=True)
class Consumption:
    """``batch``: messages a micro-batch at the most; ``commit_s``: how often to commit a checkpoint; ``session_s``:
    how long a member may be silent before the others of its group take its partitions.

    Raises SettingsError for micro-batches of no messages.
    """

    batch: int = 1_000
    commit_s: float = 1.0
    session_s: float = 10.0

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise SettingsError("a micro-batch of no messages", hint="write a batch of 1 or more")


USUAL = Consumption()
