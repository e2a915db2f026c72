"""The store port: what a sink and the viewer ask of a store. Two adapters: SQLite and TDengine.

Guarantees that both give, held to by one contract test suite:

- Rows are upserted by (device, time). Writing the same rows again changes nothing that can be seen.
- When :meth:`Writer.write` returns, its rows are durable and visible to readers.
- Counts are durable with the rows: for each topic and partition the store keeps the next offset and the
  counts up to it, and what is written again after a crash (offsets below the stored next offset) is
  upserted but not counted again. A crash between or inside writes never makes the counts wrong.
- A row of a ``windows`` table never replaces one of a higher revision; nor, of the same revision, a provisional row a
  final one, or a provisional one of more readings.
- One writer per partition at a time; any number of readers, in other processes, beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from headrace.batch import Batch
from headrace.duration import Duration
from headrace.pipeline.tables import Table

Columns = dict[str, list[Any]]
"""Rows read, as columns of equal length: the key, the time (int µs), columns and tags of a Table, by name."""


SCANNED_ROWS = 100_000
"""The rows of a scan's batch, where nothing else is asked for."""


def nothing() -> None:
    """No question: there is one writer alone."""


@dataclass(frozen=True)
class Position:
    """Which messages a write covers: offsets ``first_offset`` to ``next_offset`` - 1 of a partition.

    ``counts`` are what those messages add to the partition's counts, beside those that the store adds itself: rows
    ``stored`` are the first of their device and time; rows ``updated`` replace one that says otherwise, be it stored or
    earlier in the batch, as each provisional result and the final one replace the one before; a ``duplicate`` changes
    nothing; and of rows that are not kept ``dropped:retention`` are older than the retention and ``dropped:too_long``
    have a text that the store cannot hold. Together they are all rows of the batch.
    """

    topic: str
    partition: int
    first_offset: int
    next_offset: int
    counts: Mapping[str, int] = field(default_factory=dict)
    still_ours: Callable[[], None] = nothing
    """Asked just before each statement that cannot be undone; raises WriterReplaced if another writes by now."""


TOO_OLD = "dropped:retention"
"""The count of rows that are not kept because their time is older than the retention."""


@dataclass(frozen=True)
class Progress:
    """The durable counts of a partition: all messages below ``next_offset`` are in them."""

    next_offset: int
    counts: Mapping[str, int]


def too_old(progress: Mapping[tuple[str, int], Progress]) -> dict[str, int]:
    """How many rows of each topic were dropped as older than the retention; topics with any."""
    found: dict[str, int] = {}
    for (topic, _), kept in progress.items():
        if kept.counts.get(TOO_OLD):
            found[topic] = found.get(topic, 0) + kept.counts[TOO_OLD]
    return found


class Tail(Protocol):
    """What is new in a table since the last look, by a high-water mark in the order of arrival."""

    def read(self, limit: int) -> Columns:
        """At most ``limit`` rows that were inserted or changed since the last read, oldest first; {} if none.

        Raises StoreUnavailable when the store is away; reading again later goes on where it stopped.
        """
        ...

    def close(self) -> None:
        """Let go of what the tail holds in the store."""
        ...


class Store(Protocol):
    """An open store. Not for use by two threads at once."""

    def prepare(self, tables: Sequence[Table], retention: Duration) -> None:
        """Make the database and the supertables, or add the columns and tags that are new.

        Raises StoreError when a table exists with another type for a column, saying which and what to do.
        """
        ...

    def write(self, table: Table, batch: Batch, position: Position) -> Progress:
        """Upsert the batch's rows and add to the partition's counts; the new progress.

        The batch may be empty (only refused messages): then only the counts move.
        Raises StoreUnavailable when the store is away: writing the same messages again is right and safe, writing
        them together with later ones is not before :meth:`progress` was read again, for the write may be durable
        in spite of the failure. Raises WriteConflict, and writes nothing, when the messages are counted in part:
        what lies below the stored next offset and what lies above it are two writes. Raises what the position's
        ``still_ours`` raises; a store that cannot undo a write may have written some of it before.
        """
        ...

    def together(self) -> AbstractContextManager[None]:
        """Writes inside ``with store.together():`` become durable at its end, in one go where the store can.

        When it fails some of them may be durable and others not: :meth:`progress` says which.
        """
        ...

    def progress(self) -> dict[tuple[str, int], Progress]:
        """The durable counts of every (topic, partition)."""
        ...

    def version(self) -> object | None:
        """What is another after each write of another connection, at a fraction of a look; None: it cannot tell.

        Two that are equal mean that nothing was written between the calls. Raises StoreUnavailable.
        """
        ...

    def wait(self, seconds: float, stop: int) -> bool:
        """Wait until a tail has something, for ``seconds`` at the most, or until ``stop`` (a descriptor) can be read.

        True: something was or is just being written, so look soon and more than once; so it is at once where the
        store cannot tell. After False there may be something nevertheless: look as well.
        """
        ...

    def latest(self, table: Table, limit: int) -> Columns:
        """The ``limit`` rows with the greatest times, oldest first."""
        ...

    def last_values(self, table: Table) -> Columns:
        """The row with the greatest time of every device."""
        ...

    def between(self, table: Table, device: str, start_us: int, end_us: int) -> Columns:
        """The device's rows with start_us <= time < end_us, by time."""
        ...

    def scan(
        self,
        table: Table,
        start_us: int,
        end_us: int,
        *,
        names: Sequence[str] | None = None,
        devices: Collection[str] | None = None,
        rows: int = SCANNED_ROWS,
    ) -> Iterator[Batch]:
        """The rows with start_us <= time < end_us, in order of time, and of device name where times are equal.

        In batches that are not empty, of about ``rows``: memory follows that and the number of devices, never the
        span. ``names``: these columns and tags (all if None); ``devices``: those of these names (all if None), which
        are looked up when it begins. A row has its device's tags, which are looked up when it begins, and again when
        there is a device that is new.

        Rows that are written meanwhile are seen where their time has not been read yet, and it reads some batches
        ahead; no row is given twice. Nobody who writes waits for a scan. StoreUnavailable when the store goes away:
        another scan from the last time that was given, plus one, goes on from there, as no batch ends within the rows
        of one time. StoreError for a name that the table does not have.
        """
        ...

    def span(self, table: Table) -> tuple[int, int] | None:
        """The least and the greatest time (µs) of the table's rows; None if there are none."""
        ...

    def snapshot(self) -> AbstractContextManager[None]:
        """Reads inside ``with store.snapshot():`` see the store at one moment, where it can; else each its own."""
        ...

    def count(self, table: Table, since_us: int | None = None) -> int:
        """How many rows the table holds, in all or with a time of ``since_us`` or later."""
        ...

    def total(self, table: Table, column: str, since_us: int | None = None) -> int:
        """The sum of an int column over the final rows of a ``windows`` table (0 for none): `verify` recounts by it.

        Over all of them, or over those with a time of ``since_us`` or later.
        """
        ...

    def tail(self, table: Table, *, backlog: int) -> Tail:
        """A tail that begins with the newest ``backlog`` rows, then gives what is new.

        Newest is by arrival where the store knows it (SQLite), else by time (TDengine).
        """
        ...

    def reset(self) -> None:
        """Drop everything that the store holds for this line (tables, counts, subscriptions)."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...
