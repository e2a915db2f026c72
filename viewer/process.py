"""The engine's process: the feed, Perspective, and the pages' sessions, at the end of a socket to the server.

It is a process of its own because the engine cannot be interrupted: what holds it up for too long, or takes too
much memory, is ended from outside, and the server and its pages live on. It keeps nothing: the feed brings
everything back from the store.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from contextlib import suppress

import msgspec

from headrace import logs
from headrace.errors import HeadraceError
from viewer import reach
from viewer.engine import Engine, Session
from viewer.feed import Feed
from viewer.frames import Connection, Kind, Mark, Start
from viewer.gate import error

log = logging.getLogger(__name__)

STOP_S = 0.5
_OWN = 2**32 - 1
"""The number of the requests that the process itself puts to the engine in a page's name."""


class Page:
    """A page's session. Everything here happens in the engine's thread."""

    def __init__(self, number: int, engine: Engine, connection: Connection, max_cells: int | None) -> None:
        self.number = number
        self._connection = connection
        self._max_cells = max_cells
        self._asking = False
        self._size: tuple[int, int] | None = None
        self._session: Session = engine.new_session(self._receive)
        self.gone = False
        """Set in another thread: what the page had still asked for is left undone."""

    def handle(self, request: bytes) -> None:
        """Work on a request; the responses go to the page."""
        if self.gone:
            return
        try:
            wanted = reach.window(request) if self._max_cells is not None else None
            if wanted is None or self._is_small(wanted):
                self._session.handle_request(request)
        except Exception:
            # As it is for the engine: a request that it cannot take is the page's loss alone.
            log.exception("the engine could not take a request")
        finally:
            self._connection.send(Kind.HANDLED, self.number)

    def close(self) -> None:
        """Drop the page's views and subscriptions."""
        self._session.close()

    def _is_small(self, wanted: reach.Window) -> bool:
        assert self._max_cells is not None  # noqa: S101
        self._asking, self._size = True, None
        try:
            self._session.handle_request(reach.ask_size(_OWN, wanted.view))
        finally:
            self._asking = False
        cells = wanted.cells(*self._size) if self._size is not None else 0
        if cells <= self._max_cells:
            return True
        text = f"{cells:,} cells are asked for at once, and {self._max_cells:,} are the most: group or filter"
        self._connection.send(Kind.RESPONSE, self.number, error(wanted.number, wanted.view, text))
        return False

    def _receive(self, response: bytes) -> None:
        if self._asking:
            answered, size = reach.size(response, _OWN)
            if answered:
                self._size = size
                return
        self._connection.send(Kind.RESPONSE, self.number, bytes(response))


class Process:
    """The engine and its feed, driven by the server's frames."""

    def __init__(self, connection: Connection, mark: Mark, start: Start) -> None:
        self._connection = connection
        self._max_cells = start.max_cells
        self._engine = Engine(mark)
        self._feed = Feed(start.store, start.tables, self._engine, on_failure=self._failed)
        self._pages: dict[int, Page] = {}

    def run(self) -> None:
        """Work until the server is gone, which may be before this process is ready."""
        self._feed.start()
        with suppress(ConnectionError):
            self._connection.send(Kind.READY)
            while (frame := self._connection.read()) is not None:
                self._take(frame.kind, frame.page, frame.payload)
        self._feed.stop(STOP_S)

    def _take(self, kind: Kind, page: int, payload: bytes) -> None:
        if kind is Kind.STATUS:
            self._connection.send(Kind.TOLD, page, json.dumps(self._feed.status()).encode())
        elif kind is Kind.PING:
            self._engine.submit(lambda: self._connection.send(Kind.PONG, page))
        elif kind is Kind.OPEN:
            self._engine.submit(lambda: self._open(page), page=page)
        elif kind is Kind.REQUEST:
            self._engine.submit(lambda: self._pages[page].handle(payload), page=page)
        elif kind is Kind.CLOSE:
            if (going := self._pages.get(page)) is not None:
                going.gone = True
            self._engine.submit(lambda: self._pages.pop(page).close(), page=page)

    def _open(self, page: int) -> None:
        self._pages[page] = Page(page, self._engine, self._connection, self._max_cells)

    def _failed(self, failure: BaseException) -> None:
        """In the feed's thread: it cannot go on, and the server is to end."""
        if isinstance(failure, HeadraceError):
            told = {"message": failure.message, "hint": failure.hint}
        else:
            log.error("the feed has failed", exc_info=failure)
            told = {"message": f"the feed has failed: {failure!r}", "hint": "its traceback stands above"}
        with suppress(ConnectionError):
            self._connection.send(Kind.FAILED, 0, json.dumps(told).encode())


def main(connected: int, marked: int) -> int:
    """Serve the server at the other end of a socket, until that is gone."""
    connection = Connection(socket.socket(fileno=connected))
    first = connection.read()
    if first is None:
        return 0
    start = msgspec.msgpack.decode(first.payload, type=Start)
    logs.configure("viewer", start.log)
    logging.getLogger("viewer").setLevel(start.log.upper())
    Process(connection, Mark(marked), start).run()
    return 0


if __name__ == "__main__":
    ended = main(int(sys.argv[1]), int(sys.argv[2]))
    sys.stderr.flush()
    # The engine's thread may be in a request that never ends: nobody waits for it.
    os._exit(ended)
