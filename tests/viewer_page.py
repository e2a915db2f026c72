"""A page's connection to a viewer, with the engine's own client instead of a browser."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import perspective
from tornado.httpclient import HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect
from viewer_line import Viewer


class Page:
    """A page's connection, as a browser's client has it."""

    def __init__(self, connection: WebSocketClientConnection) -> None:
        self._connection = connection
        self.client = perspective.AsyncClient(self._send)
        self.sent: list[bytes] = []
        self.told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._reading = asyncio.ensure_future(self._read())

    async def _send(self, message: bytes) -> None:
        self.sent.append(bytes(message))
        await self._connection.write_message(self.sent[-1], binary=True)

    async def _read(self) -> None:
        while (message := await self._connection.read_message()) is not None:
            if isinstance(message, str):
                self.told.put_nowait(json.loads(message))
            else:
                await self.client.handle_response(message)

    async def close(self) -> None:
        self._connection.close()
        await self._reading

    async def closed(self) -> None:
        """Wait until the server has closed the connection."""
        await self._reading

    @property
    def why(self) -> tuple[int | None, str | None]:
        """The code and the reason that the server closed the connection with."""
        return self._connection.close_code, self._connection.close_reason


def with_page(viewer: Viewer, use: Callable[[Page], Awaitable[None]]) -> None:
    async def run() -> None:
        page = Page(await connect(viewer))
        try:
            await asyncio.wait_for(use(page), 30)
        finally:
            await page.close()

    asyncio.run(run())


async def connect(viewer: Viewer, **headers: str) -> WebSocketClientConnection:
    connection = await websocket_connect(HTTPRequest(viewer.url.replace("http", "ws") + "websocket", headers=headers))
    # As browsers do: small requests do not wait for the other side's acknowledgement.
    connection.protocol.set_nodelay(True)
    return connection


async def leave(connection: WebSocketClientConnection) -> None:
    connection.close()
    while await connection.read_message() is not None:
        pass
