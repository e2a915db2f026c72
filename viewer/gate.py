"""The read-only gate: what a page may ask of the engine, judged request by request.

A request has its number, the table or view it is about, and one field more that says what is asked. The gate
knows by name the requests that only read, and answers all others itself; of views it also reads what they ask
for (:mod:`viewer.views`). The requests are read by ``perspective.proto``.
"""

from __future__ import annotations

from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from headrace.errors import ExpressionError
from viewer.perspective_pb2 import Request, Response, TableDescribeResp, TableMakePortResp, TableMakeViewReq
from viewer.views import TooMuch, check

MAX_VIEWS = 100
MAX_FOLLOWED = 400
"""Subscriptions of a page: some three a view."""

_FOLLOW = frozenset({"view_on_update_req", "table_on_delete_req", "view_on_delete_req", "view_on_remove_req"})
_UNFOLLOW = frozenset(
    {
        "view_remove_on_update_req",
        "table_remove_delete_req",
        "view_remove_delete_req",
        "view_remove_on_remove_req",
        "remove_hosted_tables_update_req",
    }
)
READING = frozenset(
    {
        *_FOLLOW,
        *_UNFOLLOW,
        "get_features_req",
        "get_hosted_tables_req",
        "server_system_info_req",
        "table_describe_req",
        "table_make_port_req",
        "table_make_view_req",
        "table_schema_req",
        "table_size_req",
        "view_collapse_req",
        "view_column_paths_req",
        "view_delete_req",
        "view_dimensions_req",
        "view_expand_req",
        "view_expression_schema_req",
        "view_get_config_req",
        "view_get_min_max_req",
        "view_schema_req",
        "view_set_depth_req",
        "view_to_arrow_req",
        "view_to_columns_string_req",
        "view_to_csv_req",
        "view_to_ndjson_string_req",
        "view_to_rows_string_req",
    }
)
"""The requests that change nothing but the asker's own views and subscriptions."""

ENTITY_ID = Request.ENTITY_ID_FIELD_NUMBER
"""The fields up to here say who asks, and of what; those beyond it what is asked."""

_PORT = 1_000_000
"""The port that a page is told to write by. Nobody writes by it: a real one would be kept for ever."""


class Gate:
    """What one connection may do. Not shared between connections."""

    def __init__(self, *, max_views: int = MAX_VIEWS) -> None:
        self._max_views = max_views
        self._views: set[str] = set()
        self._asked: dict[int, str] = {}
        self._followed: dict[int, str] = {}

    @property
    def views(self) -> int:
        """How many views the connection holds."""
        return len(self._views)

    def answer(self, message: bytes) -> bytes | None:
        """None if the request may go to the engine, else what the page gets instead: as a rule a refusal."""
        try:
            request = Request.FromString(message)
        except DecodeError:
            return error(0, "", "this is no request, or it is cut short")
        asked = [(field.name, len(values)) for field, values in request.ListFields() if field.number > ENTITY_ID]
        unknown = len(UnknownFieldSet(request))
        if sum(times for _, times in asked) + unknown != 1:
            return _refused(request, "a request asks for one thing")
        if unknown or asked[0][0] not in READING:
            return _refused(request, "this page is read-only: the viewer refuses what would change a table")
        try:
            return self._judge(asked[0][0], request)
        except TooMuch as problem:
            return _refused(request, str(problem))

    def _judge(self, asked: str, request: Request) -> bytes | None:
        if asked == "table_make_port_req":
            return _answer(request, table_make_port_resp=TableMakePortResp(port_id=_PORT))
        if asked == "table_make_view_req":
            return self._new_view(request, request.table_make_view_req[0])
        if asked == "table_describe_req":
            described = request.table_describe_req[0]
            wrong = {name: why for config in described.config for name, why in check(config).items()}
            return _answer(request, table_describe_resp=_wrong(wrong)) if wrong else None
        if asked == "view_delete_req":
            self._views.discard(request.entity_id)
            self._followed = {asker: view for asker, view in self._followed.items() if view != request.entity_id}
        elif asked in _FOLLOW or (asked == "get_hosted_tables_req" and request.get_hosted_tables_req[0].subscribe):
            if len(self._followed) >= MAX_FOLLOWED:
                return _refused(request, f"a page may follow {MAX_FOLLOWED} changes: close some panels")
            self._followed[request.msg_id] = request.entity_id
        elif asked in _UNFOLLOW:
            for which in getattr(request, asked)[0].id:
                self._followed.pop(which, None)
        return None

    def _new_view(self, request: Request, asked: TableMakeViewReq) -> bytes | None:
        if len(self._views) >= self._max_views:
            return _refused(request, f"a page may hold {self._max_views} views: close some panels")
        for config in asked.config:
            for name, why in check(config).items():
                return _refused(request, f"the expression {name!r}: {why}")
        self._views.add(asked.view_id)
        self._asked[request.msg_id] = asked.view_id
        return None

    def answered(self, response: bytes) -> None:
        """Look at what the engine answers: a view that it would not make is none to be counted."""
        if not self._asked:
            return
        told = Response.FromString(response)
        view = self._asked.pop(told.msg_id, None)
        if view is not None and told.HasField("server_error"):
            self._views.discard(view)


def error(number: int, entity: str, text: str) -> bytes:
    """A response that says why a request is refused; the page's client raises it where it was asked."""
    response: bytes = Response(msg_id=number, entity_id=entity, server_error={"message": text}).SerializeToString()
    return response


def _refused(request: Request, text: str) -> bytes:
    return error(request.msg_id, request.entity_id, text)


def _answer(request: Request, **answer: TableMakePortResp | TableDescribeResp) -> bytes:
    response: bytes = Response(msg_id=request.msg_id, entity_id=request.entity_id, **answer).SerializeToString()
    return response


def _wrong(expressions: dict[str, ExpressionError]) -> TableDescribeResp:
    """A description that finds these expressions wrong: the page's editor marks the place."""
    described = TableDescribeResp()
    for name, problem in expressions.items():
        marked = described.expression_errors[name]
        marked.error_message = str(problem)
        marked.line = problem.text.count("\n", 0, problem.position)
        marked.column = problem.position - (problem.text.rfind("\n", 0, problem.position) + 1)
    return described
