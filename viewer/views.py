"""What a view may ask of the engine: how many pivots, columns, filters and expressions, and which of those.

A view is asked for (or described, before it is made) by a ``ViewConfig``, a protobuf message. Its fields are
all known here; what is not known is refused, as an upgrade of the engine may bring what costs more.
"""

from __future__ import annotations

from collections import Counter

from headrace.errors import ExpressionError
from viewer import expressions
from viewer.protobuf import fields, messages, text

MAX_EXPRESSIONS_LENGTH = 4_000
"""Characters of all expressions of a view."""

_GROUP_BY, _SPLIT_BY, _COLUMNS, _FILTER, _SORT, _EXPRESSIONS, _AGGREGATES = range(1, 8)
_FILTER_OP, _GROUP_BY_DEPTH, _GROUP_ROLLUP, _WINDOWS, _SPLIT_ROLLUP = range(8, 13)
_FILTER_VALUE = 3
_LISTED = 2
"""In ``ColumnsUpdate`` the list of columns; in an entry of a map its value; in a window the columns it is parted by."""

MOST: dict[int, tuple[int, str]] = {
    _GROUP_BY: (4, "columns to group by"),
    _SPLIT_BY: (2, "columns to split by"),
    _COLUMNS: (500, "columns"),
    _FILTER: (50, "filters"),
    _FILTER_VALUE << 8: (1_000, "values to filter by"),
    _SORT: (20, "columns to sort by"),
    _EXPRESSIONS: (20, "expressions"),
    _AGGREGATES: (500, "aggregates"),
    _WINDOWS: (5, "window columns"),
}
"""By field of ``ViewConfig`` (and the values of all its filters), how many a view may have, and of what."""
_KNOWN = frozenset(range(1, 13))


class TooMuch(ValueError):
    """A view that asks for more than one page may have."""


def check(config: bytes) -> dict[str, ExpressionError]:
    """The expressions of a ``ViewConfig`` that must not be computed, by their columns' names.

    Raises TooMuch for a view beyond the bounds, Malformed for what is no ``ViewConfig``.
    """
    counts: Counter[int] = Counter()
    length = 0
    wrong: dict[str, ExpressionError] = {}
    for field, value in fields(config):
        if field not in _KNOWN:
            raise TooMuch("this viewer does not know what the view asks for")
        if not isinstance(value, bytes):
            continue
        counts[field] += _size(field, value)
        if field == _FILTER:
            counts[_FILTER_VALUE << 8] += sum(1 for _ in messages(value, _FILTER_VALUE))
        elif field == _EXPRESSIONS:
            name = "".join(text(key) for key in messages(value, 1))
            for expression in messages(value, 2):
                length += len(expression)
                try:
                    expressions.check(text(expression))
                except ExpressionError as problem:
                    wrong[name] = problem
    for field, (most, what) in MOST.items():
        if counts[field] > most:
            raise TooMuch(f"a view may have {most} {what}, and this one has {counts[field]}")
    if length > MAX_EXPRESSIONS_LENGTH:
        raise TooMuch(
            f"the expressions of a view may have {MAX_EXPRESSIONS_LENGTH} characters, and these have {length}"
        )
    return wrong


def _size(field: int, value: bytes) -> int:
    """How many of its kind one field of the configuration is."""
    if field == _COLUMNS:
        return sum(1 for listed in messages(value, _LISTED) for _ in messages(listed, 1))
    if field == _AGGREGATES:
        return max(1, sum(1 for listed in messages(value, _LISTED) for _ in messages(listed, 1)))
    return 1
