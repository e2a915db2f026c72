"""Our processor as it is run by ``python -m processors``: validation, state, changelog and ledger on."""

import argparse
from pathlib import Path

from bench.subjects import Meter, arguments
from headrace.pipeline import load
from headrace.runtime.supervision import collect_seldom
from headrace.settings import from_flags
from headrace.topics import ensure_topics, wait_for_broker
from processors.__main__ import build


def main() -> None:
    flags = arguments()
    given = argparse.Namespace(
        pipeline=flags.pipeline, broker=flags.broker, data=flags.folder, guarantee=flags.guarantee
    )
    settings, pipeline = from_flags(given, {}), load(Path(flags.pipeline))
    ensure_topics(wait_for_broker(flags.broker), pipeline)
    options = argparse.Namespace(streams=[], batch=flags.batch, commit=1.0, reset_state=False)
    app = build(settings, pipeline, options)
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
    meter.report()


if __name__ == "__main__":
    main()
