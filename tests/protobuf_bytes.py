"""Protobuf messages written and read by hand: what the gate is tested with knows nothing of what it is made of."""

from __future__ import annotations

from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message, in order: number and value (an int, or the bytes of the rest)."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire == BYTES:
            length, at = _varint(message, at)
        else:
            length = {FIXED64: 8, FIXED32: 4}[wire]
        yield number, message[at : at + length]
        at += length


def number_field(number: int, value: int) -> bytes:
    """A field that holds a whole number from 0."""
    return _packed(number << 3 | VARINT) + _packed(value)


def bytes_field(number: int, value: bytes) -> bytes:
    """A field that holds a message, a text or bytes."""
    return _packed(number << 3 | BYTES) + _packed(len(value)) + value


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
        shift += 7


def _packed(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
