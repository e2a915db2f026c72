"""What messages of columns say again and again: the devices, and the tags that describe them."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from headrace.column import Column
from headrace.field_types import FieldType

MOST_BYTES = 4_000_000
"""So much of a member's written columns is remembered."""

MOST_WORDS = 65_536
"""So many different texts share a list."""


class Repeated:
    """One member of a topic's messages of columns: what is written alike is decoded, and checked, once."""

    def __init__(self, listed: Any, kind: FieldType, *, whole: bool) -> None:
        """``listed``: the type of the member; of ``whole`` ones no value is missing."""
        self._decode = msgspec.json.Decoder(listed).decode
        self._kind: FieldType = kind
        self._whole = whole
        self._known: dict[bytes, Column | None] = {}
        self._bytes = 0
        self._words: list[str] = []
        self._codes: dict[str, int] = {}

    def column(self, written: msgspec.Raw) -> Column | None:
        """The column that is written so; None for null. Raises msgspec.MsgspecError if it is none of its type."""
        data = bytes(written)
        try:
            return self._known[data]
        except KeyError:
            pass
        listed = self._decode(data)
        column = None if listed is None else self._made(listed)
        self._bytes += len(data)
        if self._bytes > MOST_BYTES:
            self._known.clear()
            self._bytes = len(data)
        self._known[data] = column
        return column

    def _made(self, listed: list[Any]) -> Column:
        if self._kind != "text" or None in listed:
            return Column.of(listed, self._kind, whole=self._whole, has_nan=False)
        codes = self._codes
        try:
            found = np.fromiter(map(codes.__getitem__, listed), np.int64, len(listed))
        except KeyError:
            if len(self._words) > MOST_WORDS:
                # A new list: columns that were made before keep theirs.
                self._words, self._codes = [], {}
                codes = self._codes
                self._known.clear()
                self._bytes = 0
            for text in listed:
                if text not in codes:
                    codes[text] = len(self._words)
                    self._words.append(text)
            found = np.fromiter(map(codes.__getitem__, listed), np.int64, len(listed))
        return Column.coded(self._words, found)
