"""What other processors of the line run: a stream is to be computed in one consumer group, whoever shares it."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection

from confluent_kafka import ConsumerGroupState
from confluent_kafka.admin import AdminClient

from headrace.errors import SettingsError
from headrace.pipeline import Pipeline
from headrace.pipeline.consumer_groups import processors_group, streams_of_groups

LOOK_EVERY_S = 0.5


def await_no_overlap(admin: AdminClient, pipeline: Pipeline, streams: Collection[str], *, patience_s: float) -> None:
    """Wait until no other processors run some of these streams and not just these.

    Each of the two groups would compute such a stream by itself, and say the windows of it twice. One that has
    stopped or died is a member of its group until its session has ended. Raises SettingsError when one is there after
    ``patience_s``, and KafkaException when the broker does not say. Two that start at one moment do not see each other.
    """
    deadline, said = time.monotonic() + patience_s, False
    while overlapping := _overlapping(admin, pipeline, streams):
        group, theirs = next(iter(overlapping.items()))
        both = ", ".join(name for name in streams if name in theirs)
        if time.monotonic() > deadline:
            raise SettingsError(
                f"other processors run {both}, too: the group {group}, of {', '.join(theirs)}",
                hint="stop them, or name the same streams in both, or none that the others have",
            )
        if not said:
            print(f"waiting for the processors of {', '.join(theirs)} to stop: they run {both}", file=sys.stderr)
            sys.stderr.flush()
            said = True
        time.sleep(LOOK_EVERY_S)


def _overlapping(admin: AdminClient, pipeline: Pipeline, streams: Collection[str]) -> dict[str, tuple[str, ...]]:
    """The other groups of the line that have members and run some of these streams, each with its streams."""
    own = processors_group(pipeline, streams)
    listed = admin.list_consumer_groups(request_timeout=10).result(timeout=10).valid
    none = (ConsumerGroupState.EMPTY, ConsumerGroupState.DEAD)
    live = {group.group_id for group in listed if group.state not in none}
    groups = streams_of_groups(pipeline, live)
    return {
        group: theirs
        for group, theirs in groups.items()
        if group in live and group != own and not set(theirs).isdisjoint(streams)
    }
