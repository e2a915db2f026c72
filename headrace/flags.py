"""Flags of commands: keyword parameters with types become flags, and every mistake is told in two lines.

A command is a function of :class:`Settings` and of what it takes beside them::

    def run(settings: Settings, *, drained: Annotated[bool, typer.Option("--drained", help="...")] = False) -> int: ...

It is added with the names of the settings that it heeds, so that no command takes a flag that means nothing to it.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer
from typer.completion import get_completion_inspect_parameters
from typer.exceptions import TyperException

from headrace.errors import HeadraceError, SettingsError
from headrace.exhaustion import exhausted
from headrace.redaction import redact_stderr
from headrace.settings import GUARANTEES, LOG_LEVELS, Settings, from_flags

USAGE_EXIT = 2
STOPPED_EXIT = 130


def _setting(name: str, metavar: str, text: str, *choices: str) -> Any:
    option = typer.Option(
        f"--{name}",
        envvar=f"HEADRACE_{name.upper()}",
        metavar=metavar,
        help=text,
        show_default=str(Settings.__dataclass_fields__[name].default),
        autocompletion=(lambda: list(choices)) if choices else None,
    )
    return Annotated[str | None, option]


PUBLIC = "let the viewer listen beyond this machine, where all who reach it see the page: it has no login"
OF_SETTINGS: dict[str, Any] = {
    "pipeline": _setting("pipeline", "FILE", "the pipeline file"),
    "broker": _setting("broker", "HOST:PORT", "the broker"),
    "store": _setting("store", "URL", "sqlite:///PATH or taosws://USER:PASSWORD@HOST:PORT/DATABASE"),
    "data": _setting("data", "FOLDER", "the folder for state and the embedded parts"),
    "instance": _setting("instance", "NAME", "this process's name among those of the same service, kept over restarts"),
    "guarantee": _setting("guarantee", "GUARANTEE", " or ".join(GUARANTEES), *GUARANTEES),
    "host": _setting("host", "ADDRESS", "the address that the page is served at"),
    "port": _setting("port", "PORT", "the port that the page is served at; 0 takes a free one"),
    "public": Annotated[bool | None, typer.Option("--public", help=f"{PUBLIC} (or HEADRACE_PUBLIC=1)")],
    "log": _setting("log", "LEVEL", "debug, info, warning or error", *LOG_LEVELS),
}
"""The flags that give settings, by the setting's name."""

PAGE = ("host", "port", "public")
"""The settings of the page: of the viewer, and of what runs one."""

OF_SERVICES = tuple(name for name in OF_SETTINGS if name not in PAGE)
"""The settings that every service takes, whether or not it has a use for each: one set of flags for all of them."""

BrokerPort = Annotated[
    int,
    typer.Option(
        "--broker-port",
        envvar="HEADRACE_BROKER_PORT",
        metavar="PORT",
        min=0,
        max=65_535,
        help="the port of the embedded broker; 0 takes a free one",
    ),
]
Batch = Annotated[int, typer.Option("--batch", metavar="N", help="messages a micro-batch at the most")]
Commit = Annotated[float, typer.Option("--commit", metavar="SECONDS", help="how often to commit")]
Session = Annotated[
    float,
    typer.Option("--session", metavar="SECONDS", help="how long it may be silent before others take its partitions"),
]
_Debug = Annotated[bool, typer.Option("--debug", help="show tracebacks")]


class ReaderGone(Exception):
    """Nobody reads any more what the command prints."""


def application(description: str, *, epilog: str | None = None, completion: bool = False) -> typer.Typer:
    """An application without commands yet."""
    return typer.Typer(
        help=description,
        epilog=epilog,
        add_completion=completion,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def add(
    app: typer.Typer,
    run: Callable[..., int | None],
    *,
    settings: Sequence[str],
    text: str,
    name: str | None = None,
    more: Mapping[str, Any] | None = None,
    epilog: str | None = None,
    given: Callable[[dict[str, str | None]], dict[str, str | None]] = dict,
) -> None:
    """Add a command: ``run(settings, **flags)`` with its keyword parameters as flags, and ``more``, by their types.

    ``given`` may change what was given for the settings before they are made of it.
    """
    own = [p for p in inspect.signature(run, eval_str=True).parameters.values() if p.kind is p.KEYWORD_ONLY]
    own += [_parameter(flag, kind, None) for flag, kind in (more or {}).items()]
    shared = [_parameter(flag, OF_SETTINGS[flag], None) for flag in settings]

    def command(**values: Any) -> int:
        debug: bool = values.pop("debug")
        texts = {flag: values.pop(flag) for flag in settings}
        if texts.get("public"):
            texts["public"] = "1"
        try:
            return guarded(lambda: run(from_flags(given(texts)), **values), debug=debug)
        except BrokenPipeError as gone:
            raise ReaderGone from gone

    parameters = [*own, *shared, _parameter("debug", _Debug, False)]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    app.command(name, help=text, epilog=epilog)(command)


def _parameter(name: str, kind: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


def call(app: typer.Typer, arguments: Sequence[str] | None = None, *, program: str) -> int:
    """Run what the arguments ask for; its exit code (2 for what the user can correct, told in two lines)."""
    redact_stderr()
    complete = f"_{program.rsplit(maxsplit=1)[-1].upper()}_COMPLETE"
    if complete in os.environ:
        # Makes the shells known; where flags install a completion Typer does it by itself.
        get_completion_inspect_parameters()
    try:
        command = typer.main.get_command(app)
        code = command.main(
            None if arguments is None else list(arguments), program, complete_var=complete, standalone_mode=False
        )
    except TyperException as mistake:
        return said(_told(mistake, program))
    except typer.Abort:
        return STOPPED_EXIT
    return int(code or 0)


def _told(mistake: TyperException, program: str) -> SettingsError:
    """A mistake in the flags as our own errors are told."""
    where = getattr(getattr(mistake, "ctx", None), "command_path", program)
    text = mistake.format_message().strip().rstrip(".")
    return SettingsError(text[:1].lower() + text[1:], hint=f"`{where} --help` lists what can be written")


def guarded(run: Callable[[], int | None], *, debug: bool) -> int:
    """Run ``run``; its exit code, or that of the error it raised."""
    try:
        return run() or 0
    except HeadraceError as error:
        if debug:
            raise
        return said(error)
    except Exception as error:
        known = exhausted(error)
        if known is None or debug:
            raise
        return said(known)
    except KeyboardInterrupt:
        return STOPPED_EXIT


def said(error: HeadraceError) -> int:
    """Tell an error in two lines, what happened and what to do; the exit code for it."""
    print(f"error: {error.message}", file=sys.stderr)
    print(f"hint: {error.hint}", file=sys.stderr)
    return USAGE_EXIT


def completing(program: str, part: str) -> dict[str, str] | None:
    """The environment in which ``part``, a program of its own, completes what ``program part`` was asked to.

    None if a shell does not ask for that.
    """
    asked = os.environ.get(f"_{program.upper()}_COMPLETE")
    if asked is None:
        return None
    changed = {f"_{part.upper()}_COMPLETE": asked}
    words = re.compile(rf"\s*\S+\s+({re.escape(part)}\s.*)", re.DOTALL)
    for name in ("COMP_WORDS", "_TYPER_COMPLETE_ARGS"):
        if (found := words.fullmatch(os.environ.get(name, ""))) is not None:
            changed[name] = found[1]
    if len(changed) == 1:
        return None
    if "COMP_CWORD" in os.environ:
        changed["COMP_CWORD"] = str(int(os.environ["COMP_CWORD"]) - 1)
    return {name: value for name, value in os.environ.items() if name != f"_{program.upper()}_COMPLETE"} | changed
