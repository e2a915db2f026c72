"""The loop by hand over messages of columns: consume, orjson, numpy, state in memory, and nothing else.

python -m bench.subjects.hand_loop_columns BROKER TOPIC MESSAGES READINGS
"""

from __future__ import annotations

import sys
from itertools import chain

import orjson

from bench.subjects.folded import Folded
from bench.subjects.itself import Watch
from bench.subjects.reading import consumer


def main(broker: str, topic: str, messages: int, readings: int) -> None:
    """Fold so many messages, which hold so many readings, and say how fast, in messages."""
    reader = consumer(broker, topic)
    watch, folded, n = Watch(), Folded(), 0
    while n < messages:
        # A hundred messages hold what a batch of 10,000 readings does in the loop over single ones.
        taken = reader.consume(100, 1.0)
        if not taken:
            continue
        rows = [orjson.loads(message.value()) for message in taken]
        folded.add(*(list(chain.from_iterable(row[name] for row in rows)) for name in ("device", "ts", "current")))
        n += len(taken)
        watch.started(n)
    watch.say(n)
    folded.check(readings)
    reader.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
