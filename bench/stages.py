"""Where a processor's time goes: its own functions are wrapped, and each is charged what it does not pass on.

A wrapped function costs a microsecond a call and is called once or so for each micro-batch, so that it distorts
nothing; Python's profiler, which looks at every call, would.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

STAGES: Mapping[str, Sequence[str]] = {
    "consume": ["headrace.runtime.consumer:MicroBatchConsumer.consume"],
    "rows of a poll": ["headrace.runtime.consumer:MicroBatchConsumer.poll_row"],
    "value": ["headrace.runtime.batches:MicroBatch.__init__"],
    "decode": ["headrace.wire:Decoder.decode"],
    "devices": [
        "processors.windows.input.groups:Devices.slots_of",
        "processors.windows.input.groups:Devices.note_tags",
    ],
    "late": [
        "processors.windows.time.watermark:Clocks.before",
        "processors.windows.time.watermark:Clocks.move",
        "processors.windows.input.intake:Intake._judge",
    ],
    "repeats": ["processors.windows.input.intake:Intake._deduplicate", "processors.windows.input.intake:Intake.prune"],
    "columns": ["processors.windows.spec:WindowSpec.columns"],
    "fold": ["processors.windows.windowing:Windowing._take"],
    "close": [
        "processors.windows.windowing:Windowing.advance",
        "processors.windows.emission:Emission.outcome",
    ],
    "windows, the rest": ["processors.windows.operator:WindowOperator.add"],
    "encode": ["headrace.wire:Encoder.rows"],
    "produce": ["headrace.runtime.microbatch:MicroBatchApplication.produce"],
    "streams, the rest": ["processors.streams:TopicStreams.process"],
    "state": ["processors.streams:TopicStreams.save"],
    "commit": ["quixstreams.processing.context:ProcessingContext.commit_checkpoint"],
}
"""The functions of each stage, as module:attribute. They are adapted when the code they name moves."""


class StageGone(Exception):
    """A name in STAGES is no longer there."""


@dataclass
class Spent:
    """What stages took: seconds by the clock, of the thread's CPU, and calls."""

    wall_s: dict[str, float] = field(default_factory=dict)
    cpu_s: dict[str, float] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)

    def add(self, stage: str, wall_s: float, cpu_s: float) -> None:
        """Charge a stage with a call."""
        self.wall_s[stage] = self.wall_s.get(stage, 0.0) + wall_s
        self.cpu_s[stage] = self.cpu_s.get(stage, 0.0) + cpu_s
        self.calls[stage] = self.calls.get(stage, 0) + 1

    def copy(self) -> Spent:
        """As it is now."""
        return Spent(dict(self.wall_s), dict(self.cpu_s), dict(self.calls))


class Stages:
    """Wraps the functions of stages. Raises StageGone when a name is no longer there."""

    def __init__(self, stages: Mapping[str, Sequence[str]]) -> None:
        self.spent = Spent()
        self._passed_on: list[list[float]] = []
        for stage, names in stages.items():
            for name in names:
                self._wrap(stage, name)

    def reset(self) -> None:
        """Forget what was spent so far."""
        self.spent = Spent()

    def _wrap(self, stage: str, name: str) -> None:
        owner, attribute, function = resolve(name)
        setattr(owner, attribute, functools.wraps(function)(self._timed(stage, function)))

    def _timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        passed_on = self._passed_on

        def timed(*arguments: Any, **named: Any) -> Any:
            inner = [0.0, 0.0]
            passed_on.append(inner)
            wall, cpu = time.perf_counter(), time.thread_time()
            try:
                return function(*arguments, **named)
            finally:
                wall_s, cpu_s = time.perf_counter() - wall, time.thread_time() - cpu
                passed_on.pop()
                self.spent.add(stage, wall_s - inner[0], cpu_s - inner[1])
                if passed_on:
                    passed_on[-1][0] += wall_s
                    passed_on[-1][1] += cpu_s

        return timed


def resolve(name: str) -> tuple[Any, str, Callable[..., Any]]:
    """The owner of a function, the attribute it is, and the function, by module:attribute. Raises StageGone."""
    module, _, path = name.partition(":")
    *owners, attribute = path.split(".")
    try:
        owner: Any = importlib.import_module(module)
        for one in owners:
            owner = getattr(owner, one)
        function = getattr(owner, attribute)
    except (ImportError, AttributeError) as error:
        raise StageGone(f"{name} is gone ({error}): correct STAGES in bench/stages.py") from None
    if not callable(function) or isinstance(inspect.getattr_static(owner, attribute), property | staticmethod):
        raise StageGone(f"{name} is no function or method: correct STAGES in bench/stages.py")
    return owner, attribute, function
