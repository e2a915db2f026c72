"""``python -m processors``: the pipeline file's streams, or the ones named."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from headrace.errors import SettingsError
from headrace.exhaustion import FILES_A_PARTITION, LEAST_FILES, allow_files
from headrace.flags import Batch, Commit, Session
from headrace.pipeline import Pipeline
from headrace.pipeline.consumer_groups import processors_group
from headrace.pipeline.tables import repartition_topic
from headrace.runtime import Consumption, MicroBatchApplication, keep_running, start
from headrace.service import Variant, main
from headrace.settings import Settings, writable_folder
from headrace.topics import ensure_topics, read_again, wait_for_broker, wanted, written_topics
from processors import verify
from processors.other_processors import await_no_overlap
from processors.streams import MergedStream, TopicStreams

SESSION_ENDS_S = 5.0
"""By then after a session the broker has let go of a member that has died."""


CONSUMES = Consumption(batch=4_000)


def build(
    settings: Settings,
    pipeline: Pipeline,
    names: Sequence[str] = (),
    *,
    consumes: Consumption = CONSUMES,
    reset: bool = False,
) -> MicroBatchApplication:
    """The application that runs the streams. Raises SettingsError for a stream that is not declared."""
    names = names or list(pipeline.streams)
    for name in names:
        if name not in pipeline.streams:
            raise SettingsError(f"there is no stream {name!r}", hint=f"name one of {', '.join(pipeline.streams)}")
    app = MicroBatchApplication(
        broker=settings.broker,
        group=processors_group(pipeline, names),
        instance=settings.instance,
        state=writable_folder(settings.data / "state" / f"processors-{settings.instance}"),
        produces=written_topics(pipeline),
        guarantee=settings.guarantee,
        consumes=consumes,
    )
    for topic in dict.fromkeys(pipeline.streams[name].source for name in names):
        of_topic = [name for name in names if pipeline.streams[name].source == topic]
        TopicStreams(app, pipeline, topic, of_topic, reset=reset)
    for name in names:
        if repartition_topic(pipeline, name) is not None:
            MergedStream(app, pipeline, name, reset=reset)
    return app


def run(
    settings: Settings,
    pipeline: Pipeline,
    *,
    streams: Annotated[
        list[str] | None, typer.Argument(metavar="STREAM", help="the streams to run; all if none is named")
    ] = None,
    batch: Batch = CONSUMES.batch,
    commit: Commit = CONSUMES.commit_s,
    session: Session = CONSUMES.session_s,
    reset_state: Annotated[
        bool,
        typer.Option("--reset-state", help="go on from here with new windows: what the open ones hold is lost"),
    ] = False,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="compute all streams again from what their topics still have")
    ] = False,
) -> int:
    """Run until SIGTERM or SIGINT."""
    if reset_state and rebuild:
        raise SettingsError("--reset-state and --rebuild exclude each other", hint="--rebuild begins with new windows")
    names = streams or []
    if not pipeline.streams:
        raise SettingsError("the pipeline file declares no stream", hint="declare one as [streams.NAME]")
    writable_folder(settings.data)
    sources, repartitions = topics_of(pipeline, names)
    partitions = {topic.name: topic.partitions for topic in wanted(pipeline)}
    allow_files(LEAST_FILES + FILES_A_PARTITION * sum(partitions[name] for name in (*sources, *repartitions)))
    admin = wait_for_broker(settings.broker)
    start(settings.broker, lambda: ensure_topics(admin, pipeline))
    running = names or list(pipeline.streams)
    patience_s = session + SESSION_ENDS_S
    start(settings.broker, lambda: await_no_overlap(admin, pipeline, running, patience_s=patience_s))
    if rebuild:
        read_again(admin, processors_group(pipeline, running), sources, repartitions)
    last: MicroBatchApplication | None = None
    reset = reset_state or rebuild

    def make() -> MicroBatchApplication:
        nonlocal last, reset
        # Once committed it is done: when the broker comes back after it was gone, the state is the one made since.
        reset = reset and not (last is not None and last.has_committed)
        last = build(settings, pipeline, names, consumes=Consumption(batch, commit, session), reset=reset)
        return last

    keep_running(settings.broker, make)
    return 0


def topics_of(pipeline: Pipeline, names: list[str]) -> tuple[list[str], list[str]]:
    """The topics of readings that these streams (all, if none is named) read, and their repartition topics."""
    known = [name for name in names or pipeline.streams if name in pipeline.streams]
    repartitions = [repartition_topic(pipeline, name) for name in known]
    sources = list(dict.fromkeys(pipeline.streams[name].source for name in known))
    return sources, [topic for topic in repartitions if topic is not None]


VERIFY = "Compute the store's final windows again from its readings, and compare their values."

if __name__ == "__main__":
    sys.exit(
        main(
            "processors",
            "Aggregate readings to windows, in event time.",
            run,
            epilog="`python -m processors verify --help` tells how to compare the store's windows with its readings.",
            variants={"verify": Variant(VERIFY, verify.run, {})},
        )
    )
