"""Protobuf messages by their bytes: the little that the gate reads and writes, without a schema."""

from __future__ import annotations

from collections.abc import Iterator

Value = int | bytes
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Malformed(ValueError):
    """Bytes that are no protobuf message."""


def fields(message: bytes) -> Iterator[tuple[int, Value]]:
    """The fields of a message, in order: number and value (an int, or the bytes of the rest). Raises Malformed."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire == _BYTES:
            length, at = _varint(message, at)
        elif wire == _FIXED64:
            length = 8
        elif wire == _FIXED32:
            length = 4
        else:
            raise Malformed("this is no request")
        if at + length > len(message):
            raise Malformed("this request is cut short")
        yield number, bytes(message[at : at + length])
        at += length


def messages(message: bytes, number: int) -> Iterator[bytes]:
    """The values of a field that holds messages or texts, as often as it is there. Raises Malformed."""
    for found, value in fields(message):
        if found == number:
            if not isinstance(value, bytes):
                raise Malformed("this is no request")
            yield value


def text(value: bytes) -> str:
    """A text. Raises Malformed for what is no UTF-8, as the engine does."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise Malformed("this request holds a text that is no UTF-8") from None


def number_field(number: int, value: int) -> bytes:
    """A field that holds a whole number from 0."""
    return _packed(number << 3 | _VARINT) + _packed(value)


def bytes_field(number: int, value: bytes) -> bytes:
    """A field that holds a message, a text or bytes."""
    return _packed(number << 3 | _BYTES) + _packed(len(value)) + value


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message) and shift < 64:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
        shift += 7
    raise Malformed("this request is cut short")


def _packed(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
