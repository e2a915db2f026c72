"""Our programs as processes, forked of one that has imported what they need: half of a start's cost is imports.

Such a process is as one that was started by ``python -m``: its arguments, environment, output, signals and exit code
are its own. What a start itself must be like (from any folder, in what order it imports, how a shell sees it) is for
tests that start Python.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

PROGRAMS = ("processors", "sinks", "producers", "headrace.cli")
MESSAGE = 1 << 18


class Program:
    """``python -m MODULE ARGUMENTS`` as a process of its own, with what tests use of :class:`subprocess.Popen`."""

    def __init__(
        self,
        module: str,
        *arguments: str,
        env: Mapping[str, str],
        stdout: IO[Any],
        stderr: IO[Any],
        cwd: Path | None = None,
    ) -> None:
        self.returncode: int | None = None
        order = {"module": module, "arguments": arguments, "env": dict(env), "cwd": str(cwd or Path.cwd())}
        self.pid: int = _source().ask(order, [stdout.fileno(), stderr.fileno()])

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        if self.returncode is None:
            self.returncode = _source().ask({"ended": self.pid})
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it has ended. Raises subprocess.TimeoutExpired."""
        if self.poll() is None:
            descriptor = os.pidfd_open(self.pid)
            try:
                if not select.select([descriptor], [], [], timeout)[0]:
                    raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            finally:
                os.close(descriptor)
        while (code := self.poll()) is None:
            time.sleep(0.001)
        return code

    def send_signal(self, number: int) -> None:
        """Signal it, if it has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


def run(
    module: str, *arguments: str, env: Mapping[str, str] = os.environ, cwd: Path | None = None, timeout: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Run it to its end; what it has printed. Raises subprocess.TimeoutExpired, with the process ended."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        program = Program(module, *arguments, env=env, stdout=out, stderr=err, cwd=cwd)
        try:
            code = program.wait(timeout)
        finally:
            program.kill()
            program.wait()
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
    return subprocess.CompletedProcess([module, *arguments], code, *texts)


class _Source:
    """The process that has imported everything, and gives birth to the others."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__)), str(its.fileno())],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[its.fileno()],
        )
        its.close()
        atexit.register(self.close)

    def ask(self, what: dict[str, Any], descriptors: Sequence[int] = ()) -> Any:
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(what).encode()], descriptors)
            if not (answer := self._socket.recv(MESSAGE)):
                raise RuntimeError("the process that starts programs has ended; its own words are on stderr")
        return json.loads(answer)

    def close(self) -> None:
        self._socket.close()
        self._process.wait()


_sources: list[_Source] = []


def _source() -> _Source:
    if not _sources:
        _sources.append(_Source())
    return _sources[0]


def _serve(ours: socket.socket) -> dict[str, Any] | None:
    """Start what is asked for; returns with the order in each process that is to be a program, and None at the end."""
    children: set[int] = set()
    while True:
        message, descriptors, *_ = socket.recv_fds(ours, MESSAGE, 2)
        if not message:
            return None
        order: dict[str, Any] = json.loads(message)
        if "ended" in order:
            answer: int | None = None
            if order["ended"] in children:
                pid, status = os.waitpid(order["ended"], os.WNOHANG)
                if pid:
                    children.remove(pid)
                    answer = os.waitstatus_to_exitcode(status)
        else:
            answer = os.fork()
            if answer == 0:
                ours.close()
                for number, descriptor in enumerate(descriptors, start=1):
                    os.dup2(descriptor, number)
                    os.close(descriptor)
                return order
            children.add(answer)
            for descriptor in descriptors:
                os.close(descriptor)
        ours.send(json.dumps(answer).encode())


def _main(descriptor: int) -> None:
    for name in PROGRAMS:
        importlib.import_module(f"{name}.__main__" if "." not in name else name)
    for name in PROGRAMS:
        # It runs as __main__, and is not there under its own name then.
        sys.modules.pop(f"{name}.__main__", None)
    sys.modules.pop("headrace.cli")
    gc.collect()
    gc.freeze()
    # Ctrl-C is for who started this, and for the programs.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    order = _serve(socket.socket(fileno=descriptor))
    if order is None:
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(order["env"])
    time.tzset()
    os.chdir(order["cwd"])
    sys.argv[1:] = order["arguments"]
    runpy.run_module(order["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main(int(sys.argv[1]))
