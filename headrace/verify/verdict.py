"""What a verification says."""

from __future__ import annotations

from dataclasses import dataclass, field

from headrace.ledger import Line


@dataclass
class Verdict:
    """The ledger's lines, and everything that does not add up (empty: the ledger is sound)."""

    lines: list[Line]
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether everything adds up."""
        return not self.faults


def who(line: Line) -> str:
    """The line's stage and name, as messages call it."""
    return f"{line.stage} {line.name}"
