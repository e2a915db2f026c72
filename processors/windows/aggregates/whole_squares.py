"""Sums of the squares of int64, exact: in digits that count ones, 2**32, 2**64 and 2**96."""

from __future__ import annotations

import numpy as np

from headrace.batch import Int64s
from headrace.column import Bools
from processors.windows.aggregates.exact_sums import Digits
from processors.windows.aggregates.family import PartialColumn, Partials, Segments
from processors.windows.aggregates.wide_sums import split

_BITS = 32
_LOW = (1 << _BITS) - 1
_DIGITS = 4


class WholeSquares:
    """The column of a sum of squares: ``name``, the digit of ones first. It holds 2**30 values of any size."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.parts: dict[str, PartialColumn] = {name: Digits(np.int64, 0, _DIGITS)}

    def add(self, partials: Partials, rows: Int64s, values: Int64s) -> None:
        """Add the square of each of n values to its row, in place."""
        low, high = split(values)
        digits = partials[self.name]
        _add(digits, rows, low * low, 0)
        if high.any():
            # Their product is up to 2**62: twice that is not an int64 any more.
            _add(digits, rows, low * high, 1)
            _add(digits, rows, low * high, 1)
            _add(digits, rows, high * high, 2)

    def reduce(self, partials: Partials, segments: Segments) -> Partials:
        """Each segment's sums added up."""
        return {self.name: np.add.reduceat(partials[self.name], segments.begins, axis=0)}

    def pair(self, left: Partials, right: Partials) -> Partials:
        """Two times k sums added up one by one."""
        return {self.name: left[self.name] + right[self.name]}

    def small(self, partials: Partials) -> tuple[Int64s, Bools]:
        """The sums as int64, and where they are below 2**62 so that this is right."""
        ones, next_ones, third, fourth = partials[self.name].T
        inside: Bools = (third == 0) & (fourth == 0) & (next_ones < 2**29) & (next_ones >= 0) & (ones < 2**61)
        return ones + (next_ones << _BITS), inside

    def totals(self, partials: Partials, rows: Int64s) -> list[int]:
        """The sums of these rows, of whatever size."""
        return [
            sum(digit << (_BITS * place) for place, digit in enumerate(digits))
            for digits in partials[self.name][rows].tolist()
        ]


def _add(digits: Int64s, rows: Int64s, products: Int64s, place: int) -> None:
    np.add.at(digits[:, place], rows, products & _LOW)
    high = products >> _BITS
    if high.any():
        np.add.at(digits[:, place + 1], rows, high)
