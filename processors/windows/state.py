"""The state of a stream's windows over a partition, as bytes in pieces.

Pieces, by name:

- ``meta``: the fingerprint of the stream, the clock, the counts, how many devices there are
- ``names.K``: the names and tags of the K-th bucket of devices; written when these change
- ``open.K``: the progress and open windows of the K-th bucket; written when one of its devices was touched

So what is written grows with what has changed, not with how many devices there are. The bytes are MessagePack
around plain little-endian arrays: nothing in them is ever executed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np

from headrace.errors import StateError
from processors.windows.windowed import BUCKET, Windowed, WindowSpec

VERSION = 1


class Meta(msgspec.Struct):
    """The piece that says how to read the others."""

    version: int
    fingerprint: str
    clock_us: int
    arrived_us: int
    counts: dict[str, int]
    devices: int
    next_offset: int


class Names(msgspec.Struct):
    """A bucket's devices."""

    names: list[str]
    tags: list[list[Any]]


class Open(msgspec.Struct):
    """A bucket's progress (int64 bytes, one a device) and open rows (columns, by name)."""

    progress_us: bytes
    rows: int
    columns: dict[str, Any]


def changed_pieces(windowed: Windowed, next_offset: int) -> Iterator[tuple[str, bytes]]:
    """The pieces that have changed since the last call, and ``meta``."""
    encode = msgspec.msgpack.encode
    devices, accumulators = windowed.devices, windowed.accumulators
    for bucket in sorted(windowed.renamed):
        of = slice(bucket * BUCKET, (bucket + 1) * BUCKET)
        yield f"names.{bucket}", encode(Names(devices.names[of], [list(tags) for tags in devices.tags[of]]))
    for bucket in sorted(windowed.changed | windowed.renamed):
        of = slice(bucket * BUCKET, min((bucket + 1) * BUCKET, len(devices.names)))
        rows = np.array([row for windows in devices.open[of] for row in windows.values()], np.int64)
        columns = {name: _packed(column[rows]) for name, column in accumulators.columns.items()}
        progress = devices.progress_us[of].astype("<i8").tobytes()
        yield f"open.{bucket}", encode(Open(progress, len(rows), columns))
    windowed.renamed.clear()
    windowed.changed.clear()
    meta = Meta(
        version=VERSION,
        fingerprint=windowed.spec.fingerprint(),
        clock_us=windowed.clock_us,
        arrived_us=windowed.arrived_us,
        counts=windowed.counts,
        devices=len(devices.names),
        next_offset=next_offset,
    )
    yield "meta", encode(meta)


def restore(spec: WindowSpec, piece: Callable[[str], bytes | None]) -> tuple[Windowed, int]:
    """The windows as they were, and the next offset they await (-1: any), from ``piece(name)``.

    Raises StateError when the state was made by a stream that was declared otherwise.
    """
    windowed = Windowed(spec)
    packed = piece("meta")
    if packed is None:
        return windowed, -1
    meta = msgspec.msgpack.decode(packed, type=Meta)
    if (meta.version, meta.fingerprint) != (VERSION, spec.fingerprint()):
        raise StateError(
            f"the state of stream {spec.stream} was made by another declaration of it",
            hint="give the stream another name, or start over with --reset-state (its open windows are lost)",
        )
    windowed.clock_us, windowed.arrived_us = meta.clock_us, meta.arrived_us
    windowed.counts.update(meta.counts)
    for bucket in range(-(-meta.devices // BUCKET)):
        _restore_bucket(windowed, _whole(piece, f"names.{bucket}", Names), _whole(piece, f"open.{bucket}", Open))
    windowed.changed.clear()
    windowed.renamed.clear()
    return windowed, meta.next_offset


def _whole(piece: Callable[[str], bytes | None], name: str, kind: type[Any]) -> Any:
    packed = piece(name)
    if packed is None:
        raise StateError(
            f"the state lacks its piece {name}", hint="delete the state folder: it is restored from the changelog"
        )
    return msgspec.msgpack.decode(packed, type=kind)


def _restore_bucket(windowed: Windowed, names: Names, opened: Open) -> None:
    devices, accumulators = windowed.devices, windowed.accumulators
    first = len(devices.names)
    for name, tags in zip(names.names, names.tags, strict=True):
        devices.add(name, tuple(tags))
    progress = np.frombuffer(opened.progress_us, "<i8")
    devices.progress_us[first : first + len(progress)] = progress
    if not opened.rows:
        return
    slots = _unpacked(opened.columns["slot"], np.int64)
    windows = _unpacked(opened.columns["window"], np.int64)
    rows = accumulators.take(slots.tolist(), windows.tolist())
    for name, packed in opened.columns.items():
        accumulators.columns[name][rows] = _unpacked(packed, accumulators.columns[name].dtype)
    for slot, window, row in zip(slots.tolist(), windows.tolist(), rows, strict=True):
        windowed.open_row(slot, window, row)


def _packed(column: Any) -> Any:
    return column.tolist() if column.dtype == object else column.astype(column.dtype.newbyteorder("<")).tobytes()


def _unpacked(packed: Any, dtype: Any) -> Any:
    if isinstance(packed, bytes):
        return np.frombuffer(packed, np.dtype(dtype).newbyteorder("<")).astype(dtype)
    values = np.empty(len(packed), object)
    values[:] = packed
    return values
