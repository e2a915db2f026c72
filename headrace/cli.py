"""``headrace``: the command line."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence

from headrace import __version__, logs
from headrace.duration import Duration
from headrace.errors import HeadraceError, SettingsError
from headrace.exhaustion import allow_files
from headrace.pipeline import all_topics, load
from headrace.redaction import redact_stderr
from headrace.service import guarded
from headrace.settings import Settings, add_flags, from_flags

STAGES = {
    "producers": "send readings: simulated devices, replayed recordings",
    "processors": "aggregate readings to windows",
    "sinks": "write readings and windows into the store",
    "viewer": "serve the live page",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code (2 for what the user can correct)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments and arguments[0] in STAGES:
        # A stage is a program of its own, with its own flags and signals.
        os.execv(  # noqa: S606 - no shell is wanted
            sys.executable, [sys.executable, "-P", "-m", *arguments]
        )
    redact_stderr()
    flags = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int | None] = flags.run
    try:
        return guarded(lambda: run(flags), debug=flags.debug)
    except BrokenPipeError:
        # The reader of a pipe (head, less) has gone: nothing is left to say, to nobody.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="headrace",
        description="Sensor readings to event-time windows, a store and a live page.",
        epilog="Every flag can also be given by the environment: --broker is HEADRACE_BROKER, and so on.",
    )
    parser.add_argument("--version", action="version", version=f"headrace {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    demo = _command(commands, "demo", _demo, "run the whole line on an embedded broker and store")
    add_flags(demo, "pipeline", "store", "data", "host", "port", "public", "log")
    demo.add_argument(
        "--for", dest="run_for", metavar="DURATION", help="stop by itself, as 30s; then recount everything"
    )
    demo.add_argument("--headless", action="store_true", help="do not open a browser")
    demo.add_argument("--report", metavar="FILE", help="write the ledger in the end as JSON")
    demo.add_argument("--reset", action="store_true", help="start over: forget all earlier readings")
    demo.add_argument("--broker-port", type=int, default=9092, metavar="PORT", help="0 picks a free one")
    check = _command(commands, "check", _check, "report every mistake in the pipeline file")
    add_flags(check, "pipeline")
    broker = _command(commands, "broker", _broker, "run the embedded broker alone")
    add_flags(broker, "data")
    broker.add_argument("--broker-port", type=int, default=9092, metavar="PORT", help="0 picks a free one")
    topics = _command(commands, "topics", _topics, "list topics with their counts and lag")
    add_flags(topics, "pipeline", "broker")
    tail = _command(commands, "tail", _tail, "print a topic's newest messages, and then what comes")
    add_flags(tail, "broker")
    tail.add_argument("topic", metavar="TOPIC")
    tail.add_argument("-n", type=int, default=10, metavar="N", help="begin with the newest N (10)")
    tail.add_argument("--no-follow", action="store_true", help="stop at the end of the topic")
    verify = _command(commands, "verify", _verify, "recount the ledger from the broker and the store")
    add_flags(verify, "pipeline", "broker", "store", "data")
    verify.add_argument("--drained", action="store_true", help="a message that no stage has read yet is a fault")
    for name, text in STAGES.items():
        commands.add_parser(name, help=f"{text} (python -m {name})", add_help=False)
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], int | None],
    text: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run)
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def _settings(flags: argparse.Namespace) -> Settings:
    allow_files()
    settings = from_flags(flags)
    logs.configure("headrace", settings.log)
    return settings


def _demo(flags: argparse.Namespace) -> int:
    from pathlib import Path

    from headrace.demo import Demo, Options

    if getattr(flags, "store", None) is None and "HEADRACE_STORE" not in os.environ:
        data = from_flags(flags).data
        flags.store = f"sqlite:///{data / 'store.db'}"
    settings = _settings(flags)
    run_s = None
    if flags.run_for is not None:
        try:
            run_s = Duration.parse(flags.run_for).seconds
        except ValueError as error:
            raise SettingsError(f"--for: {error}", hint="as --for 30s") from None
    options = Options(
        run_s=run_s,
        headless=flags.headless,
        report=None if flags.report is None else Path(flags.report),
        reset=flags.reset,
        broker_port=flags.broker_port,
    )
    return Demo(settings, load(settings.pipeline), options).run()


def _check(flags: argparse.Namespace) -> int:
    from headrace.pipeline.load import Mistakes
    from headrace.recorded_span import outdated_recordings

    settings = _settings(flags)
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


def _broker(flags: argparse.Namespace) -> int:
    from headrace.broker.embedded import run

    run(_settings(flags).data / "broker", flags.broker_port)
    return 0


def _topics(flags: argparse.Namespace) -> int:
    from headrace.inspect import list_topics

    settings = _settings(flags)
    list_topics(settings.broker, load(settings.pipeline), settings.store)
    return 0


def _tail(flags: argparse.Namespace) -> int:
    from headrace.inspect import tail

    tail(_settings(flags).broker, flags.topic, newest=flags.n, follow=not flags.no_follow)
    return 0


def _verify(flags: argparse.Namespace) -> int:
    from headrace.ledger import LedgerReader
    from headrace.status import Board
    from headrace.stores import open_store
    from headrace.topics import ONE_AFTER_ANOTHER, reader, wait_for_broker
    from headrace.verify import verify

    settings = _settings(flags)
    pipeline = load(settings.pipeline)
    wait_for_broker(settings.broker, patience_s=10)
    store = open_store(settings.store, readonly=True)
    consumer, ledger = reader(settings.broker, **ONE_AFTER_ANOTHER), LedgerReader(reader(settings.broker), pipeline)
    try:
        verdict = verify(consumer, pipeline, ledger, store, drained=flags.drained)
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


if __name__ == "__main__":
    sys.exit(main())
