"""``python -m producers``: simulate devices and replay recordings into the broker's topics."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from headrace.pipeline import Pipeline
from headrace.service import Variant
from headrace.service import main as service_main
from headrace.settings import Settings
from producers import declared, run
from producers.pace import SECOND_US
from producers.portion import Source
from producers.send import Sender

logger = logging.getLogger("headrace.producers")

Names = Annotated[
    list[str] | None, typer.Argument(metavar="NAME", help="a producer of the pipeline file; all if none is named")
]
TopicFlag = Annotated[
    str, typer.Option("--topic", metavar="TOPIC", help="the topic it writes into, of the pipeline file")
]
Restart = Annotated[bool, typer.Option("--restart", help="replay from the start, not from where it stopped")]
Quiet = Annotated[bool, typer.Option("--quiet", help="show no progress and no summary")]


def start(
    settings: Settings, pipeline: Pipeline, *, names: Names = None, restart: Restart = False, quiet: Quiet = False
) -> int:
    """Run the declared producers until they end or SIGINT or SIGTERM stops them; 1 if readings were not delivered."""
    producers = declared.chosen(pipeline, names or [], settings.pipeline)
    return _run(settings, pipeline, producers, restart=restart, quiet=quiet)


def _simulate(settings: Settings, pipeline: Pipeline, *, topic: TopicFlag, quiet: Quiet = False, **given: Any) -> int:
    name, one = declared.from_flags("simulate", {**given, "topic": topic}, pipeline, settings.pipeline)
    return _run(settings, pipeline, {name: one}, restart=False, quiet=quiet)


def _replay(
    settings: Settings,
    pipeline: Pipeline,
    *,
    topic: TopicFlag,
    restart: Restart = False,
    quiet: Quiet = False,
    **given: Any,
) -> int:
    name, one = declared.from_flags("replay", {**given, "topic": topic}, pipeline, settings.pipeline)
    return _run(settings, pipeline, {name: one}, restart=restart, quiet=quiet)


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
    "--time-columns COLUMN +": "the column that holds the time; of several the texts are joined by a space",
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


def _types(texts: dict[str, str]) -> dict[str, Any]:
    """The types of flags, by their names: a text, several (+), or on and off (?). The pipeline's types judge values."""
    types: dict[str, Any] = {}
    for words, text in texts.items():
        flag, *shape = words.split()
        name = flag.removeprefix("--").replace("-", "_")
        if shape == ["?"]:
            types[name] = Annotated[bool | None, typer.Option(f"{flag}/--no-{flag[2:]}", help=text)]
        elif shape[-1] == "+":
            many = typer.Option(flag, metavar=shape[0], help=f"{text} (may be given several times)")
            types[name] = Annotated[list[str] | None, many]
        else:
            types[name] = Annotated[str | None, typer.Option(flag, metavar=shape[0], help=text)]
    return types


def _run(
    settings: Settings, pipeline: Pipeline, producers: dict[str, declared.Producer], *, restart: bool, quiet: bool
) -> int:
    def opened() -> list[Source]:
        return [
            declared.source(
                name,
                producer,
                pipeline.topics[producer.topic],
                folder=Path(settings.pipeline).parent,
                data=settings.data,
                now_us=run.now_us(),
                restart=restart,
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
    outcomes = run.run(sources, sender, quiet=quiet)
    return 1 if any(outcome.failed for outcome in outcomes) else 0


def _variant(kind: str, run: Callable[..., int], texts: dict[str, str]) -> Variant:
    about = (
        f"{kind.capitalize()} from flags. What is not given is as the pipeline file declares it for the topic, else the"
        f" default of producers with kind = {kind!r}."
    )
    return Variant(about, run, {**_types(texts), **_types(_BOTH)})


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: the declared producers, or one from flags."""
    return service_main(
        "producers",
        "Simulate devices and replay recordings into the broker's topics.",
        start,
        arguments,
        epilog="`python -m producers simulate --help` and `replay --help` tell how to run one from flags.",
        variants={
            "simulate": _variant("simulate", _simulate, _SIMULATE),
            "replay": _variant("replay", _replay, _REPLAY),
        },
    )


if __name__ == "__main__":
    sys.exit(main())
