"""A loop by hand: consume, orjson, numpy, state in memory. No validation, no durable state, no output, no restart.

python -m bench.subjects.hand_loop BROKER TOPIC READINGS
"""

from __future__ import annotations

import sys

import numpy as np
import orjson

from bench.subjects.itself import Watch
from bench.subjects.reading import consumer

SIZE_MS = 10_000


def main(broker: str, topic: str, readings: int) -> None:
    """Fold so many readings into windows of 10 s by device and say how fast."""
    reader = consumer(broker, topic)
    watch, n, closed = Watch(), 0, 0
    slots: dict[str, int] = {}
    open_windows: dict[tuple[int, int], list[float]] = {}
    while n < readings:
        messages = reader.consume(10_000, 1.0)
        if not messages:
            continue
        rows = [orjson.loads(message.value()) for message in messages]
        devices = np.array([slots.setdefault(row["device"], len(slots)) for row in rows])
        windows = np.array([row["ts"] for row in rows]) // SIZE_MS
        values = np.array([row["current"] for row in rows])
        pairs, inverse = np.unique(np.stack([devices, windows]), axis=1, return_inverse=True)
        inverse = inverse.ravel()
        counts = np.bincount(inverse)
        sums = np.bincount(inverse, values)
        least, most = np.full(len(counts), np.inf), np.full(len(counts), -np.inf)
        np.minimum.at(least, inverse, values)
        np.maximum.at(most, inverse, values)
        for i, (device, window) in enumerate(pairs.T.tolist()):
            kept = open_windows.setdefault((device, window), [0, np.inf, -np.inf, 0.0])
            kept[0] += int(counts[i])
            kept[1], kept[2] = min(kept[1], least[i]), max(kept[2], most[i])
            kept[3] += float(sums[i])
        newest = int(windows.max())
        for old in [pair for pair in open_windows if pair[1] < newest - 1]:
            del open_windows[old]
            closed += 1
        n += len(messages)
        watch.started(n)
    watch.say(n)
    reader.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
