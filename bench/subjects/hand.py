"""A loop by hand: consume(10,000), orjson, numpy, state in memory; no commits, no validation, no output."""

import numpy as np
import orjson
from confluent_kafka import Consumer, TopicPartition

from bench.subjects import Meter, arguments

SIZE_MS = 10_000


def main() -> None:
    flags = arguments()
    consumer = Consumer(
        {
            "bootstrap.servers": flags.broker,
            "group.id": "bench-hand",
            "fetch.queue.backoff.ms": 10,
            "queued.min.messages": 200_000,
            "enable.metrics.push": False,
        }
    )
    consumer.assign([TopicPartition(flags.topic, 0, 0)])
    windows: dict[tuple[str, int], list[float]] = {}
    meter, done = Meter(flags.readings), False
    while not done:
        rows = [orjson.loads(message.value()) for message in consumer.consume(10_000, 0.5)]
        if not rows:
            continue
        names, slots = np.unique([row["device"] for row in rows], return_inverse=True)
        numbers = np.array([row["ts"] for row in rows]) // SIZE_MS
        values = np.array([row["current"] for row in rows])
        base = int(numbers.min())
        keys = (numbers - base) * len(names) + slots
        for key in np.unique(keys).tolist():
            chosen = values[keys == key]
            window = windows.setdefault((str(names[key % len(names)]), key // len(names) + base), [0, 9e9, -9e9, 0.0])
            window[0] += len(chosen)
            window[1] = min(window[1], float(chosen.min()))
            window[2] = max(window[2], float(chosen.max()))
            window[3] += float(chosen.sum())
        done = meter.add(len(rows))
    meter.report()
    consumer.close()


if __name__ == "__main__":
    main()
