"""Headrace: sensor readings to event-time windows, a store and a live page.

The folder holds what the four stages (producers, processors, sinks, viewer) share, and the command line. What is
public is named here and in :mod:`headrace.testing`; everything else may change with any version.

>>> import headrace
>>> pipeline = headrace.parse('[topics.meters]\\nfields = { current = "float" }')
>>> list(pipeline.topics)
['meters']
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.batch import Batch
    from headrace.duration import Duration
    from headrace.errors import HeadraceError, Mistake, PipelineError
    from headrace.pipeline import Pipeline, load, parse
    from headrace.stores import Store, open_store

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "Duration",
    "HeadraceError",
    "Mistake",
    "Pipeline",
    "PipelineError",
    "Store",
    "__version__",
    "load",
    "open_store",
    "parse",
]

_HOMES = {
    "Batch": "headrace.batch",
    "Duration": "headrace.duration",
    "HeadraceError": "headrace.errors",
    "Mistake": "headrace.errors",
    "Pipeline": "headrace.pipeline",
    "PipelineError": "headrace.errors",
    "Store": "headrace.stores",
    "load": "headrace.pipeline",
    "open_store": "headrace.stores",
    "parse": "headrace.pipeline",
}


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first asked for: a command starts as fast as what it needs."""
    if name not in _HOMES:
        raise AttributeError(f"module 'headrace' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
