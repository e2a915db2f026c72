"""How far the producers are: one line on a terminal, a structured log line now and then elsewhere, a summary."""

from __future__ import annotations

import logging
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TextIO

from producers.send import Lane

logger = logging.getLogger("headrace.producers.progress")
LOG_EVERY_S = 10.0
SHOW_EVERY_S = 0.25


@dataclass(frozen=True)
class Outcome:
    """What came of one producer: readings by name (see its source), and messages.

    ``sent`` = ``delivered`` + ``failed``, where failed readings are those that the broker refused or that a
    stop could not wait for.
    """

    name: str
    topic: str
    counts: dict[str, int] = field(default_factory=dict)
    messages: int = 0
    failed: int = 0

    @property
    def delivered(self) -> int:
        """How many readings the broker has acknowledged."""
        return self.counts.get("sent", 0) - self.failed

    def __str__(self) -> str:
        rest = {name: n for name, n in self.counts.items() if name not in ("generated", "sent") and n}
        wrong = ", ".join(f"{name.replace('_', ' ')} {n:,}" for name, n in rest.items())
        return (
            f"{self.name} to {self.topic}: generated {self.counts.get('generated', 0):,}, "
            f"sent {self.counts.get('sent', 0):,} in {self.messages:,} messages, delivered {self.delivered:,}, "
            f"failed {self.failed:,}" + (f"; {wrong}" if wrong else "")
        )


class Progress:
    """Shows what the lanes have sent. ``quiet`` shows nothing."""

    def __init__(self, lanes: Sequence[Lane], *, quiet: bool = False, out: TextIO | None = None) -> None:
        self._lanes = lanes
        self._quiet = quiet
        self._out = out or sys.stderr
        self._terminal = self._out.isatty()
        self._begun_s = self._shown_s = time.monotonic()
        self._before = [0] * len(lanes)
        if not quiet:
            logger.setLevel(logging.INFO)

    def show(self) -> None:
        """Show the state, if it is time to."""
        now_s = time.monotonic()
        passed = now_s - self._shown_s
        if self._quiet or passed < (SHOW_EVERY_S if self._terminal else LOG_EVERY_S):
            return
        self._shown_s = now_s
        parts = []
        for n, lane in enumerate(self._lanes):
            sent = lane.source.counts["sent"]
            rate, self._before[n] = (sent - self._before[n]) / passed, sent
            if self._terminal:
                failed = f" failed {lane.failed:,}" if lane.failed else ""
                parts.append(f"{lane.source.name} {sent:,} ({rate:,.0f}/s){failed}")
            else:
                faults = {k: v for k, v in lane.source.counts.items() if k not in ("sent", "generated") and v}
                told = {"producer": lane.source.name, "topic": lane.source.topic_name, "sent": sent}
                told |= {"per_s": round(rate, 1), "failed": lane.failed, "queued": lane.sender.queued}
                logger.info("progress", extra=told | faults)
        if self._terminal:
            line = " · ".join([f"{now_s - self._begun_s:,.0f}s", *parts, f"queued {self._lanes[0].sender.queued:,}"])
            width = shutil.get_terminal_size().columns - 1
            self._out.write(f"\r\x1b[2K{line[:width]}")
            self._out.flush()

    def end(self, outcomes: Sequence[Outcome]) -> None:
        """Show the summary."""
        if self._quiet:
            return
        if self._terminal:
            self._out.write("\r\x1b[2K")
        for outcome in outcomes:
            self._out.write(f"{outcome}\n")
        self._out.flush()
