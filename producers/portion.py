"""What a source of readings gives the runner: a portion to send, and where it stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from headrace.batch import Batch
from headrace.pipeline.model import Topic


@dataclass(frozen=True)
class Portion:
    """Readings in the order in which they are to be sent.

    ``malformed`` says which places of the batch are to be spoilt, and how; such a reading travels alone.
    """

    batch: Batch
    malformed: Mapping[int, str] = field(default_factory=dict)


class Source(Protocol):
    """Readings that become due. Times are an argument: a source has no clock.

    ``counts`` are by name: generated = sent + missing + skipped - repeated, once the source is drained.
    ``linger_us`` is how long a message of several ``columns`` waits to fill; ``keeps_place`` says whether
    :meth:`mark` does anything.
    """

    name: str
    topic_name: str
    topic: Topic
    columns: int
    linger_us: int
    counts: Counter[str]
    keeps_place: bool

    def due_us(self) -> int | None:
        """What the clock shows when something is to be taken next; None when all has been taken."""
        ...

    def take(self, now_us: int, limit: int) -> Portion | None:
        """At most about ``limit`` of the readings due at ``now_us``; None when there are none."""
        ...

    def drain(self) -> Portion | None:
        """What the source holds back, to be sent before a stop."""
        ...

    def mark(self) -> None:
        """Note the place: everything taken so far has been acknowledged by the broker."""
        ...
