"""Runs the embedded broker as a child process: `EmbeddedBroker` starts and stops it; `run` is `headrace broker`."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from headrace.broker.build import TAIL_CHARACTERS, build
from headrace.errors import BrokerError, DataFolderError, PortTaken
from headrace.exhaustion import full, is_full
from headrace.settings import writable_folder

HOST = "127.0.0.1"
PORT_FLAG = "--broker-port"

READY_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 10.0

# The exit statuses of main.go.
_PORT_IN_USE, _FOLDER, _FOLDER_IN_USE = 3, 4, 5


class EmbeddedBroker:
    """A broker of our own, as a child process on loopback; a context manager.

    Topics, messages, transactions and group offsets are kept in ``data`` over stops and kills. Nothing is left behind:
    the broker also ends when this process does, in whatever way. It does not see the terminal's Ctrl-C, so that its
    clients can finish first.
    """

    def __init__(
        self,
        data: Path,
        *,
        port: int = 0,
        partitions: int = 1,
        cache: Path | None = None,
        upkeep_s: float = 60.0,
    ) -> None:
        """Nothing starts yet.

        ``data`` is the broker's own folder. ``port`` 0 takes a free one, and keeps it when this object starts again.
        ``partitions`` is for topics created without a number; ``upkeep_s`` is how often retention and compaction are
        looked at, in seconds. ``cache`` is where the executable is looked for and built (None: the user's cache).
        """
        self._data = data.absolute()
        self._port = port
        self._partitions = partitions
        self._cache = cache
        self._upkeep_s = upkeep_s
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """``host:port`` for clients. Raises BrokerError before the first start on a free port."""
        if not self._port:
            raise BrokerError("the embedded broker has no address yet", hint="start it first")
        return f"{HOST}:{self._port}"

    @property
    def pid(self) -> int | None:
        """The process's id while it is started."""
        return self._process.pid if self._process else None

    @property
    def running(self) -> bool:
        """Whether it is started and alive."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start it, building it first if need be, and return when it answers.

        Raises PortTaken, DataFolderError, BrokerBuildError, and BrokerError with its last output if it dies or does not
        answer in two minutes.
        """
        if self.running:
            return self
        self._release()
        writable_folder(self._data)
        program = build(self._cache)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    program,
                    f"--port={self._port}",
                    f"--data={self._data}",
                    f"--partitions={self._partitions}",
                    f"--upkeep={round(self._upkeep_s * 1000)}ms",
                    "--with-parent",
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._port = self._ready()
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self) -> None:
        """Stop it cleanly; no error if it is not running."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()  # loses nothing acknowledged, only the quick start
        self._release()

    def kill(self) -> None:
        """End it at once with SIGKILL; what it has acknowledged is kept."""
        if self._process is not None:
            self._process.kill()
        self._release()

    def check(self) -> None:
        """Raise BrokerError with its last output if it has died since its start."""
        if self._process is not None and self._process.poll() is not None:
            raise self._died()

    def wait(self) -> None:
        """Block for as long as it runs; then raise BrokerError, as it does not end by itself."""
        if self._process is not None:
            self._process.wait()
            raise self._died()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _log(self) -> Path:
        return self._data / "broker.log"

    def _ready(self) -> int:
        """The port, once the process has said that it answers."""
        process = self._process
        assert process is not None and process.stdout is not None  # noqa: S101 - just started with pipes
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        said = b""
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while not said.endswith(b"\n"):
                if not selector.select(max(0.0, deadline_s - time.monotonic())):
                    raise BrokerError(
                        f"the embedded broker did not answer in {READY_TIMEOUT_S:.0f} s{self._tail()}",
                        hint=f"a large folder takes long to read after a kill: try again, or remove {self._data}",
                    )
                piece = os.read(process.stdout.fileno(), 4096)
                if not piece:
                    process.wait()
                    raise self._died()
                said += piece
        return int(said.decode().rpartition(":")[2])

    def _died(self) -> BrokerError | DataFolderError | PortTaken:
        assert self._process is not None  # noqa: S101
        status = self._process.returncode
        if status == _PORT_IN_USE:
            return PortTaken(self._port, flag=PORT_FLAG, what="the embedded broker")
        if status == _FOLDER_IN_USE:
            return BrokerError(
                f"the folder {self._data} is in use by another broker",
                hint="stop that one, or choose another folder with --data",
            )
        if is_full(self._data):
            return full(str(self._data))
        if status == _FOLDER:
            return BrokerError(
                f"the embedded broker cannot use its folder{self._tail()}",
                hint=f"give yourself the rights to all of {self._data}, or choose another folder with --data",
            )
        how = f"by signal {-status}" if status < 0 else f"with exit status {status}"
        return BrokerError(
            f"the embedded broker ended {how}{self._tail()}",
            hint="start it again: what it has acknowledged is kept",
        )

    def _tail(self) -> str:
        """The last of its output, on lines of their own."""
        text = self._log.read_text(errors="replace")[-TAIL_CHARACTERS:].strip()
        return f"\n{text}" if text else ""

    def _release(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def run(data: Path, port: int, *, cache: Path | None = None) -> None:
    """Run the broker alone in the foreground until Ctrl-C or SIGTERM; its address goes to stdout.

    Raises what `EmbeddedBroker.start` raises, and BrokerError if it dies.
    """

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        with contextlib.suppress(KeyboardInterrupt), EmbeddedBroker(data, port=port, cache=cache) as broker:
            print(f"broker at {broker.address}, data in {data} (Ctrl-C stops it)", flush=True)
            broker.wait()
    finally:
        signal.signal(signal.SIGTERM, before)
