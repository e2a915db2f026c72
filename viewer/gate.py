"""The read-only gate: which of the engine's requests a page may send, judged by its bytes.

A request is a protobuf message: its number (field 1), the table or view it is about (field 2), and one field
more that says what is asked. The gate knows the fields that only read, and answers all others itself.
"""

from __future__ import annotations

from collections.abc import Iterator

MAX_VIEWS = 100
READING = frozenset({*range(3, 9), *range(10, 27), 29, 30, *range(34, 38), *range(39, 42)})
"""Fields of the request's oneof that change nothing but the asker's own views and subscriptions."""

_MSG_ID, _ENTITY_ID = 1, 2
_MAKE_VIEW, _VIEW_DELETE = 6, 11
_SERVER_ERROR = 50
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Malformed(ValueError):
    """Bytes that are no protobuf message."""


class Gate:
    """What one connection may do. Not shared between connections."""

    def __init__(self, *, max_views: int = MAX_VIEWS) -> None:
        self._max_views = max_views
        self._views: set[str] = set()
        self._asked: dict[int, str] = {}

    @property
    def views(self) -> int:
        """How many views the connection holds."""
        return len(self._views)

    def refusal(self, request: bytes) -> bytes | None:
        """None if the request may go to the engine, else the response that refuses it."""
        number, entity, asked = 0, b"", []
        try:
            for field, value in fields(request):
                if field == _MSG_ID and isinstance(value, int):
                    number = value
                elif field == _ENTITY_ID and isinstance(value, bytes):
                    entity = value
                else:
                    asked.append((field, value))
            if len(asked) != 1:
                return error(number, entity, "a request asks for one thing")
            field, value = asked[0]
            if field not in READING or not isinstance(value, bytes):
                return error(number, entity, "this page is read-only: the viewer refuses what would change a table")
            if field == _MAKE_VIEW:
                return self._new_view(number, entity, value)
        except Malformed as problem:
            return error(number, entity, str(problem))
        if field == _VIEW_DELETE:
            self._views.discard(entity.decode(errors="replace"))
        return None

    def _new_view(self, number: int, entity: bytes, asked: bytes) -> bytes | None:
        if len(self._views) >= self._max_views:
            return error(number, entity, f"a page may hold {self._max_views} views: close some panels")
        name = next((value for field, value in fields(asked) if field == 1 and isinstance(value, bytes)), b"")
        view = name.decode(errors="replace")
        self._views.add(view)
        self._asked[number] = view
        return None

    def answered(self, response: bytes) -> None:
        """Look at what the engine answers: a view that it would not make is none to be counted."""
        if not self._asked:
            return
        number, failed = 0, False
        for field, value in fields(response):
            if field == _MSG_ID and isinstance(value, int):
                number = value
            failed = failed or field == _SERVER_ERROR
        view = self._asked.pop(number, None)
        if failed and view is not None:
            self._views.discard(view)


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protobuf message, in order: number and value (an int, or the bytes of the rest).

    Raises Malformed.
    """
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


def error(number: int, entity: bytes, text: str) -> bytes:
    """A response that says why a request is refused; the page's client raises it where it was asked."""
    reason = _field(1, text.encode())
    return _tag(_MSG_ID, _VARINT) + _packed(number) + _field(_ENTITY_ID, entity) + _field(_SERVER_ERROR, reason)


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


def _tag(number: int, wire: int) -> bytes:
    return _packed(number << 3 | wire)


def _field(number: int, value: bytes) -> bytes:
    return _tag(number, _BYTES) + _packed(len(value)) + value
