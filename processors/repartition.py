"""Between both stages of groups that span partitions: parts to the messages of the repartition topic, and back."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from headrace.runtime import MicroBatch, MicroBatchApplication, Outgoing
from headrace.wire import Refused
from processors.windows.repartition.local import PART_BYTES, Local, Source
from processors.windows.repartition.update import VERSION, Kept, Panes, Update, decode, encode
from processors.windows.time.watermark import NEVER

REPORT_EVERY_MS = 500
"""How often a partition says how far it is, at the most, when it has nothing to forward."""


ROOM_BYTES = 1_000
"""So much of a message is kept for what stands around what is forwarded."""


class Repartition:
    """What one topic's partitions forward for one stream."""

    def __init__(self, app: MicroBatchApplication, source: str, target: str) -> None:
        self._app = app
        self._source, self._target = source, target
        self._partitions: tuple[int, int] | None = None
        self._most = PART_BYTES
        self._reported: dict[int, tuple[Local, Update, int]] = {}
        """Of each partition its last report of how far it is, and when (ms)."""

    def messages(self, local: Local, batch: MicroBatch) -> Iterator[Outgoing]:
        """What a partition has to forward after a micro-batch, and to all how far it is.

        That it is silent is reported once: time goes on for it without further messages.
        """
        if self._partitions is None:
            self._partitions = self._app.partitions(self._source), self._app.partitions(self._target)
            # Around what is forwarded each message says how far its partition is.
            self._most = min(PART_BYTES, self._app.limits.of(self._target) - ROOM_BYTES)
        sources, targets = self._partitions
        part = local.part(
            Source(batch.partition, sources, batch.next_offset), batch.polled_ms * 1_000 if batch.idle else None
        )
        handed = list(local.forwarded(targets, self._most))
        of, before, reported_ms = self._reported.get(batch.partition, (None, None, 0))
        if of is not local or before is None:  # it was another process's meanwhile
            before = msgspec.structs.replace(part, next_offset=0, watermark_us=NEVER, clock_us=NEVER, silent=False)
        elif not handed and _is_reported(part, before, batch.polled_ms - reported_ms):
            return
        self._reported[batch.partition] = local, part, batch.polled_ms
        held = msgspec.structs.replace(before, silent=False)
        by_target: dict[int, list[Panes | Kept]] = {target: [] for target in range(targets)}
        for target, what in handed:
            by_target[target].append(what)
        for target, whats in by_target.items():
            # How far the partition is holds when all of this is taken, so the last message says it.
            for what in whats[:-1]:
                yield self._message(_carrying(held, what), target, batch)
            yield self._message(_carrying(part, whats[-1]) if whats else part, target, batch)

    def _message(self, part: Update, target: int, batch: MicroBatch) -> Outgoing:
        key = str(part.source).encode()
        return Outgoing(self._target, key, encode(part), batch.polled_ms, partition=target)


def _is_reported(part: Update, before: Update, after_ms: int) -> bool:
    """Whether what a partition reported so long before is enough."""
    if part.silent or before.silent:
        return part.silent and before.silent and part.next_offset == before.next_offset
    return part.watermark_us == before.watermark_us or after_ms < REPORT_EVERY_MS


def _carrying(part: Update, what: Panes | Kept) -> Update:
    if isinstance(what, Panes):
        return msgspec.structs.replace(part, panes=what)
    return msgspec.structs.replace(part, kept=what)


def read_parts(batch: MicroBatch, made_by: str) -> tuple[list[Update], list[Refused]]:
    """The parts in the messages of a repartition topic.

    What is none, from whatever other hand, is refused; so is what another declaration of the stream has made.
    """
    parts, refused = [], []
    for place, value in enumerate(batch.values):
        try:
            part = decode(value or b"")
        except msgspec.DecodeError as error:
            refused.append(Refused(place, "unknown_shape", str(error)))
            continue
        if part.version != VERSION:
            detail = f"a part of version {part.version}, and this is version {VERSION}"
            refused.append(Refused(place, "unknown_shape", detail))
            continue
        if part.made_by != made_by:
            refused.append(Refused(place, "unknown_shape", "a part of another declaration of the stream"))
            continue
        parts.append(part)
    return parts, refused
