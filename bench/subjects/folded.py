"""What the loops by hand keep: count, min, max and sum by device and 10 s, in memory, folded by numpy."""

from __future__ import annotations

from typing import Any

import numpy as np

SIZE_MS = 10_000


class Folded:
    """Open windows, and how many readings those that are closed had."""

    def __init__(self) -> None:
        self._slots: dict[str, int] = {}
        self._open: dict[tuple[int, int], list[float]] = {}
        self._closed = 0

    def add(self, devices: list[str], times_ms: list[int], values: list[float]) -> None:
        """Fold a batch of readings; a window is closed when two later ones have begun."""
        slots = self._slots
        numbers = np.array([slots.setdefault(device, len(slots)) for device in devices])
        windows = np.array(times_ms) // SIZE_MS
        measured: Any = np.array(values)
        pairs, inverse = np.unique(np.stack([numbers, windows]), axis=1, return_inverse=True)
        inverse = inverse.ravel()
        counts = np.bincount(inverse)
        sums = np.bincount(inverse, measured)
        least, most = np.full(len(counts), np.inf), np.full(len(counts), -np.inf)
        np.minimum.at(least, inverse, measured)
        np.maximum.at(most, inverse, measured)
        for i, (device, window) in enumerate(pairs.T.tolist()):
            kept = self._open.setdefault((device, window), [0, np.inf, -np.inf, 0.0])
            kept[0] += int(counts[i])
            kept[1], kept[2] = min(kept[1], least[i]), max(kept[2], most[i])
            kept[3] += float(sums[i])
        newest = int(windows.max())
        for old in [pair for pair in self._open if pair[1] < newest - 1]:
            self._closed += int(self._open.pop(old)[0])

    def check(self, readings: int) -> None:
        """Raise RuntimeError unless so many readings are in the windows."""
        held = self._closed + sum(int(kept[0]) for kept in self._open.values())
        if held != readings:
            raise RuntimeError(f"{held} readings are in the windows, and {readings} were read")
