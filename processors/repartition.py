"""Between both stages of groups that span partitions: parts to the messages of the repartition topic, and back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from headrace.runtime import MicroBatch, MicroBatchApplication, Outgoing
from headrace.wire import Refused
from processors.windows.local import Local
from processors.windows.parts import VERSION, Kept, Panes, Part, decode, encode
from processors.windows.watermark import NEVER

SAY_EVERY_MS = 500
"""How often a partition says how far it is, at the most, when it has nothing to hand on."""


@dataclass
class _Said:
    horizon_us: int
    clock_us: int
    silent: bool
    at_ms: int


class HandingOn:
    """What one topic's partitions hand on for one stream."""

    def __init__(self, app: MicroBatchApplication, source: str, target: str) -> None:
        self._app = app
        self._source, self._target = source, target
        self._partitions: tuple[int, int] | None = None
        self._said: dict[int, _Said] = {}

    def messages(self, local: Local, batch: MicroBatch) -> Iterator[Outgoing]:
        """What a partition has to hand on after a micro-batch, and to all how far it is."""
        if self._partitions is None:
            self._partitions = self._app.partitions(self._source), self._app.partitions(self._target)
        sources, targets = self._partitions
        part = local.part(batch.partition, sources, silent=batch.idle)
        handed = list(local.handed_on(targets))
        said = self._said.get(batch.partition)
        if not handed and said is not None:
            same = (said.horizon_us, said.clock_us, said.silent) == (part.horizon_us, part.clock_us, part.silent)
            if same or (said.silent == part.silent and batch.polled_ms - said.at_ms < SAY_EVERY_MS):
                return
        self._said[batch.partition] = _Said(part.horizon_us, part.clock_us, part.silent, batch.polled_ms)
        before = said or _Said(NEVER, NEVER, silent=False, at_ms=0)
        by_target: dict[int, list[Panes | Kept]] = {target: [] for target in range(targets)}
        for target, what in handed:
            by_target[target].append(what)
        for target, whats in by_target.items():
            # How far the partition is holds when all of this is taken, so the last message says it.
            for what in whats[:-1]:
                held = Part(part.source, sources, before.horizon_us, before.clock_us, False, made_by=part.made_by)
                yield self._message(_carrying(held, what), target, batch)
            yield self._message(_carrying(part, whats[-1]) if whats else part, target, batch)

    def _message(self, part: Part, target: int, batch: MicroBatch) -> Outgoing:
        key = str(part.source).encode()
        return Outgoing(self._target, key, encode(part), batch.polled_ms, partition=target)


def _carrying(part: Part, what: Panes | Kept) -> Part:
    if isinstance(what, Panes):
        return msgspec.structs.replace(part, panes=what)
    return msgspec.structs.replace(part, kept=what)


def read_parts(batch: MicroBatch, made_by: str) -> tuple[list[Part], list[Refused]]:
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
