"""Java archives from Maven Central, for what runs on Java: brought once, kept in the cache."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

from servers.absent import ServerAbsent

TIMEOUT_S = 600.0
_JARS = Path(__file__).parent.parent / ".cache" / "headrace" / "kafka"


def lacking() -> str | None:
    """Which of the tools that this needs is not on PATH; None if all are."""
    return next((tool for tool in ("java", "mvn") if shutil.which(tool) is None), None)


def jars(pom: Path) -> Path:
    """The folder of what a pom names, brought by Maven unless the cache has it. Raises ServerAbsent if it fails."""
    tool = lacking()
    if tool is not None:
        raise ServerAbsent(f"there is no {tool} on PATH")
    wanted = (_JARS / hashlib.sha256(pom.read_bytes()).hexdigest()[:16]).absolute()
    if wanted.exists():
        return wanted
    _JARS.mkdir(parents=True, exist_ok=True)
    with (_JARS / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not wanted.exists():
            with tempfile.TemporaryDirectory(dir=_JARS) as scratch:
                into = Path(scratch).absolute() / "jars"
                copy = ["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={into}"]
                try:
                    done = subprocess.run(
                        copy,
                        stdin=subprocess.DEVNULL,
                        capture_output=True,
                        text=True,
                        timeout=TIMEOUT_S,
                        check=False,
                    )
                except subprocess.TimeoutExpired:
                    raise ServerAbsent(f"Maven took more than {TIMEOUT_S:.0f} s") from None
                if done.returncode:
                    raise ServerAbsent(f"Maven could not bring what {pom.name} names: {done.stdout[-1000:].strip()}")
                into.rename(wanted)
    return wanted
