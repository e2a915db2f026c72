"""Flags: what is typed, what it means, what is told of mistakes, and what a shell completes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer

from headrace import flags
from headrace.errors import SettingsError
from headrace.settings import Settings

pytestmark = pytest.mark.slow

COMMANDS = {
    "demo": ["headrace.cli", "demo"],
    "check": ["headrace.cli", "check"],
    "broker": ["headrace.cli", "broker"],
    "topics": ["headrace.cli", "topics"],
    "tail": ["headrace.cli", "tail"],
    "verify": ["headrace.cli", "verify"],
    "producers": ["producers"],
    "simulate": ["producers", "simulate"],
    "replay": ["producers", "replay"],
    "processors": ["processors"],
    "sinks": ["sinks"],
    "viewer": ["viewer"],
}
WITH_PAGE = {"demo", "viewer"}
WITH_BROKER = {"demo", "broker"}


def told(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    return subprocess.run(
        [sys.executable, "-m", *command],
        env={**kept, "COLUMNS": "200", **variables}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


# A command's flags, without a process


def seen(arguments: Sequence[str], settings: Sequence[str] = ("broker", "public", "log")) -> tuple[int, dict[str, Any]]:
    found: dict[str, Any] = {}

    def run(settings: Settings, *, count: Annotated[int, typer.Option("--count")] = 3) -> int:
        found.update(settings=settings, count=count)
        return 7

    app = flags.application("A test.")
    flags.add(app, run, settings=settings, text="A test.")
    return flags.call(app, arguments, program="test"), found


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("HEADRACE_")]:
        monkeypatch.delenv(name)


def test_a_flag_wins_over_the_environment_and_that_over_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert seen([]) == (7, {"settings": Settings(), "count": 3})
    monkeypatch.setenv("HEADRACE_BROKER", "there:1")
    monkeypatch.setenv("HEADRACE_LOG", "")
    monkeypatch.setenv("HEADRACE_PUBLIC", "yes")
    assert seen(["--count", "4"]) == (7, {"settings": Settings(broker="there:1", public=True), "count": 4})
    assert seen(["--broker", "here:2"])[1]["settings"].broker == "here:2"


def test_a_setting_that_is_no_flag_of_the_command_still_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HEADRACE_DATA", "/elsewhere")
    assert seen([])[1]["settings"].data == Path("/elsewhere")


MISTAKES = {
    "unknown": (["--nope"], "error: no such option: --nope"),
    "like another": (["--brokr", "x"], "error: no such option: --brokr (Possible options: --broker)"),
    "no value": (["--broker"], "error: option '--broker' requires an argument"),
    "no number": (["--count", "many"], "error: invalid value for '--count': 'many' is not a valid int"),
    "too much": (["extra"], "error: got unexpected extra argument(s) (extra)"),
    "a setting": (["--log", "loud"], "error: --log is 'loud'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_mistake_is_an_error_and_a_hint(mistake: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, said = MISTAKES[mistake]
    assert seen(arguments) == (2, {})
    printed = capsys.readouterr()
    first, second = printed.err.splitlines()
    assert printed.out == ""
    assert first.startswith(said)
    assert second.startswith("hint: ")


def test_a_switch_in_the_environment_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEADRACE_PUBLIC", "perhaps")
    assert seen([])[0] == 2
    assert "error: HEADRACE_PUBLIC is 'perhaps'" in capsys.readouterr().err


def test_with_debug_an_error_is_raised_as_it_is() -> None:
    with pytest.raises(SettingsError, match="--log is 'loud'"):
        seen(["--log", "loud", "--debug"])


# The commands


@pytest.fixture(scope="module")
def helps() -> dict[str, str]:
    found = {}
    for name, command in COMMANDS.items():
        ended = told(*command, "--help")
        assert ended.returncode == 0, ended.stderr
        assert ended.stderr == ""
        found[name] = ended.stdout
    return found


def test_port_is_the_page_s_port_wherever_it_is(helps: dict[str, str]) -> None:
    lines = {name: re.findall(r"(?<!\S)--port +\S+ +(.*?) *│", text) for name, text in helps.items()}
    assert {name for name, found in lines.items() if found} == WITH_PAGE
    assert {one for found in lines.values() for one in found} == {
        "the port that the page is served at; 0 takes a free one [env var: HEADRACE_PORT] [default: (8081)]"
    }
    lines = {name: re.findall(r"--broker-port +PORT \S+ +(.*?) *│", text) for name, text in helps.items()}
    assert {name for name, found in lines.items() if found} == WITH_BROKER
    assert {one.partition("[")[0] for found in lines.values() for one in found} == {
        "the port of the embedded broker; 0 takes a free one "
    }


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - WITH_PAGE))
def test_port_is_refused_where_no_page_is_served(name: str) -> None:
    more = {"tail": ["meters"], "simulate": ["--topic", "x"], "replay": ["--topic", "x"]}.get(name, [])
    ended = told(*COMMANDS[name], *more, "--port", "1234")
    assert ended.returncode == 2
    assert [line.partition(":")[0] for line in ended.stderr.splitlines()] == ["error", "hint"]
    assert "no such option: --port" in ended.stderr


def test_help_names_the_environment_and_the_default(helps: dict[str, str]) -> None:
    for name, text in helps.items():
        if "--broker " in text:
            assert "[env var: HEADRACE_BROKER] [default: (127.0.0.1:9092)]" in text, name


def test_help_is_coloured_on_a_terminal_alone() -> None:
    assert "\x1b[" not in told("headrace.cli", "--help").stdout
    assert "\x1b[" in told("headrace.cli", "--help", FORCE_COLOR="1", TERM="xterm-256color").stdout


# Completion


def completed(*words: str) -> list[str]:
    """What bash is told that the last word could be."""
    ended = told(
        "headrace.cli",
        _HEADRACE_COMPLETE="complete_bash",
        COMP_WORDS="\n".join(("headrace", *words)),
        COMP_CWORD=str(len(words)),
    )
    assert ended.stderr == ""
    return ended.stdout.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["ver"], ["verify"]),
        (["p"], ["producers", "processors"]),
        (["verify", "--dr"], ["--drained"]),
        (["demo", "--port"], ["--port"]),
        (["demo", "--log", "w"], ["warning"]),
        (["processors", "--re"], ["--reset-state", "--rebuild"]),
        (["processors", "--guarantee", ""], ["at-least-once", "exactly-once"]),
        (["sinks", "--comm"], ["--commit"]),
        (["viewer", "--publ"], ["--public"]),
        (["producers", "--restart", "--qu"], ["--quiet"]),
        (["producers", "simulate", "--se"], ["--seed"]),
        (["producers", "replay", "--time-c"], ["--time-columns"]),
    ],
)
def test_shell_completes(words: list[str], expected: list[str]) -> None:
    found = completed(*words)
    if words[-1] == "":
        assert found == expected
    else:
        assert [one for one in found if one.startswith(words[-1])] == found
        assert set(found) == set(expected)


def test_completion_of_every_shell_can_be_shown() -> None:
    for shell in ("bash", "zsh", "fish"):
        ended = told("headrace.cli", "--show-completion", shell)
        assert (ended.returncode, "_HEADRACE_COMPLETE" in ended.stdout) == (0, True), ended.stderr
