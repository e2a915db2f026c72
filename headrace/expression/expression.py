"""An expression that has been understood, and the values it gives for a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np

from headrace.batch import Batch
from headrace.column import BLANKS, Bools, Column
from headrace.errors import ExpressionError
from headrace.expression.compile import Compiler
from headrace.expression.parser import parse_syntax
from headrace.expression.typed import Run
from headrace.field_types import FieldType


class Expression:
    """A typed expression over fields and tags. Immutable and pure: the same batch gives the same values."""

    __slots__ = ("_run", "names", "text", "type")

    def __init__(self, text: str, kind: FieldType, names: frozenset[str], run: Run) -> None:
        self.text = text
        self.type: FieldType = kind
        self.names = names
        self._run = run

    def __repr__(self) -> str:
        return f"Expression({self.text!r}, {self.type!r})"

    def evaluate(self, batch: Batch) -> Column:
        """The value for each of the n readings. KeyError if the batch lacks one of ``names``.

        Floats are finite unless a field's own value was not: NaN is missing.
        """
        with np.errstate(all="ignore"):
            made = self._run(batch)
        return _spread(made, len(batch))

    def mask(self, batch: Batch) -> Bools:
        """For each of the n readings whether the condition holds; null counts as false.

        TypeError unless ``type`` is bool; KeyError if the batch lacks one of ``names``.
        """
        if self.type != "bool":
            raise TypeError(f"{self.text!r} is {self.type}, no condition")
        return self.evaluate(batch).values


def _spread(made: Column, count: int) -> Column:
    """As many values as there are readings, as a constant is one; blanks where they are missing."""
    values, valid = made.values, made.marked
    if valid is not None and values.dtype.kind != "b":
        values = np.where(valid, values, BLANKS[values.dtype.kind])
    elif len(made) == count:
        return made
    return Column(np.broadcast_to(values, (count,)), None if valid is None else np.broadcast_to(valid, (count,)))


def parse(text: str, types: Mapping[str, FieldType]) -> Expression:
    """The expression that ``text`` says over fields and tags of these types.

    Raises ExpressionError, whose ``position`` is the character in question: for what is no expression, a
    name that is not there, types that do not fit, or more than MAX_LENGTH characters or MAX_DEPTH levels.
    """
    compiler = Compiler(text, types)
    typed = compiler.whole(parse_syntax(text))
    return Expression(text, cast("FieldType", typed.kind), frozenset(compiler.names), typed.run)


def parse_condition(text: str, types: Mapping[str, FieldType]) -> Expression:
    """As :func:`parse`, for a ``where``: raises ExpressionError too if the expression is not a bool."""
    expression = parse(text, types)
    if expression.type != "bool":
        raise ExpressionError(
            f"a condition is bool (true or false), but this is {expression.type}",
            text=text,
            position=len(text) - len(text.lstrip()),
            hint="compare it with something, as x > 0",
        )
    return expression
