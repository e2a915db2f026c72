"""``python -m processors``: the pipeline file's streams, or the ones named."""

from __future__ import annotations

import argparse
import sys

from headrace.errors import SettingsError
from headrace.pipeline import Pipeline
from headrace.runtime import MicroBatchApplication, keep_running
from headrace.service import main
from headrace.settings import Settings, writable_folder
from headrace.topics import ensure_topics, wait_for_broker
from processors.streams import TopicStreams


def extend(parser: argparse.ArgumentParser) -> None:
    """The flags of this service."""
    parser.add_argument("streams", nargs="*", metavar="STREAM", help="the streams to run; all if none is named")
    parser.add_argument("--batch", type=int, default=1_000, help="messages a micro-batch at the most")
    parser.add_argument("--commit", type=float, default=1.0, metavar="SECONDS", help="how often to commit a checkpoint")
    parser.add_argument(
        "--reset-state", action="store_true", help="start the streams over: what their open windows hold is lost"
    )


def build(settings: Settings, pipeline: Pipeline, flags: argparse.Namespace) -> MicroBatchApplication:
    """The application that runs the streams. Raises SettingsError for a stream that is not declared."""
    names = flags.streams or list(pipeline.streams)
    for name in names:
        if name not in pipeline.streams:
            raise SettingsError(f"there is no stream {name!r}", hint=f"name one of {', '.join(pipeline.streams)}")
    app = MicroBatchApplication(
        broker=settings.broker,
        group=f"{pipeline.name}-processors",
        instance=settings.instance,
        state=writable_folder(settings.data / "state" / f"processors-{settings.instance}"),
        guarantee=settings.guarantee,
        commit_s=flags.commit,
        batch=flags.batch,
    )
    for topic in dict.fromkeys(pipeline.streams[name].source for name in names):
        of_topic = [name for name in names if pipeline.streams[name].source == topic]
        TopicStreams(app, pipeline, topic, of_topic, reset=flags.reset_state)
    return app


def run(settings: Settings, pipeline: Pipeline, flags: argparse.Namespace) -> int:
    """Run until SIGTERM or SIGINT."""
    if not pipeline.streams:
        raise SettingsError("the pipeline file declares no stream", hint="declare one as [streams.NAME]")
    writable_folder(settings.data)
    ensure_topics(wait_for_broker(settings.broker), pipeline)
    keep_running(settings.broker, lambda: build(settings, pipeline, flags))
    return 0


if __name__ == "__main__":
    sys.exit(main("processors", "Aggregate readings to windows, in event time.", run, extend=extend))
