"""Sums of int64 that cannot overflow: in two halves, a low one that counts ones and a high one that counts 2**32.

A value's low half is its lowest 32 bits with their sign, so that small values, negative ones too, have a high
half of 0. A half holds the sum of 2**32 values of any size.
"""

from __future__ import annotations

import numpy as np

from headrace.batch import Float64s, Int64s
from headrace.column import Array, Bools, Column
from processors.windows.aggregates.family import given

_HALF = 32
_EXACT = 2**53
"""Up to here each whole number is a float64 too."""
_INT64 = np.iinfo(np.int64)


def split(values: Int64s) -> tuple[Int64s, Int64s]:
    """The low and the high half of each value."""
    low = values.astype(np.int32)
    return low.astype(np.int64), (values >> _HALF) - (low >> (_HALF - 1))


def low_half(values: Int64s) -> tuple[Int64s, bool]:
    """The low half of each value, and whether all the high ones are 0."""
    low = values.astype(np.int32).astype(np.int64)
    return low, bool((low == values).all())


def floats(values: Array) -> tuple[Float64s, ...]:
    """Arrays of floats whose sum is exactly the values: these, or of whole numbers both halves."""
    if values.dtype.kind == "f":
        return (values,)
    if not ((values > _EXACT) | (values < -_EXACT)).any():
        return (values.astype(np.float64),)
    low, high = split(values)
    return low.astype(np.float64), high.astype(np.float64) * 2.0**_HALF


def totals(low: Int64s, high: Int64s) -> list[int]:
    """Both halves put together, of whatever size."""
    if not high.any():
        whole: list[int] = low.tolist()
        return whole
    return [below + (above << _HALF) for below, above in zip(low.tolist(), high.tolist(), strict=True)]


def given_totals(low: Int64s, high: Int64s, seen: Bools) -> Column:
    """Both halves put together; None where none was seen or where it is beyond 64 bits."""
    if not high.any():
        return given(low, seen)
    summed = [
        total if is_seen and _INT64.min <= total <= _INT64.max else None
        for total, is_seen in zip(totals(low, high), seen.tolist(), strict=True)
    ]
    return Column.of(summed, "int")


def given_quotients(low: Int64s, high: Int64s, factor: int, divisors: Int64s) -> Column:
    """Both halves put together, times the factor, divided with one rounding; None where the divisor is 0."""
    reach = _EXACT // factor
    if not high.any() and not ((low > reach) | (low < -reach)).any() and not (divisors > _EXACT).any():
        return given(low * factor / np.maximum(divisors, 1), divisors > 0)
    # Python divides whole numbers of any size with one rounding.
    divided = [
        total * factor / divisor if divisor else None
        for total, divisor in zip(totals(low, high), divisors.tolist(), strict=True)
    ]
    return Column.of(divided, "float")
