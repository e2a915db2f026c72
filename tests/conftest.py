"""What the tests share: the brokers they run on, names of their own, and the header that says which parts are real."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from headrace import redaction
from headrace.broker.embedded import EmbeddedBroker
from servers.absent import ServerAbsent
from servers.kafka import KafkaPart, which_kafka
from servers.shared import Shared, shared
from servers.tdengine import TDenginePart, which_tdengine

ROOT = Path(__file__).parent.parent

PARTS = {"broker", "embedded_broker", "real_broker", "tdengine_place", "tdengine", "own_tdengine"}
"""The fixtures that are parts of the outside."""

# How long an example takes says something of the machine, and nothing of the code.
settings.register_profile("headrace", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("headrace")


def pytest_configure() -> None:
    """A run from a background shell is as any other: those leave SIGINT ignored, which every child would inherit."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever is given a part of the outside is slow."""
    for item in items:
        if PARTS & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def _forgets_the_passwords_of_a_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """A password that a test uses is masked for the rest of the process, in the errors that other tests look at."""
    monkeypatch.setattr(redaction, "_known", set(redaction._known))
    monkeypatch.setattr(redaction, "_known_anywhere", redaction._known_anywhere)


@pytest.fixture(autouse=True)
def _fast_tests_start_no_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("slow") is not None:
        return

    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("a fast test starts a process: mark it slow", pytrace=True)

    monkeypatch.setattr(subprocess.Popen, "__init__", refuse)


def pytest_report_header() -> list[str]:
    """Which part each of the outer ones is, this time."""
    return [
        f"broker: embedded, and {which_kafka()}",
        f"store: SQLite, and {which_tdengine()}",
        f"browser: {shutil.which('chromium') or shutil.which('chromium-browser') or 'none: no chromium on PATH'}",
    ]


@pytest.fixture(scope="session")
def embedded_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaPart]:
    """The project's own broker, as a process."""
    with EmbeddedBroker(tmp_path_factory.mktemp("broker")) as started:
        yield KafkaPart(started.address, "embedded")


@pytest.fixture(scope="session")
def of_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this run share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if os.environ.get("PYTEST_XDIST_WORKER") else own


@contextmanager
def _server(kind: str, folder: Path, what: str) -> Iterator[Shared]:
    """The server that all workers share; who asks for it is skipped, with the reason, where there is none."""
    with ExitStack() as stack:
        try:
            found = stack.enter_context(shared(kind, folder))
        except ServerAbsent as absent:
            pytest.skip(f"no {what}: {absent}")
        yield found


@pytest.fixture(scope="session")
def real_broker(of_run: Path) -> Iterator[KafkaPart]:
    """The best real broker there is, one for all workers; tests of it are skipped, with the reason, without one."""
    with _server("kafka", of_run, "real broker") as found:
        yield KafkaPart(found.address, found.name)


@pytest.fixture(scope="session")
def tdengine(of_run: Path) -> Iterator[TDenginePart]:
    """A TDengine for all workers, on which each test has a database of its own; skipped, with the reason, without."""
    with _server("tdengine", of_run, "TDengine") as found:
        yield TDenginePart(found.address, found.name)


@pytest.fixture(scope="session", params=["embedded", "real"])
def broker(request: pytest.FixtureRequest) -> KafkaPart:
    """A broker with an ``address``: each test of it runs on the embedded one and on a real one alike."""
    part: KafkaPart = request.getfixturevalue(f"{request.param}_broker")
    return part


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A name for topics and pipelines that no other test, and no other run, uses."""
    said = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower().removeprefix("test_"))[:40].strip("-")
    return f"{said}-{uuid.uuid4().hex[:8]}"
