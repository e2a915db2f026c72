"""The ceiling: ``consume(n)`` and ``value()`` of confluent-kafka, and nothing else.

python -m bench.subjects.consume BROKER TOPIC READINGS
"""

from __future__ import annotations

import sys

from bench.subjects.itself import Watch
from bench.subjects.reading import consumer


def main(broker: str, topic: str, readings: int) -> None:
    """Read so many messages and say how fast."""
    reader = consumer(broker, topic)
    watch, n = Watch(), 0
    while n < readings:
        messages = reader.consume(1_000, 1.0)
        for message in messages:
            message.value()
        n += len(messages)
        if messages:
            watch.started(n)
    watch.say(n)
    reader.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
