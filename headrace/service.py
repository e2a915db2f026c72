"""What every service does before its work: read flags and the pipeline file, and configure its logs.

Errors that we raise on purpose become two lines, what happened and what to do, and exit code 2; a traceback
is shown only with ``--debug``.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
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


def main(
    service: str,
    description: str,
    run: Callable[..., int | None],
    arguments: Sequence[str] | None = None,
    *,
    settings: Sequence[str] = flags.OF_SERVICES,
) -> int:
    """The main function of a service: ``run(settings, pipeline, **flags)`` with everything settled."""
    app = flags.application(description)
    flags.add(app, settled(service, run), settings=settings, text=description)
    return flags.call(app, arguments, program=f"python -m {service}")
