"""A stream's readings and windows as the store has them: what its windows are computed again from and held against."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from headrace.batch import Batch
from headrace.pipeline import Pipeline, all_tables, into
from headrace.stores import Store
from processors.recompute.differences import result_names
from processors.windows import WindowSpec

ROWS = 50_000
"""So many rows are read at a time, and taken into windows while they are in the cache."""


class StoredStream:
    """One stream of the pipeline file, and its tables in the store."""

    def __init__(self, store: Store, pipeline: Pipeline, name: str) -> None:
        tables = all_tables(pipeline)
        self.name, self.spec = name, WindowSpec.of(pipeline, name)
        self.source, self.target = pipeline.streams[name].source, into(pipeline, name)
        self.progress_us: dict[str, int] = {}
        """The greatest time of each device, of the readings that were read, where windows follow it."""
        self._store = store
        self._readings, self._windows = tables[self.source], tables[self.target]

    def first_us(self) -> int | None:
        """The time of the oldest stored reading; None where there is none."""
        span = self._store.span(self._readings)
        return None if span is None else span[0]

    def readings(self, start_us: int, end_us: int) -> Iterator[Batch]:
        """The readings of start <= time < end, in order of time, with what the stream asks of them."""
        names = sorted({*self.spec.used, *self.spec.tags})
        for batch in self._store.scan(self._readings, start_us, end_us, names=names, rows=ROWS):
            if self.spec.follows == "device" and self.spec.by is None:
                self._note(batch)
            yield batch

    def _note(self, batch: Batch) -> None:
        known = self.progress_us
        # In order of time: of each device the last one stays. An older span may be read again.
        for device, ts_us in dict(zip(batch.devices.tolist(), batch.ts_us.tolist(), strict=True)).items():
            if device not in known or ts_us > known[device]:
                known[device] = ts_us

    def windows(self, start_us: int, end_us: int) -> Iterator[Batch]:
        """The final windows that start at start <= time < end, in order of that."""
        names = [*result_names(self.spec), *(self.spec.tags if self.spec.by is None else self.spec.by)]
        for batch in self._store.scan(self._windows, start_us, end_us, names=[*names, "revision", "final"], rows=ROWS):
            final = batch.column("final").values
            yield batch if final.all() else batch.take(np.flatnonzero(final))
