"""A server that several processes share: one start, and an end when the last of them has gone, however it went."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from servers.absent import ServerAbsent
from servers.kafka import ADDRESS_VARIABLE, KafkaPart
from servers.shared import ROOT, shared

USER = """
import sys
from pathlib import Path
from servers.shared import shared
with shared("kafka", Path(sys.argv[1])) as found:
    print(found.address, flush=True)
    sys.stdin.read()
"""


def until_ended(folder: Path) -> None:
    """Wait until the keeper has let go of it."""
    deadline = time.monotonic() + 60
    while (folder / "kafka.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_is_kept_while_anyone_uses_it_and_ends_with_the_last_even_when_that_is_killed(
    tmp_path: Path, embedded_broker: KafkaPart, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ADDRESS_VARIABLE, embedded_broker.address)
    command = [sys.executable, "-c", USER, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == f"{embedded_broker.address}\n"
        made = (tmp_path / "kafka.json").stat().st_ino
        with shared("kafka", tmp_path) as found:
            assert found.address == embedded_broker.address
            other.kill()
            other.wait()
            with shared("kafka", tmp_path) as again:
                assert again == found
            assert (tmp_path / "kafka.json").stat().st_ino == made
        until_ended(tmp_path)
    with shared("kafka", tmp_path) as anew:
        assert anew.address == embedded_broker.address
    until_ended(tmp_path)


@pytest.mark.slow
def test_that_there_is_none_is_told_to_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ADDRESS_VARIABLE, raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere")
    for _ in range(2):
        with pytest.raises(ServerAbsent, match="no Java and Maven on PATH"), shared("kafka", tmp_path):
            pass
