"""The viewer from outside: its server, its assets, its manners. The store is a real one."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import perspective
import pytest
from tornado.httpclient import HTTPClientError
from viewer_line import PIPELINE, START_US, Line, Viewer, viewing, wait_for
from viewer_page import Page, connect, leave, with_page

from viewer.assets import PERSPECTIVE, STATIC, VERSION
from viewer.server import CONTENT_SECURITY_POLICY, MAX_CLIENTS

pytestmark = pytest.mark.slow


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    made = Line(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    """A viewer with two rows, for tests that only look."""
    line = Line(tmp_path_factory.mktemp("viewer"))
    line.put("meters", ["a", "b"], [START_US, START_US], current=[1.5, 2.5], room=["hall", "attic"])
    with viewing(line) as viewer:
        wait_for(lambda: viewer.rows("meters") == 2)
        yield viewer
    line.close()


# Connections


def test_page_reads_rows_and_is_told_the_status(shared: Viewer) -> None:
    async def use(page: Page) -> None:
        table = await page.client.open_table("meters last 5000")
        rows = await (await table.view(columns=["device", "current (A)", "room"])).to_json()
        assert sorted((row["device"], row["current (A)"], row["room"]) for row in rows) == [
            ("a", 1.5, "hall"),
            ("b", 2.5, "attic"),
        ]
        assert (await page.told.get())["tables"]["meters"]["rows"] == 2

    with_page(shared, use)


def test_message_beyond_the_bound_ends_the_connection(shared: Viewer) -> None:
    async def use() -> None:
        connection = await connect(shared)
        await connection.write_message(b"x" * 300_000, binary=True)
        while await connection.read_message() is not None:
            pass
        assert connection.close_code == 1009
        connection.close()

    asyncio.run(asyncio.wait_for(use(), 30))


def test_connections_are_capped(line: Line) -> None:
    line.open()

    async def use(viewer: Viewer) -> None:
        pages = [await connect(viewer) for _ in range(MAX_CLIENTS)]
        with pytest.raises(HTTPClientError) as refused:
            await connect(viewer)
        assert refused.value.code == 503
        for page in pages:
            await leave(page)

    with viewing(line) as viewer:
        asyncio.run(asyncio.wait_for(use(viewer), 30))
        wait_for(lambda: viewer.status()["clients"] == 0)


# Origins, headers, assets


def test_foreign_origin_is_refused(shared: Viewer) -> None:
    async def use() -> None:
        own = await connect(shared, Origin=shared.url.rstrip("/"))
        await leave(own)
        for foreign in ("http://evil.example", f"http://127.0.0.1:{shared.port + 1}", "null"):
            with pytest.raises(HTTPClientError) as refused:
                await connect(shared, Origin=foreign)
            assert refused.value.code == 403
        with pytest.raises(HTTPClientError) as refused:
            await connect(shared, Origin="http://[::1")
        assert refused.value.code == 400

    asyncio.run(asyncio.wait_for(use(), 30))


def test_foreign_name_for_a_local_viewer_is_refused(shared: Viewer) -> None:
    assert shared.get("status", Host=f"evil.example:{shared.port}")[0] == 403
    assert shared.get("status", Host=f"localhost:{shared.port}")[0] == 200


def test_host_that_is_none_is_a_bad_request(shared: Viewer) -> None:
    for host in ("[::1", "::1]", "a b", "[x]", "127.0.0.1:x", "u@127.0.0.1", "127.0.0.1/", "[::1]x"):
        assert shared.get("status", Host=host)[0] == 400, host
    assert shared.get("status", Host=f"[::1]:{shared.port}")[0] == 200


def test_page_that_others_can_reach_is_said_to_have_no_login(line: Line) -> None:
    with viewing(line, flags=["--host", "0.0.0.0", "--public"]) as viewer:
        assert viewer.get("status", Host="elsewhere.example")[0] == 200
        assert viewer.stop() == 0
        assert "the page has no login: whoever reaches 0.0.0.0 can read it" in viewer.log.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", ["", "page.js", "page.css", "icon.svg", "status", "healthz", "panels", "nowhere"])
def test_policy_is_on_every_answer(shared: Viewer, path: str) -> None:
    code, headers, body = shared.get(path)
    assert code == (404 if path == "nowhere" else 200)
    assert headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert body


def test_page_names_the_assets_of_the_installed_version(shared: Viewer) -> None:
    page = shared.get("")[2].decode()
    assert "{{" not in page
    assert f'data-assets="/assets/perspective/{VERSION}"' in page
    assert perspective.__version__ == VERSION


def test_the_wheel_carries_the_page_as_the_viewer_expects_it() -> None:
    """Names inside Perspective that the page leans on: an upgrade that moves them fails here first."""
    script, style = (STATIC / name for name in PERSPECTIVE)
    text = script.read_text(encoding="utf-8")
    exported = re.findall(r"export\s*\{([^}]*)\}", text[-2000:])
    assert exported
    assert re.search(r"\bready\b", exported[-1])
    assert "__wasm_module__" in text
    for name in ("restoreWorkspace", "saveWorkspace", "eject", "legend_width_px", "facet_mode", "bg_mode", "bg_color"):
        assert name in text, name
    assert "Pro Dark" in style.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PERSPECTIVE)
def test_perspective_is_served_compressed_and_for_ever(shared: Viewer, name: str) -> None:
    path = f"assets/perspective/{VERSION}/{name}"
    code, headers, body = shared.get(path, Accept_Encoding="gzip")
    assert (code, headers["Content-Encoding"]) == (200, "gzip")
    assert "immutable" in headers["Cache-Control"]
    assert len(body) < (STATIC / name).stat().st_size
    plain = shared.get(path)
    assert plain[2] == (STATIC / name).read_bytes()
    assert shared.get(path, If_None_Match=plain[1]["Etag"])[0] == 304


def test_panels_name_tables_that_the_engine_has(shared: Viewer) -> None:
    panels = json.loads(shared.get("panels")[2])

    async def use(page: Page) -> None:
        names = set(await page.client.get_hosted_table_names())
        assert {panel["table"] for panel in panels["panels"].values()} == names

    with_page(shared, use)


# Manners of the service


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_it_in_order(line: Line, number: signal.Signals) -> None:
    line.put("meters", ["a"], [START_US], current=[1.0])
    with viewing(line) as viewer:
        wait_for(lambda: viewer.rows("meters") == 1)
        assert viewer.stop(number) == 0
        assert viewer.log.read_text(encoding="utf-8") == ""


def test_store_that_is_absent_is_waited_for(line: Line) -> None:
    with viewing(line) as viewer:
        assert "no store" in wait_for(
            lambda: (viewer.status()["waiting"] or "").partition("waiting for the store: ")[2]
        )
        line.put("meters", ["a"], [START_US], current=[1.0])
        wait_for(lambda: viewer.rows("meters") == 1)
        wait_for(lambda: viewer.status()["waiting"] is None)
        log = viewer.log.read_text(encoding="utf-8")
        assert log.count("waiting for the store") == 1
        assert log.count("the store is there") == 1


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "viewer", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_port_that_is_taken_is_named_with_its_flag(line: Line) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run("--pipeline", str(line.file), "--store", line.url, "--port", str(port))
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[0] == f"error: port {port}, wanted for the page, is in use"
    assert "--port" in ended.stderr.splitlines()[1]


@pytest.mark.parametrize(
    ("text", "flags", "said"),
    [
        (PIPELINE + '[[panels]]\ntitle = "x"\nkind = "lines"\nof = "metres"\n', [], "no topic or stream 'metres'"),
        (PIPELINE + '[[panels]]\ntitle = "x"\nkind = "lines"\nof = "meters"\ncolumns = ["note"]\n', [], "number"),
        (PIPELINE, ["--store", "mysql://x"], "--store is 'mysql://x'"),
        (PIPELINE, ["--host", "no.such.host.invalid", "--public"], "--host is 'no.such.host.invalid', which cannot"),
        (PIPELINE, ["--host", "0.0.0.0"], "--host is '0.0.0.0', which others can reach, and the page has no login"),
        (PIPELINE, ["--port", "http"], "--port is 'http'"),
    ],
    ids=["panel-of-nothing", "lines-of-text", "store", "host", "public", "port"],
)
def test_mistake_is_told_in_lines_with_exit_code_2(tmp_path: Path, text: str, flags: list[str], said: str) -> None:
    file = tmp_path / "pipeline.toml"
    file.write_text(text, encoding="utf-8")
    ended = run("--pipeline", str(file), "--store", f"sqlite:///{tmp_path / 'store.db'}", "--port", "0", *flags)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "hint: " in ended.stderr
    assert "Traceback" not in ended.stderr
