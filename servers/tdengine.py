"""A real TDengine: the best part present, or a private one from `taosd` and `taosadapter` on PATH.

In this order: the server that HEADRACE_TEST_TDENGINE names, Docker (testcontainers), the programs on PATH.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from servers.absent import ServerAbsent
from servers.docker import docker_answers
from servers.ports import free_ports

ADDRESS_VARIABLE = "HEADRACE_TEST_TDENGINE"
IMAGE = "tdengine/tdengine:3.3.6.6"
LOGIN = "root:taosdata"
START_TIMEOUT_S = 60.0

_TAOSD_CONFIG = """\
fqdn 127.0.0.1
firstEp 127.0.0.1:{port}
serverPort {port}
dataDir {folder}/data
logDir {folder}/log
tempDir {folder}
telemetryReporting 0
crashReporting 0
monitor 0
audit 0
udf 0
supportVnodes 256
timezone UTC
"""
_ADAPTER_CONFIG = """\
port = {port}
debug = false
taosConfigDir = "{folder}"
uploadKeeper.enable = false
log.path = "{folder}/log"
log.level = "error"
"""


@dataclass(frozen=True)
class TDenginePart:
    """A TDengine that answers: ``dsn`` (without a database) and the part's ``name``."""

    dsn: str
    name: str

    def database(self, name: str) -> str:
        """The DSN of a database on this server."""
        return f"{self.dsn}/{name}"


class NativeTDengine:
    """A private `taosd` and `taosadapter` on free loopback ports, in a folder of their own.

    They join ``process_group``, if one is given: who made it can end all that is in it.
    """

    def __init__(self, folder: Path, process_group: int | None = None) -> None:
        self.folder = folder
        self._process_group = process_group
        self.server_port, self.adapter_port = free_ports(2)
        self._server: subprocess.Popen[bytes] | None = None
        self._adapter: subprocess.Popen[bytes] | None = None

    @property
    def dsn(self) -> str:
        """The URL of the server, without a database."""
        return f"taosws://{LOGIN}@127.0.0.1:{self.adapter_port}"

    def start(self) -> None:
        """Start both and wait until a database can be made. Raises ServerAbsent with their output if not."""
        for name in ("data", "log"):
            (self.folder / name).mkdir(exist_ok=True)
        (self.folder / "taos.cfg").write_text(_TAOSD_CONFIG.format(port=self.server_port, folder=self.folder))
        (self.folder / "adapter.toml").write_text(_ADAPTER_CONFIG.format(port=self.adapter_port, folder=self.folder))
        self.start_server()
        self.start_adapter()

    def start_server(self) -> None:
        """Start `taosd` on what it holds; who asks it is to wait until it answers."""
        self._server = self._spawn("taosd", "-c", str(self.folder))

    def stop_server(self) -> None:
        """End `taosd` at once, as a power cut would."""
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._server = None

    def start_adapter(self) -> None:
        """Start the adapter and wait until a database can be made through it."""
        self._adapter = self._spawn("taosadapter", "-c", str(self.folder / "adapter.toml"))
        self.wait_ready()

    def stop_adapter(self) -> None:
        """End the adapter: to its clients the store is away."""
        if self._adapter is not None:
            self._adapter.terminate()
            try:
                self._adapter.wait(10)
            except subprocess.TimeoutExpired:
                self._adapter.kill()
                self._adapter.wait()
            self._adapter = None

    def stop(self) -> None:
        """End both. The data is thrown away, so the server need not flush (which takes seconds)."""
        self.stop_adapter()
        self.stop_server()

    def wait_ready(self) -> None:
        """Wait until a database can be made through the adapter. Raises ServerAbsent with their output if not."""
        wait_ready("127.0.0.1", self.adapter_port, alive=self._alive, output=self._output)

    def _alive(self) -> bool:
        return all(part is not None and part.poll() is None for part in (self._server, self._adapter))

    def _output(self) -> str:
        path = self.folder / "output.log"
        return path.read_text(errors="replace")[-2000:] if path.exists() else ""

    def _spawn(self, *command: str) -> subprocess.Popen[bytes]:
        # A file, never a pipe: taosd writes there endlessly. Few variables: the adapter takes settings
        # such as PORT and DEBUG from the environment, above its file.
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
        output: IO[bytes]
        with (self.folder / "output.log").open("ab") as output:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                env=kept,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                process_group=self._process_group,
            )


def which_tdengine() -> str:
    """The name of the part that :func:`pick_tdengine` would try first, or why there is none."""
    if os.environ.get(ADDRESS_VARIABLE):
        return f"{ADDRESS_VARIABLE}={_without_password(os.environ[ADDRESS_VARIABLE])}"
    if docker_answers():
        return f"Docker: {IMAGE}"
    if _on_path():
        return "native: taosd and taosadapter on PATH"
    return f"none: no {ADDRESS_VARIABLE}, no Docker daemon, no taosd and taosadapter on PATH"


@contextmanager
def pick_tdengine() -> Iterator[TDenginePart]:
    """The best TDengine present, ready, and ended afterwards. Raises ServerAbsent, saying why, when there is none."""
    address = os.environ.get(ADDRESS_VARIABLE)
    if address:
        head, _, rest = address.partition("://")
        yield TDenginePart(f"{head}://{rest.partition('/')[0]}", which_tdengine())
        return
    reasons = [f"no {ADDRESS_VARIABLE}"]
    if docker_answers():
        container: Any = None
        try:
            container, dsn = _start_container()
        except Exception as error:
            reasons.append(f"Docker did not run {IMAGE}: {error}")
        else:
            try:
                yield TDenginePart(dsn, f"Docker: {IMAGE}")
            finally:
                container.stop()
            return
    else:
        reasons.append("no Docker daemon answers")
    if not _on_path():
        raise ServerAbsent(", ".join([*reasons, "no taosd and taosadapter on PATH"]))
    folder = Path(tempfile.mkdtemp(prefix="headrace-tdengine-"))
    server = NativeTDengine(folder)
    try:
        server.start()
        yield TDenginePart(server.dsn, "native: taosd and taosadapter on PATH")
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def sql(host: str, port: int, statement: str) -> dict[str, Any]:
    """Run a statement over REST; the answer, whose ``code`` is 0 when it went well. Raises OSError when away."""
    request = urllib.request.Request(
        f"http://{host}:{port}/rest/sql",
        statement.encode(),
        {"Authorization": "Basic " + base64.b64encode(LOGIN.encode()).decode()},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as answer:
        result: dict[str, Any] = json.load(answer)
        return result


def wait_ready(
    host: str, port: int, *, alive: Callable[[], bool] = lambda: True, output: Callable[[], str] = str
) -> None:
    """Wait until a database can be made: the server calls itself ready before that."""
    deadline = time.monotonic() + START_TIMEOUT_S
    last = ""
    while time.monotonic() < deadline:
        if not alive():
            raise ServerAbsent(f"taosd or taosadapter ended at once: {output()}")
        try:
            answer = sql(host, port, "CREATE DATABASE IF NOT EXISTS headrace_probe VGROUPS 1")
        except OSError as error:
            last = str(error)
        else:
            if answer["code"] == 0:
                sql(host, port, "DROP DATABASE IF EXISTS headrace_probe")
                return
            last = str(answer)
        time.sleep(0.1)
    raise ServerAbsent(f"TDengine was not ready within {START_TIMEOUT_S:.0f} s: {last} {output()}")


def _start_container() -> tuple[Any, str]:
    from testcontainers.core.container import DockerContainer

    container = DockerContainer(IMAGE).with_exposed_ports(6041)
    # On loopback alone, on any free port.
    container.ports = {"6041/tcp": ("127.0.0.1", None)}  # type: ignore[dict-item]
    container.start()
    try:
        host, port = container.get_container_host_ip(), int(container.get_exposed_port(6041))
        wait_ready(host, port)
    except BaseException:
        container.stop()
        raise
    return container, f"taosws://{LOGIN}@{host}:{port}"


def _on_path() -> bool:
    return shutil.which("taosd") is not None and shutil.which("taosadapter") is not None


def _without_password(dsn: str) -> str:
    return dsn.rpartition("@")[2]
