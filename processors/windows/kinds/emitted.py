"""Results that windows emit: the final one when they close, provisional ones before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headrace.batch import Int64s
from headrace.column import Column


@dataclass(frozen=True)
class Emitted:
    """``n`` windows: the slot of each one's group, its bounds, its aggregates by result column."""

    slots: Int64s
    starts_us: Int64s
    ends_us: Int64s
    results: dict[str, Column]

    def __len__(self) -> int:
        return len(self.slots)

    def take(self, places: Int64s) -> Emitted:
        """The windows at these places, in this order."""
        results = {name: column.take(places) for name, column in self.results.items()}
        return Emitted(self.slots[places], self.starts_us[places], self.ends_us[places], results)

    @classmethod
    def none(cls) -> Emitted:
        """No window."""
        nothing = np.empty(0, np.int64)
        return cls(nothing, nothing, nothing, {})

    @classmethod
    def joined(cls, parts: Sequence[Emitted]) -> Emitted:
        """The windows of several, one after the other."""
        parts = [part for part in parts if len(part)]
        if len(parts) <= 1:
            return parts[0] if parts else cls.none()
        return cls(
            np.concatenate([part.slots for part in parts]),
            np.concatenate([part.starts_us for part in parts]),
            np.concatenate([part.ends_us for part in parts]),
            {name: Column.joined([part.results[name] for part in parts]) for name in parts[0].results},
        )
