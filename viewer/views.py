"""What a view may ask of the engine: how many pivots, columns, filters and expressions, and which of those.

A view is asked for (or described, before it is made) by a ``ViewConfig``. Its fields are all known here; what is
not known is refused, as an upgrade of the engine may bring what costs more.
"""

from __future__ import annotations

from google.protobuf.unknown_fields import UnknownFieldSet

from headrace.errors import ExpressionError
from viewer import expressions
from viewer.perspective_pb2 import ViewConfig

MAX_EXPRESSIONS_LENGTH = 4_000
"""Characters of all expressions of a view."""

MOST: dict[str, tuple[int, str]] = {
    "group_by": (4, "columns to group by"),
    "split_by": (2, "columns to split by"),
    "columns": (500, "columns"),
    "filter": (50, "filters"),
    "filter.value": (1_000, "values to filter by"),
    "sort": (20, "columns to sort by"),
    "expressions": (20, "expressions"),
    "aggregates": (500, "aggregates"),
    "windows": (5, "window columns"),
}
"""By field of ``ViewConfig`` (and the values of all its filters), how many a view may have, and of what."""


class TooMuch(ValueError):
    """A view that asks for more than one page may have."""


def check(config: ViewConfig) -> dict[str, ExpressionError]:
    """The expressions of a view that must not be computed, by their columns' names.

    Raises TooMuch for a view beyond the bounds, or that asks for what is not known.
    """
    if len(UnknownFieldSet(config)):
        raise TooMuch("this viewer does not know what the view asks for")
    counts = {
        "group_by": len(config.group_by),
        "split_by": len(config.split_by),
        "columns": sum(len(listed.columns) for update in config.columns for listed in update.columns),
        "filter": len(config.filter),
        "filter.value": sum(len(one.value) for one in config.filter),
        "sort": len(config.sort),
        "expressions": len(config.expressions),
        "aggregates": sum(max(1, sum(len(a.aggregations) for a in one.value)) for one in config.aggregates),
        "windows": len(config.windows),
    }
    for field, (most, what) in MOST.items():
        if counts[field] > most:
            raise TooMuch(f"a view may have {most} {what}, and this one has {counts[field]}")
    length = sum(len(text) for one in config.expressions for text in one.value)
    if length > MAX_EXPRESSIONS_LENGTH:
        raise TooMuch(
            f"the expressions of a view may have {MAX_EXPRESSIONS_LENGTH} characters, and these have {length}"
        )
    wrong: dict[str, ExpressionError] = {}
    for one in config.expressions:
        for text in one.value:
            try:
                expressions.check(text)
            except ExpressionError as problem:
                wrong["".join(one.key)] = problem
    return wrong
