"""Devices by their names as bytes: many at a time, without a text of each."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from headrace.column import Array, Int64s
from headrace.stores.tdengine.blocks import Texts

UNKNOWN = -1
_WORD = 8
_SHIFT = np.uint64(29)


class CodedNames:
    """The places of names in a list, found by hashes of 64 bits that nobody can foresee."""

    def __init__(self, names: Sequence[str]) -> None:
        written = [name.encode("utf-8", "replace") for name in names]
        self.longest = max(map(len, written), default=0)
        lengths = np.fromiter(map(len, written), np.int64, len(written))
        texts = Texts(np.frombuffer(b"".join(written), "u1"), np.cumsum(lengths) - lengths, lengths, None)
        while True:
            self._factors = np.frombuffer(secrets.token_bytes(_WORD * (self.longest // _WORD + 3)), np.uint64) | 1
            hashes = self._hashes(texts)
            self._places: Int64s = np.argsort(hashes)
            self._hashed = hashes[self._places]
            if not (self._hashed[1:] == self._hashed[:-1]).any():
                return

    def of(self, texts: Texts) -> Int64s:
        """The place of each text among the names, UNKNOWN where it is none of them."""
        if not len(texts.starts):
            return np.empty(0, np.int64)
        if not len(self._hashed):
            return np.full(len(texts.starts), UNKNOWN, np.int64)
        hashes = self._hashes(texts)
        # The rows of a device come one after the other.
        heads = np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1]]))
        found = np.minimum(np.searchsorted(self._hashed, hashes[heads]), len(self._hashed) - 1)
        places = np.where(self._hashed[found] == hashes[heads], self._places[found], UNKNOWN)
        return np.repeat(places, np.diff(heads, append=len(hashes)))

    def _hashes(self, texts: Texts) -> NDArray[np.uint64]:
        hashes = np.empty(len(texts.starts), np.uint64)
        for length in np.unique(texts.lengths).tolist():
            chosen = np.flatnonzero(texts.lengths == length)
            words = _words(texts.data, texts.starts[chosen], length)
            hashed = np.full(len(chosen), self._factors[-1] ^ np.uint64(length))
            for place in range(words.shape[1]):
                hashed = (hashed ^ words[:, place]) * self._factors[min(place, len(self._factors) - 2)]
                hashed ^= hashed >> _SHIFT
            hashes[chosen] = hashed
        return hashes


def _words(data: Array, starts: Int64s, length: int) -> NDArray[np.uint64]:
    """Texts of one length in words of 8 bytes, the last filled up."""
    padded = np.zeros((len(starts), -(-length // _WORD) * _WORD), "u1")
    if length and len(starts):
        stride = int(starts[1] - starts[0]) if len(starts) > 1 else length
        if stride >= length and (np.diff(starts) == stride).all():
            # They lie at one distance, as they mostly do.
            there = np.lib.stride_tricks.as_strided(data[starts[0] :], (len(starts), length), (stride, 1))
            padded[:, :length] = there
        else:
            padded[:, :length] = data[starts[:, None] + np.arange(length)]
    return padded.view(np.uint64)
