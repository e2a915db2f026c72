"""What a recount finds: numbers by what was compared, and the first examples of what is not as it must be."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

MOST_EXAMPLES = 10


@dataclass
class Findings:
    """``compared``: how much was; ``lost``: what is not there; ``wrong``: what is otherwise, or should not be there."""

    compared: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    duplicates: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def lose(self, what: str, example: str, n: int = 1) -> None:
        """Note that ``n`` are lost."""
        self._note(self.lost, f"lost {what}", what, example, n)

    def mistake(self, what: str, example: str, n: int = 1) -> None:
        """Note that ``n`` are wrong."""
        self._note(self.wrong, f"wrong {what}", what, example, n)

    def _note(self, counted: Counter[str], kind: str, what: str, example: str, n: int) -> None:
        counted[what] += n
        told = self.examples.setdefault(kind, [])
        if len(told) < MOST_EXAMPLES:
            told.append(example)

    @property
    def clean(self) -> bool:
        """Whether nothing is lost and nothing wrong."""
        return not self.lost.total() and not self.wrong.total()
