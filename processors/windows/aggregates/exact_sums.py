"""Sums of floats without any rounding: the same in every order and grouping, to the last bit.

A sum is a fixed-point number in digits that count ones of 2**unit, each unit 2**32 times the next. A value is cut into
digits of at most 2**31 by its own size alone, and int64 adds 2**32 of these without overflow: so sums are added up, and
merged, digit by digit. What a value has beyond the greatest and the least digit, which no sensor is known to send, goes
to a Python int beside them. Rounding comes last, when a sum is read.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf, isfinite, isqrt, ldexp, nan
from typing import Any

import numpy as np

from headrace.batch import Float64s, Int64s
from headrace.column import Bools
from processors.windows.aggregates.family import Array, PartialColumn, Partials, Segments, packed_column

_BITS = 32
_HALF = 1 << (_BITS - 1)
_FINEST = 1074
"""Every float is a whole number of 2**-1074."""
_MOST_COUNTED = 2**21
_SPLITTER = 2.0**27 + 1.0
_SURE = 2.0**-56
"""A difference that is at least so much of what it is the difference of has 48 good bits of the 104."""

SUM_UNITS = range(32, -129, -_BITS)
"""Of values up to 2**63 in size, all that they have above 2**-128: all of one of 1e-22."""
PRODUCT_UNITS = range(96, -193, -_BITS)
"""Of products of values up to 2**63 that have nothing below 2**-96, all."""
_MOST_OF_FACTOR, _LEAST_OF_FACTOR = 2.0**63, 2.0**-96


class Digits(PartialColumn):
    """``width`` digits of each sum; last among them how many times something was added beside them."""

    def packed(self, column: Array) -> Any:
        """The digits that are not 0 in all rows, each with its place."""
        places = np.flatnonzero(column.any(axis=0)).tolist()
        return [[place, packed_column(column[:, place])] for place in places]

    def unpacked(self, packed: Any, n: int) -> Array:
        """The reverse of :meth:`packed`."""
        column = self.empty(n)
        for place, packed_digits in _listed(packed):
            digits = np.frombuffer(packed_digits, "<i8")
            if not 0 <= place < self.width or len(digits) != n:
                raise ValueError(f"{len(digits)} of the digits {place} for {n} rows")
            column[:, place] = digits
        return column


class _Beside(PartialColumn):
    """Where something was added beside a row's digits: how much (int, or NaN where it was not finite)."""

    def packed(self, column: Array) -> Any:
        """Those that are there, each with its row, as little-endian bytes; none for NaN."""
        there = [(row, cell) for row, cell in enumerate(column.tolist()) if cell is not None]
        return [[row, b"" if isinstance(cell, float) else _bytes_of(cell)] for row, cell in there]

    def unpacked(self, packed: Any, n: int) -> Array:
        """The reverse of :meth:`packed`."""
        column = self.empty(n)
        for row, data in _listed(packed):
            column[row] = int.from_bytes(data, "little", signed=True) if data else nan
        return column


class ExactSum:
    """The columns of a sum of floats (or, with wider ``units``, of products of two): ``name`` and ``name_beside``."""

    def __init__(self, name: str, units: range = SUM_UNITS) -> None:
        self.name, self.beside = name, f"{name}_beside"
        self.units = units
        self._most = 2.0 ** (units[0] + _BITS - 1)
        self._finest = _FINEST if units is SUM_UNITS else 2 * _FINEST
        self.parts: dict[str, PartialColumn] = {
            self.name: Digits(np.int64, 0, len(units) + 1),
            self.beside: _Beside(object, None),
        }

    # Adding up

    def add(self, partials: Partials, rows: Int64s, values: Float64s) -> None:
        """Add each of n values (n at least 1) to its row, in place."""
        greatest = float(np.abs(values).max())
        if not greatest <= self._most:  # nor NaN
            fits = np.abs(values) <= self._most
            beyond = values[~fits].tolist()
            self._add_beside(partials, rows[~fits], map(self._exact, beyond))
            rows, values = rows[fits], values[fits]
            if not len(rows):
                return
            greatest = float(np.abs(values).max())
        digits = partials[self.name]
        counted = len(digits) <= len(rows) <= _MOST_COUNTED
        for place, unit in enumerate(self.units):
            most_left = 2.0 ** (unit - 1)
            if greatest < most_left:
                continue  # the digit would be 0 in all of them
            one = 2.0**unit
            ones = np.rint(values * 2.0**-unit)
            if counted:
                # Faster than the other, and exact: so many digits are less than 2**53 together.
                digits[:, place] += np.bincount(rows, ones, len(digits)).astype(np.int64)
            else:
                np.add.at(digits[:, place], rows, ones.astype(np.int64))
            values = values - ones * one
            greatest = most_left
            if not values.any():
                return
        if values.any():
            left = np.flatnonzero(values)
            self._add_beside(partials, rows[left], map(self._exact, values[left].tolist()))

    def add_products(self, partials: Partials, rows: Int64s, left: Float64s, right: Float64s) -> None:
        """Add each of n products (n at least 1) to its row, in place; the sum must be one of products."""
        fits = _is_factor(left)
        if right is not left:
            fits &= _is_factor(right)
        if not fits.all():
            of_misfits = zip(left[~fits].tolist(), right[~fits].tolist(), strict=True)
            self._add_beside(partials, rows[~fits], (_times(a, b) for a, b in of_misfits))
            rows, left, right = rows[fits], left[fits], right[fits]
            if not len(rows):
                return
        product, error = _two_product(left, right)
        self.add(partials, rows, product)
        self.add(partials, rows, error)

    def reduce(self, partials: Partials, segments: Segments) -> Partials:
        """Each segment's sums added up."""
        digits = np.add.reduceat(partials[self.name], segments.begins, axis=0)
        beside = np.full(len(digits), None, object)
        if digits[:, -1].any():
            rows = np.flatnonzero(partials[self.name][:, -1])
            cells = partials[self.beside][rows].tolist()
            for segment, cell in zip(segments.owner[rows].tolist(), cells, strict=True):
                beside[segment] = _plus(beside[segment], cell)
        return {self.name: digits, self.beside: beside}

    def pair(self, left: Partials, right: Partials) -> Partials:
        """Two times k sums added up one by one."""
        digits = left[self.name] + right[self.name]
        beside = np.full(len(digits), None, object)
        for row in np.flatnonzero(digits[:, -1]).tolist():
            beside[row] = _plus(left[self.beside][row], right[self.beside][row])
        return {self.name: digits, self.beside: beside}

    def _add_beside(self, partials: Partials, rows: Int64s, amounts: Iterable[int | float]) -> None:
        np.add.at(partials[self.name][:, -1], rows, 1)
        cells = partials[self.beside]
        for row, amount in zip(rows.tolist(), amounts, strict=True):
            cells[row] = _plus(cells[row], amount)

    def _exact(self, value: float) -> int | float:
        whole = _whole(value)
        return whole << (self._finest - _FINEST) if isinstance(whole, int) else whole

    # Reading

    def over(self, partials: Partials, divisors: Int64s, factor: int = 1) -> Float64s:
        """Each sum times the factor, divided by a whole number above 0, rounded: all but always to the nearest float.

        NaN where a value was not finite, infinite where the quotient is beyond what a float holds.
        """
        high, low, in_digits = self._doubles(partials)
        if factor != 1:
            high, low = _product_of(high, low, np.full(len(high), float(factor)), np.zeros(len(high)))
        found = _quotient(high, low, divisors)
        beside = np.flatnonzero(~in_digits)
        if len(beside):
            wholes = self._wholes(partials, beside, self._finest)
            for row, whole, divisor in zip(beside.tolist(), wholes, divisors[beside].tolist(), strict=True):
                found[row] = ratio(whole * factor, divisor << self._finest)
        return found

    def _doubles(self, partials: Partials) -> tuple[Float64s, Float64s, Bools]:
        """The digits' sums in two doubles each, of 104 bits together, and where there is nothing beside them."""
        digits = partials[self.name].T.copy()
        in_digits: Bools = digits[-1] == 0
        high, low = np.zeros(digits.shape[1]), np.zeros(digits.shape[1])
        used = np.flatnonzero(digits[:-1].any(axis=1))
        if not len(used):
            return high, low, in_digits
        last = int(used[-1])
        # With all carries made, equal sums have equal digits, and none cancels what is ahead of it.
        for place in range(last, 0, -1):
            carry = (digits[place] + _HALF) >> _BITS
            if carry.any():
                digits[place] -= carry << _BITS
                digits[place - 1] += carry
        top = digits[0] >> _BITS
        for counted in (top, digits[0] - (top << _BITS), *digits[1 : last + 1]):
            high, low = high * 2.0**_BITS, low * 2.0**_BITS
            if counted.any():
                high, error = _two_sum(high, counted.astype(np.float64))
                low = low + error
        high, low = _two_sum(high, low)
        scale = 2.0 ** self.units[last]
        return high * scale, low * scale, in_digits

    def _wholes(self, partials: Partials, rows: Int64s, bits: int) -> list[int | float]:
        """These rows' sums in ones of 2**-bits; NaN where a value was not finite.

        Where there is something beside the digits, the bits must be those of the finest unit.
        """
        shifts = [unit + bits for unit in self.units]
        wholes: list[int | float] = []
        for digits, beside in zip(
            partials[self.name][rows].tolist(), partials[self.beside][rows].tolist(), strict=True
        ):
            if isinstance(beside, float):
                wholes.append(beside)
                continue
            total = beside or 0
            for shift, digit in zip(shifts, digits, strict=False):
                if digit:
                    total += digit << shift
            wholes.append(total)
        return wholes


def variances(sums: ExactSum, squares: ExactSum, partials: Partials, n: Int64s) -> tuple[Float64s, Float64s]:
    """Of rows of n values each the variance of the population, and its root.

    NaN if it was never finite, infinite where it is beyond what a float holds; the root of what is may be finite.
    """
    high, low, in_digits = sums._doubles(partials)
    squares_high, squares_low, squares_in_digits = squares._doubles(partials)
    counts = np.maximum(n, 1).astype(np.float64)
    of_squares = _product_of(squares_high, squares_low, counts, np.zeros(len(counts)))
    of_sums = _product_of(high, low, high, low)
    apart, error = _two_sum(of_squares[0], -of_sums[0])
    apart += error + (of_squares[1] - of_sums[1])
    variance = apart / counts / counts
    deviation = np.sqrt(np.maximum(apart, 0.0)) / counts
    in_digits &= squares_in_digits
    lone = in_digits & (n == 1)
    variance[lone] = deviation[lone] = 0.0
    unsure = (~in_digits | (apart < of_squares[0] * _SURE)) & (n > 0) & ~lone
    # Without anything beside the digits, numbers of some hundred bits are enough.
    for rows, bits in (np.flatnonzero(unsure & in_digits), -SUM_UNITS[-1]), (np.flatnonzero(~in_digits), _FINEST):
        if not len(rows):
            continue
        totals, squared = sums._wholes(partials, rows, bits), squares._wholes(partials, rows, 2 * bits)
        for row, count, total, of_row in zip(rows.tolist(), n[rows].tolist(), totals, squared, strict=True):
            if isinstance(total, float) or isinstance(of_row, float):
                variance[row] = deviation[row] = nan
                continue
            numerator, denominator = count * of_row - total * total, count * count << (2 * bits)
            variance[row], deviation[row] = ratio(numerator, denominator), root(numerator, denominator)
    return variance, deviation


def _is_factor(values: Float64s) -> Bools:
    """Which are such that the product of two is exact in two doubles, and in a sum's digits."""
    ones = values * (1.0 / _LEAST_OF_FACTOR)
    fits: Bools = (np.abs(values) <= _MOST_OF_FACTOR) & (np.rint(ones) == ones)
    return fits


def _two_sum(a: Float64s, b: Float64s) -> tuple[Float64s, Float64s]:
    """The rounded sum and, exactly, what is missing from it (Knuth)."""
    total = a + b
    of_b = total - a
    return total, (a - (total - of_b)) + (b - of_b)


def _two_product(a: Float64s, b: Float64s) -> tuple[Float64s, Float64s]:
    """The rounded product and, exactly, what is missing from it (Dekker)."""
    product = a * b
    high = a * _SPLITTER
    high = high - (high - a)
    low = a - high
    if b is a:
        return product, ((high * high - product) + 2.0 * (high * low)) + low * low
    of_b = b * _SPLITTER
    of_b = of_b - (of_b - b)
    low_of_b = b - of_b
    return product, ((high * of_b - product) + high * low_of_b + low * of_b) + low * low_of_b


def _product_of(high: Float64s, low: Float64s, by_high: Float64s, by_low: Float64s) -> tuple[Float64s, Float64s]:
    """The product of two numbers of two doubles each."""
    product, error = _two_product(high, by_high)
    return _two_sum(product, error + (high * by_low + low * by_high))


def _quotient(high: Float64s, low: Float64s, divisors: Int64s) -> Float64s:
    """Numbers of two doubles each, divided."""
    by = divisors.astype(np.float64)
    rounded = high / by
    product, error = _two_product(rounded, by)
    found: Float64s = rounded + (((high - product) - error) + low) / by
    return found


def _plus(one: int | float | None, other: int | float | None) -> int | float | None:
    """The sum of what is there; NaN stays NaN."""
    if one is None or other is None:
        return other if one is None else one
    return nan if isinstance(one, float) or isinstance(other, float) else one + other


def _whole(value: float) -> int | float:
    """A float in ones of 2**-1074; NaN for what is not finite."""
    if not isfinite(value):
        return nan
    numerator, denominator = value.as_integer_ratio()
    return numerator << (_FINEST + 1 - denominator.bit_length())


def _times(left: float, right: float) -> int | float:
    one, other = _whole(left), _whole(right)
    return nan if isinstance(one, float) or isinstance(other, float) else one * other


def ratio(numerator: int | float, denominator: int) -> float:
    """The quotient, rounded once; infinite beyond what a float holds."""
    if isinstance(numerator, float):
        return nan
    try:
        return numerator / denominator
    except OverflowError:
        return inf if numerator > 0 else -inf


def root(numerator: int, denominator: int) -> float:
    """The square root of a quotient that is not negative."""
    if not numerator:
        return 0.0
    # As many bits more as make a root of 64 bits, and an even number.
    shift = 128 - numerator.bit_length() + denominator.bit_length()
    shift += shift % 2
    quotient = (numerator << shift) // denominator if shift > 0 else numerator // (denominator << -shift)
    return ldexp(isqrt(quotient), -shift // 2)


def _listed(packed: Any) -> list[Any]:
    if not isinstance(packed, list):
        raise TypeError(f"a list, not {type(packed).__name__}")
    return packed


def _bytes_of(whole: int) -> bytes:
    return whole.to_bytes(whole.bit_length() // 8 + 1, "little", signed=True)
