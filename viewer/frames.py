"""What the server and the engine's process say to each other: frames over a socket, and a mark in shared memory.

A frame is its payload's length, what it is, the page it is about (0: none), and the payload. The mark says which
page's request the engine works on, so that the server sees it without being told: it is what a busy engine
cannot say.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import socket
import struct
import tempfile
import threading
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from viewer.engine_tables import EngineTable
from viewer.reach import MAX_CELLS

_HEADER = struct.Struct("<IBI")
_MARK = struct.Struct("<QQ")


class Kind(IntEnum):
    """What a frame is: the first are the server's, the others the engine's."""

    START = 1
    """A :class:`Start` as MessagePack."""
    OPEN = 2
    REQUEST = 3
    CLOSE = 4
    PING = 5
    STATUS = 6

    READY = 16
    """The tables are there."""
    RESPONSE = 17
    HANDLED = 18
    """A request was worked on; its responses have been sent."""
    PONG = 19
    TOLD = 20
    """The feed's status as JSON."""
    FAILED = 21
    """The feed cannot go on: message and hint, as JSON."""


@dataclass(frozen=True)
class Start:
    """What the engine's process is told when it begins; ``max_cells`` bounds an answer, None for no bound."""

    store: str
    tables: tuple[EngineTable, ...]
    log: str
    max_cells: int | None = MAX_CELLS


class Frame(NamedTuple):
    """One message between the two."""

    kind: Kind
    page: int
    payload: bytes


def pack(kind: Kind, page: int = 0, payload: bytes = b"") -> bytes:
    """A frame's bytes."""
    return _HEADER.pack(len(payload), kind, page) + payload


async def read(reader: asyncio.StreamReader) -> Frame | None:
    """The next frame, or None when the other side is gone."""
    try:
        length, kind, page = _HEADER.unpack(await reader.readexactly(_HEADER.size))
        return Frame(Kind(kind), page, await reader.readexactly(length))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


class Connection:
    """The engine's end, for its threads: any of them may send, one reads."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._sending = threading.Lock()

    def send(self, kind: Kind, page: int = 0, payload: bytes = b"") -> None:
        """Send a frame. Raises OSError when the server is gone."""
        with self._sending:
            self._socket.sendall(pack(kind, page, payload))

    def read(self) -> Frame | None:
        """The next frame, or None when the server is gone."""
        header = self._exactly(_HEADER.size)
        if header is None:
            return None
        length, kind, page = _HEADER.unpack(header)
        payload = self._exactly(length)
        return None if payload is None else Frame(Kind(kind), page, payload)

    def _exactly(self, length: int) -> bytes | None:
        got = bytearray()
        while len(got) < length:
            try:
                part = self._socket.recv(min(length - len(got), 1 << 20))
            except ConnectionError:
                return None
            if not part:
                return None
            got += part
        return bytes(got)


class Mark:
    """What the engine works on, in memory that two processes share: one writes, the other reads."""

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, _MARK.size)
        self._number = 0

    @staticmethod
    def new() -> int:
        """A file descriptor to share."""
        with tempfile.TemporaryFile() as file:
            file.truncate(_MARK.size)
            return os.dup(file.fileno())

    def begin(self, page: int) -> None:
        """Work begins: on a request of this page, or on what no page has asked for (0)."""
        self._number += 1
        _MARK.pack_into(self._memory, 0, self._number, page)

    def end(self) -> None:
        """Work has ended."""
        _MARK.pack_into(self._memory, 0, 0, 0)

    def read(self) -> tuple[int, int]:
        """The number of the work that is being done (0: none), and its page."""
        number, page = _MARK.unpack_from(self._memory, 0)
        return int(number), int(page)

    def close(self) -> None:
        """Let go of the memory."""
        self._memory.close()
