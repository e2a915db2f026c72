"""``python -m viewer``: the live page of a line."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys

from headrace.errors import SettingsError
from headrace.pipeline import Pipeline
from headrace.service import main
from headrace.settings import Settings
from viewer.engine import Engine
from viewer.feed import Feed
from viewer.panels import page
from viewer.server import PageServer, is_loopback

log = logging.getLogger(__name__)


async def serve(pipeline: Pipeline, settings: Settings) -> None:
    """Show a pipeline's store until SIGTERM or SIGINT. Raises what stops the feed, PortTaken, SettingsError."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def end(failure: BaseException | None = None) -> None:
        if ended.done():
            return
        if failure is None:
            ended.set_result(None)
        else:
            ended.set_exception(failure)

    def failed(failure: BaseException) -> None:
        loop.call_soon_threadsafe(end, failure)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    shown = page(pipeline)
    engine = Engine()
    feed = Feed(settings.store, shown.tables, engine, on_failure=failed)
    server = PageServer(shown, engine, feed, host=settings.host, port=settings.port)
    try:
        server.start()
        feed.start()
        print(f"the page is at {server.address}", flush=True)
        await ended
    finally:
        await server.stop()
        await asyncio.to_thread(feed.stop)
        await asyncio.to_thread(engine.close)


def run(settings: Settings, pipeline: Pipeline, _flags: argparse.Namespace) -> None:
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
    sys.exit(main("viewer", "The live page of a line.", run))
