"""``latency``: from the moment a reading is produced until a websocket client of the page has it.

The whole line runs: embedded or other broker, the real sinks and viewer, a store in SQLite, 1,000 readings a
second of 10 devices. Each reading carries the time it was produced at as a field, so that the client, which
follows the viewer's table through the engine's own protocol, can tell how old it is. Beside it, at the same
time, a reader as tutorials have it: the newest 1,000 rows of the same store each 300 ms.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import perspective
import pyarrow as pa
from confluent_kafka import Producer
from rich.console import Console
from tornado.websocket import WebSocketClientConnection, websocket_connect

from bench.brokers import Broker
from bench.measured import Line, percentile
from bench.options import Options
from bench.process import Subject, running
from headrace.errors import StoreUnavailable
from headrace.pipeline import all_tables, parse
from headrace.stores import open_store
from headrace.topics import CLIENT, ensure_topics, wait_for_broker

TOPIC = "readings"
DEVICES = 10
PER_S = 1_000
SECONDS = 15.0
WARM_S = 3.0
POLL_S = 0.3
POLL_ROWS = 1_000
SHOWN = "readings rows 5000"

PIPELINE = """\
name = "bench-latency"

[topics.readings]
partitions = 1
fields = { current = "float", sent = "float" }

[[panels]]
title = "readings"
kind = "table"
of = "readings"
"""


def run(broker: Broker, options: Options, console: Console) -> list[Line]:  # noqa: ARG001 - as all benches
    """Measure once: a run has some ten thousand latencies in it."""
    ensure_topics(wait_for_broker(broker.address), parse(PIPELINE))
    console.print(f"latency: {PER_S:,} readings/s for {SECONDS:.0f} s")
    folder = Path(tempfile.mkdtemp(prefix="headrace-bench-"))
    try:
        pushed, polled = asyncio.run(_measure(broker, folder))
    finally:
        shutil.rmtree(folder)
    made = []
    for subject, latencies in (("headrace", pushed), ("poll", polled)):
        line = Line("latency", subject, len(latencies))
        line.p50_ms, line.p99_ms = (round(percentile(latencies, share) * 1e3, 1) for share in (0.5, 0.99))
        made.append(line)
    mine, poll = made
    mine.ratio = {"poll": float(f"{(poll.p50_ms or 0) / (mine.p50_ms or 1):.3g}")}
    mine.note = f"{PER_S} readings/s, produced to websocket client"
    poll.note = f"the newest {POLL_ROWS} rows of the same store each {POLL_S * 1e3:.0f} ms"
    return made


async def _measure(broker: Broker, folder: Path) -> tuple[list[float], list[float]]:
    file, store = folder / "pipeline.toml", f"sqlite:///{folder / 'store.db'}"
    file.write_text(PIPELINE, encoding="utf-8")
    common = ["--pipeline", str(file), "--store", store]
    sinks = [sys.executable, "-m", "sinks", *common, "--broker", broker.address, "--data", str(folder)]
    viewer = [sys.executable, "-m", "viewer", *common, "--port", "0"]
    pushed: list[float] = []
    polled: list[float] = []
    with running(sinks), running(viewer) as page:
        port = await asyncio.to_thread(_port, page)
        stop = threading.Event()
        client = await _client(port, pushed)
        with _thread(_produce, broker.address, stop), _thread(_poll, store, polled, stop):
            await asyncio.sleep(WARM_S)
            begun = len(pushed), len(polled)
            await asyncio.sleep(SECONDS)
            ended = len(pushed), len(polled)
            stop.set()
        client.close()
    return pushed[begun[0] : ended[0]], polled[begun[1] : ended[1]]


async def _client(port: int, latencies: list[float]) -> WebSocketClientConnection:
    """A page that follows the table of readings, and notes how old each is as it comes."""
    connection = await websocket_connect(f"ws://127.0.0.1:{port}/websocket")

    async def send(message: bytes) -> None:
        await connection.write_message(bytes(message), binary=True)

    client = perspective.AsyncClient(send)

    async def read() -> None:
        while (message := await connection.read_message()) is not None:
            if isinstance(message, bytes):
                await client.handle_response(message)

    def changed(*arguments: Any) -> None:
        now = time.time()
        delta = next(a for a in arguments if isinstance(a, bytes))
        sent = pa.ipc.open_stream(delta).read_all()["sent"].to_pylist()
        latencies.extend(now - one for one in sent if one is not None)

    connection.reading = asyncio.ensure_future(read())  # type: ignore[attr-defined]
    deadline = time.monotonic() + 30
    while SHOWN not in await client.get_hosted_table_names():
        if time.monotonic() > deadline:
            raise TimeoutError(f"the viewer shows {await client.get_hosted_table_names()}, and no {SHOWN!r}")
        await asyncio.sleep(0.1)
    table = await client.open_table(SHOWN)
    view = await table.view(columns=["sent"])
    await view.on_update(changed, mode="row")
    return connection


def _produce(address: str, stop: threading.Event) -> None:
    """Readings at a steady rate, ten at once."""
    producer = Producer({**CLIENT, "bootstrap.servers": address, "linger.ms": 0})
    due = time.monotonic()
    n = 0
    while not stop.is_set():
        for _ in range(DEVICES):
            now = time.time()
            device = f"meter-{n % DEVICES:04}"
            reading = {"device": device, "ts": int(now * 1_000), "current": n % 20 / 2, "sent": now}
            producer.produce(TOPIC, json.dumps(reading).encode(), device.encode())
            n += 1
        producer.poll(0)
        due += DEVICES / PER_S
        time.sleep(max(due - time.monotonic(), 0))
    producer.flush(10)


def _poll(url: str, latencies: list[float], stop: threading.Event) -> None:
    """The newest rows, again and again; how old each was when it was first seen."""
    table = all_tables(parse(PIPELINE))[TOPIC]
    seen = 0.0
    while not stop.wait(POLL_S):
        try:
            with closing(open_store(url, readonly=True)) as store:
                columns = store.latest(table, POLL_ROWS)
        except StoreUnavailable:
            continue
        now = time.time()
        fresh = [sent for sent in columns.get("sent", []) if sent > seen]
        latencies.extend(now - sent for sent in fresh)
        seen = max(fresh, default=seen)


@contextmanager
def _thread(work: Any, *arguments: Any) -> Iterator[None]:
    thread = threading.Thread(target=work, args=arguments, daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join(20)


def _port(viewer: Subject) -> int:
    """The port that the viewer says it listens on."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        viewer.check()
        said = viewer.log.read_text(encoding="utf-8", errors="replace")
        if "the page is at " in said and "\n" in said.partition("the page is at ")[2]:
            return int(said.partition("the page is at ")[2].split()[0].rstrip("/").rpartition(":")[2])
        time.sleep(0.05)
    raise TimeoutError("the viewer does not say where its page is")
