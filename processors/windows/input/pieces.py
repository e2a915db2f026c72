"""Pieces of state that are written once each, under numbers of their own, and the index that says which there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec
import numpy as np

from headrace.errors import StateError

ReadPiece = Callable[[str], bytes | None]
"""The piece of state of a name, or None if there is none."""

_NONE = range(0)


class Index(msgspec.Struct):
    """The piece that says which others there are: of each run the first one and how many (int64 bytes), in order.

    ``next``: the number of the next one; ``unused``: those that are being deleted, as that may be cut short;
    ``header``: what else must be known to read them.
    """

    version: int
    next: int
    firsts: bytes
    counts: bytes
    unused: bytes
    header: bytes


class Pieces:
    """The numbered pieces of state called ``name``, of a ``version`` that says how they are read."""

    def __init__(self, name: str, version: int) -> None:
        self._name = name
        self._version = version
        self._next = 0
        self._written: list[range] = []
        self._unused: list[range] = []

    def numbered(self, parts: Sequence[bytes]) -> tuple[range, Iterator[tuple[str, bytes]]]:
        """The numbers of new pieces, and the pieces by name, to be written."""
        numbers = range(self._next, self._next + len(parts))
        self._next = numbers.stop
        return numbers, ((f"{self._name}.{number}", part) for number, part in zip(numbers, parts, strict=True))

    def drop(self, numbers: range) -> None:
        """Have these deleted with the next :meth:`indexed`; none, if they were never written."""
        if numbers:
            self._unused.append(numbers)

    def indexed(self, pieces: list[range], header: bytes = b"") -> Iterator[tuple[str, bytes | None]]:
        """The index, if these are other pieces than before, and those to be deleted (None).

        In this order, after the new pieces: so what is there after any of them can be restored. After a restore some
        pieces that are not there any more may be deleted once again.
        """
        deleted, self._unused = [number for numbers in self._unused for number in numbers], []
        if pieces != self._written:
            firsts, counts = [numbers.start for numbers in pieces], [len(numbers) for numbers in pieces]
            index = Index(self._version, self._next, _packed(firsts), _packed(counts), _packed(deleted), header)
            yield self._name, msgspec.msgpack.encode(index)
            self._written = pieces
        for number in deleted:
            yield f"{self._name}.{number}", None

    def forget_written(self) -> None:
        """Count nothing as written."""
        self._next, self._written, self._unused = 0, [], []

    def restore(self, piece: ReadPiece) -> tuple[list[range], bytes]:
        """The pieces that there are, and the header; none without an index. Raises StateError for another version."""
        self.forget_written()
        packed = piece(self._name)
        if packed is None:
            return [], b""
        index = msgspec.msgpack.decode(packed, type=Index)
        if index.version != self._version:
            raise StateError(
                f"the state's {self._name} is of version {index.version}, this is version {self._version}",
                hint="use the release that wrote it, or start over with --reset-state (open windows are lost)",
            )
        self._next = index.next
        self._unused = [range(number, number + 1) for number in _unpacked(index.unused)]
        pairs = zip(_unpacked(index.firsts), _unpacked(index.counts), strict=True)
        self._written = [range(first, first + count) for first, count in pairs]
        return list(self._written), index.header

    def read(self, piece: ReadPiece, numbers: range) -> bytes:
        """What these pieces hold together. Raises StateError when one is lacking."""
        return b"".join(self._read(piece, number) for number in numbers)

    def _read(self, piece: ReadPiece, number: int) -> bytes:
        packed = piece(f"{self._name}.{number}")
        if packed is None:
            raise lacking(f"{self._name}.{number}")
        return packed


def lacking(name: str) -> StateError:
    """The error for a piece that is not there."""
    return StateError(
        f"the state lacks its piece {name}", hint="delete the state folder: it is restored from the changelog"
    )


def _packed(numbers: list[int]) -> bytes:
    return np.array(numbers, "<i8").tobytes()


def _unpacked(numbers: bytes) -> list[int]:
    listed: list[int] = np.frombuffer(numbers, "<i8").tolist()
    return listed
