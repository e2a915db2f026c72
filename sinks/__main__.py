"""``python -m sinks``: every topic of the pipeline file into its supertable."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from headrace.errors import StoreError, StoreUnavailable
from headrace.flags import Batch, Commit, Session
from headrace.pipeline import Pipeline, all_tables, all_topics
from headrace.pipeline.consumer_groups import sinks_group
from headrace.runtime import Consumption, MicroBatchApplication, keep_running, start
from headrace.service import main
from headrace.settings import Settings, writable_folder
from headrace.stores import Store, open_store
from headrace.topics import Ends, ensure_topics, read_again, reader, wait_for_broker, written_topics
from headrace.waiting import NotYet, Waiting, wait_for
from sinks.tables import TableSink

CONSUMES = Consumption(batch=2_000)
TICK_S = 60.0
"""How often a silent partition is looked at again: there is nothing to be done about it."""


def wait_for_store(settings: Settings, pipeline: Pipeline, *, rebuild: bool = False, every_s: float = 1.0) -> Store:
    """The store, open and prepared (and emptied before, to ``rebuild`` it), when it answers.

    Says so in one line on stderr if it does not at once.
    """

    def look() -> Store:
        try:
            store = open_store(settings.store)
            if rebuild:
                store.reset()
            store.prepare(list(all_tables(pipeline).values()), pipeline.store.retention)
        except StoreUnavailable as error:
            raise NotYet(f"the store: {error.message}") from None
        return store

    return wait_for(look, Waiting("the store is there"), every_s=every_s)


def build(
    settings: Settings, pipeline: Pipeline, store: Store, *, consumes: Consumption = CONSUMES
) -> MicroBatchApplication:
    """The application that fills the store."""
    app = MicroBatchApplication(
        broker=settings.broker,
        group=sinks_group(pipeline),
        instance=settings.instance,
        state=writable_folder(settings.data / "state" / f"sinks-{settings.instance}"),
        produces=written_topics(pipeline),
        consumes=consumes,
        tick_s=TICK_S,
    )
    TableSink(app, store, all_topics(pipeline), all_tables(pipeline), line=pipeline.name)
    return app


def check_broker(settings: Settings, pipeline: Pipeline, store: Store) -> None:
    """Raise StoreError when the store's counts reach beyond the broker's ends: they are another broker's.

    Everything that this one brings would be taken for written already.
    """
    consumer = reader(settings.broker)
    try:
        topics = all_topics(pipeline)
        ends = Ends(consumer).of(topics)
        for (topic, partition), kept in store.progress().items():
            end = ends.get((topic, partition), 0)
            if topic in topics and kept.next_offset > end:
                raise StoreError(
                    f"the store has counted {kept.next_offset} offsets of {topic}[{partition}], and the broker"
                    f" has {end}: it was filled from another broker, or the topic is a new one",
                    hint="name another store with --store, or fill this one again (`headrace sinks --rebuild`)",
                )
    finally:
        consumer.close()


def run(
    settings: Settings,
    pipeline: Pipeline,
    *,
    batch: Batch = CONSUMES.batch,
    commit: Commit = CONSUMES.commit_s,
    session: Session = CONSUMES.session_s,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="empty the store, and fill it again from what the topics still have")
    ] = False,
) -> int:
    """Run until SIGTERM or SIGINT."""
    writable_folder(settings.data)
    admin = wait_for_broker(settings.broker)
    start(settings.broker, lambda: ensure_topics(admin, pipeline))
    if rebuild:
        # Refused while another sink of the pipeline runs: it would go on from counts that are gone.
        read_again(admin, sinks_group(pipeline), list(all_topics(pipeline)), [])
    store = wait_for_store(settings, pipeline, rebuild=rebuild)
    try:
        start(settings.broker, lambda: check_broker(settings, pipeline, store))
        consumes = Consumption(batch, commit, session)
        keep_running(settings.broker, lambda: build(settings, pipeline, store, consumes=consumes))
    finally:
        store.close()
    return 0


if __name__ == "__main__":
    sys.exit(main("sinks", "Write readings and windows into the store.", run))
