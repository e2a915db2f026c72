"""``python -m viewer``: the live page of a line."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Callable
from typing import Any

from headrace.errors import SettingsError
from headrace.flags import OF_SERVICES, PAGE
from headrace.pipeline import Pipeline
from headrace.service import main
from headrace.settings import Settings
from viewer.addresses import is_loopback
from viewer.frames import Start
from viewer.gate import Gate
from viewer.panels import page
from viewer.reach import MAX_CELLS
from viewer.server import PageServer
from viewer.spending import Budget
from viewer.watch import WatchedEngine

log = logging.getLogger(__name__)


async def serve(
    pipeline: Pipeline,
    settings: Settings,
    *,
    gate: Callable[[], Gate] = Gate,
    budget: Budget | None = None,
    max_cells: int | None = MAX_CELLS,
) -> None:
    """Show a pipeline's store until SIGTERM or SIGINT. Raises what stops the feed, PortTaken, SettingsError."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def end() -> None:
        if not ended.done():
            ended.set_result(None)

    def failed(failure: BaseException) -> None:
        if not ended.done():
            ended.set_exception(failure)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    shown = page(pipeline)
    start = Start(settings.store, shown.tables, settings.log, max_cells)
    engine = WatchedEngine(start, on_failure=failed, budget=budget)
    server = PageServer(shown, engine, host=settings.host, port=settings.port, gate=gate)
    try:
        server.start()
        engine.start()
        ready: asyncio.Future[Any] = asyncio.ensure_future(engine.ready.wait())
        await asyncio.wait((ready, ended), return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if not ended.done():
            print(f"the page is at {server.address}", flush=True)
        await ended
    finally:
        await server.stop()
        await engine.stop()


def run(settings: Settings, pipeline: Pipeline) -> None:
    """Run until SIGTERM or SIGINT."""
    logging.getLogger("viewer").setLevel(settings.log.upper())
    if not is_loopback(settings.host):
        if not settings.public:
            raise SettingsError(
                f"--host is {settings.host!r}, which others can reach, and the page has no login",
                hint="add --public (HEADRACE_PUBLIC=1) if all who reach it may read it, "
                "or listen on 127.0.0.1 behind a proxy that has a login",
            )
        log.warning("the page has no login: whoever reaches %s can read it", settings.host)
    asyncio.run(serve(pipeline, settings))


if __name__ == "__main__":
    sys.exit(main("viewer", "The live page of a line.", run, settings=(*OF_SERVICES, *PAGE)))
