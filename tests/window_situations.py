"""How tests of single situations are written: short, with readable times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from window_oracle import Driver
from window_readings import SECOND, Reading, at, spec_of

from processors.windows import WindowOperator

WHOLE_AND_CUT: tuple[Sequence[int], ...] = ((), range(40))
"""Readings as one batch, and each as its own."""


def windows(window: str = 'kind = "tumbling", size = "10s"', **settings: Any) -> Driver:
    """Fresh windows of a stream."""
    return Driver(WindowOperator(spec_of(window, **settings)))


def read(device: str, seconds: float, **values: Any) -> Reading:
    """A reading at a second of the tests' noon."""
    return Reading(device, at(seconds), values)


def second(ts_us: int) -> float:
    """The second of the tests' noon that a time is."""
    return (ts_us - at(0)) / SECOND


def said(driver: Driver, *wanted: str) -> dict[tuple[str, float], Any]:
    """What was said at last of the windows, by device (or group) and second of the start; ``end`` as a second, too."""
    return {(device, second(start)): _of(window, wanted) for (device, start), window in driver.closed.items()}


def said_early(driver: Driver, *wanted: str) -> list[tuple[str, float, Any]]:
    """What was said provisionally, in its order: device (or group), second of the start, and what is wanted."""
    return [(device, second(start), _of(window, wanted)) for (device, start), window in driver.provisional]


def _of(window: dict[str, Any], wanted: tuple[str, ...]) -> Any:
    values = tuple(second(window[name]) if name == "end" else window[name] for name in wanted)
    return values if len(values) > 1 else values[0]


def counted(driver: Driver) -> dict[str, int]:
    """The counts that are not 0."""
    return {name: count for name, count in driver.windowed.counts.items() if count}


def missed(driver: Driver) -> list[tuple[str, str, float, float]]:
    """Of the windows that lack a reading: group, reason, seconds of start and end."""
    return [(group, reason, second(start), second(end)) for group, reason, start, end in driver.late]
