"""The consumer groups of a line: one of the sinks, and one of the processors for each set of streams that they run."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Collection, Iterator

from headrace.pipeline.model import Pipeline

MOST_SETS = 5_000
"""Among so many sets of streams a group's own is looked for."""


def sinks_group(pipeline: Pipeline) -> str:
    """The consumer group of the line's sinks."""
    return f"{pipeline.name}-sinks"


def processors_group(pipeline: Pipeline, streams: Collection[str]) -> str:
    """The consumer group of the processors that run these streams: its own for each set that is not all of them.

    Processors of one group share the partitions of its topics, and what one of them is given it reads for its own
    streams alone. Transactional ids, state folders and changelogs carry the group's name.
    """
    every = f"{pipeline.name}-processors"
    chosen = set(streams)
    if chosen >= pipeline.streams.keys():
        return every
    digest = hashlib.blake2b("\n".join(sorted(chosen)).encode(), digest_size=4).hexdigest()
    return f"{every}-{digest}"


def streams_of_groups(pipeline: Pipeline, groups: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Of these groups the line's processors', each with its streams; () for streams that the file does not have."""
    every = processors_group(pipeline, pipeline.streams)
    digest = slice(len(every) + 1, None)
    found = {
        group: tuple[str, ...]()
        for group in sorted(groups)
        if group.startswith(f"{every}-") and len(group[digest]) == 8 and set(group[digest]) <= set("0123456789abcdef")
    }
    for chosen in itertools.islice(_sets(pipeline), MOST_SETS):
        if not found or all(found.values()):
            break
        if (group := processors_group(pipeline, chosen)) in found:
            found[group] = chosen
    return {every: tuple(pipeline.streams), **found}


def _sets(pipeline: Pipeline) -> Iterator[tuple[str, ...]]:
    for size in range(1, len(pipeline.streams)):
        yield from itertools.combinations(pipeline.streams, size)
