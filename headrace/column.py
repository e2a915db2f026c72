"""A field's values, from the wire to the store: what batches consist of, expressions compute and results carry."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from operator import ne
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from headrace.field_types import FieldType

Array = NDArray[Any]
Int64s = NDArray[np.int64]
Float64s = NDArray[np.float64]
Bools = NDArray[np.bool_]

DTYPES: Final[dict[FieldType, Any]] = {
    "float": np.dtype(np.float64),
    "int": np.dtype(np.int64),
    "time": np.dtype(np.int64),
    "bool": np.dtype(np.bool_),
    "text": np.dtype(np.object_),
}
"""The numpy type of each field type; texts are objects (str), times µs since the epoch."""

BLANKS: Final[dict[str, Any]] = {"f": np.nan, "i": 0, "b": False, "O": ""}
"""What stands where a value is missing, by the kind of the numpy type."""


class Column:
    """``n`` values of one type, and which of them are valid. Nothing of it changes once it is made.

    Whoever computes asks for arrays (:attr:`values`, :attr:`valid`), whoever writes for Python's own values
    (:meth:`tolist`). Each is made from the other when it is first asked for, so that a value which is only passed
    on is not converted there and back. A float that is NaN is missing: that is all there is to a float's validity.
    """

    __slots__ = ("_codes", "_listed", "_settled", "_valid", "_values", "_words", "dtype")

    dtype: np.dtype[Any]
    """float64, int64, bool or object (str)"""

    def __init__(self, values: Array, valid: Bools | None = None, *, whole: bool = False) -> None:
        """Of ``values`` (float64, int64, bool or objects) all are valid, or those that ``valid`` says (n bool).

        Of floats those are valid that are not NaN; ``whole``: it is known that none is, which saves looking.
        The arrays are taken over, and are not to be written to by anyone from then on.
        """
        self.dtype = values.dtype
        self._values: Array | None = values
        self._valid = valid
        self._settled = whole or valid is not None or values.dtype.kind != "f"
        self._listed: list[Any] | None = None
        self._words: Sequence[str] | None = None
        self._codes: Int64s | None = None

    @classmethod
    def of(
        cls, listed: Sequence[Any], kind: FieldType | None = None, *, whole: bool = False, has_nan: bool = True
    ) -> Column:
        """Of Python's own values, None (or NaN) where one is missing; a list is taken over, and not to be changed.

        Without a ``kind`` it is that of the values: int if all are, else float, where they are numbers. TypeError for
        values of several types or of another than fields have. It is faster where it is known that none is missing
        (``whole``), or that none is NaN (not ``has_nan``).
        """
        column = cls.__new__(cls)
        column.dtype = DTYPES[_kind_of(listed) if kind is None else kind]
        column._values = column._valid = column._words = column._codes = None
        column._settled = whole
        if has_nan and not whole and column.dtype.kind == "f" and True in map(ne, listed, listed):
            listed = [None if value != value else value for value in listed]  # noqa: PLR0124 - NaN alone is not itself
        column._listed = listed if isinstance(listed, list) else list(listed)
        return column

    @classmethod
    def coded(cls, words: Sequence[str], codes: Int64s) -> Column:
        """Of texts, all of them valid, that are these places among ``words``."""
        column = cls.__new__(cls)
        column.dtype = DTYPES["text"]
        column._values = column._valid = column._listed = None
        column._settled = True
        column._words, column._codes = words, codes
        return column

    def __len__(self) -> int:
        for face in (self._listed, self._values, self._codes):
            if face is not None:
                return len(face)
        return 0

    def __iter__(self) -> Iterator[Any]:
        return iter(self.tolist())

    def __getitem__(self, place: int) -> Any:
        """One of Python's own values; None where it is missing."""
        if self._listed is not None:
            return self._listed[place]
        if self._codes is not None and self._words is not None:
            return self._words[self._codes[place]]
        return self.take(np.array([place])).tolist()[0]

    def __repr__(self) -> str:
        return f"Column({self.tolist()!r}, {self.dtype.name})"

    @property
    def values(self) -> Array:
        """The n values, not to be written to. Where one is missing stands NaN, 0, False or an empty text."""
        if self._values is None:
            self._values = self._arrays() if self._codes is None else as_array(self.tolist(), object)
        if self._values.flags.writeable:
            self._values = self._values.view()
            self._values.flags.writeable = False
        return self._values

    @property
    def valid(self) -> Bools | None:
        """Which of the n values are there (bool, not to be written to); None: all."""
        if not self._settled:
            if self.dtype.kind == "f":
                missing = np.isnan(self.values)
                self._valid = ~missing if missing.any() else None
                self._settled = True
            else:
                self._values = self._arrays()
        if self._valid is not None and self._valid.flags.writeable:
            self._valid = self._valid.view()
            self._valid.flags.writeable = False
        return self._valid

    @property
    def marked(self) -> Bools | None:
        """As :attr:`valid`; of floats None, as those that are missing are NaN. For those who compute with NaN."""
        return None if self.dtype.kind == "f" else self.valid

    def tolist(self) -> list[Any]:
        """The n values as Python's own, None where one is missing. Not to be changed."""
        if self._listed is None:
            if self._codes is not None and self._words is not None:
                self._listed = list(map(self._words.__getitem__, self._codes.tolist()))
            else:
                listed: list[Any] = self.values.tolist()
                if self.valid is not None:
                    for place in np.flatnonzero(~self.valid).tolist():
                        listed[place] = None
                self._listed = listed
        return self._listed

    def floats(self) -> Float64s:
        """Numbers as float64, NaN where one is missing; ints beyond 2^53 the nearest. TypeError for text."""
        if self.dtype.kind == "f":
            return self.values
        if self.dtype.kind == "O":
            raise TypeError("text has no floats")
        floats = self.values.astype(np.float64)
        return floats if self.valid is None else np.where(self.valid, floats, np.nan)

    def to(self, kind: FieldType) -> Column:
        """The column as one of this type: ints as floats; and as any where no value is there.

        TypeError for others.
        """
        if self.dtype == DTYPES[kind]:
            return self
        if kind == "float" and self.dtype.kind == "i":
            return Column(self.floats())
        if not len(self) or (self.valid is not None and not self.valid.any()):
            return Column.of([None] * len(self), kind)
        raise TypeError(f"a column of {self.dtype.name} is none of {kind}")

    def looked_up(self, table: Mapping[str, int]) -> Int64s:
        """What the table has for each of n texts. KeyError for one that it lacks."""
        if self._codes is None or self._words is None:
            return np.fromiter(map(table.__getitem__, self.tolist()), np.int64, len(self))
        if not len(self._codes):
            return np.empty(0, np.int64)
        marks = np.zeros(int(self._codes.max()) + 1, np.bool_)
        marks[self._codes] = True
        different = np.flatnonzero(marks)
        found = np.empty(len(marks), np.int64)
        found[different] = [table[self._words[code]] for code in different.tolist()]
        return found[self._codes]

    def take(self, places: Int64s | slice) -> Column:
        """The values at these places, in this order."""
        if self._values is None and self._codes is not None and self._words is not None:
            return Column.coded(self._words, self._codes[places])
        if self._values is None and self._listed is not None and isinstance(places, slice):
            return self._like(self._listed[places])
        taken = Column(self.values[places], None if self._valid is None else self._valid[places])
        taken._settled = self._settled
        return taken

    def _like(self, listed: list[Any]) -> Column:
        column = Column.__new__(Column)
        column.dtype = self.dtype
        column._values = column._valid = column._words = column._codes = None
        column._settled = self._settled and self._valid is None
        column._listed = listed
        return column

    @classmethod
    def joined(cls, columns: Sequence[Column]) -> Column:
        """The columns, one at least and of one type, one after the other."""
        if len(columns) == 1:
            return columns[0]
        first = columns[0]
        if all(column._words is first._words and column._codes is not None for column in columns):
            assert first._words is not None  # noqa: S101 - what is coded has words
            return cls.coded(first._words, np.concatenate([column._codes for column in columns]))
        if all(column._listed is not None and column._values is None for column in columns):
            whole = all(column._settled and column._valid is None for column in columns)
            joined = first._like(list(chain.from_iterable(columns)))
            joined._settled = whole
            return joined
        values = np.concatenate([column.values for column in columns])
        if first.dtype.kind == "f" or all(column.valid is None for column in columns):
            return cls(values)
        return cls(values, np.concatenate([_mask(column) for column in columns]))

    def _arrays(self) -> Array:
        """The values of the list, noting which are valid."""
        listed, kind = self._listed or [], self.dtype.kind
        if kind == "f":
            return _floats(listed)
        if self._settled and self._valid is None:
            return as_array(listed, self.dtype)
        if kind == "i":
            try:
                return self._complete(np.fromiter(listed, np.int64, len(listed)))
            except TypeError:
                pass  # there are None among them
        elif None not in listed:
            return self._complete(as_array(listed, self.dtype))
        self._valid = np.fromiter((value is not None for value in listed), np.bool_, len(listed))
        self._settled = True
        blank = BLANKS[kind]
        return as_array([blank if value is None else value for value in listed], self.dtype)

    def _complete(self, values: Array) -> Array:
        self._settled = True
        return values


def as_array(listed: Sequence[Any], dtype: Any) -> Array:
    """A list as an array; texts stay objects of their own."""
    kind = np.dtype(dtype).kind
    if kind == "i":
        return np.fromiter(listed, np.int64, len(listed))
    if kind != "O":
        return np.array(listed, dtype)
    values = np.empty(len(listed), object)
    values[:] = listed
    return values


def _floats(listed: Sequence[Any]) -> Float64s:
    floats = np.empty(len(listed), np.float64)
    try:
        # Less than half of what numpy's own conversion takes.
        struct.pack_into(f"={len(listed)}d", floats.data, 0, *listed)
    except struct.error:
        return np.array(listed, dtype=np.float64)
    return floats


def _mask(column: Column) -> Bools:
    return np.ones(len(column), np.bool_) if column.valid is None else column.valid


def _kind_of(listed: Sequence[Any]) -> FieldType:
    """The type of a field with these values."""
    kinds = set(map(type, listed)) - {type(None)}
    if kinds <= {float, int}:
        return "int" if kinds == {int} else "float"
    if kinds == {bool}:
        return "bool"
    if kinds == {str}:
        return "text"
    names = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise TypeError(f"a column holds numbers, truth values or texts, not {names}")
