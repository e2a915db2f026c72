"""What the stages of a stream have in common for those that run them and keep their state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from headrace.batch import Int64s
from processors.windows.emission import Outcome
from processors.windows.input.held_readings import HeldReadings
from processors.windows.input.intake import Intake


class Stage(Protocol):
    """A stream over one partition: the window operator, or the local or merged stage of groups that span partitions."""

    role: str
    """which stage this is, where there are two"""
    intake: Intake
    counts: dict[str, int]
    """what became of the readings, of :attr:`intake`"""

    touched: list[Int64s]
    """the groups of which something has changed since the state was last written"""
    held: list[HeldReadings]
    """the readings that are held, each in pieces of state of its own"""

    @property
    def gauges(self) -> Mapping[str, int]:
        """What is open now, beside the counts of what was."""
        ...

    def tick(self, now_us: int) -> Outcome:
        """The partition is silent (not behind) at ``now_us``; what that brings."""
        ...

    def add_groups(self) -> None:
        """Make room for all groups that there are, and know how far they are."""

    def packed(self, first: int, last: int) -> dict[str, Any]:
        """What is open of the groups from ``first`` up to ``last``, for MessagePack."""
        ...

    def unpack(self, packed: dict[str, Any], first: int, dtypes: dict[str, Any]) -> None:
        """Take up what was packed of the groups from ``first`` on."""

    @property
    def extra(self) -> dict[str, Any]:
        """What the state has beside that of all stages, for MessagePack."""
        ...

    def take_extra(self, extra: dict[str, Any]) -> None:
        """Take up what :attr:`extra` was."""


def gauges_of(intake: Intake, held: Mapping[str, int]) -> Mapping[str, int]:
    """The gauges of a stage whose windows hold this."""
    remembered = 0 if intake.deduplication is None else len(intake.deduplication)
    return {**held, "devices": intake.devices.known, "remembered": remembered}
