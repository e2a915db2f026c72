"""Whether there is Docker."""

from __future__ import annotations

import functools
import subprocess
import sys


@functools.cache
def docker_answers() -> bool:
    """Whether a Docker daemon answers. Asked in a process of its own: a refused client leaves its socket open."""
    ask = "import docker; docker.from_env(timeout=5).ping()"
    return subprocess.run([sys.executable, "-W", "ignore", "-c", ask], capture_output=True, check=False).returncode == 0
