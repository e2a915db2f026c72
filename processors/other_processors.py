"""What other processors of the line run: a stream is to be computed in one consumer group, whoever shares it."""

from __future__ import annotations

from collections.abc import Collection

from confluent_kafka import ConsumerGroupState
from confluent_kafka.admin import AdminClient

from headrace.errors import SettingsError
from headrace.pipeline import Pipeline
from headrace.pipeline.consumer_groups import processors_group, streams_of_groups
from headrace.waiting import NotYet, Waiting, wait_for

LOOK_EVERY_S = 0.5


def await_no_overlap(admin: AdminClient, pipeline: Pipeline, streams: Collection[str], *, patience_s: float) -> None:
    """Wait until no other processors run some of these streams and not just these.

    Each of the two groups would compute such a stream by itself, and emit its windows twice. One that has
    stopped or died is a member of its group until its session has ended. Raises SettingsError when one is there after
    ``patience_s``, and KafkaException when the broker does not say. Two that start at one moment do not see each other.
    """

    def look() -> None:
        for group, theirs in _overlapping(admin, pipeline, streams).items():
            both = ", ".join(name for name in streams if name in theirs)
            raise NotYet(
                f"the processors of {', '.join(theirs)} to stop: they run {both}",
                SettingsError(
                    f"other processors run {both}, too: the group {group}, of {', '.join(theirs)}",
                    hint="stop them, or name the same streams in both, or none that the others have",
                ),
            )

    wait_for(look, Waiting("they have stopped", patience_s=patience_s), every_s=LOOK_EVERY_S)


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
