"""Java archives from Maven Central, for the peers that are Java: brought once, kept in the cache."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

from headrace.errors import SettingsError

TIMEOUT_S = 600.0
_JARS = Path(__file__).parent.parent / ".cache" / "headrace" / "kafka"


def lacking() -> str | None:
    """Which of the tools that this needs is not on PATH; None if all are."""
    return next((tool for tool in ("java", "mvn") if shutil.which(tool) is None), None)


def jars(pom: Path) -> Path:
    """The folder of what a pom names, brought by Maven unless the cache has it.

    Raises SettingsError when Java or Maven is absent, or Maven fails.
    """
    tool = lacking()
    if tool is not None:
        raise SettingsError(f"Kafka's own programs need {tool} on PATH", hint="install it, or write --broker embedded")
    wanted = (_JARS / hashlib.sha256(pom.read_bytes()).hexdigest()[:16]).absolute()
    _JARS.mkdir(parents=True, exist_ok=True)
    with (_JARS / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not wanted.exists():
            with tempfile.TemporaryDirectory(dir=_JARS) as scratch:
                into = Path(scratch).absolute() / "jars"
                copy = ["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={into}"]
                done = subprocess.run(copy, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
                if done.returncode:
                    raise SettingsError(
                        f"Maven could not bring what {pom.parent.name} needs: {done.stdout[-1000:].strip()}",
                        hint="look at its words above; it needs Maven Central, or a mirror of it in its settings",
                    )
                into.rename(wanted)
    return wanted
