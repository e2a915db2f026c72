"""Our sink as it is run by ``python -m sinks``: a topic into a store, dead letters and ledger on."""

import argparse
from pathlib import Path

from bench.subjects import Meter, arguments
from headrace.pipeline import load
from headrace.runtime.supervision import collect_seldom
from headrace.settings import from_flags
from headrace.topics import ensure_topics, wait_for_broker
from sinks.__main__ import build, wait_for_store


def main() -> None:
    flags = arguments()
    given = argparse.Namespace(pipeline=flags.pipeline, broker=flags.broker, data=flags.folder, store=flags.store)
    settings, pipeline = from_flags(given, {}), load(Path(flags.pipeline))
    ensure_topics(wait_for_broker(flags.broker), pipeline)
    store = wait_for_store(settings, pipeline)
    app = build(settings, pipeline, store, argparse.Namespace(batch=flags.batch, commit=1.0))
    meter, seen = Meter(flags.readings), 0

    def processed(_topic: str, _partition: int, offset: int) -> None:
        nonlocal seen
        if offset >= 0:
            if meter.add(offset + 1 - seen):
                app.stop()
            seen = offset + 1

    app._on_message_processed = processed
    collect_seldom()
    app.run()
    # What the stop has written belongs to it: the figures are taken when all rows are durable.
    meter.report()
    (progress,) = store.progress().values()
    assert progress.counts["stored"] >= meter.wanted, progress
    store.close()


if __name__ == "__main__":
    main()
