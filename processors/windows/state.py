"""The state of a stream's windows over a partition, as bytes in pieces.

Pieces, by name:

- ``meta``: the fingerprint of the stream, the clocks, the counts, how many devices and groups there are
- ``names.K``: the names and tags of the K-th bucket of devices; written when these change, and deleted, like the
  others of the bucket, when all of them are forgotten
- ``progress.K``: how far each device of the bucket is; written when one of them has sent something
- ``groups.K``: the values of the K-th bucket of groups, where a stream aggregates by something else
- ``open.K``: what is open of the K-th bucket of groups, and which of the readings held it has taken; written when one
  of them has changed
- ``waiting``, ``waiting.N``, ``tail``, ``tail.N``: the readings that are held; written once each
- ``seen``, ``seen.N``: the readings that a repeat would be recognised by; written once each

So what is written grows with what has changed, not with how many devices there are. The bytes are MessagePack
around plain little-endian arrays: nothing in them is ever executed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np

from headrace.batch import Int64s
from headrace.column import DTYPES
from headrace.errors import StateError
from processors.windows.input.groups import Devices, Groups
from processors.windows.input.pieces import ReadPiece, lacking
from processors.windows.operator import WindowOperator
from processors.windows.spec import ENDS, STARTS, WindowSpec
from processors.windows.stage import Stage

VERSION = 5

BUCKET = 256
"""How many devices, or groups, share a piece of state."""

PIECE_BYTES = 512 * 1024
"""The most bytes of a piece: the broker takes a message of a megabyte."""

_WHOLE, _IN_PARTS = b"\0", b"\1"


class Meta(msgspec.Struct):
    """The piece that says how to read the others."""

    version: int
    fingerprint: str
    clock_us: int
    arrived_us: int
    furthest_us: int
    slowest_us: int
    forgotten_us: int
    counts: dict[str, int]
    devices: int
    groups: int
    no_devices: list[int]
    """the buckets of devices that have no pieces, as all of their slots are free"""
    no_groups: list[int]
    next_offset: int
    extra: dict[str, Any]


class Open(msgspec.Struct):
    """What is open of a bucket's groups, and up to where they have taken the readings that are held."""

    engine: dict[str, Any]
    fronts: dict[str, bytes]


def changed_pieces(stage: Stage, next_offset: int) -> Iterator[tuple[str, bytes | None]]:
    """The pieces that have changed since the last call (None: to be deleted), and ``meta``."""
    stage.intake.prune()
    encode = msgspec.msgpack.encode
    intake = stage.intake
    devices, groups, clocks = intake.devices, intake.groups, intake.clocks
    # Every bucket has its piece, so that none is taken that an older declaration of the stream has left: but for
    # those that have nobody in them, which meta names.
    no_devices = _vacant(devices)
    no_groups = no_devices if groups is None else _vacant(groups)
    fresh = _buckets([devices.changed()])
    for bucket in fresh:
        yield from _occupied(f"names.{bucket}", devices, bucket, no_devices)
    for bucket in _buckets(intake.moved):
        if bucket in no_devices:
            yield f"progress.{bucket}", None
            continue
        progress = clocks.progress_us[_of(bucket, len(devices))]
        yield from _in_parts(f"progress.{bucket}", progress.astype("<i8").tobytes())
    if groups is not None:
        fresh = _buckets([groups.changed()])
        for bucket in fresh:
            yield from _occupied(f"groups.{bucket}", groups, bucket, no_groups)
    count = intake.group_count
    held = stage.held
    for bucket in sorted({*_buckets(stage.touched), *fresh}):
        of = _of(bucket, count)
        fronts = {readings.name: readings.fronts(of.start, of.stop) for readings in held}
        if bucket in no_groups and not any(fronts.values()):
            yield f"open.{bucket}", None
            continue
        # Of what was taken from a slot some may be in its runs still, so its front stays.
        opened = Open(stage.packed(of.start, of.stop), fronts)
        yield from _in_parts(f"open.{bucket}", encode(opened))
    stage.touched.clear()
    intake.moved.clear()
    for readings in held:
        yield from readings.changed()
    if intake.deduplication is not None:
        yield from intake.deduplication.changed()
    meta = Meta(
        version=VERSION,
        fingerprint=_fingerprint(stage),
        clock_us=clocks.clock_us,
        arrived_us=clocks.arrived_us,
        furthest_us=clocks.furthest_us,
        slowest_us=clocks.slowest_us,
        forgotten_us=clocks.forgotten_us,
        counts=intake.counts,
        devices=len(devices),
        groups=count,
        no_devices=no_devices,
        no_groups=no_groups,
        next_offset=next_offset,
        extra=stage.extra,
    )
    yield "meta", encode(meta)


def restore(spec: WindowSpec, piece: ReadPiece) -> tuple[WindowOperator, int]:
    """A stream's windows as they were, and the next offset they await (-1: any), from ``piece(name)``.

    Raises StateError when the state was made by a stream that was declared otherwise.
    """
    operator = WindowOperator(spec)
    return operator, restore_into(operator, piece)


def restore_into(stage: Stage, piece: ReadPiece) -> int:
    """Make fresh windows what they were, from ``piece(name)``; the next offset that they await (-1: any).

    Raises StateError when the state was made by a stream that was declared otherwise.
    """
    packed = piece("meta")
    if packed is None:
        return -1
    meta = _meta(stage, packed)
    stage.take_extra(meta.extra)
    intake = stage.intake
    devices, clocks = intake.devices, intake.clocks
    clocks.clock_us, clocks.arrived_us = meta.clock_us, meta.arrived_us
    clocks.furthest_us, clocks.slowest_us = meta.furthest_us, meta.slowest_us
    clocks.forgotten_us = meta.forgotten_us
    intake.counts.update(meta.counts)
    clocks.add_devices(meta.devices)
    for bucket in range(-(-meta.devices // BUCKET)):
        if bucket in meta.no_devices:
            devices.add_vacant(_size(bucket, meta.devices))
            continue
        devices.unpack(msgspec.msgpack.decode(_whole(piece, f"names.{bucket}")))
        progress = np.frombuffer(_whole(piece, f"progress.{bucket}"), "<i8")
        clocks.progress_us[bucket * BUCKET : bucket * BUCKET + len(progress)] = progress
    _restore_open(stage, meta, piece)
    if intake.deduplication is not None:
        intake.deduplication.restore(piece)
    return meta.next_offset


def forget_written(stage: Stage) -> None:
    """Count nothing as written: :func:`changed_pieces` gives every piece again, for another place to keep them in."""
    intake = stage.intake
    devices = np.arange(len(intake.devices))
    intake.devices.forget_written()
    intake.moved.append(devices)
    if intake.groups is not None:
        intake.groups.forget_written()
    stage.touched.append(np.arange(intake.group_count))
    if intake.deduplication is not None:
        intake.deduplication.forget_written()
    for readings in stage.held:
        readings.forget_written()


def _fingerprint(stage: Stage) -> str:
    return stage.role + stage.intake.spec.fingerprint()


def _meta(stage: Stage, packed: bytes) -> Meta:
    try:
        meta = msgspec.msgpack.decode(packed, type=Meta)
    except msgspec.ValidationError:
        meta = None
    if meta is None or (meta.version, meta.fingerprint) != (VERSION, _fingerprint(stage)):
        raise StateError(
            f"the state of stream {stage.intake.spec.stream} was made by another declaration of it",
            hint="give the stream another name; or compute it again from what the topic still has, with --rebuild;"
            " or go on with new windows from here, with --reset-state (what the open ones hold is lost)",
        )
    return meta


def _restore_open(stage: Stage, meta: Meta, piece: ReadPiece) -> None:
    groups, dtypes, count = stage.intake.groups, _dtypes(stage.intake.spec), meta.groups
    if groups is not None:
        for bucket in range(-(-count // BUCKET)):
            if bucket in meta.no_groups:
                groups.add_vacant(_size(bucket, count))
            else:
                groups.unpack(msgspec.msgpack.decode(_whole(piece, f"groups.{bucket}")))
    stage.add_groups()
    for bucket in range(-(-count // BUCKET)):
        packed = _joined(piece, f"open.{bucket}")
        if packed is None:
            continue
        opened = msgspec.msgpack.decode(packed, type=Open)
        stage.unpack(opened.engine, bucket * BUCKET, dtypes)
        for readings in stage.held:
            readings.take_fronts(opened.fronts[readings.name], bucket * BUCKET)
    for readings in stage.held:
        readings.restore(piece, dtypes)


def _dtypes(spec: WindowSpec) -> dict[str, Any]:
    fields = {name: DTYPES[spec.types[name]] for name in spec.fields}
    return {**fields, STARTS: np.bool_, ENDS: np.bool_}


def _of(bucket: int, count: int) -> slice:
    return slice(bucket * BUCKET, min((bucket + 1) * BUCKET, count))


def _size(bucket: int, count: int) -> int:
    return min(BUCKET, count - bucket * BUCKET)


def _vacant(slots: Devices | Groups) -> list[int]:
    """The buckets whose slots are all free."""
    if not len(slots.vacant):
        return []
    used = ~slots.vacant.among(len(slots))
    return np.flatnonzero(~np.logical_or.reduceat(used, np.arange(0, len(slots), BUCKET))).tolist()


def _occupied(name: str, slots: Devices | Groups, bucket: int, vacant: list[int]) -> Iterator[tuple[str, bytes | None]]:
    """The piece of a bucket, or that it has none."""
    if bucket in vacant:
        yield name, None
        return
    of = _of(bucket, len(slots))
    yield from _in_parts(name, msgspec.msgpack.encode(slots.packed(of.start, of.stop)))


def _buckets(slots: Sequence[Int64s]) -> list[int]:
    return np.unique(np.concatenate(slots) // BUCKET).tolist() if slots else []


def _in_parts(name: str, value: bytes) -> Iterator[tuple[str, bytes]]:
    """A piece, or, where it is too long for one, its parts and how many these are."""
    if len(value) < PIECE_BYTES:
        yield name, _WHOLE + value
        return
    parts = [value[begin : begin + PIECE_BYTES] for begin in range(0, len(value), PIECE_BYTES)]
    for place, part in enumerate(parts):
        yield f"{name}.{place}", part
    yield name, _IN_PARTS + len(parts).to_bytes(4, "little")


def _joined(piece: ReadPiece, name: str) -> bytes | None:
    packed = piece(name)
    if packed is None:
        return None
    if packed[:1] == _WHOLE:
        return packed[1:]
    parts = [piece(f"{name}.{place}") for place in range(int.from_bytes(packed[1:], "little"))]
    if None in parts:
        raise lacking(name)
    return b"".join(part for part in parts if part is not None)


def _whole(piece: ReadPiece, name: str) -> bytes:
    packed = _joined(piece, name)
    if packed is None:
        raise lacking(name)
    return packed
