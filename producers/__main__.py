"""``python -m producers``: simulate devices and replay recordings into the broker's topics."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from headrace.redaction import redact_stderr
from headrace.service import guarded, settle
from headrace.settings import add_flags
from producers import declared, run
from producers.pace import SECOND_US
from producers.portion import Source
from producers.send import Sender

logger = logging.getLogger("headrace.producers")
_KINDS = ("simulate", "replay")


def main(argv: Sequence[str] | None = None) -> int:
    """Run producers until they end or SIGINT or SIGTERM stops them.

    The exit status is 0, 1 when readings were not delivered, or 2 after one clear line about a mistake.
    """
    redact_stderr()
    arguments = list(sys.argv[1:] if argv is None else argv)
    kind = arguments[0] if arguments and arguments[0] in _KINDS else None
    flags = parser(kind).parse_args(arguments[1:] if kind else arguments)
    return guarded(lambda: _run(kind, flags), debug=flags.debug)


def parser(kind: str | None = None) -> argparse.ArgumentParser:
    """The flags of ``simulate``, ``replay`` or, without a kind, of the producers of the pipeline file."""
    made = argparse.ArgumentParser(
        prog="python -m producers" if kind is None else f"python -m producers {kind}",
        description=__doc__
        if kind is None
        else f"{kind.capitalize()} from flags. What is not given is as the "
        f"pipeline file declares it for the topic, else the default of [producers.*] with kind = {kind!r}.",
        epilog="`python -m producers simulate --help` and `replay --help` tell how to run one from flags."
        if kind is None
        else None,
    )
    if kind is None:
        text = "a producer of the pipeline file; all if none is named"
        made.add_argument("name", nargs="*", metavar="NAME", help=text)
    else:
        made.add_argument("--topic", required=True, help="the topic it writes into, of the pipeline file")
        for words, text in (_SIMULATE if kind == "simulate" else _REPLAY).items():
            _flag(made, words, text)
        for words, text in _BOTH.items():
            _flag(made, words, text)
    if kind != "simulate":
        made.add_argument("--restart", action="store_true", help="replay from the start, not from where it stopped")
    made.add_argument("--quiet", action="store_true", help="show no progress and no summary")
    made.add_argument("--debug", action="store_true", help="show a traceback after a mistake")
    add_flags(made)
    return made


_BOTH = {
    "--devices N": "how many devices",
    "--name PATTERN": "a device's name; {n} is its number, {topic} the topic",
    "--speed X": "how fast event time runs: 1 as the clock, 60 a minute a second, 0 as fast as possible",
    "--columns N": "readings a message",
    "--linger DURATION": "with --columns: how long a message waits to fill",
}
_SIMULATE = {
    "--rate R": "readings a second, all devices together",
    "--seed N": "the same seed gives the same readings",
    "--count N": "so many readings, then it ends",
    "--start TIME": "the event time it begins at (ISO 8601); now if absent",
    "--curve FIELD:NAME=VALUE,... +": "how a field moves, as voltage:base=230,swing=5 or city:choices=Rome|Oslo",
    "--fault NAME=VALUE,...": "what goes wrong, as late=0.01,late_by=20s,repeated=0.01",
}
_REPLAY = {
    "--file PATH": "the recording: .csv, .csv.gz or .parquet",
    "--time-columns COLUMN *": "the column that holds the time, or several that are joined by a space",
    "--time-format FORMAT": "epoch_s, epoch_ms, epoch_us, epoch_ns, iso8601, or a strptime pattern",
    "--time-zone ZONE": "the named zone of times that carry none",
    "--field FIELD=COLUMN +": "the recording's column for a field of the topic",
    "--constant FIELD=VALUE +": "a value for a field without a column",
    "--missing TEXT +": "what stands for a value that is missing",
    "--delimiter CHARACTER": "between the columns of a CSV",
    "--decimal CHARACTER": "the decimal point in a CSV",
    "--device COLUMN": "the column that names the device",
    "--loop ?": "begin again at the end",
    "--shift WHEN": "none: times as recorded; now: the time of sending",
}


def _flag(made: argparse.ArgumentParser, words: str, text: str) -> None:
    flag, *shape = words.split()
    if shape == ["?"]:
        made.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
    elif shape[-1] == "+":
        made.add_argument(flag, action="append", metavar=shape[0], help=f"{text} (may be given several times)")
    elif shape[-1] == "*":
        made.add_argument(flag, nargs="+", metavar=shape[0], help=text)
    else:
        made.add_argument(flag, metavar=shape[0], help=text)


def _run(kind: str | None, flags: argparse.Namespace) -> int:
    settings, pipeline = settle("producers", flags)
    if kind is None:
        producers = declared.chosen(pipeline, flags.name, settings.pipeline)
    else:
        name, one = declared.from_flags(kind, flags, pipeline, settings.pipeline)
        producers = {name: one}

    def opened() -> list[Source]:
        return [
            declared.source(
                name,
                producer,
                pipeline.topics[producer.topic],
                folder=Path(settings.pipeline).parent,
                data=settings.data,
                now_us=run.now_us(),
                restart=getattr(flags, "restart", False),
            )
            for name, producer in producers.items()
        ]

    sources = opened()
    for source in sources:
        if source.due_us() is None:
            logger.warning("replayed to its end already; --restart begins again", extra={"producer": source.name})
    stop = threading.Event()

    def asked(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, asked)
    sender = Sender(settings.broker, pipeline, stop=stop)
    asked_us = run.now_us()
    if sender.connect() and run.now_us() - asked_us > SECOND_US:
        # What begins now begins when the broker is there, and does not make up for the time before.
        sources = opened()
    outcomes = run.run(sources, sender, quiet=flags.quiet)
    return 1 if any(outcome.failed for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
