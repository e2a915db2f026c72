"""The engine's process as the server sees it: started, watched, ended when it must be, started again.

A request that holds the engine for more than its budget, or an engine that takes too much memory, cannot be
stopped in any other way than by ending the process. What it held comes back from the store, and the pages
connect again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import msgspec

from headrace.children import program
from headrace.errors import HeadraceError
from viewer import frames
from viewer.frames import Kind, Mark, Start
from viewer.spending import Budget, Spending

log = logging.getLogger(__name__)

LOOK_S = 0.1
REST_LOOK_S = 0.5
"""An engine that had nothing to do at the last look, and was asked for nothing since, is looked at this often."""
MOST_LOOK_S = 1.0
SUSPECT_S = 60.0
"""A view is held to be what slows the feed's updates down for so long after it was made."""
BACK_OFF_S = 0.5
MOST_BACK_OFF_S = 10.0
CALM_S = 60.0
"""After so long without an end the engine is started at once again."""
MOST_FAILED_STARTS = 5


class Client(Protocol):
    """A page's connection."""

    viewed_at: float | None
    """When it last asked for a view, by the loop's clock."""

    def receive(self, response: bytes) -> None:
        """A response or an update."""
        ...

    def handled(self) -> None:
        """The oldest request that has not been handled is."""
        ...

    def lost(self, blame: str | None) -> None:
        """The page's session is over: the engine has ended, or, with ``blame``, the page has asked too much."""
        ...


class WatchedEngine:
    """The engine's process, in an asyncio loop. ``on_failure`` is called when it cannot go on."""

    def __init__(
        self, start: Start, *, on_failure: Callable[[BaseException], None], budget: Budget | None = None
    ) -> None:
        self.ready = asyncio.Event()
        self.ended = 0
        self.why: str | None = None
        self._start = msgspec.msgpack.encode(start)
        self._on_failure = on_failure
        self._budget = budget or Budget()
        self._clients: dict[int, Client] = {}
        self._last = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._asked: dict[int, asyncio.Future[bytes | None]] = {}
        self._running: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._blamed: tuple[int, str] | None = None
        self._working = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """The process that runs now."""
        return self._process.pid if self._process is not None else None

    @property
    def memory(self) -> int:
        """Bytes that the process holds; 0 where the system does not tell."""
        try:
            pages = Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1]
        except OSError:
            return 0
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    @property
    def _cpu_s(self) -> float | None:
        """Seconds of processor time that the process has taken; None where the system does not tell."""
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii", errors="replace")
        except OSError:
            return None
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def start(self) -> None:
        """Begin; ``ready`` is set once pages may connect."""
        self._running = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """End the process: in order if it can within the budget's ``stop_s``."""
        self._stopping.set()
        if self._writer is not None:
            self._writer.close()
        if self._running is not None:
            await self._running

    def attach(self, client: Client) -> int:
        """Begin a page's session; only while ``ready``. The number is the page's from now on."""
        self._last += 1
        self._clients[self._last] = client
        self._send(Kind.OPEN, self._last)
        return self._last

    def request(self, page: int, request: bytes) -> None:
        """Put a page's request to the engine."""
        if page in self._clients:
            self._send(Kind.REQUEST, page, request)

    def detach(self, page: int) -> None:
        """End a page's session."""
        if self._clients.pop(page, None) is not None:
            self._send(Kind.CLOSE, page)

    async def status(self, deadline_s: float) -> dict[str, Any] | None:
        """What the feed says of itself; None if the process does not answer in time."""
        told = await self._ask(Kind.STATUS, deadline_s)
        return json.loads(told) if told is not None else None

    async def illness(self, deadline_s: float) -> str | None:
        """Why the engine can do no work now; None if it can."""
        if not self.ready.is_set():
            return "the engine is starting" + (f": {self.why}" if self.why else "")
        if await self._ask(Kind.PING, deadline_s) is None:
            return f"the engine has not answered for {deadline_s:g} s"
        return None

    async def _ask(self, kind: Kind, deadline_s: float) -> bytes | None:
        if not self.ready.is_set():
            return None
        self._last += 1
        number = self._last
        self._asked[number] = answer = asyncio.get_running_loop().create_future()
        self._send(kind, number)
        try:
            return await asyncio.wait_for(answer, deadline_s)
        except TimeoutError:
            return None
        finally:
            del self._asked[number]

    def _send(self, kind: Kind, page: int = 0, payload: bytes = b"") -> None:
        if self._writer is not None and not self._writer.is_closing():
            if kind is not Kind.STATUS:
                self._working.set()
            self._writer.write(frames.pack(kind, page, payload))

    async def _run(self) -> None:
        try:
            await self._keep()
        except Exception as failure:
            self._on_failure(failure)

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        ends: deque[float] = deque()
        failed_starts = 0
        while not self._stopping.is_set():
            was_ready = await self._live()
            if self._stopping.is_set():
                return
            failed_starts = 0 if was_ready else failed_starts + 1
            if failed_starts >= MOST_FAILED_STARTS:
                raise HeadraceError(
                    f"the engine does not start: {self.why}", hint="what its process printed stands above"
                )
            while ends and ends[0] < loop.time() - CALM_S:
                ends.popleft()
            if ends:
                with suppress(TimeoutError):
                    wait_s = min(BACK_OFF_S * 2 ** (len(ends) - 1), MOST_BACK_OFF_S)
                    await asyncio.wait_for(self._stopping.wait(), wait_s)
            ends.append(loop.time())

    async def _live(self) -> bool:
        """One process, from its start to its end. Whether it was ready in between."""
        ours, its = socket.socketpair()
        descriptor = Mark.new()
        mark = Mark(descriptor)
        try:
            self._process = subprocess.Popen(
                program("viewer.process", str(its.fileno()), str(descriptor)),
                stdin=subprocess.DEVNULL,
                pass_fds=(its.fileno(), descriptor),
                # Ctrl-C is the server's to handle.
                start_new_session=True,
            )
        finally:
            its.close()
            os.close(descriptor)
        process = self._process
        reader, self._writer = await asyncio.open_unix_connection(sock=ours)
        self._blamed = None
        self._send(Kind.START, payload=self._start)
        watching = asyncio.create_task(self._watch(process, mark))
        try:
            while (frame := await frames.read(reader)) is not None:
                self._take(frame)
        finally:
            was_ready = self.ready.is_set()
            self.ready.clear()
            watching.cancel()
            self._writer.close()
            page = mark.read()[1]
            mark.close()
            await asyncio.to_thread(self._reap, process)
            self._lost(process.returncode, page)
        return was_ready

    def _reap(self, process: subprocess.Popen[bytes]) -> None:
        try:
            process.wait(self._budget.stop_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _take(self, frame: frames.Frame) -> None:
        if frame.kind is Kind.RESPONSE:
            if (client := self._clients.get(frame.page)) is not None:
                client.receive(frame.payload)
        elif frame.kind is Kind.HANDLED:
            if (client := self._clients.get(frame.page)) is not None:
                client.handled()
        elif frame.kind in (Kind.PONG, Kind.TOLD):
            answer = self._asked.get(frame.page)
            if answer is not None and not answer.done():
                answer.set_result(frame.payload)
        elif frame.kind is Kind.READY:
            self.ready.set()
        elif frame.kind is Kind.FAILED:
            told = json.loads(frame.payload)
            self._on_failure(HeadraceError(told["message"], hint=told["hint"]))

    async def _watch(self, process: subprocess.Popen[bytes], mark: Mark) -> None:
        """Look at what the engine does, and end it when that is too much."""
        loop, spending = asyncio.get_running_loop(), Spending(self._budget)
        last = loop.time()
        while True:
            await self._until_look()
            number, page = mark.read()
            if number:
                self._working.set()
            now = loop.time()
            # A machine or a server that was asleep has not looked.
            passed_s, last = min(now - last, MOST_LOOK_S), now
            excess = spending.look(number, page, cpu_s=self._cpu_s, passed_s=passed_s, memory=self.memory)
            if excess is None:
                continue
            if excess.fatal:
                suspect = excess.page or (self._suspect() if excess.slow else 0)
                self._blamed = suspect, excess.did
                process.kill()
                return
            # One request after the other, each within the budget: the engine can go on without the page.
            if (client := self._clients.get(excess.page)) is not None:
                self.detach(excess.page)
                client.lost(f"what you asked for {excess.did}")

    async def _until_look(self) -> None:
        """Wait for the next look: at rest for longer, but not once the engine is asked for something."""
        if not self._working.is_set():
            try:
                await asyncio.wait_for(self._working.wait(), REST_LOOK_S)
            except TimeoutError:
                return
        self._working.clear()
        await asyncio.sleep(LOOK_S)

    def _suspect(self) -> int:
        """The page whose view an update is slow for: the newest, if there is one of late."""
        since = asyncio.get_running_loop().time() - SUSPECT_S
        views = [(client.viewed_at, page) for page, client in self._clients.items() if client.viewed_at is not None]
        at, page = max(views, default=(since, 0))
        return page if at > since else 0

    def _lost(self, code: int, page: int) -> None:
        """Tell the pages that the engine has ended."""
        clients, self._clients = self._clients, {}
        for answer in self._asked.values():
            if not answer.done():
                answer.set_result(None)
        if self._stopping.is_set():
            return
        self.ended += 1
        if self._blamed is not None:
            page, did = self._blamed
        else:
            how = signal.Signals(-code).name if code < 0 else f"code {code}"
            did = f"made the engine end with {how}"
        who = "a page's request" if page in clients else "work of its own"
        self.why = f"{who} {did}"
        log.warning("the engine was ended and starts again: %s", self.why)
        for number, client in clients.items():
            client.lost(f"what you asked for {did}" if number == page else None)
