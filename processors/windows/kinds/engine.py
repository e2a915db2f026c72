"""What all kinds of windows can do, and which kind a stream asks for."""

from __future__ import annotations

from typing import Any, Protocol

from headrace.batch import Int64s
from headrace.column import Bools
from headrace.pipeline.model import Count, Event, Session, Sliding, State
from processors.windows.input.readings import Readings
from processors.windows.kinds.count_windows import CountWindows
from processors.windows.kinds.emitted import Emitted
from processors.windows.kinds.segment_windows import SegmentWindows
from processors.windows.kinds.sliding_windows import SlidingWindows
from processors.windows.kinds.time_windows import TimeWindows
from processors.windows.spec import WindowSpec
from processors.windows.time.closed_up_to import ClosedUpTo


class Engine(Protocol):
    """The windows of one kind over one partition: they take readings and emit results."""

    def add_groups(self, groups: int) -> None:
        """Know so many groups in all."""

    def begin(self, groups: Int64s, closed_up_to: ClosedUpTo) -> None:
        """Know how far these groups are before readings of theirs are taken."""

    def take(self, readings: Readings) -> tuple[Emitted, int]:
        """Take readings (in order, but for time windows); the windows they end, and how many are in no window."""
        ...

    def advance(self, touched: Int64s, closed_up_to: ClosedUpTo) -> Emitted:
        """The windows that end because time has passed."""
        ...

    def provisional(self) -> Emitted:
        """The open windows that have changed since they last emitted, as they are now."""
        ...

    def forget_changes(self) -> None:
        """Count no window as changed."""

    @property
    def oldest_open_us(self) -> int | None:
        """The time of the oldest reading in an open window, of windows that readings make; None without any."""
        ...

    def open_windows(self) -> int:
        """How many windows (of overlapping ones: panes) are open."""
        ...

    def open_readings(self) -> int:
        """How many readings these hold."""
        ...

    def holds(self, groups: Int64s, unknown_us: int) -> Bools:
        """Of which of n groups anything is kept that readings may need which are not late.

        ``unknown_us``: the watermark of what is not known; that of no group is less.
        """
        ...

    def forget(self, groups: Int64s) -> None:
        """Be as if these groups, of which nothing is kept, had never been."""

    def packed(self, first: int, last: int) -> dict[str, Any]:
        """What is open of the groups from ``first`` up to ``last``, for MessagePack."""
        ...

    def unpack(self, packed: dict[str, Any], dtypes: dict[str, Any]) -> None:
        """Take up what was packed."""


def engine_of(spec: WindowSpec) -> Engine:
    """The windows that a stream asks for."""
    window = spec.window
    if (alignment := spec.alignment) is not None:
        return TimeWindows(alignment, spec.aggregates, unit=spec.unit_us)
    if isinstance(window, Sliding):
        return SlidingWindows(int(window.size), spec.aggregates)
    if isinstance(window, Count):
        return CountWindows(window, spec.aggregates)
    assert isinstance(window, Session | State | Event)  # noqa: S101 - the other kinds have an alignment
    return SegmentWindows(window, spec.aggregates, spec.types)
