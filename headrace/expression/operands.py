"""What the operators do to columns: numpy in, numpy out, nothing by the row but text.

Operands are columns of n values, or of 1 for a constant, which numpy spreads over the others. A missing float is NaN,
which arithmetic carries on by itself; a missing bool is False; elsewhere the value where one is missing is of the
right type and means nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import numpy as np

from headrace.column import BLANKS, DTYPES, Array, Bools, Column
from headrace.field_types import FieldType

Kind = Literal["float", "int", "bool", "text", "time", "null"]
"""A field's type, or ``null``: that of the bare word, which fits all."""

Kernel = Callable[..., Column]

_INT_MIN = -(2**63)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def time_us(value: datetime) -> int:
    """The aware datetime as µs since the epoch, exactly."""
    return (value - _EPOCH) // _MICROSECOND


def constant(value: Any, kind: FieldType) -> Column:
    """A column of one value; None is missing."""
    dtype = DTYPES[kind]
    if value is not None:
        return Column(np.array([value], dtype))
    return Column(np.array([BLANKS[dtype.kind]], dtype), None if kind == "float" else np.array([False]))


def both(left: Bools | None, right: Bools | None) -> Bools | None:
    """Valid where both are."""
    if left is None:
        return right
    return left if right is None else left & right


def to_float(operand: Column) -> Column:
    """Ints as floats: beyond 2^53 the nearest one."""
    return Column(operand.floats())


def to_int(floats: Array) -> Column:
    """Whole floats as ints, missing where they are NaN or beyond 64 bits."""
    fits = (floats >= -(2.0**63)) & (floats < 2.0**63)
    return Column(np.where(fits, floats, 0.0).astype(np.int64), fits)


def finite(values: Array) -> Array:
    """NaN for what is infinite: a division by zero, or a result that no float holds."""
    return np.where(np.isinf(values), np.nan, values)


# ---- arithmetic: what overflows is missing


def add_floats(left: Column, right: Column) -> Column:
    """Left + right."""
    return Column(finite(left.values + right.values))


def subtract_floats(left: Column, right: Column) -> Column:
    """Left - right."""
    return Column(finite(left.values - right.values))


def multiply_floats(left: Column, right: Column) -> Column:
    """Left * right."""
    return Column(finite(left.values * right.values))


def divide_floats(left: Column, right: Column) -> Column:
    """Left / right; by zero it is missing."""
    return Column(finite(left.values / right.values))


def remainder_floats(left: Column, right: Column) -> Column:
    """What is left of ``left`` after division, with its sign; by zero it is missing."""
    return Column(finite(np.fmod(left.values, right.values)))


def add_ints(left: Column, right: Column) -> Column:
    """Left + right, exactly or missing."""
    a, b = left.values, right.values
    total = a + b
    # Wrapped round when both have one sign and the sum the other.
    return _unless(total, left, right, wrapped=((a ^ total) & (b ^ total)) < 0)


def subtract_ints(left: Column, right: Column) -> Column:
    """Left - right, exactly or missing."""
    a, b = left.values, right.values
    difference = a - b
    return _unless(difference, left, right, wrapped=((a ^ b) & (a ^ difference)) < 0)


def multiply_ints(left: Column, right: Column) -> Column:
    """Left * right, exactly or missing."""
    a, b = left.values, right.values
    product = a * b
    # A product that wrapped is off by a multiple of 2^64; the float one is off by 2^-52 of itself at most.
    rough = a.astype(np.float64) * b.astype(np.float64)
    return _unless(product, left, right, wrapped=np.abs(rough - product.astype(np.float64)) > 2.0**62)


def remainder_ints(left: Column, right: Column) -> Column:
    """What is left of ``left`` after division, with its sign; by zero it is missing."""
    zero = right.values == 0
    # By 1 and by -1 nothing is left; the least int by -1 traps in some processors.
    divisor = np.where(zero | (right.values == -1), 1, right.values)
    return _unless(np.fmod(left.values, divisor), left, right, wrapped=zero)


def _unless(values: Array, left: Column, right: Column, *, wrapped: Bools) -> Column:
    return Column(values, both(both(left.valid, right.valid), ~wrapped))


def negate_ints(operand: Column) -> Column:
    """Minus the operand; missing for the least int, which has no positive twin."""
    return Column(-operand.values, both(operand.valid, operand.values != _INT_MIN))


def negate_floats(operand: Column) -> Column:
    """Minus the operand."""
    return Column(-operand.values)


def seconds_between(later: Column, earlier: Column) -> Column:
    """The difference of two times, in seconds."""
    return Column(subtract_ints(later, earlier).floats() / 1e6)


# ---- comparison and logic: three-valued, as SQL has it


def comparison(ufunc: np.ufunc, *, floats: bool, right_is_known: bool) -> Kernel:
    """A kernel that compares two operands of one kind; missing where either is.

    ``right_is_known`` says that the right one is a constant and not null, which saves looking.
    """

    def compare_floats(left: Column, right: Column) -> Column:
        a, b = left.values, right.values
        missing = np.isnan(a) if right_is_known else np.isnan(a) | np.isnan(b)
        valid = ~missing
        # NaN is unequal to all there is: of the six comparisons only this one holds for it.
        return Column(ufunc(a, b) & valid if ufunc is np.not_equal else ufunc(a, b), valid)

    def compare_others(left: Column, right: Column) -> Column:
        values = ufunc(left.values, right.values).astype(np.bool_, copy=False)
        valid = both(left.valid, right.valid)
        return Column(values if valid is None else values & valid, valid)

    return compare_floats if floats else compare_others


def conjunction(*operands: Column) -> Column:
    """All hold: false where one is false, else missing where one is missing."""
    values, valid = operands[0].values, operands[0].valid
    for more in operands[1:]:
        if valid is None and more.valid is None:
            values = values & more.values
            continue
        possible = _possible(values, valid) & _possible(more.values, more.valid)
        values = values & more.values
        valid = values | ~possible
    return Column(values, valid)


def disjunction(*operands: Column) -> Column:
    """One holds: true where one is true, else missing where one is missing."""
    values, valid = operands[0].values, operands[0].valid
    for more in operands[1:]:
        values = values | more.values
        valid = both(valid, more.valid)
        if valid is not None:
            valid = valid | values
    return Column(values, valid)


def _possible(values: Array, valid: Bools | None) -> Array:
    """True where it holds or may hold, as it is missing."""
    return values if valid is None else values | ~valid


def negation(operand: Column) -> Column:
    """True where it is false, missing where it is missing."""
    return Column(~_possible(operand.values, operand.valid), operand.valid)


def is_null(operand: Column) -> Column:
    """Where the operand is missing; itself never missing."""
    valid = operand.valid
    return Column(np.zeros(len(operand), np.bool_) if valid is None else ~valid)


def member_of(known: frozenset[str], *, null_item: bool) -> Kernel:
    """A kernel for text in a list of constants; with a null among them what is not found is missing."""

    def within(operand: Column) -> Column:
        values = np.fromiter((text in known for text in operand.values), np.bool_, len(operand))
        if operand.valid is not None:
            values &= operand.valid
        return Column(values, values.copy() if null_item else operand.valid)

    return within


def choose(*operands: Column) -> Column:
    """``case``: conditions and results in turn, then what holds otherwise. All results of one kind."""
    values, valid = operands[-1].values, operands[-1].marked
    if not all(map(len, operands)):
        # Constants are of one row, and are not to make one where there is none.
        return Column(values[:0])
    for place in range(len(operands) - 3, -1, -2):
        holds, result = operands[place].values, operands[place + 1]
        if valid is not None or result.marked is not None:
            # A missing array stands for all of them being valid.
            valid = np.where(holds, _all_if_none(result.marked), _all_if_none(valid))
        values = np.where(holds, result.values, values)
    return Column(values, valid)


def _all_if_none(valid: Bools | None) -> Bools | np.bool_:
    return np.True_ if valid is None else valid


def first_known(*operands: Column) -> Column:
    """``coalesce``: for each place the first that is not missing."""
    values, valid = operands[-1].values, operands[-1].marked
    for operand in reversed(operands[:-1]):
        there = operand.valid
        if there is None:
            values, valid = operand.values, None
            continue
        values = np.where(there, operand.values, values)
        valid = None if valid is None else valid | there
    return Column(values, valid)
