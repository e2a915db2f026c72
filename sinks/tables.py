"""Topics to supertables: every message of every topic becomes rows, or a dead letter.

The store keeps, with the rows, how far each partition is written and what became of its messages. Broker
offsets are committed after that, so a crash at any point only has rows written again that are there already,
and counts nothing twice.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from headrace import ledger
from headrace.batch import Batch
from headrace.errors import StoreError, StoreUnavailable, WriteConflict, WriterReplaced
from headrace.event_time import to_datetime
from headrace.pipeline import Table
from headrace.pipeline.model import Topic
from headrace.pipeline.tables import DLQ_SUFFIX
from headrace.runtime import Limits, MicroBatch, MicroBatchApplication, Outgoing, Passed, dead_letter
from headrace.runtime.quix import BaseSink, SinkBackpressureError
from headrace.stores import TOO_OLD, Position, Store
from headrace.wire import Decoder, Refused

log = logging.getLogger("headrace.sinks")

Partition = tuple[str, int]

WRITE_EVERY_S = 0.04
"""A stream of rows is written so often at the most: a person sees no delay, and writes are few."""
WRITE_AT_ROWS = 20_000
RETRY_S = 1.0


@dataclass
class PendingWrite:
    """Messages of one partition, one after the other, that wait to be written and counted together."""

    partition: Partition
    first_offset: int
    next_offset: int
    batches: list[Batch] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


class TableSink(BaseSink):
    """Writes what the topics bring into the store, and gives back the dead letters."""

    def __init__(
        self,
        app: MicroBatchApplication,
        store: Store,
        topics: Mapping[str, Topic],
        tables: Mapping[str, Table],
        *,
        line: str,
    ) -> None:
        """``line`` is the pipeline's name: lines that read one topic tell their dead letters by it."""
        super().__init__(lambda: None)
        self._app = app
        self._line = line
        self._store = store
        self._tables = tables
        self._decoders = {name: Decoder(topic) for name, topic in topics.items()}
        self._parts: dict[Partition, list[PendingWrite]] = {}
        self._rows = 0
        self._written_s = 0.0
        self._durable: dict[Partition, int] = {}
        self._reach: dict[Partition, int] = {}
        """The next offset that what is kept or written of each partition reaches to."""
        self._begun: dict[Partition, int] = {}
        """Where the messages of each partition began after it was assigned."""
        self._too_old: dict[Partition, int] = {}
        self._told: set[str] = set()
        """The topics of which it was said that their readings are too old."""
        self._away = False
        self._spoiled = False
        """Whether messages were let go that are to be read again, from the last commit on."""
        app.on_gone(self.forget)
        app.on_quiet(self.quiet)
        app.flush_at_commit(self)
        for name in topics:
            app.batches(name).update(self.take)

    def take(self, batch: MicroBatch) -> None:
        """Keep a micro-batch's rows for writing, produce its dead letters, and write if it is time."""
        if self._spoiled:
            return
        try:
            if not batch.idle or self._reach.get((batch.topic, batch.partition), 0) < batch.next_offset:
                durable = self._durable_of(batch)
                if self._begins_late(batch, durable):
                    self._app.rewind(batch.topic, batch.partition, durable)
                    return
                self._app.produce(self._keep(batch, durable))
            if not batch.more:
                self._write_if_due()
        except (StoreUnavailable, WriteConflict, WriterReplaced) as error:
            self._note_away(error)

    def quiet(self) -> None:
        """A poll has brought nothing: write what was put off for company."""
        try:
            self._write_if_due()
        except (StoreUnavailable, WriteConflict, WriterReplaced) as error:
            self._note_away(error)

    def add(self, *_: object, **__: object) -> None:
        """Quix's way in for single values; micro-batches come by :meth:`take`."""
        raise TypeError("a TableSink takes micro-batches")

    def flush(self) -> None:
        """Called when a checkpoint commits: all that was taken is durable when this returns.

        Raises SinkBackpressureError while the store is away, and once after a write that failed: Quix pauses,
        seeks back, and reads again later.
        """
        try:
            if self._spoiled:
                raise StoreUnavailable("a write before has failed", hint="what it held is read again")
            self._write()
        except (StoreUnavailable, WriteConflict, WriterReplaced) as error:
            self._note_away(error)
            # Quix seeks back by itself now, and tells nobody: `on_paused` is for the sinks after this one.
            self._let_go()
            raise SinkBackpressureError(retry_after=RETRY_S) from error
        if self._away:
            self._away = False
            log.warning("the store is back")

    def on_paused(self) -> None:
        """What waits will be read again."""
        self._let_go()

    def forget(self, partitions: set[Partition]) -> None:
        """Let go of partitions that are another's now."""
        for partition in partitions:
            self._parts.pop(partition, None)
            self._durable.pop(partition, None)
            self._reach.pop(partition, None)
            self._begun.pop(partition, None)

    def _note_away(self, error: StoreError) -> None:
        if isinstance(error, WriteConflict | WriterReplaced):
            log.warning("another sink writes the same messages; reading again", extra={"reason": error.message})
        elif not self._away:
            self._away = True
            log.warning("the store is away; readings wait in the broker", extra={"reason": error.message})

    def _drop(self) -> None:
        self._parts.clear()
        self._reach.clear()
        self._rows = 0

    def _let_go(self) -> None:
        """Keep nothing: it will be read again, against the progress that the store then says it has."""
        self._drop()
        self._durable.clear()
        self._spoiled = False

    def _write_if_due(self) -> None:
        """Write at once what comes alone, and at most every 40 ms what comes in a stream."""
        if not self._parts or self._away:
            return
        if self._rows >= WRITE_AT_ROWS or time.monotonic() - self._written_s >= WRITE_EVERY_S:
            self._write()

    def _durable_of(self, batch: MicroBatch) -> int:
        """The next offset that the store has of the batch's partition."""
        partition = (batch.topic, batch.partition)
        if partition not in self._durable:
            try:
                progress = self._store.progress()
                self._durable = {where: kept.next_offset for where, kept in progress.items()}
                self._too_old = {where: kept.counts.get(TOO_OLD, 0) for where, kept in progress.items()}
            except StoreUnavailable:
                # Without the counts nothing may be kept: the flush must fail, and all is read again.
                self._spoiled = not batch.idle
                raise
        return self._durable.setdefault(partition, 0)

    def _begins_late(self, batch: MicroBatch, durable: int) -> bool:
        """Whether the first messages of a partition lie beyond those that the store has: to be asked again, once.

        The store says where to begin, not the group's committed offsets: those may be of another store, or of this
        one before it was lost, emptied or restored. What lies in between may also hold no message; then the second
        answer is the same.
        """
        partition = (batch.topic, batch.partition)
        begun = self._begun.get(partition)
        if begun is None:
            self._begun[partition] = batch.first_offset
            return durable < batch.first_offset
        if batch.first_offset < begun:
            self._begun[partition] = 0
            log.warning(
                "the store lacks messages that this group has read before; reading them again",
                extra={"topic": batch.topic, "partition": batch.partition, "from": batch.first_offset, "upto": begun},
            )
        return False

    def _keep(self, batch: MicroBatch, durable: int) -> list[Outgoing]:
        if batch.first_offset < durable < batch.next_offset:
            # The store has counted up to the middle of it, and must be told of the two parts apart.
            return self._keep_part(batch.before(durable)) + self._keep_part(batch.since(durable))
        return self._keep_part(batch)

    def _keep_part(self, batch: MicroBatch) -> list[Outgoing]:
        partition = (batch.topic, batch.partition)
        durable = self._durable[partition]
        parts = self._parts.setdefault(partition, [])
        if not parts or parts[-1].next_offset <= durable < batch.next_offset:
            parts.append(PendingWrite(partition, batch.first_offset, batch.next_offset))
        part = parts[-1]
        part.next_offset = batch.next_offset
        decoded = self._decoders[batch.topic].decode(batch.values, batch)
        if len(decoded.batch):
            part.batches.append(decoded.batch)
        reached = self._reach.get(partition, durable)
        passed = self._app.passed(batch, reached) if reached < batch.next_offset else Passed()
        ledger.count_messages(
            part.counts,
            len(batch),
            decoded.refused,
            tombstones=decoded.tombstones,
            gaps=passed.empty,
            expired=passed.expired,
        )
        self._reach[partition] = max(reached, batch.next_offset)
        part.counts["read"] = part.counts.get("read", 0) + len(decoded.batch)
        self._rows += len(decoded.batch) or 1
        return [_dead_letter(batch, refused, self._app.limits, self._line) for refused in decoded.refused]

    def _write(self) -> None:
        """Write everything that waits; if that fails, let go of it all.

        Some of it may be durable then, and could not be told from what comes in addition.
        """
        durable: dict[Partition, int] = {}
        try:
            with self._store.together():
                for parts in self._parts.values():
                    for part in parts:
                        durable[part.partition] = self._write_part(part)
        except StoreError:
            messages = any(part.counts.get("messages") for parts in self._parts.values() for part in parts)
            self._let_go()
            self._spoiled = messages
            raise
        self._written_s = time.monotonic()
        self._durable.update(durable)
        self._drop()
        self._reach = dict(self._durable)

    def _write_part(self, part: PendingWrite) -> int:
        topic, partition = part.partition
        table = self._tables[topic]
        names = [column.name for column in (*table.columns, *table.tags)]

        def still_ours() -> None:
            self._app.assure(topic, partition, part.first_offset)

        position = Position(topic, partition, part.first_offset, part.next_offset, part.counts, still_ours)
        batch = Batch.joined(part.batches, names)
        progress = self._store.write(table, batch, position)
        too_old = progress.counts.get(TOO_OLD, 0)
        if too_old > self._too_old.get(part.partition, 0) and len(batch) and topic not in self._told:
            self._told.add(topic)
            log.warning(
                "readings are older than the store keeps them, and are dropped; further ones are only counted",
                extra={
                    "topic": topic,
                    "dropped": too_old - self._too_old.get(part.partition, 0),
                    "oldest": to_datetime(int(batch.ts_us.min())).isoformat(),
                    "hint": 'lengthen `retention` in [store]; a recording can be moved to now with shift = "now"',
                },
            )
        self._too_old[part.partition] = too_old
        return progress.next_offset


def _dead_letter(batch: MicroBatch, refused: Refused, limits: Limits, line: str) -> Outgoing:
    """The message with its bytes unchanged, and why it was refused, where it stands and since when, in its headers.

    Where the topic of dead letters does not take as many bytes, the headers say how many and their digest instead.
    """
    place = refused.place
    stamp = to_datetime(batch.timestamp_ms(place) * 1_000).isoformat(timespec="milliseconds")
    said = {
        "reason": refused.reason,
        "detail": refused.detail,
        "topic": batch.topic,
        "partition": str(batch.partition),
        "offset": str(batch.offset(place)),
        "time": stamp,
        "line": line,
    }
    letter = Outgoing(batch.topic + DLQ_SUFFIX, batch.key(place), batch.values[place] or b"", batch.polled_ms)
    return dead_letter(letter, said, limits)
