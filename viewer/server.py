"""The page's server: Perspective's assets, our page, a read-only websocket, and what is going on as JSON."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from tornado.httpserver import HTTPServer
from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from headrace import __version__
from viewer.addresses import host_name, is_loopback, is_origin, listen
from viewer.assets import PERSPECTIVE, VERSION, Asset, page_asset, perspective_asset
from viewer.gate import Gate
from viewer.panels import Page
from viewer.strikes import Strikes
from viewer.watch import WatchedEngine

log = logging.getLogger(__name__)

MAX_CLIENTS = 32
MAX_MESSAGE = 256 * 1024
"""A request of a page is some hundred bytes; a long expression some thousand."""
MAX_PENDING = 500
"""Requests of one page that wait for the engine."""
MAX_PENDING_BYTES = 4 * 1024 * 1024
MAX_UNSENT = 64 * 1024 * 1024
"""Bytes that a page has not fetched; one that is so far behind is disconnected, and connects again."""
GOES, REFUSED, RESTARTS, TRY_LATER = 1001, 1008, 1012, 1013
"""Why a connection is closed (RFC 6455). A page comes back; after REFUSED with the server's panels, not its own."""
STATUS_S = 1.0
ANSWER_S = 0.5
"""The engine's process has so long to say what it shows."""
HEALTHY_S = 2.0
"""The engine has so long to answer before it is unhealthy."""

CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'self'",
        "script-src 'self' blob: 'wasm-unsafe-eval'",
        "worker-src 'self' blob:",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self' data: blob: ws: wss:",
        "object-src 'none'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
)


class PageServer:
    """Serves a page and follows its clients. Lives in an asyncio loop."""

    def __init__(
        self, page: Page, engine: WatchedEngine, *, host: str, port: int, gate: Callable[[], Gate] = Gate
    ) -> None:
        self.page = page
        self.engine = engine
        self.gate = gate
        self.clients: set[Channel] = set()
        self.strikes = Strikes()
        self._told: dict[str, Any] = {"waiting": None, "tables": {}}
        self.local_only = is_loopback(host)
        self._host, self._port = host, port
        self._http: HTTPServer | None = None
        self._telling: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """The page's address, for a browser on this machine."""
        host = self._host if self._host not in ("", "0.0.0.0", "::") else "localhost"  # noqa: S104
        return f"http://{f'[{host}]' if ':' in host else host}:{self._port}/"

    def start(self) -> None:
        """Listen. Raises PortTaken or SettingsError."""
        application = Application(
            self._routes(),
            websocket_max_message_size=MAX_MESSAGE,
            websocket_ping_interval=20,
            websocket_ping_timeout=15,
            log_function=_log_request,
        )
        sockets = listen(self._host, self._port)
        self._port = sockets[0].getsockname()[1]
        self._http = HTTPServer(application, max_body_size=MAX_MESSAGE)
        self._http.add_sockets(sockets)
        self._telling = asyncio.get_running_loop().create_task(self._tell())

    async def stop(self) -> None:
        """Say good-bye to the pages and stop listening."""
        if self._telling is not None:
            self._telling.cancel()
        for client in list(self.clients):
            client.close(GOES, "the viewer stops")
        if self._http is not None:
            self._http.stop()
            await self._http.close_all_connections()

    async def status(self) -> dict[str, Any]:
        """What is shown, as ``/status`` says it; what was shown last while the engine does not answer."""
        told = await self.engine.status(ANSWER_S)
        if told is not None:
            self._told = told
        waiting = "waiting for the engine" + (f": {self.engine.why}" if self.engine.why else "")
        status = self._told if told is not None else {**self._told, "waiting": waiting}
        return {
            "service": "viewer",
            "line": self.page.line,
            "version": __version__,
            "perspective": VERSION,
            "waiting": status["waiting"],
            "clients": len(self.clients),
            "engine": {"memory_mb": self.engine.memory >> 20, "ended": self.engine.ended, "why": self.engine.why},
            "rows_per_s": round(sum(table["rows_per_s"] for table in status["tables"].values()), 1),
            "tables": status["tables"],
        }

    async def health(self) -> dict[str, Any]:
        """Whether the engine does its work, as ``/healthz`` says it."""
        why = await self.engine.illness(HEALTHY_S)
        return {"ok": True} if why is None else {"ok": False, "why": why}

    async def panels(self) -> dict[str, Any]:
        """What the page restores, as ``/panels`` says it."""
        return {"line": self.page.line, "panels": self.page.panels, "layouts": self.page.layouts}

    def _routes(self) -> list[tuple[str, type[RequestHandler], dict[str, Any]]]:
        assets = f"/assets/perspective/{VERSION}"
        ours = {"assets": assets, "perspective": VERSION, "version": __version__}
        routes: list[tuple[str, type[RequestHandler], dict[str, Any]]] = [
            (f"{assets}/{name}", File, {"server": self, "asset": perspective_asset(name), "forever": True})
            for name in PERSPECTIVE
        ]
        for path, name in {"/": "index.html", "/page.js": "page.js", "/page.css": "page.css"}.items():
            asset = page_asset(name, **ours)
            routes.append((path, File, {"server": self, "asset": asset, "forever": False}))
        return [
            *routes,
            ("/icon.svg", File, {"server": self, "asset": page_asset("icon.svg"), "forever": False}),
            ("/panels", Json, {"server": self, "answer": self.panels}),
            ("/status", Json, {"server": self, "answer": self.status}),
            ("/healthz", Json, {"server": self, "answer": self.health}),
            ("/websocket", Channel, {"server": self}),
            ("/.*", Nothing, {"server": self}),
        ]

    async def _tell(self) -> None:
        """Tell all pages the status each second; silence tells them that the connection is dead."""
        while True:
            if self.clients:
                text = json.dumps(await self.status())
                for client in list(self.clients):
                    client.send(text)
            await asyncio.sleep(STATUS_S)


class Guarded(RequestHandler):
    """What all answers have in common."""

    server: PageServer

    def initialize(self, server: PageServer) -> None:
        """Tornado's way of construction."""
        self.server = server

    def set_default_headers(self) -> None:
        """The policy on every answer, errors too."""
        self.set_header("Server", "headrace")
        self.set_header("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "no-referrer")

    def prepare(self) -> Awaitable[None] | None:
        """Refuse other names for a viewer on loopback: a foreign page may have its own name resolve there."""
        name = host_name(self.request)
        if name is None or not is_origin(self.request.headers.get("Origin", "null")):
            self.set_status(400)
            self.finish("the Host or the Origin header is not an address\n")
        elif self.server.local_only and not is_loopback(name):
            self.set_status(403)
            self.finish("this viewer is for this machine only; start it with --host 0.0.0.0 --public to open it\n")
        return None


class File(Guarded):
    """A file of the page."""

    def initialize(self, server: PageServer, asset: Asset | None = None, forever: bool = False) -> None:
        """With the file, and whether its address changes when it does."""
        super().initialize(server)
        self.asset, self.forever = asset, forever

    async def get(self) -> None:
        """The file, compressed where the client can take that."""
        asset = self.asset
        assert asset is not None  # noqa: S101
        self.set_header("Content-Type", asset.type)
        self.set_header("Vary", "Accept-Encoding")
        self.set_header("Cache-Control", "public, max-age=31536000, immutable" if self.forever else "no-cache")
        compressed = "gzip" in self.request.headers.get("Accept-Encoding", "")
        self.set_header("Etag", f'"{asset.tag}{"-gz" if compressed else ""}"')
        if self.check_etag_header():
            self.set_status(304)
            return
        if not compressed:
            self.write(asset.content)
            return
        self.set_header("Content-Encoding", "gzip")
        self.write(await asyncio.get_running_loop().run_in_executor(None, lambda: asset.gzipped))

    head = get


class Json(Guarded):
    """An answer as JSON."""

    def initialize(self, server: PageServer, answer: Callable[[], Awaitable[dict[str, Any]]] | None = None) -> None:
        """With what makes the answer; one that says that it is not ok is a 503."""
        super().initialize(server)
        self.answer = answer

    async def get(self) -> None:
        """The answer, never cached."""
        assert self.answer is not None  # noqa: S101
        answer = await self.answer()
        if answer.get("ok") is False:
            self.set_status(503)
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.write(json.dumps(answer) + "\n")


class Nothing(Guarded):
    """Any other address."""

    def get(self) -> None:
        """There is nothing."""
        self.set_status(404)
        self.finish("there is no such page\n")


class Channel(Guarded, WebSocketHandler):
    """A page's connection: the engine's protocol as binary messages, behind the gate; the status as text."""

    def initialize(self, server: PageServer) -> None:
        """A new connection, not yet open."""
        super().initialize(server)
        self.viewed_at: float | None = None
        self._gate = server.gate()
        self._loop = asyncio.get_running_loop()
        self._number: int | None = None
        self._pending: deque[int] = deque()
        self._unsent = 0

    def prepare(self) -> Awaitable[None] | None:
        """Refuse connections beyond the bound."""
        if len(self.server.clients) >= MAX_CLIENTS:
            self.set_status(503)
            self.set_header("Retry-After", "5")
            self.finish(f"{MAX_CLIENTS} pages are open already\n")
            return None
        return super().prepare()

    def check_origin(self, origin: str) -> bool:
        """Whether the page that asks came from here."""
        return urlsplit(origin).netloc.lower() == self.request.headers.get("Host", "").lower()

    async def open(self, *_args: str, **_kwargs: str) -> None:
        """Begin a session with the engine."""
        # Without it small answers wait for the other side's acknowledgement: 26 ms instead of 3.
        self.set_nodelay(True)
        wait_s = self.server.strikes.wait_s(self._address, self._loop.time())
        if wait_s:
            self.close(TRY_LATER, f"what was asked for has ended the engine more than once: wait {wait_s:.0f} s")
            return
        self.server.clients.add(self)
        while not self.server.engine.ready.is_set():
            await self.server.engine.ready.wait()
        if self.ws_connection is None or self.ws_connection.is_closing():
            return
        self._number = self.server.engine.attach(self)
        self.send(json.dumps(await self.server.status()))

    @property
    def _address(self) -> str:
        return str(self.request.remote_ip)

    def on_message(self, message: str | bytes) -> None:
        """Let a request pass the gate to the engine."""
        if isinstance(message, str) or self._number is None:
            return
        views = self._gate.views
        answer = self._gate.answer(message)
        if answer is not None:
            self.send(answer)
            return
        if len(self._pending) >= MAX_PENDING or sum(self._pending) > MAX_PENDING_BYTES:
            self.close(REFUSED, "too many requests at once")
            return
        if self._gate.views > views:
            self.viewed_at = self._loop.time()
        self._pending.append(len(message))
        self.server.engine.request(self._number, message)

    def handled(self) -> None:
        """The engine has worked on a request."""
        self._pending.popleft()

    def receive(self, response: bytes) -> None:
        """A response or an update from the engine."""
        self._gate.answered(response)
        self.send(response)

    def lost(self, blame: str | None) -> None:
        """The session is over: the page is to come back, and to hear it if that is its own doing."""
        self._number = None
        if blame is None:
            self.close(RESTARTS, "the engine starts again")
            return
        log.warning("a page's connection is closed: %s", blame, extra={"address": self._address})
        self.server.strikes.add(self._address, self._loop.time())
        self.close(REFUSED, blame)

    def send(self, message: str | bytes) -> None:
        """Send to the page, unless it is gone."""
        size = len(message)
        if self._unsent + size > MAX_UNSENT:
            self.close(TRY_LATER, "the page is too far behind")
            return
        try:
            sending = asyncio.ensure_future(self.write_message(message, binary=isinstance(message, bytes)))
        except WebSocketClosedError:
            return
        self._unsent += size
        sending.add_done_callback(lambda done: self._sent(done, size))

    def _sent(self, done: asyncio.Future[None], size: int) -> None:
        self._unsent -= size
        failure = None if done.cancelled() else done.exception()
        if failure is not None and not isinstance(failure, WebSocketClosedError):
            log.info("a page went away: %s", failure)

    def on_close(self) -> None:
        """Drop the session and its views."""
        self.server.clients.discard(self)
        number, self._number = self._number, None
        if number is not None:
            self.server.engine.detach(number)


def _log_request(handler: RequestHandler) -> None:
    log.debug("%s %s %s", handler.get_status(), handler.request.method, handler.request.path)
