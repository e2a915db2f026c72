"""An expression that has been understood, and the values it gives for a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from headrace.batch import Batch, Float64s
from headrace.errors import ExpressionError
from headrace.expression import operands
from headrace.expression.compile import Compiler
from headrace.expression.operands import Columns
from headrace.expression.parser import parse_syntax
from headrace.expression.typed import Run
from headrace.field_types import FieldType


@dataclass(frozen=True, slots=True)
class Values:
    """What an expression gives for the n readings of a batch.

    ``values`` has n float64, int64, bool, int64 (time, µs since the epoch) or objects (str), as ``type``
    says; under a null stands NaN, 0, False, 0 or "". ``nulls`` has n bool, True where the value is null.
    Floats are finite unless a field's own value was not: NaN is null.
    """

    type: FieldType
    values: NDArray[Any]
    nulls: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.values)

    def tolist(self) -> list[Any]:
        """The n values as Batch.column gives them: None where null."""
        values: list[Any] = self.values.tolist()
        if self.nulls.any():
            for place in np.flatnonzero(self.nulls).tolist():
                values[place] = None
        return values

    def floats(self) -> Float64s:
        """The n numbers as Batch.floats gives them: NaN where null. TypeError for text."""
        if self.type == "text":
            raise TypeError("text has no floats")
        return operands.to_float((self.values, self.nulls))[0]


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

    def evaluate(self, batch: Batch) -> Values:
        """The value for each of the n readings. KeyError if the batch lacks one of ``names``."""
        count = len(batch)
        with np.errstate(all="ignore"):
            part = self._run(Columns(batch))
        nulls = operands.nulls_of(part)
        if nulls is None:
            return Values(self.type, _owned(part[0], count), np.zeros(count, dtype=np.bool_))
        values = part[0] if self.type in ("float", "bool") else np.where(nulls, operands.BLANKS[self.type], part[0])
        return Values(self.type, _owned(values, count), _owned(nulls, count))

    def mask(self, batch: Batch) -> NDArray[np.bool_]:
        """For each of the n readings whether the condition holds; null counts as false.

        TypeError unless ``type`` is bool; KeyError if the batch lacks one of ``names``.
        """
        if self.type != "bool":
            raise TypeError(f"{self.text!r} is {self.type}, no condition")
        with np.errstate(all="ignore"):
            values, _ = self._run(Columns(batch))
        return _owned(values, len(batch))


def _owned(values: NDArray[Any], count: int) -> NDArray[Any]:
    """An array of ``count`` that may be written to: a constant is spread."""
    if len(values) == count and values.flags.owndata and values.flags.writeable:
        return values
    return np.broadcast_to(values, (count,)).copy()


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
