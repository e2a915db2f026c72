"""A server that several processes share: started by the first that wants it, ended when the last of them has gone.

Each holds a shared lock on a file for as long as it uses the server. The keeper, a process of its own,
wants that lock for itself: it gets it when nobody is left, however they ended.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from servers.absent import ServerAbsent
from servers.kafka import pick_kafka
from servers.tdengine import pick_tdengine

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Shared:
    """A server that answers: its ``address`` (of Kafka host:port, of TDengine a URL) and the part's ``name``."""

    address: str
    name: str


@contextmanager
def _kafka() -> Iterator[tuple[str, str]]:
    with pick_kafka() as part:
        yield part.address, part.name


@contextmanager
def _tdengine() -> Iterator[tuple[str, str]]:
    with pick_tdengine() as part:
        yield part.dsn, part.name


KINDS: dict[str, Callable[[], AbstractContextManager[tuple[str, str]]]] = {"kafka": _kafka, "tdengine": _tdengine}


@contextmanager
def shared(kind: str, folder: Path) -> Iterator[Shared]:
    """The server of this kind that all who name this folder share. Raises ServerAbsent when there is none."""
    with (folder / f"{kind}.users").open("ab") as users, (folder / f"{kind}.start").open("ab") as start:
        # Waits for a keeper that found nobody left and is about to end.
        fcntl.flock(users, fcntl.LOCK_SH)
        fcntl.flock(start, fcntl.LOCK_EX)
        told = folder / f"{kind}.json"
        if not told.exists():
            with (folder / f"{kind}.log").open("ab") as log:
                keep = [sys.executable, "-m", "servers.shared", kind, str(folder)]
                subprocess.run(keep, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False)
        fcntl.flock(start, fcntl.LOCK_UN)
        if not told.exists():
            raise RuntimeError(f"the keeper of {kind} has failed: {(folder / f'{kind}.log').read_text()[-2_000:]}")
        found = json.loads(told.read_text())
        if "absent" in found:
            raise ServerAbsent(found["absent"])
        yield Shared(**found)


def _keep(kind: str, folder: Path) -> None:
    """Start the server and tell where it is; the caller may go on then, and what stays ends it in the end."""
    ready, done = os.pipe()
    if os.fork():
        os.close(done)
        os.read(ready, 1)
        return
    os.close(ready)
    os.setsid()
    told = folder / f"{kind}.json"

    def tell(what: dict[str, str]) -> None:
        (folder / f"{kind}.new").write_text(json.dumps(what))
        (folder / f"{kind}.new").rename(told)
        os.close(done)

    try:
        with KINDS[kind]() as (address, name):
            tell({"address": address, "name": name})
            with (folder / f"{kind}.users").open("ab") as users:
                fcntl.flock(users, fcntl.LOCK_EX)
                told.unlink()
    except ServerAbsent as absent:
        tell({"absent": str(absent)})


if __name__ == "__main__":
    _keep(sys.argv[1], Path(sys.argv[2]))
