"""Quix Streams' own windows: tumbling, hopping or sliding, ``.final()``, one message at a time, until SIGTERM.

python -m bench.subjects.quix_windows BROKER TOPIC INTO STATE KIND SIZE_MS STEP_MS GRACE_MS
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

with warnings.catch_warnings(record=True):
    from quixstreams import Application
    from quixstreams.dataframe.windows import Count, Max, Mean, Min


def _event_time_ms(value: Any, *_: Any) -> int:
    time_ms: int = value["ts"]
    return time_ms


def main(broker: str, topic: str, into: str, state: str, *asked: str) -> None:
    """The same windows and aggregates as the stream beside it."""
    kind, size, step, grace = asked[0], *map(int, asked[1:])
    quiet = {"enable.metrics.push": False}
    app = Application(
        broker_address=broker,
        consumer_group=into,
        auto_offset_reset="earliest",
        state_dir=state,
        loglevel=None,
        consumer_extra_config=quiet,
        producer_extra_config=quiet,
    )
    frame = app.dataframe(app.topic(topic, timestamp_extractor=_event_time_ms))
    windows: Any
    if kind == "sliding":
        windows = frame.sliding_window(size, grace_ms=grace)
    elif kind == "hopping":
        windows = frame.hopping_window(size, step, grace_ms=grace)
    else:
        windows = frame.tumbling_window(size, grace_ms=grace)
    frame = windows.agg(count=Count(), min=Min("current"), max=Max("current"), mean=Mean("current")).final()
    frame.to_topic(app.topic(into))
    app.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
