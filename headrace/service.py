"""What every service does before its work: read flags and the pipeline file, and configure its logs.

Errors that we raise on purpose become two lines, what happened and what to do, and exit code 2; a traceback
is shown only with ``--debug``.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace import flags, logs
from headrace.children import follow_parent
from headrace.exhaustion import allow_files
from headrace.pipeline import Pipeline, load
from headrace.settings import Settings


def settle(service: str, settings: Settings) -> Pipeline:
    """The pipeline of a service, with its logs configured. Raises what is wrong with it."""
    follow_parent()
    allow_files()
    logs.configure(service, settings.log)
    return load(settings.pipeline)


def settled(service: str, run: Callable[..., int | None]) -> Callable[..., int | None]:
    """``run(settings, pipeline, **flags)`` as a command, which is a function of the settings and flags."""

    @functools.wraps(run)
    def go(settings: Settings, **own: Any) -> int | None:
        return run(settings, settle(service, settings), **own)

    parameters = inspect.signature(run, eval_str=True).parameters.values()
    go.__signature__ = inspect.Signature([p for p in parameters if p.kind is p.KEYWORD_ONLY])  # type: ignore[attr-defined]
    return go


@dataclass(frozen=True)
class Variant:
    """Another way to run a service, named by its first argument, with flags of its own (``more``, by their types)."""

    description: str
    run: Callable[..., int | None]
    more: Mapping[str, Any]


def main(
    service: str,
    description: str,
    run: Callable[..., int | None],
    arguments: Sequence[str] | None = None,
    *,
    settings: Sequence[str] = flags.OF_SERVICES,
    epilog: str | None = None,
    variants: Mapping[str, Variant] | None = None,
) -> int:
    """The main function of a service: ``run(settings, pipeline, **flags)`` with everything settled."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    program, more = f"python -m {service}", None
    if (name := _named(service, arguments, variants or {})) is not None and variants:
        description, run, more, epilog = variants[name].description, variants[name].run, variants[name].more, None
        program, arguments = f"{program} {name}", arguments[1:]
    app = flags.application(description, epilog=epilog)
    flags.add(app, settled(service, run), settings=settings, text=description, more=more, epilog=epilog)
    return flags.call(app, arguments, program=program)


def _named(service: str, arguments: Sequence[str], variants: Collection[str]) -> str | None:
    """The variant that is meant: by the first argument, or by what a shell asks to complete."""
    for name in variants:
        if (environment := flags.completing(service, name)) is not None:
            os.environ.update(environment)
            return name
    return arguments[0] if arguments and arguments[0] in variants else None
