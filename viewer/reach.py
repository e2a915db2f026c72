"""How much data a request would carry: no page may have a whole pivot of thousands by thousands at once."""

from __future__ import annotations

from typing import NamedTuple

from viewer.protobuf import bytes_field, fields, messages, number_field

MAX_CELLS = 2_000_000
"""Rows times columns of one answer: some two seconds of the engine's time."""

_MSG_ID, _ENTITY_ID, _DIMENSIONS = 1, 2, 12
_DATA = frozenset({16, 24, 25, 26, 36})
_UNTOLD = 2**32 - 1


class Window(NamedTuple):
    """A request for the rows and columns of a view, by index, ends excluded."""

    number: int
    view: bytes
    start_row: int = 0
    start_column: int = 0
    end_row: int = _UNTOLD
    end_column: int = _UNTOLD

    def cells(self, rows: int, columns: int) -> int:
        """How many cells of a view of this size the answer would hold."""
        down = max(0, min(rows, self.end_row) - self.start_row)
        return down * max(0, min(columns, self.end_column) - self.start_column)


def window(request: bytes) -> Window | None:
    """What a request for data asks for; None for other requests. Raises Malformed."""
    number, view, asked = 0, b"", None
    for field, value in fields(request):
        if field == _MSG_ID and isinstance(value, int):
            number = value
        elif field == _ENTITY_ID and isinstance(value, bytes):
            view = value
        elif field in _DATA and isinstance(value, bytes):
            asked = value
    if asked is None:
        return None
    edges = {1: 0, 2: 0, 3: _UNTOLD, 4: _UNTOLD}
    for viewport in messages(asked, 1):
        edges |= {edge: value for edge, value in fields(viewport) if edge in edges and isinstance(value, int)}
    return Window(number, view, *edges.values())


def ask_size(number: int, view: bytes) -> bytes:
    """A request for a view's size."""
    return number_field(_MSG_ID, number) + bytes_field(_ENTITY_ID, view) + bytes_field(_DIMENSIONS, b"")


def size(response: bytes, number: int) -> tuple[bool, tuple[int, int] | None]:
    """Whether this is the response to :func:`ask_size`, and the view's rows and columns if there is such a view."""
    answered, told = False, None
    for field, value in fields(response):
        if field == _MSG_ID:
            answered = value == number
        elif field == _DIMENSIONS and isinstance(value, bytes):
            counts = {which: count for which, count in fields(value) if isinstance(count, int)}
            told = counts.get(3, 0), counts.get(4, 0)
    return answered, told
