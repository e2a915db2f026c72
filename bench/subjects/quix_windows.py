"""Quix Streams' own windows: ``tumbling_window().final()`` on one message at a time, until SIGTERM.

python -m bench.subjects.quix_windows BROKER TOPIC INTO STATE
"""

from __future__ import annotations

import sys
import warnings
from datetime import timedelta
from typing import Any

with warnings.catch_warnings(record=True):
    from quixstreams import Application
    from quixstreams.dataframe.windows import Count, Max, Mean, Min


def _event_time_ms(value: Any, *_: Any) -> int:
    time_ms: int = value["ts"]
    return time_ms


def main(broker: str, topic: str, into: str, state: str) -> None:
    """The same aggregates as the stream beside it."""
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
    frame = (
        frame.tumbling_window(timedelta(seconds=10), grace_ms=timedelta(seconds=1))
        .agg(count=Count(), min=Min("current"), max=Max("current"), mean=Mean("current"))
        .final()
    )
    frame.to_topic(app.topic(into))
    app.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
