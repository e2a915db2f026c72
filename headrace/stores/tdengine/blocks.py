"""An answer of TDengine as it comes: blocks of columns, by taosAdapter's websocket, taken as arrays.

taosws makes Python's own values of each row, at a sixth of the speed, and lets no other thread run meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import numpy as np
from tornado.websocket import WebSocketClientConnection, websocket_connect

from headrace.column import Array, Bools, Int64s
from headrace.column import Column as Values
from headrace.errors import StoreError, StoreUnavailable
from headrace.field_types import FieldType
from headrace.stores.tdengine.connection import ANSWER_TIMEOUT_S, CONNECT_TIMEOUT_S, Connection

LARGEST_MESSAGE = 1 << 30
NOTHING = -(2**63)
"""TDengine's own mark for no value."""

_FETCH = struct.Struct("<QQQH")
_FETCH_RAW_BLOCK = 7
_HEAD = struct.Struct("<iiiiiQ")
_DTYPES: dict[FieldType, Any] = {"float": "<f8", "int": "<i8", "time": "<i8", "bool": "<i1"}


@dataclass(frozen=True)
class Texts:
    """n texts as bytes (UTF-8): where each begins, how long it is, which are there."""

    data: Array
    starts: Int64s
    lengths: Int64s
    valid: Bools | None

    def __len__(self) -> int:
        return len(self.starts)

    def tolist(self) -> list[str | None]:
        """The texts, None where one is missing."""
        data = self.data.tobytes()
        starts, ends = self.starts.tolist(), (self.starts + self.lengths).tolist()
        listed: list[str | None] = [
            data[start:end].decode("utf-8", "replace") for start, end in zip(starts, ends, strict=True)
        ]
        if self.valid is not None:
            for place in np.flatnonzero(~self.valid).tolist():
                listed[place] = None
        return listed


class Blocks:
    """A websocket to taosAdapter. Any failure is StoreUnavailable or StoreError, and the end of it."""

    def __init__(self, connection: Connection) -> None:
        """``connection`` says where, and what errors mean; it is not used otherwise."""
        self._connection = connection
        self._socket: WebSocketClientConnection | None = None
        self._asked = 0

    async def fetch(self, statement: str) -> list[bytes]:
        """All blocks of an answer; see :func:`columns`."""
        try:
            return await self._fetch(statement)
        except (TimeoutError, OSError) as error:
            # A refused connection, a server that is gone, one that says nothing.
            raise self._connection.away(str(error) or "it took too long") from error

    async def one(self, statement: str) -> int | None:
        """The only value of an answer, an int; None if there is none."""
        for block in await self.fetch(statement):
            (column,) = columns(block, ["int"])
            if isinstance(column, Values) and len(column):
                value: int | None = column[0]
                return value
        return None

    def away(self, why: str) -> StoreUnavailable:
        """The error that says that TDengine does not answer."""
        return self._connection.away(why)

    async def close(self) -> None:
        """Close the websocket."""
        socket, self._socket = self._socket, None
        if socket is None or socket.protocol is None:
            return
        stream = socket.protocol.stream
        socket.close()
        if stream is not None:
            # At once, and not when the server has agreed: whoever reads from it learns that it is closed.
            stream.close()
        await asyncio.sleep(0)

    async def _fetch(self, statement: str) -> list[bytes]:
        answer = await self._ask("query", sql=statement)
        result, found = int(answer["id"]), []
        socket = self._open_socket()
        request = _FETCH.pack(self._asked, result, _FETCH_RAW_BLOCK, 1)
        await socket.write_message(request, binary=True)
        while True:
            message = await self._read(socket)
            code, length = struct.unpack_from("<II", message, 34)
            if code:
                raise self._refusal(code, message[42 : 42 + length].decode(errors="replace"))
            if message[50 + length]:
                break
            # The next one is on its way while this one is taken.
            await socket.write_message(request, binary=True)
            found.append(message[55 + length :])
        await socket.write_message(json.dumps({"action": "free_result", "args": {"req_id": 0, "id": result}}))
        return found

    async def _ask(self, action: str, **arguments: Any) -> dict[str, Any]:
        if self._socket is None and action != "conn":
            address = self._connection.address
            options = f"?{urlencode(address.options)}" if address.options else ""
            url = f"ws://{address.host}:{address.port}/ws{options}"
            connecting = websocket_connect(url, connect_timeout=CONNECT_TIMEOUT_S, max_message_size=LARGEST_MESSAGE)
            self._socket = await connecting
            await self._ask("conn", user=address.user, password=address.password, db=address.database)
        self._asked += 1
        socket = self._open_socket()
        await socket.write_message(json.dumps({"action": action, "args": {"req_id": self._asked, **arguments}}))
        answer: dict[str, Any] = json.loads(await self._read(socket))
        if answer["code"]:
            raise self._refusal(answer["code"], answer["message"])
        return answer

    def _open_socket(self) -> WebSocketClientConnection:
        if self._socket is None:
            raise self._connection.away("the connection was closed")
        return self._socket

    async def _read(self, socket: WebSocketClientConnection) -> bytes:
        message = await asyncio.wait_for(socket.read_message(), ANSWER_TIMEOUT_S)
        if message is None:
            raise self._connection.away("it has closed the connection")
        return message.encode() if isinstance(message, str) else message

    def _refusal(self, code: int, message: str) -> StoreError:
        return self._connection.meaning(RuntimeError(f"[0x{code & 0xFFFF:04X}] {message}"))


def columns(block: bytes, types: Sequence[FieldType]) -> list[Values | Texts]:
    """The columns of a block, which are of these types; texts as they lie there."""
    _, _, rows, count, _, _ = _HEAD.unpack_from(block)
    place = _HEAD.size + 5 * count
    lengths = np.frombuffer(block, "<i4", count, place).tolist()
    place += 4 * count
    found: list[Values | Texts] = []
    for kind, length in zip(types, lengths, strict=True):
        if kind == "text":
            found.append(_texts(block, place, rows, length))
            place += 4 * rows + length
            continue
        bits = np.frombuffer(block, "u1", (rows + 7) // 8, place)
        place += len(bits)
        values = np.frombuffer(block, _DTYPES[kind], rows, place)
        place += length
        found.append(_values(values, kind, np.unpackbits(bits, count=rows).astype(bool) if bits.any() else None))
    return found


def _values(values: Array, kind: FieldType, missing: Bools | None) -> Values:
    if kind == "float":
        return Values(values if missing is None else np.where(missing, np.nan, values))
    if kind == "bool":
        values = values.view(np.bool_) if missing is None else (values != 0) & ~missing
    elif missing is not None or values.min(initial=0) == NOTHING:
        nothing = values == NOTHING
        missing = nothing if missing is None else missing | nothing
        values = np.where(missing, 0, values)
    return Values(values, None if missing is None else ~missing)


def _texts(block: bytes, place: int, rows: int, length: int) -> Texts:
    offsets = np.frombuffer(block, "<i4", rows, place).astype(np.int64)
    data = np.frombuffer(block, "u1", length, place + 4 * rows)
    valid = None if not rows or offsets.min() >= 0 else offsets >= 0
    if valid is not None:
        offsets = np.where(valid, offsets, 0)
    if not length:
        return Texts(data, offsets, np.zeros(rows, np.int64), valid)
    # Each begins with its length in two bytes.
    lengths = data[offsets].astype(np.int64) | data[offsets + 1].astype(np.int64) << 8
    if valid is not None:
        lengths = np.where(valid, lengths, 0)
    return Texts(data, offsets + 2, lengths, valid)
