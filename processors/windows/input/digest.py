"""What a reading says, as 32 bits: enough to tell a reading that was sent twice from a correction.

A digest outlives the process that made it (it is part of the state, which may be restored on another machine), so
it is made of fixed arithmetic only: never of Python's ``hash``, and of values, not of their bytes in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from headrace.column import Array, Column

Digests = NDArray[np.uint32]
UInt64s = NDArray[np.uint64]

_SEED = np.uint64(0x9E3779B97F4A7C15)
_ABSENT = np.uint64(0xD1B54A32D192ED03)
"""What stands for a value that is not there: a number that no sensor sends."""
_ROUND = np.uint64(0xFF51AFD7ED558CCD)
_LAST = np.uint64(0xC4CEB9FE1A85EC53)
_HALF = np.uint64(32)


def digests(columns: Sequence[Column], n: int) -> Digests:
    """A hash of what each of ``n`` readings says in these columns (n each, always in the same order).

    Equal values give equal digests, on any machine: -0.0 is 0.0, and NaN is a value that is not there. Others
    give other ones but for one pair in 2**32. Without columns all readings say the same: nothing.
    """
    if not columns:
        return np.zeros(n, np.uint32)
    state = _words(columns[0])
    np.bitwise_xor(state, _SEED, out=state)
    _mix(state, _ROUND)
    for column in columns[1:]:
        np.bitwise_xor(state, _words(column), out=state)
        _mix(state, _ROUND)
    _mix(state, _LAST)
    state *= _ROUND
    state >>= _HALF
    return state.astype(np.uint32)


def _mix(state: UInt64s, by: np.uint64) -> None:
    """Every bit reaches all above it by the product, and these the ones below by the shift."""
    np.multiply(state, by, out=state)
    np.bitwise_xor(state, state >> _HALF, out=state)


def _words(column: Column) -> UInt64s:
    """The column as 64 bits a value, in an array of its own."""
    values, absent = column.values, None if column.valid is None else ~column.valid
    words: UInt64s
    if values.dtype == object:
        words = _text_words(values)
    elif values.dtype.kind == "f":
        # Adding makes a new array, and 0.0 of -0.0.
        words = np.add(values, 0.0, dtype=np.float64).view(np.uint64)
        nan = np.isnan(values)
        if nan.any():
            absent = nan if absent is None else absent | nan
    else:
        words = values.astype(np.int64).view(np.uint64)
    if absent is not None:
        words[absent] = _ABSENT
    return words


def _text_words(values: Array) -> UInt64s:
    listed = values.tolist()
    # A lone surrogate is no valid text, but JSON can spell it, so it may come.
    codes = {text: crc32(text.encode("utf-8", "surrogatepass")) for text in set(listed)}
    return np.fromiter(map(codes.__getitem__, listed), np.uint64, len(listed))
