"""A program that was forked of a warm process is as one that Python started: these run both and compare."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from warm_start import Program, run

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "command", [["headrace.cli", "--version"], ["headrace.cli", "check"], ["sinks", "--nope"]], ids=" ".join
)
def test_it_prints_and_ends_as_one_that_python_started(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text("[topics.meters]\nfields = { current = 'flot' }\n")
    environment = {**os.environ, "HEADRACE_PIPELINE": "other.toml"}
    cold = subprocess.run(
        [sys.executable, "-m", *command], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    warm = run(*command, env=environment, cwd=tmp_path)
    assert (warm.returncode, warm.stdout, warm.stderr) == (cold.returncode, cold.stdout, cold.stderr)
    # And nothing of one is left for the next.
    assert "headrace 0" in run("headrace.cli", "--version").stdout


def test_it_is_signalled_and_waited_for_as_any_child(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for number, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)):
        with log.open("wb") as output:
            flags = ("--broker", "127.0.0.1:1", "--data", str(tmp_path))
            program = Program("processors", *flags, env=os.environ, stdout=output, stderr=output)
        while "waiting for the broker" not in log.read_text():
            assert program.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            program.wait(0.01)
        program.send_signal(number)
        assert program.wait(60) == code
        assert program.poll() == code
        program.kill()
