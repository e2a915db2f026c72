"""Columns with nulls, and what the operators do to them: numpy in, numpy out, nothing by the row but text.

A part is ``(values, nulls)``: arrays of n, or of 1 for a constant, which numpy spreads over the others.

- ``values`` are float64, int64 (also for time: µs since the epoch), bool, or objects (str).
- ``nulls`` is bool, True where the value is missing, or None when none is.
- A missing float is NaN, and ``nulls`` is None; a missing bool is False; elsewhere the value under a
  null is of the right type and means nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from headrace.batch import Batch

Kind = Literal["float", "int", "bool", "text", "time", "null"]
"""A field's type, or ``null``: that of the bare word, which fits all."""

Values = NDArray[Any]
Nulls = NDArray[np.bool_] | None
Operand = tuple[Values, Nulls]
Kernel = Callable[..., Operand]

_DTYPES: dict[str, type] = {
    "float": np.float64,
    "int": np.int64,
    "time": np.int64,
    "bool": np.bool_,
    "text": np.object_,
}
BLANKS: dict[str, Any] = {"float": np.nan, "int": 0, "time": 0, "bool": False, "text": ""}
"""What stands under a null, by kind."""

_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Columns:
    """The columns of one batch as parts, each made once however often an expression names it."""

    __slots__ = ("_batch", "_parts")

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._parts: dict[str, Operand] = {}

    def part(self, name: str, kind: Kind) -> Operand:
        """The column as a part. KeyError for a name that the batch does not have."""
        part = self._parts.get(name)
        if part is None:
            if kind == "float":
                part = self._batch.floats(name), None
            elif kind == "text":
                part = _texts(self._batch.column(name))
            elif kind == "bool":
                part = _bools(self._batch.column(name))
            else:
                part = _ints(self._batch.column(name))
            self._parts[name] = part
        return part


def _texts(column: list[Any]) -> Operand:
    values = np.array(column, dtype=np.object_)
    if None not in column:
        return values, None
    nulls = _missing(column)
    return np.where(nulls, "", values), nulls


def _bools(column: list[Any]) -> Operand:
    values = np.array(column, dtype=np.bool_)
    if None not in column:
        return values, None
    return values, _missing(column)


def _missing(column: list[Any]) -> NDArray[np.bool_]:
    return np.fromiter((value is None for value in column), np.bool_, len(column))


def _ints(column: list[Any]) -> Operand:
    try:
        return np.array(column, dtype=np.int64), None
    except (TypeError, ValueError, OverflowError):
        # Something here is missing, beyond 64 bits, or a time that is no number yet.
        whole = [_whole(value) for value in column]
    return np.array([0 if value is None else value for value in whole], dtype=np.int64), _missing(whole)


def _whole(value: Any) -> int | None:
    """The int or time as an int64; None if it is missing or does not fit."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        value = time_us(value)
    return None if value is None or not _INT_MIN <= value <= _INT_MAX else int(value)


def time_us(value: datetime) -> int:
    """The aware datetime as µs since the epoch, exactly."""
    return (value - _EPOCH) // _MICROSECOND


def constant(value: Any, kind: Kind) -> Operand:
    """A part of one value; None is a null."""
    if value is not None:
        return np.array([value], dtype=_DTYPES[kind]), None
    return np.array([BLANKS[kind]], dtype=_DTYPES[kind]), None if kind == "float" else np.array([True])


def either(left: Nulls, right: Nulls) -> Nulls:
    """Null where either is."""
    if left is None:
        return right
    return left if right is None else left | right


def nulls_of(part: Operand) -> Nulls:
    """Where the part is null, floats too."""
    values, nulls = part
    return np.isnan(values) if values.dtype == np.float64 else nulls


def to_float(part: Operand) -> Operand:
    """Ints as floats: beyond 2^53 the nearest one."""
    values, nulls = part
    floats = values.astype(np.float64)
    return floats if nulls is None else np.where(nulls, np.nan, floats), None


def to_int(floats: Values) -> Operand:
    """Whole floats as ints, null where they are NaN or beyond 64 bits."""
    fits = (floats >= -(2.0**63)) & (floats < 2.0**63)
    return np.where(fits, floats, 0.0).astype(np.int64), ~fits


def finite(values: Values) -> Values:
    """Null for what is infinite: a division by zero, or a result that no float holds."""
    return np.where(np.isinf(values), np.nan, values)


# ---- arithmetic: floats overflow to null, ints overflow to null


def add_floats(left: Operand, right: Operand) -> Operand:
    """Left + right."""
    return finite(left[0] + right[0]), None


def subtract_floats(left: Operand, right: Operand) -> Operand:
    """Left - right."""
    return finite(left[0] - right[0]), None


def multiply_floats(left: Operand, right: Operand) -> Operand:
    """Left * right."""
    return finite(left[0] * right[0]), None


def divide_floats(left: Operand, right: Operand) -> Operand:
    """Left / right; by zero it is null."""
    return finite(left[0] / right[0]), None


def remainder_floats(left: Operand, right: Operand) -> Operand:
    """What is left of ``left`` after division, with its sign; by zero it is null."""
    return finite(np.fmod(left[0], right[0])), None


def add_ints(left: Operand, right: Operand) -> Operand:
    """Left + right, exactly or null."""
    total = left[0] + right[0]
    # Wrapped round when both have one sign and the sum the other.
    wrapped = ((left[0] ^ total) & (right[0] ^ total)) < 0
    return total, either(either(left[1], right[1]), wrapped)


def subtract_ints(left: Operand, right: Operand) -> Operand:
    """Left - right, exactly or null."""
    difference = left[0] - right[0]
    wrapped = ((left[0] ^ right[0]) & (left[0] ^ difference)) < 0
    return difference, either(either(left[1], right[1]), wrapped)


def multiply_ints(left: Operand, right: Operand) -> Operand:
    """Left * right, exactly or null."""
    product = left[0] * right[0]
    # A product that wrapped is off by a multiple of 2^64; the float one is off by 2^-52 of itself at most.
    rough = left[0].astype(np.float64) * right[0].astype(np.float64)
    wrapped = np.abs(rough - product.astype(np.float64)) > 2.0**62
    return product, either(either(left[1], right[1]), wrapped)


def remainder_ints(left: Operand, right: Operand) -> Operand:
    """What is left of ``left`` after division, with its sign; by zero it is null."""
    zero = right[0] == 0
    # By 1 and by -1 nothing is left; the least int by -1 traps in some processors.
    divisor = np.where(zero | (right[0] == -1), 1, right[0])
    return np.fmod(left[0], divisor), either(either(left[1], right[1]), zero)


def negate_ints(part: Operand) -> Operand:
    """Minus the part; null for the least int, which has no positive twin."""
    return -part[0], either(part[1], part[0] == _INT_MIN)


def negate_floats(part: Operand) -> Operand:
    """Minus the part."""
    return -part[0], None


def seconds_between(later: Operand, earlier: Operand) -> Operand:
    """The difference of two times, in seconds."""
    difference, nulls = subtract_ints(later, earlier)
    seconds, _ = to_float((difference, nulls))
    return seconds / 1e6, None


# ---- comparison and logic: three-valued, as SQL has it


def comparison(ufunc: np.ufunc, *, floats: bool, right_is_known: bool) -> Kernel:
    """A kernel that compares two parts of one kind; null where either is.

    ``right_is_known`` says that the right part is a constant and not null, which saves looking.
    """

    def compare_floats(left: Operand, right: Operand) -> Operand:
        a, b = left[0], right[0]
        nulls = np.isnan(a) if right_is_known else np.isnan(a) | np.isnan(b)
        # NaN is unequal to all there is: of the six comparisons only this one holds for it.
        return (ufunc(a, b) & ~nulls if ufunc is np.not_equal else ufunc(a, b)), nulls

    def compare_others(left: Operand, right: Operand) -> Operand:
        values = ufunc(left[0], right[0]).astype(np.bool_, copy=False)
        nulls = either(left[1], right[1])
        return values if nulls is None else values & ~nulls, nulls

    return compare_floats if floats else compare_others


def conjunction(*parts: Operand) -> Operand:
    """All hold: false where one is false, else null where one is null."""
    values, nulls = parts[0]
    for more, more_nulls in parts[1:]:
        if nulls is None and more_nulls is None:
            values = values & more
            continue
        possible, more_possible = _or_null(values, nulls), _or_null(more, more_nulls)
        values = values & more
        nulls = possible & more_possible & ~values
    return values, nulls


def disjunction(*parts: Operand) -> Operand:
    """One holds: true where one is true, else null where one is null."""
    values, nulls = parts[0]
    for more, more_nulls in parts[1:]:
        values = values | more
        nulls = either(nulls, more_nulls)
        if nulls is not None:
            nulls = nulls & ~values
    return values, nulls


def _or_null(values: Values, nulls: Nulls) -> Values:
    return values if nulls is None else values | nulls


def negation(part: Operand) -> Operand:
    """True where it is false, null where it is null."""
    values, nulls = part
    return ~_or_null(values, nulls), nulls


def is_null(part: Operand) -> Operand:
    """Where the part is null; itself never null."""
    nulls = nulls_of(part)
    return np.zeros(part[0].shape, dtype=np.bool_) if nulls is None else nulls, None


def member_of(known: frozenset[str], *, null_item: bool) -> Kernel:
    """A kernel for text in a list of constants; with a null among them what is not found is null."""

    def within(part: Operand) -> Operand:
        texts, nulls = part
        values = np.fromiter((text in known for text in texts), np.bool_, len(texts))
        if nulls is not None:
            values &= ~nulls
        return values, ~values if null_item else nulls

    return within


def choose(*parts: Operand) -> Operand:
    """``case``: conditions and results in turn, then what holds otherwise. All results of one kind."""
    values, nulls = parts[-1]
    for place in range(len(parts) - 3, -1, -2):
        holds, (result, result_nulls) = parts[place][0], parts[place + 1]
        if nulls is not None or result_nulls is not None:
            # A missing array stands for no nulls.
            nulls = np.where(holds, False if result_nulls is None else result_nulls, False if nulls is None else nulls)
        values = np.where(holds, result, values)
    return values, nulls


def first_known(*parts: Operand) -> Operand:
    """``coalesce``: for each place the first that is not null."""
    values, nulls = parts[-1]
    for part in reversed(parts[:-1]):
        absent = nulls_of(part)
        if absent is None:
            values, nulls = part
            continue
        values = np.where(absent, values, part[0])
        nulls = None if nulls is None else nulls & absent
    return values, nulls
