"""The read-only gate: what a page may ask of the engine, judged by the bytes of its requests.

A request is a protobuf message: its number (field 1), the table or view it is about (field 2), and one field
more that says what is asked. The gate knows the fields that only read, and answers all others itself; of views
it also reads what they ask for (:mod:`viewer.views`).
"""

from __future__ import annotations

from headrace.errors import ExpressionError
from viewer.protobuf import Malformed, bytes_field, fields, messages, number_field
from viewer.views import TooMuch, check

MAX_VIEWS = 100
MAX_FOLLOWED = 400
"""Subscriptions of a page: some three a view."""
READING = frozenset({*range(3, 9), *range(10, 27), 29, 30, *range(34, 38), *range(39, 42)})
"""Fields of the request's oneof that change nothing but the asker's own views and subscriptions."""

_MSG_ID, _ENTITY_ID = 1, 2
_HOSTED_TABLES, _MAKE_PORT, _MAKE_VIEW, _VIEW_DELETE, _DESCRIBE = 4, 5, 6, 11, 41
_FOLLOW, _UNFOLLOW = frozenset({21, 29, 34, 39}), frozenset({22, 30, 35, 37, 40})
_SERVER_ERROR = 50
_PORT = 1_000_000
"""The port that a page is told to write by. Nobody writes by it: a real one would be kept for ever."""


class Gate:
    """What one connection may do. Not shared between connections."""

    def __init__(self, *, max_views: int = MAX_VIEWS) -> None:
        self._max_views = max_views
        self._views: set[bytes] = set()
        self._asked: dict[int, bytes] = {}
        self._followed: dict[int, bytes] = {}

    @property
    def views(self) -> int:
        """How many views the connection holds."""
        return len(self._views)

    def answer(self, request: bytes) -> bytes | None:
        """None if the request may go to the engine, else what the page gets instead: as a rule a refusal."""
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
            return self._judge(field, number, entity, value)
        except (Malformed, TooMuch) as problem:
            return error(number, entity, str(problem))

    def _judge(self, field: int, number: int, entity: bytes, asked: bytes) -> bytes | None:
        if field == _MAKE_PORT:
            return _response(number, entity, field, number_field(1, _PORT))
        if field == _MAKE_VIEW:
            return self._new_view(number, entity, asked)
        if field == _DESCRIBE:
            wrong = {name: why for config in messages(asked, 1) for name, why in check(config).items()}
            return _response(number, entity, field, _wrong(wrong)) if wrong else None
        if field == _VIEW_DELETE:
            self._views.discard(entity)
            self._followed = {asker: view for asker, view in self._followed.items() if view != entity}
        elif field in _FOLLOW or (field == _HOSTED_TABLES and asked):
            if len(self._followed) >= MAX_FOLLOWED:
                return error(number, entity, f"a page may follow {MAX_FOLLOWED} changes: close some panels")
            self._followed[number] = entity
        elif field in _UNFOLLOW:
            for which, value in fields(asked):
                if which == 1 and isinstance(value, int):
                    self._followed.pop(value, None)
        return None

    def _new_view(self, number: int, entity: bytes, asked: bytes) -> bytes | None:
        if len(self._views) >= self._max_views:
            return error(number, entity, f"a page may hold {self._max_views} views: close some panels")
        for config in messages(asked, 2):
            for name, why in check(config).items():
                return error(number, entity, f"the expression {name!r}: {why}")
        view = b""
        for view in messages(asked, 1):  # noqa: B007 - the last one counts, as for the engine
            pass
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


def error(number: int, entity: bytes, text: str) -> bytes:
    """A response that says why a request is refused; the page's client raises it where it was asked."""
    return _response(number, entity, _SERVER_ERROR, bytes_field(1, text.encode()))


def _response(number: int, entity: bytes, field: int, answer: bytes) -> bytes:
    return number_field(_MSG_ID, number) + bytes_field(_ENTITY_ID, entity) + bytes_field(field, answer)


def _wrong(expressions: dict[str, ExpressionError]) -> bytes:
    """A description that finds these expressions wrong: the page's editor marks the place."""
    described = b""
    for name, problem in expressions.items():
        line = problem.text.count("\n", 0, problem.position)
        column = problem.position - (problem.text.rfind("\n", 0, problem.position) + 1)
        marked = bytes_field(1, str(problem).encode()) + number_field(2, line) + number_field(3, column)
        described += bytes_field(2, bytes_field(1, name.encode()) + bytes_field(2, marked))
    return described
