"""A loop by hand: consume, orjson, numpy, state in memory. No validation, no durable state, no output, no restart.

python -m bench.subjects.hand_loop BROKER TOPIC MESSAGES
"""

from __future__ import annotations

import sys

import orjson

from bench.subjects.folded import Folded
from bench.subjects.itself import Watch
from bench.subjects.reading import consumer


def main(broker: str, topic: str, readings: int) -> None:
    """Fold so many readings into windows of 10 s by device and say how fast."""
    reader = consumer(broker, topic)
    watch, folded, n = Watch(), Folded(), 0
    while n < readings:
        messages = reader.consume(10_000, 1.0)
        if not messages:
            continue
        rows = [orjson.loads(message.value()) for message in messages]
        folded.add([row["device"] for row in rows], [row["ts"] for row in rows], [row["current"] for row in rows])
        n += len(messages)
        watch.started(n)
    watch.say(n)
    folded.check(n)
    reader.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
