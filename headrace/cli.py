"""``headrace``: the command line."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from headrace import __version__, flags, logs
from headrace.children import program
from headrace.duration import Duration
from headrace.errors import HeadraceError, SettingsError
from headrace.exhaustion import allow_files
from headrace.pipeline import all_topics, load
from headrace.settings import Settings, from_flags

STAGES = {
    "producers": "send readings: simulated devices, replayed recordings",
    "processors": "aggregate readings to windows",
    "sinks": "write readings and windows into the store",
    "viewer": "serve the live page",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code (2 for what the user can correct)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for stage in STAGES:
        if (environment := flags.completing("headrace", stage)) is not None:
            os.execve(sys.executable, program(stage), environment)  # noqa: S606 - no shell is wanted
    if arguments and arguments[0] in STAGES:
        # A stage is a program of its own, with its own flags and signals.
        os.execv(sys.executable, program(*arguments))  # noqa: S606 - no shell is wanted
    try:
        return flags.call(_application(), arguments, program="headrace")
    except flags.ReaderGone:
        # The reader of a pipe (head, less) has gone: nothing is left to say, to nobody.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _version(asked: bool) -> None:
    if asked:
        print(f"headrace {__version__}")
        raise typer.Exit


def _headrace(
    _version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="show the version")
    ] = False,
) -> None:
    """Sensor readings to event-time windows, a store and a live page."""


def _application() -> typer.Typer:
    app = flags.application(
        "Sensor readings to event-time windows, a store and a live page.",
        epilog="A flag wins over its environment variable, as --broker over HEADRACE_BROKER.",
        completion=True,
    )

    app.callback()(_headrace)
    line = ("pipeline", "store", "data", *flags.PAGE, "log")
    text = "run the whole line on an embedded broker and store"
    flags.add(app, _demo, name="demo", settings=line, text=text, given=_with_store_of_demo)
    flags.add(app, _check, name="check", settings=["pipeline"], text="report every mistake in the pipeline file")
    flags.add(app, _broker, name="broker", settings=["data"], text="run the embedded broker alone")
    topics = ["pipeline", "broker"]
    flags.add(app, _topics, name="topics", settings=topics, text="list topics with their counts and lag")
    flags.add(app, _tail, name="tail", settings=["broker"], text="print a topic's newest messages, and then what comes")
    told = ["pipeline", "broker", "store", "data"]
    flags.add(app, _verify, name="verify", settings=told, text="recount the ledger from the broker and the store")
    for name, text in STAGES.items():
        # For the help alone: they are run as programs of their own.
        app.command(name, help=f"{text} (python -m {name})", add_help_option=False)(lambda: None)
    return app


def _settle(settings: Settings) -> None:
    allow_files()
    logs.configure("headrace", settings.log)


def _with_store_of_demo(given: dict[str, str | None]) -> dict[str, str | None]:
    """What was given, and a store in the data folder if none was."""
    if given["store"] is not None:
        return given
    return {**given, "store": f"sqlite:///{from_flags(given).data / 'store.db'}"}


def _demo(
    settings: Settings,
    *,
    run_for: Annotated[
        str | None, typer.Option("--for", metavar="DURATION", help="stop by itself, as 30s; then recount everything")
    ] = None,
    headless: Annotated[bool, typer.Option("--headless", help="do not open a browser")] = False,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="write the ledger in the end as JSON")
    ] = None,
    reset: Annotated[bool, typer.Option("--reset", help="start over: forget all earlier readings")] = False,
    broker_port: flags.BrokerPort = 9092,
) -> int:
    from headrace.demo import Demo, Options

    _settle(settings)
    run_s = None
    if run_for is not None:
        try:
            run_s = Duration.parse(run_for).seconds
        except ValueError as error:
            raise SettingsError(f"--for: {error}", hint="as --for 30s") from None
    options = Options(run_s=run_s, headless=headless, report=report, reset=reset, broker_port=broker_port)
    return Demo(settings, load(settings.pipeline), options).run()


def _check(settings: Settings) -> int:
    from headrace.pipeline.load import Mistakes
    from headrace.recorded_span import outdated_recordings

    _settle(settings)
    pipeline = load(settings.pipeline)
    text = settings.pipeline.read_text(encoding="utf-8")
    mistakes, notes = Mistakes(str(settings.pipeline), text), Mistakes(str(settings.pipeline), text)
    for found in outdated_recordings(pipeline, settings.pipeline.parent, time.time_ns() // 1_000):
        (mistakes if found.whole else notes).add(("producers", found.name, "file"), found.problem, found.fix)
    mistakes.raise_any()
    topics = all_topics(pipeline)
    print(
        f"{settings.pipeline}: sound; {len(pipeline.topics)} topics, {len(pipeline.streams)} streams,"
        f" {len(pipeline.producers)} producers, {sum(t.partitions for t in topics.values())} partitions"
    )
    for _, note in notes.found:
        print(f"note: {note}")
    return 0


def _broker(settings: Settings, *, broker_port: flags.BrokerPort = 9092) -> int:
    from headrace.broker.embedded import run

    _settle(settings)
    run(settings.data / "broker", broker_port)
    return 0


def _topics(settings: Settings) -> int:
    from headrace.inspect import list_topics

    _settle(settings)
    list_topics(settings.broker, load(settings.pipeline), settings.store)
    return 0


def _tail(
    settings: Settings,
    *,
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="a topic of the broker")],
    newest: Annotated[int, typer.Option("-n", metavar="N", min=0, help="begin with the newest N")] = 10,
    no_follow: Annotated[bool, typer.Option("--no-follow", help="stop at the end of the topic")] = False,
) -> int:
    from headrace.inspect import tail

    _settle(settings)
    tail(settings.broker, topic, newest=newest, follow=not no_follow)
    return 0


def _verify(
    settings: Settings,
    *,
    streams: Annotated[
        list[str] | None, typer.Argument(metavar="STREAM", help="with --windows: the streams; all if none is named")
    ] = None,
    drained: Annotated[bool, typer.Option("--drained", help="a message that no stage has read yet is a fault")] = False,
    windows: Annotated[
        bool, typer.Option("--windows", help="compute the windows again from the store's readings, and compare values")
    ] = False,
    start: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="with --windows: those that start from then on")
    ] = None,
    end: Annotated[
        str | None, typer.Option("--to", metavar="TIME", help="with --windows: those that start before then")
    ] = None,
) -> int:
    if windows:
        return _verify_windows(settings, [*(streams or ()), *_given("--from", start), *_given("--to", end)])
    if streams or start or end:
        raise SettingsError("STREAM, --from and --to are for windows", hint="add --windows")
    from headrace.ledger import LedgerReader
    from headrace.status import Board
    from headrace.stores import open_store
    from headrace.topics import ONE_AFTER_ANOTHER, reader, wait_for_broker
    from headrace.verify import verify

    _settle(settings)
    pipeline = load(settings.pipeline)
    wait_for_broker(settings.broker, patience_s=10)
    store = open_store(settings.store, readonly=True)
    consumer, ledger = reader(settings.broker, **ONE_AFTER_ANOTHER), LedgerReader(reader(settings.broker), pipeline)
    try:
        verdict = verify(consumer, pipeline, ledger, store, drained=drained)
        if not any(line.entries for line in verdict.lines):
            raise HeadraceError("the ledger is empty: no stage has counted anything", hint="start the line first")
    finally:
        ledger.close()
        consumer.close()
        store.close()
    board = Board(pipeline, "")
    board.take(verdict.lines, 0, 0, 0.0)
    print(board.summary(verdict))
    for note in verdict.notes:
        print(f"note: {note}")
    for fault in verdict.faults:
        print(f"fault: {fault}", file=sys.stderr)
    return 0 if verdict.sound else 1


def _verify_windows(settings: Settings, arguments: list[str]) -> int:
    """The processors' own command: the windows are theirs."""
    of = {"pipeline": settings.pipeline, "broker": settings.broker, "store": settings.store, "data": settings.data}
    flags_of = [part for name, value in of.items() for part in _given(f"--{name}", str(value))]
    return subprocess.run(program("processors", "verify", *flags_of, *arguments), check=False).returncode


def _given(flag: str, value: str | None) -> list[str]:
    return [] if value is None else [flag, value]


if __name__ == "__main__":
    sys.exit(main())
