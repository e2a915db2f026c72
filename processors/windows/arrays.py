"""Arrays that grow with what they are about, and runs within them."""

from __future__ import annotations

from typing import Any

import numpy as np

from headrace.column import Array, Bools, Int64s


def with_room(column: Array, n: int, fill: Any) -> Array:
    """The column itself if it has room for n values, or else a longer one, its new values being ``fill``."""
    if n <= len(column):
        return column
    more = max(64, n - len(column), n // 2)
    return np.concatenate([column, np.full(more, fill, column.dtype)])


def heads_of(sorted_slots: Int64s) -> Bools:
    """Where each run of equal values begins."""
    heads = np.ones(len(sorted_slots), np.bool_)
    np.not_equal(sorted_slots[1:], sorted_slots[:-1], out=heads[1:])
    return heads


def ranges(begins: Int64s, lengths: Int64s) -> Int64s:
    """The numbers from each begin on, as many as its length, one range after the other."""
    offsets = np.cumsum(lengths) - lengths
    numbers: Int64s = np.arange(int(lengths.sum())) + np.repeat(begins - offsets, lengths)
    return numbers
