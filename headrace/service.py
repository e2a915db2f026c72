"""What every service does before its work: read flags and the pipeline file, wait for the broker, make topics.

Errors that we raise on purpose become two lines, what happened and what to do, and exit code 2; a traceback
is shown only with ``--debug``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from headrace import logs
from headrace.children import follow_parent
from headrace.errors import HeadraceError
from headrace.exhaustion import allow_files, exhausted
from headrace.pipeline import Pipeline, load
from headrace.redaction import redact_stderr
from headrace.settings import Settings, add_flags, from_flags

USAGE_EXIT = 2


def parser(service: str, description: str, *flags: str) -> argparse.ArgumentParser:
    """A parser with the common flags (or the named ones) and --debug."""
    redact_stderr()
    made = argparse.ArgumentParser(prog=service, description=description)
    add_flags(made, *flags)
    made.add_argument("--debug", action="store_true", help="show tracebacks")
    return made


def settle(service: str, flags: argparse.Namespace) -> tuple[Settings, Pipeline]:
    """Settings and pipeline of a service, with its logs configured. Raises what is wrong with them."""
    follow_parent()
    allow_files()
    settings = from_flags(flags)
    logs.configure(service, settings.log)
    return settings, load(settings.pipeline)


def guarded(run: Callable[[], int | None], *, debug: bool) -> int:
    """Run ``run``; its exit code, or that of the error it raised."""
    try:
        return run() or 0
    except HeadraceError as error:
        if debug:
            raise
        return _said(error)
    except Exception as error:
        known = exhausted(error)
        if known is None or debug:
            raise
        return _said(known)
    except KeyboardInterrupt:
        return 130


def _said(error: HeadraceError) -> int:
    print(f"error: {error.message}", file=sys.stderr)
    print(f"hint: {error.hint}", file=sys.stderr)
    return USAGE_EXIT


def main(
    service: str,
    description: str,
    run: Callable[[Settings, Pipeline, argparse.Namespace], int | None],
    arguments: Sequence[str] | None = None,
    extend: Callable[[argparse.ArgumentParser], None] | None = None,
) -> int:
    """The main function of a service: ``run(settings, pipeline, flags)`` with everything settled."""
    made = parser(service, description)
    if extend is not None:
        extend(made)
    flags = made.parse_args(arguments)

    def go() -> int | None:
        settings, pipeline = settle(service, flags)
        return run(settings, pipeline, flags)

    return guarded(go, debug=flags.debug)
