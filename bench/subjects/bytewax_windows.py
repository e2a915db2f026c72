"""Bytewax's tumbling windows, without recovery, commits or an output topic. Run by a Python that has bytewax[kafka].

python -m bench.subjects.bytewax_windows BROKER TOPIC READINGS
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.operators import windowing
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import cluster_main

from bench.subjects.itself import Watch

WATCH = Watch()
SEEN = 0
HELD = 0

Folded = tuple[int, float, float, float]


def _decode(message: Any) -> tuple[str, tuple[datetime, float]]:
    global SEEN  # noqa: PLW0603 - the source's messages pass here, and nowhere else
    SEEN += 1
    WATCH.started(SEEN)
    row = json.loads(message.value)
    return row["device"], (datetime.fromtimestamp(row["ts"] / 1_000, UTC), row["current"])


def _fold(state: Folded, item: tuple[datetime, float]) -> Folded:
    value = item[1]
    return state[0] + 1, min(state[1], value), max(state[2], value), state[3] + value


class _Nowhere(StatelessSinkPartition[Any]):
    def write_batch(self, items: list[Any]) -> None:
        """Nothing is kept but how many readings the windows had."""
        global HELD  # noqa: PLW0603 - the results pass here, and nowhere else
        HELD += sum(state[0] for _device, (_window, state) in items)


class _NowhereSink(DynamicSink[Any]):
    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Nowhere:  # noqa: ARG002 - Bytewax's
        return _Nowhere()


def main(broker: str, topic: str, readings: int) -> None:
    """Fold so many readings and say how fast."""
    flow = Dataflow("bench")
    source = KafkaSource([broker], [topic], tail=False, batch_size=1_000)
    stream = op.map("decode", op.input("in", flow, source), _decode)
    clock = windowing.EventClock(
        ts_getter=lambda item: item[0], wait_for_system_duration=timedelta(seconds=1), now_getter=_now
    )
    windower = windowing.TumblingWindower(length=timedelta(seconds=10), align_to=datetime(2020, 1, 1, tzinfo=UTC))
    none: Folded = (0, float("inf"), float("-inf"), 0.0)
    folded = windowing.fold_window("fold", stream, clock, windower, lambda: none, _fold, _merge)
    op.output("out", folded.down, _NowhereSink())
    cluster_main(flow, [], 0)
    WATCH.say(readings)
    if readings != HELD:
        raise RuntimeError(f"{HELD} readings are in the windows, and {readings} were read")


def _merge(one: Folded, other: Folded) -> Folded:
    return one[0] + other[0], min(one[1], other[1]), max(one[2], other[2]), one[3] + other[3]


def _now() -> datetime:
    return datetime.now(UTC)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
