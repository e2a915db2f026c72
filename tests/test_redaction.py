"""Passwords in settings: whatever is wrong with them, nothing that a process prints or writes shows them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from headrace.errors import HeadraceError
from headrace.redaction import redacted, redacted_values, remember
from headrace.settings import Settings
from servers.kafka import KafkaPart

pytestmark = pytest.mark.slow

SECRET = "hunter2-Ünq/tail77"
"""Every piece of it is looked for: a parser of URLs cuts it at its slash."""

PATIENCE_S = 60.0
PIPELINE = """
name = "small"
[topics.meters.fields]
current = { type = "float" }
[streams.meters_1s]
from = "meters"
window = { kind = "tumbling", size = "1s" }
aggregates = { current = ["mean"] }
[producers.meters]
kind = "simulate"
topic = "meters"
rate = 10
"""
URLS = [
    f"foo://root:{SECRET}@127.0.0.1:1/nowhere",
    f"taosws://root:{SECRET}@127.0.0.1:1/nowhere",
    "taosws://root:hunter2-Ünq%2Ftail77@127.0.0.1:1/nowhere",
    f"taosws://root:{SECRET}@[::1/nowhere",
    f"taosws:/root:{SECRET}@127.0.0.1:1/nowhere",
    f"taosws//root:{SECRET}@127.0.0.1:1/nowhere",
    f"root:{SECRET}@127.0.0.1:1",
    f"taosws://:{SECRET}@",
    f"taosws://root:a b {SECRET}@127.0.0.1:1/nowhere",
    f"taosws://root:'\"{SECRET}@127.0.0.1:1/nowhere",
    f"taosws://root:12/{SECRET}@127.0.0.1:1/nowhere",
    f"taosws://root:{SECRET}@x@127.0.0.1:1/nowhere",
    f"taosws://127.0.0.1:1/Nowhere?token={SECRET}",
]
BROKERS = [f"sasl_ssl://u:{SECRET}@127.0.0.1:1", f"sasl_ssl://u:{SECRET}@", f"u:{SECRET}@127.0.0.1:1"]


def assert_hidden(text: str) -> None:
    for piece in ("hunter2", "Ünq", "nq%2F", "tail77", "\\xdcnq"):
        assert piece not in text, f"{piece} in:\n{text}"


def environment(folder: Path, **variables: str) -> dict[str, str]:
    (folder / "pipeline.toml").write_text(PIPELINE)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    return {**kept, "HEADRACE_LOG": "debug", "HEADRACE_DATA": str(folder / "data"), **variables}


def said(folder: Path, command: list[str], variables: dict[str, str]) -> tuple[int, str]:
    ended = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder, env=environment(folder, **variables), capture_output=True, text=True, timeout=PATIENCE_S,
        check=False,
    )  # fmt: skip
    return ended.returncode, ended.stdout + ended.stderr


@pytest.mark.parametrize("url", URLS + BROKERS)
def test_no_error_shows_a_password(url: str) -> None:
    remember(url)
    assert_hidden(HeadraceError(f"--store is {url!r}", hint=f"not {url}").__str__())
    assert_hidden(json.dumps(redacted_values({"faults": [f"at {url}", {"why": url}]})))
    password = f"'\"{SECRET}" if "'" in url else SECRET
    assert_hidden(redacted(f"somewhere else: {password}"))


@pytest.mark.parametrize(
    "text",
    [
        "12:30:01 http://127.0.0.1:8081/ is open, ask a@b",
        "sqlite:////data/x@y.db",
        "taosws://USER:PASSWORD@HOST:PORT/DATABASE",
        "fenced: epoch=12 at meters[1]@5",
    ],
)
def test_what_holds_no_password_stays_as_it_is(text: str) -> None:
    remember("sqlite:///home/a:bcdefg@h/store.db")
    assert redacted(text) == text


def test_a_long_text_is_gone_through_once() -> None:
    text = "a:" * 2_000_000 + " a@b"
    assert redacted(text) == text


@pytest.mark.parametrize("url", [URLS[n] for n in (0, 3, 6, 10, 12)])
def test_verify_hides_the_password_of_a_store_it_cannot_use(
    tmp_path: Path, embedded_broker: KafkaPart, url: str
) -> None:
    variables = {"HEADRACE_BROKER": embedded_broker.address, "HEADRACE_STORE": url}
    code, output = said(tmp_path, ["headrace.cli", "verify", "--debug"], variables)
    assert code != 0
    assert "--store" in output
    assert_hidden(output)


@pytest.mark.parametrize("command", [["sinks"], ["viewer"], ["headrace.cli", "demo", "--headless", "--broker-port=0"]])
def test_services_hide_the_password_of_a_store_they_cannot_use(
    tmp_path: Path, embedded_broker: KafkaPart, command: list[str]
) -> None:
    variables = {"HEADRACE_BROKER": embedded_broker.address, "HEADRACE_STORE": URLS[0], "HEADRACE_PORT": "0"}
    code, output = said(tmp_path, [*command, "--debug"], variables)
    assert code != 0
    assert "Traceback" in output
    assert "--store" in output
    assert_hidden(output)


@pytest.mark.parametrize(
    ("url", "command"), list(zip(BROKERS * 2, ["topics", "verify", "tail", "check", "demo"], strict=False))
)
def test_a_broker_is_no_url_and_its_password_is_hidden(tmp_path: Path, url: str, command: str) -> None:
    more = ["meters"] if command == "tail" else []
    code, output = said(tmp_path, ["headrace.cli", command, "--debug", *more], {"HEADRACE_BROKER": url})
    assert code != 0
    assert "SettingsError: --broker is" in output
    assert_hidden(output)


def test_an_argument_that_nobody_understands_is_shown_without_its_password(tmp_path: Path) -> None:
    for command in (["headrace.cli", "verify"], ["sinks"], ["producers"]):
        code, output = said(tmp_path, [*command, f"--stor3=taosws://root:{SECRET}@h:1/x"], {})
        assert code == 2
        assert "error: no such option: --stor3" in output
        assert_hidden(output)


def fetch(address: str) -> str:
    with urllib.request.urlopen(address, timeout=10) as answer:  # noqa: S310 - our own page
        text: str = answer.read().decode()
        return text


def test_a_line_whose_store_is_away_writes_its_password_nowhere(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    variables = {"HEADRACE_STORE": URLS[2], "HEADRACE_PORT": "0"}
    command = [sys.executable, "-m", "headrace.cli", "demo", "--headless", "--broker-port", "0"]
    with (tmp_path / "demo.log").open("w") as log:
        demo = subprocess.Popen(
            [*command, "--report", str(report), "--debug"],
            cwd=tmp_path, env=environment(tmp_path, **variables), stdout=log, stderr=log,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + PATIENCE_S
        while "the page is at" not in (text := (tmp_path / "demo.log").read_text()):
            assert demo.poll() is None, text
            assert time.monotonic() < deadline, text
            time.sleep(0.05)
        address = text.partition("the page is at ")[2].split()[0]
        status = ""
        while "does not answer" not in status:
            assert time.monotonic() < deadline, status
            status = fetch(f"{address}/status")
        assert_hidden(status)
        for place in ("", "healthz"):
            assert_hidden(fetch(f"{address}/{place}"))
    finally:
        demo.terminate()
        demo.wait(PATIENCE_S)
    assert report.exists()
    written = [path for path in tmp_path.rglob("*") if path.is_file() and "store" not in path.name]
    assert {"sinks.log", "viewer.log", "report.json", "demo.log"} <= {path.name for path in written}
    for path in written:
        assert_hidden(path.read_bytes().decode(errors="replace"))


def test_settings_remember_what_they_hold() -> None:
    Settings(store="taosws://root:rememberme-7@127.0.0.1:6041/headrace")
    assert redacted("login with rememberme-7 failed") == "login with *** failed"
