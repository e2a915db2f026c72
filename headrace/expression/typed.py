"""Parts of an expression whose types are known: how they are joined, folded and fitted to one another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import numpy as np

from headrace.batch import Batch
from headrace.column import Column
from headrace.errors import ExpressionError
from headrace.expression import operands
from headrace.expression.operands import Kernel, Kind
from headrace.field_types import FieldType

Run = Callable[[Batch], Column]


@dataclass(frozen=True, slots=True)
class Typed:
    """A part yet to be computed: its kind, where it stands, and how it is computed from the columns.

    ``folded`` is its one value when it is a constant; ``literal`` is the text when it is written as text.
    """

    kind: Kind
    at: int
    run: Run
    folded: Column | None = None
    literal: str | None = None

    @property
    def is_known(self) -> bool:
        """Whether it is a constant that is not null."""
        if self.folded is None or self.kind == "null":
            return False
        return self.folded.valid is None or bool(self.folded.valid[0])


def known(value: Any, kind: Kind, at: int, *, literal: str | None = None) -> Typed:
    """A constant; None is a null."""
    # The bare null has no dtype of its own before it is fitted to something.
    return _folded(operands.constant(value, "int" if kind == "null" else kind), kind, at, literal)


def column(name: str, kind: Kind, at: int) -> Typed:
    """A field or a tag."""
    of: FieldType = cast("FieldType", kind)
    return Typed(kind, at, lambda batch: batch.column(name).to(of))


def joined(kind: Kind, at: int, kernel: Kernel, *operands: Typed) -> Typed:
    """What ``kernel`` makes of the operands; computed now, once and for all, if all are constants."""
    folded = [operand.folded for operand in operands]
    if all(part is not None for part in folded):
        with np.errstate(all="ignore"):
            return _folded(kernel(*folded), kind, at, None)
    runs = [operand.run for operand in operands]
    if len(runs) == 1:
        only = runs[0]
        return Typed(kind, at, lambda batch: kernel(only(batch)))
    if len(runs) == 2:
        first, second = runs
        return Typed(kind, at, lambda batch: kernel(first(batch), second(batch)))
    return Typed(kind, at, lambda batch: kernel(*[run(batch) for run in runs]))


def _folded(value: Column, kind: Kind, at: int, literal: str | None) -> Typed:
    return Typed(kind, at, lambda _: value, value, literal)


class Fitting:
    """Refusals of one expression's text, and the fitting of kinds that needs them."""

    def __init__(self, text: str) -> None:
        self._text = text

    def error(self, message: str, at: int, hint: str) -> ExpressionError:
        """The error to raise about the character ``at``."""
        return ExpressionError(message, text=self._text, position=at, hint=hint)

    def common(self, operands: Sequence[Typed]) -> Kind | None:
        """The kind that all of these can be fitted to; None if there is none.

        Ints widen to floats, text that is written out becomes a time beside times, null fits all.
        """
        kinds = {operand.kind for operand in operands} - {"null"}
        if len(kinds) < 2:
            return next(iter(kinds), "null")
        if kinds == {"int", "float"}:
            return "float"
        written = all(operand.literal is not None for operand in operands if operand.kind == "text")
        return "time" if kinds == {"time", "text"} and written else None

    def fit(self, operand: Typed, kind: Kind) -> Typed:
        """The operand as ``kind``, which :meth:`common` gave for it."""
        if operand.kind == kind:
            return operand
        if operand.kind == "null":
            return known(None, kind, operand.at)
        if kind == "float":
            return joined("float", operand.at, operands.to_float, operand)
        return known(self._time_us(operand), "time", operand.at)

    def fit_all(self, operands: Sequence[Typed], what: str) -> tuple[Kind, list[Typed]]:
        """The operands as one kind. ``what`` they are of, as a message puts it: ``"a case"``."""
        kind = self.common(operands)
        if kind is None:
            first = next(operand for operand in operands if operand.kind != "null")
            other = next(operand for operand in operands if self.common([first, operand]) is None)
            raise self.error(
                f"{what} mixes {first.kind} and {other.kind}", other.at, "all of its values must be of one type"
            )
        return kind, [self.fit(operand, kind) for operand in operands]

    def _time_us(self, operand: Typed) -> int:
        hint = "write a time with its zone, as '2026-01-31T12:00:00Z'"
        try:
            moment = datetime.fromisoformat(operand.literal or "")
        except ValueError as error:
            raise self.error(f"{operand.literal!r} is no time", operand.at, hint) from error
        if moment.tzinfo is None:
            raise self.error(f"the time {operand.literal!r} has no zone", operand.at, hint)
        return operands.time_us(moment)
