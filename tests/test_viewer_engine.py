"""The engine's process: it is ended when it must be, and the pages and their rows come back by themselves."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import perspective
import psutil
import pytest
from viewer_line import START_US, Line, Viewer, viewing, wait_for
from viewer_page import Page, connect, with_page

from headrace.errors import HeadraceError
from viewer import watch
from viewer.frames import Kind, Mark, Start, pack
from viewer.reach import Window, window
from viewer.spending import Budget, Excess, Spending
from viewer.strikes import FIRST_WAIT_S, FORGOTTEN_S, Strikes
from viewer.watch import WatchedEngine

pytestmark = pytest.mark.slow

LAST = "meters last 5000"
DEVICES = [f"d{n}" for n in range(1_000)]
FOR_EVER = "for (var i := 0; i < 999999; i += 1) { 1 }"
"""Some 0.4 s for each row: the engine itself stops a loop after a million rounds."""
UNGATED = [str(Path(__file__).parent / "viewer_ungated.py")]


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    made = Line(tmp_path)
    made.put("meters", DEVICES, [START_US] * len(DEVICES), current=[1.5] * len(DEVICES))
    yield made
    made.close()


@contextmanager
def ungated(line: Line, *, work_s: float = 5.0, share: float = 0.5, memory_mb: int = 1024) -> Iterator[Viewer]:
    flags = ["--work-s", str(work_s), "--share", str(share), "--memory-mb", str(memory_mb)]
    with viewing(line, program=UNGATED, flags=flags) as viewer:
        wait_for(lambda: viewer.rows("meters") == len(DEVICES))
        yield viewer


def engine_of(viewer: Viewer) -> psutil.Process:
    (engine,) = psutil.Process(viewer.process.pid).children()
    return engine


async def ask(page: Page, expression: str) -> None:
    """Ask for a view with this expression; no answer may ever come."""
    table = await page.client.open_table(LAST)
    asyncio.ensure_future(table.view(expressions={"it": expression}))  # noqa: RUF006


async def until(true: Callable[[], Any]) -> Any:
    return await asyncio.to_thread(wait_for, true)


async def sees_rows(viewer: Viewer) -> None:
    """A new page has the rows of the store."""
    page = Page(await connect(viewer))
    table = await page.client.open_table(LAST)
    while await table.size() != len(DEVICES):
        await asyncio.sleep(0.02)
    await page.close()


# What is too much


def test_work_that_never_ends_is_ended_and_rows_come_back(line: Line) -> None:
    async def use(viewer: Viewer) -> None:
        guilty, other = Page(await connect(viewer)), Page(await connect(viewer))
        await ask(guilty, FOR_EVER)
        await guilty.closed()
        await other.closed()
        assert guilty.why[0] == 1008
        assert re.fullmatch(r"what you asked for held the engine for \d+ s", guilty.why[1])
        assert other.why == (1012, "the engine starts again")
        await sees_rows(viewer)

    with ungated(line, work_s=1.0) as viewer:
        asyncio.run(asyncio.wait_for(use(viewer), 60))
        status = viewer.status()
        assert status["engine"]["ended"] == 1
        assert status["engine"]["why"].startswith("a page's request held the engine for ")
        assert viewer.rows("meters") == len(DEVICES)
        line.put("meters", ["new"], [START_US], current=[3.5])
        wait_for(lambda: viewer.rows("meters") == len(DEVICES) + 1)
        assert viewer.stop() == 0
        log = viewer.log.read_text(encoding="utf-8")
        assert "the engine was ended and starts again: a page's request held the engine for " in log
        assert "Traceback" not in log


def test_memory_beyond_the_bound_ends_the_engine(line: Line) -> None:
    async def use(viewer: Viewer) -> None:
        guilty = Page(await connect(viewer))
        await ask(guilty, "var v[100000000] := [0]; v[0]")
        await guilty.closed()
        assert guilty.why == (1008, "what you asked for made the engine take more than 300 MB")
        await sees_rows(viewer)

    with ungated(line, work_s=60.0, memory_mb=300) as viewer:
        asyncio.run(asyncio.wait_for(use(viewer), 60))


def test_page_that_holds_the_engine_by_many_requests_is_sent_away_alone(line: Line) -> None:
    async def use(viewer: Viewer) -> None:
        guilty, other = Page(await connect(viewer)), Page(await connect(viewer))
        table = await guilty.client.open_table(LAST)
        loop, steps, took_s = asyncio.get_running_loop(), 1, 0.0
        while took_s < 0.1:
            steps *= 2
            begun = loop.time()
            await (await table.view(expressions={"it": f"for (var i := 0; i < {steps}; i += 1) {{ 1 }}"})).delete()
            took_s = loop.time() - begun
        expression = f"for (var i := 0; i < {steps}; i += 1) {{ 1 }}"
        asking = [asyncio.ensure_future(table.view(expressions={"it": expression})) for _ in range(400)]
        await guilty.closed()
        assert guilty.why[0] == 1008
        assert re.fullmatch(r"what you asked for held the engine for \S+ s of the last 20", guilty.why[1])
        assert await (await (await other.client.open_table(LAST)).view()).num_rows() == len(DEVICES)
        await other.close()
        for asked in asking:
            asked.cancel()

    with ungated(line, share=0.1) as viewer:
        asyncio.run(asyncio.wait_for(use(viewer), 120))
        assert viewer.status()["engine"]["ended"] == 0


def test_page_that_ends_the_engine_again_and_again_must_wait(line: Line) -> None:
    async def use(viewer: Viewer) -> None:
        for _ in range(2):
            guilty = Page(await connect(viewer))
            await ask(guilty, FOR_EVER)
            await guilty.closed()
            assert guilty.why[0] == 1008
        again = Page(await connect(viewer))
        await again.closed()
        assert again.why[0] == 1013
        assert "more than once: wait " in again.why[1]

    with ungated(line, work_s=1.0) as viewer:
        asyncio.run(asyncio.wait_for(use(viewer), 60))


def test_answer_of_too_many_cells_is_refused_and_a_part_of_it_is_not(tmp_path: Path) -> None:
    line = Line(tmp_path)
    line.put("meters", [f"d{n}" for n in range(2_000)], [START_US + n for n in range(2_000)], current=[1.0] * 2_000)

    async def use(page: Page) -> None:
        table = await page.client.open_table(LAST)
        view = await table.view(columns=["current (A)"], split_by=["device"])
        assert (await view.num_rows(), await view.num_columns()) == (2_000, 2_000)
        for read in (view.to_arrow, view.to_columns, view.to_json, view.to_csv, view.to_ndjson):
            with pytest.raises(perspective.PerspectiveError, match="4,000,000 cells are asked for at once"):
                await read()
        assert len(await view.to_json(start_row=10, end_row=20, start_col=0, end_col=5)) == 10
        assert await view.num_rows() == 2_000

    with viewing(line) as viewer:
        wait_for(lambda: viewer.rows("meters") == 2_000)
        with_page(viewer, use)
        assert viewer.status()["engine"]["ended"] == 0
    line.close()


# Whatever ends it


def test_engine_that_dies_comes_back(line: Line) -> None:
    async def use(viewer: Viewer) -> None:
        page = Page(await connect(viewer))
        await page.client.open_table(LAST)
        engine_of(viewer).kill()
        await page.closed()
        assert page.why == (1012, "the engine starts again")
        await sees_rows(viewer)

    with viewing(line) as viewer:
        asyncio.run(asyncio.wait_for(use(viewer), 60))
        assert viewer.status()["engine"]["why"] == "work of its own made the engine end with SIGKILL"


def test_busy_engine_is_unhealthy_and_the_page_says_so(line: Line) -> None:
    async def use(viewer: Viewer) -> None:
        page = Page(await connect(viewer))
        await ask(page, FOR_EVER)
        code, _, body = await until(lambda: (got := viewer.get("healthz"))[0] == 503 and got)
        assert (code, body) == (503, b'{"ok": false, "why": "the engine has not answered for 2 s"}\n')
        engine_of(viewer).kill()
        await until(lambda: viewer.get("healthz")[0] == 200)
        await page.closed()

    with ungated(line, work_s=600.0) as viewer:
        assert viewer.get("healthz")[2] == b'{"ok": true}\n'
        asyncio.run(asyncio.wait_for(use(viewer), 60))


def test_stopped_engine_is_waited_for_on_the_page(line: Line) -> None:
    with viewing(line) as viewer:
        wait_for(lambda: viewer.rows("meters") == len(DEVICES))
        engine = engine_of(viewer)
        engine.suspend()
        try:
            assert wait_for(lambda: viewer.status()["waiting"]) == "waiting for the engine"
            assert viewer.rows("meters") == len(DEVICES)
        finally:
            engine.resume()
        wait_for(lambda: viewer.status()["waiting"] is None)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_server_that_goes_takes_a_busy_engine_with_it(line: Line, number: signal.Signals) -> None:
    async def use(viewer: Viewer) -> None:
        page = Page(await connect(viewer))
        await ask(page, FOR_EVER)
        await until(lambda: viewer.get("healthz")[0] == 503)
        viewer.process.send_signal(number)
        await page.closed()

    with ungated(line, work_s=600.0) as viewer:
        engine = engine_of(viewer)
        asyncio.run(asyncio.wait_for(use(viewer), 60))
        assert viewer.process.wait(60) == (0 if number == signal.SIGTERM else -signal.SIGKILL)
        engine.wait(60)


def test_engine_that_never_starts_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "BACK_OFF_S", 0.01)
    monkeypatch.setattr(sys, "executable", "/bin/false")

    async def use() -> BaseException:
        failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        engine = WatchedEngine(Start("sqlite:///x", (), "warning"), on_failure=failed.set_result)
        engine.start()
        try:
            return await asyncio.wait_for(failed, 60)
        finally:
            await engine.stop()

    failure = asyncio.run(use())
    assert isinstance(failure, HeadraceError)
    assert failure.message == "the engine does not start: work of its own made the engine end with code 1"


def test_engine_at_rest_is_looked_at_when_it_is_asked_for_something(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "REST_LOOK_S", 3_600.0)
    looked: list[int] = []

    class Noting(Spending):
        def look(self, number: int, page: int, **how: Any) -> Excess | None:
            looked.append(number)
            return super().look(number, page, **how)

    monkeypatch.setattr(watch, "Spending", Noting)
    line.open()

    async def use() -> None:
        failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        engine = WatchedEngine(Start(line.url, (), "warning"), on_failure=failed.set_result)
        engine.start()
        try:
            async with asyncio.timeout(60):
                await engine.ready.wait()
                for _ in range(3):
                    before = len(looked)
                    assert await engine.illness(30.0) is None
                    while len(looked) == before:
                        await asyncio.sleep(0.01)
        finally:
            await engine.stop()

    asyncio.run(use())


def test_engine_whose_server_goes_before_it_is_ready_ends_quietly(line: Line) -> None:
    ours, its = socket.socketpair()
    descriptor = Mark.new()
    start = msgspec.msgpack.encode(Start(line.url, (), "info"))
    with ours, its:
        ours.sendall(pack(Kind.START, payload=start))
        ours.close()
        ended = subprocess.run(
            [sys.executable, "-m", "viewer.process", str(its.fileno()), str(descriptor)],
            pass_fds=(its.fileno(), descriptor),
            capture_output=True,
            text=True,
            check=False,
        )
    os.close(descriptor)
    assert ended.returncode == 0
    assert "Traceback" not in ended.stderr


# The parts


def test_mark_is_seen_by_another() -> None:
    descriptor = Mark.new()
    mine, others = Mark(descriptor), Mark(descriptor)
    os.close(descriptor)
    assert others.read() == (0, 0)
    mine.begin(7)
    assert others.read() == (1, 7)
    mine.end()
    mine.begin(0)
    assert others.read() == (2, 0)
    mine.close()
    others.close()


def looks(
    spending: Spending, seconds: float, *, number: int = 1, page: int = 7, share: float = 1.0, begin_s: float = 0.0
) -> Excess | None:
    """The first excess in a stretch of looks at work that takes ``share`` of a core."""
    for n in range(round(seconds * 10)):
        cpu_s = begin_s + (n + 1) * 0.1 * share
        if excess := spending.look(number, page, cpu_s=cpu_s, passed_s=0.1, memory=0):
            return excess
    return None


def test_work_is_judged_by_its_processor_time() -> None:
    assert looks(Spending(Budget(work_s=5.0)), 4.9) is None
    assert looks(Spending(Budget(work_s=5.0)), 5.2) == Excess(7, "held the engine for 5 s", True, True)
    # The machine is busy with other things: as much work takes longer.
    assert looks(Spending(Budget(work_s=5.0)), 19.0, share=0.25) is None
    assert looks(Spending(Budget(work_s=5.0)), 21.0, share=0.25) == Excess(7, "held the engine for 20 s", True, True)
    # It waits for what never comes.
    assert looks(Spending(Budget(work_s=5.0)), 29.0, share=0.0) is None
    assert looks(Spending(Budget(work_s=5.0)), 31.0, share=0.0) == Excess(7, "held the engine for 30 s", True, True)


def test_where_processor_time_is_not_told_it_is_time_that_counts() -> None:
    spending = Spending(Budget(work_s=1.0))
    told = [spending.look(1, 7, cpu_s=None, passed_s=0.1, memory=0) for _ in range(11)]
    assert told == [None] * 10 + [Excess(7, "held the engine for 1 s", True, True)]


def test_many_pieces_of_work_of_one_page_are_added_up_and_those_of_many_are_not() -> None:
    def greedy(pages: int) -> list[Excess]:
        spending = Spending(Budget(work_s=1.0))
        told = [
            spending.look(n // 3 + 1, n // 3 % pages + 1, cpu_s=0.1 * n, passed_s=0.1, memory=0) for n in range(100)
        ]
        return [excess for excess in told if excess]

    assert greedy(pages=1)[0] == Excess(1, "held the engine for 2.1 s of the last 4", False)
    assert greedy(pages=3) == []


def test_memory_is_the_doing_of_who_is_at_work() -> None:
    budget = Budget(memory=1 << 20)
    did = "made the engine take more than 1 MB"
    assert Spending(budget).look(1, 7, cpu_s=0, passed_s=0.1, memory=2 << 20) == Excess(7, did, True)
    assert Spending(budget).look(0, 0, cpu_s=0, passed_s=0.1, memory=2 << 20) == Excess(0, did, True)
    assert Spending(budget).look(1, 7, cpu_s=0, passed_s=0.1, memory=1 << 20) is None


def test_strikes_are_forgotten_and_waits_double() -> None:
    strikes = Strikes()
    waits = []
    for _ in range(4):
        strikes.add("a", 100.0)
        waits.append(strikes.wait_s("a", 100.0))
    assert waits == [0.0, FIRST_WAIT_S, 2 * FIRST_WAIT_S, 4 * FIRST_WAIT_S]
    assert strikes.wait_s("b", 100.0) == 0.0
    strikes.add("a", 101.0 + FORGOTTEN_S)
    assert strikes.wait_s("a", 101.0 + FORGOTTEN_S) == 0.0


@pytest.mark.parametrize(
    ("asked", "rows", "columns", "cells"),
    [
        (Window(1, b"v"), 10, 20, 200),
        (Window(1, b"v", 5, 0, 8, 3), 10, 20, 9),
        (Window(1, b"v", 8, 18, 100, 100), 10, 20, 4),
        (Window(1, b"v", 50, 0), 10, 20, 0),
    ],
)
def test_cells_of_a_window(asked: Window, rows: int, columns: int, cells: int) -> None:
    assert asked.cells(rows, columns) == cells


def test_other_requests_have_no_window() -> None:
    assert window(bytes([8, 7, 18, 1, 116, 34, 0])) is None
