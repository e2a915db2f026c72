"""What one partition forwards of groups that span partitions, and how far it is: the messages between both stages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from headrace.batch import Batch, Int64s
from headrace.column import Column
from headrace.field_types import FieldType

VERSION = 4

NUMBER, FIRST = " number", " first"
"""Columns beside the fields: the number of each reading within its partition, and where the first window ends that it
counts in. No field is called so."""


class Panes(msgspec.Struct):
    """Partial aggregates of ``n`` parts of panes.

    Of which group (a place in ``groups``), where the pane starts, where the ``first`` window ends that the part's
    readings count in, and what they make. A part that a partition forwards replaces what it forwarded of it before; a
    part is whole when the partition's watermark has passed ``first``. ``tags``: where the groups are
    devices, what each has said of its tags, [time, value] of each tag.
    """

    groups: list[list[Any]]
    group: bytes
    pane: bytes
    first: bytes
    partials: dict[str, Any]
    tags: list[list[list[Any]]] = []


class Kept(msgspec.Struct):
    """``n`` readings that are neither late nor repeated nor filtered, as columns.

    ``numbers``: the number of each within its partition, counted since the offset ``since`` of the part. A
    partition that is read again from its last checkpoint forwards the same readings with the same numbers.
    ``firsts``: where the first window ends that each one counts in; empty where all count in all their windows.
    """

    devices: list[str]
    ts_us: bytes
    columns: dict[str, list[Any]]
    numbers: bytes
    firsts: bytes = b""


class Update(msgspec.Struct, omit_defaults=True):
    """A message of one source partition: what it forwards, and how far it is after that.

    ``source`` of ``sources`` partitions, read from the offset ``since`` up to ``next_offset``; ``watermark_us``:
    that of all its groups; ``clock_us``: its clock; ``silent``: it has nothing more for now (and
    is not behind), and its clock has moved on with the wall clock, and goes on to. Both times are
    :data:`~processors.windows.time.watermark.NEVER` for a partition that has never had a reading.
    """

    source: int
    sources: int
    since: int
    next_offset: int
    watermark_us: int
    clock_us: int
    silent: bool
    panes: Panes | None = None
    kept: Kept | None = None
    version: int = VERSION
    made_by: str = ""
    """which declaration of the stream: a short digest"""


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Update).decode


def times_of(packed: bytes) -> Int64s:
    """An array that was packed by :func:`packed_times`."""
    return np.frombuffer(packed, "<i8").astype(np.int64)


def packed_times(column: Int64s) -> bytes:
    """An int64 array as little-endian bytes."""
    return column.astype("<i8").tobytes()


def kept_of(batch: Batch, columns: Mapping[str, Column], firsts: Int64s | None) -> Kept:
    """Readings to be forwarded, with these columns; their numbers are in the batch."""
    listed = {name: column.tolist() for name, column in columns.items()}
    numbers = packed_times(batch.column(NUMBER).values)
    kept = Kept(batch.devices.tolist(), packed_times(batch.ts_us), listed, numbers)
    if firsts is not None:
        kept.firsts = packed_times(firsts)
    return kept


def batch_of(kept: Kept, key: str, types: Mapping[str, FieldType]) -> Batch:
    """Readings that were forwarded; the device is a column, too, called ``key``, and so are the ``firsts``."""
    columns = {name: Column.of(listed, types[name]) for name, listed in kept.columns.items()}
    devices = columns[key] = Column.of(kept.devices, "text")
    if kept.firsts:
        columns[FIRST] = Column(times_of(kept.firsts))
    return Batch(devices, times_of(kept.ts_us), columns)
