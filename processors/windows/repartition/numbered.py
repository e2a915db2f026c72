"""The readings that each partition has forwarded, by number: what it forwards again is left out."""

from __future__ import annotations

import numpy as np

from headrace.batch import Batch
from processors.windows.repartition.update import Kept, Update, batch_of, times_of
from processors.windows.spec import WindowSpec


class Numbered:
    """Of each source partition since when its readings are numbered, and the number of the next one."""

    def __init__(self) -> None:
        self.following: dict[int, tuple[int, int]] = {}

    def fresh(self, update: Update, kept: Kept, spec: WindowSpec) -> tuple[Batch, int]:
        """The readings that were not forwarded before, and how many were.

        A partition that is read again since its last checkpoint forwards them again, under the same numbers.
        """
        batch, numbers = batch_of(kept, spec.key, spec.types), times_of(kept.numbers)
        since, following = self.following.get(update.source, (update.since, 0))
        if since != update.since:  # it has started over
            following = 0
        self.following[update.source] = update.since, max(following, int(numbers[-1]) + 1)
        again = numbers < following
        if not again.any():
            return batch, 0
        return batch.take(np.flatnonzero(~again)), int(np.count_nonzero(again))
