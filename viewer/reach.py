"""How much data a request would carry: no page may have a whole pivot of thousands by thousands at once."""

from __future__ import annotations

from typing import NamedTuple

from viewer.perspective_pb2 import Request, Response, Unread, ViewDataReq

MAX_CELLS = 2_000_000
"""Rows times columns of one answer: some two seconds of the engine's time."""

_UNTOLD = 2**32 - 1


class Window(NamedTuple):
    """A request for the rows and columns of a view, by index, ends excluded."""

    number: int
    view: str
    start_row: int = 0
    start_column: int = 0
    end_row: int = _UNTOLD
    end_column: int = _UNTOLD

    def cells(self, rows: int, columns: int) -> int:
        """How many cells of a view of this size the answer would hold."""
        down = max(0, min(rows, self.end_row) - self.start_row)
        return down * max(0, min(columns, self.end_column) - self.start_column)


def window(request: bytes) -> Window | None:
    """What a request for data asks for; None for other requests. Raises DecodeError."""
    message = Request.FromString(request)
    asked = _data(message)
    if asked is None:
        return None
    edges = {"start_row": 0, "start_col": 0, "end_row": _UNTOLD, "end_col": _UNTOLD}
    for viewport in asked.viewport:
        edges |= {edge: getattr(viewport, edge) for edge in edges if viewport.HasField(edge)}
    return Window(message.msg_id, message.entity_id, *edges.values())


def _data(message: Request) -> ViewDataReq | None:
    asked: list[ViewDataReq] = [
        *message.view_to_arrow_req,
        *message.view_to_columns_string_req,
        *message.view_to_csv_req,
        *message.view_to_rows_string_req,
        *message.view_to_ndjson_string_req,
    ]
    return asked[-1] if asked else None


def ask_size(number: int, view: str) -> bytes:
    """A request for a view's size."""
    request: bytes = Request(msg_id=number, entity_id=view, view_dimensions_req=[Unread()]).SerializeToString()
    return request


def size(response: bytes, number: int) -> tuple[bool, tuple[int, int] | None]:
    """Whether this is the response to :func:`ask_size`, and the view's rows and columns if there is such a view."""
    told = Response.FromString(response)
    dimensions = told.view_dimensions_resp
    known = (dimensions.num_view_rows, dimensions.num_view_columns) if told.HasField("view_dimensions_resp") else None
    return told.msg_id == number, known
