"""Runs sources against the clock and the broker until they end or a stop is asked for."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from producers.pace import SECOND_US
from producers.portion import Source
from producers.progress import Outcome, Progress
from producers.send import Lane, Sender

TAKE = 4_096
"""How many readings of a source are taken before the next source has its turn."""
TICK_US = 10_000
"""Single readings are sent this often at the most: fewer wakings, and still no delay that could be seen."""
MARK_EVERY_S = 1.0


@dataclass
class _Turn:
    lane: Lane
    wake_us: int = 0
    ended: bool = False


def now_us() -> int:
    """The clock, in µs since the epoch."""
    return time.time_ns() // 1_000


def run(sources: Sequence[Source], sender: Sender, *, quiet: bool = True) -> list[Outcome]:
    """Send what the sources give until all have ended or ``sender.stop`` is set; what came of each.

    What a source holds back is sent before a stop. A place is kept when the broker has acknowledged all that
    was taken, about each second and at the end. Raises what the sources and the sender raise, after sending
    what is queued.
    """
    if not sender.connect():
        return [Outcome(source.name, source.topic_name) for source in sources]
    lanes = [sender.lane(source) for source in sources]
    progress = Progress(lanes, quiet=quiet)
    whole = False
    try:
        _loop(lanes, sender, progress)
        for lane in lanes:
            if (held := lane.source.drain()) is not None:
                lane.send(held)
        whole = True
    finally:
        # After an error something may have been taken and not sent: the place stays where it was.
        if not _settle(lanes, sender, mark=whole):
            sender.drop()
        outcomes = [
            Outcome(
                lane.source.name,
                lane.source.topic_name,
                {name: count for name, count in lane.source.counts.items() if count},
                lane.messages,
                lane.failed,
            )
            for lane in lanes
        ]
        progress.end(outcomes)
    return outcomes


def _loop(lanes: Sequence[Lane], sender: Sender, progress: Progress) -> None:
    clock_us = now_us()
    turns = [_Turn(lane) for lane in lanes]
    marked_s = time.monotonic()
    keeps_place = any(lane.source.keeps_place for lane in lanes)
    while not sender.stop.is_set():
        # A clock that is set back makes nothing due twice.
        clock_us = max(clock_us, now_us())
        for turn in turns:
            if not turn.ended and turn.wake_us <= clock_us:
                _take(turn, clock_us)
        waking = [turn.wake_us for turn in turns if not turn.ended]
        if not waking:
            return
        if keeps_place and time.monotonic() - marked_s > MARK_EVERY_S:
            _settle(lanes, sender, mark=True)
            marked_s = time.monotonic()
        progress.show()
        wait_us = min(waking) - max(clock_us, now_us())
        # At most so long, that a signal is noticed at once.
        sender.poll(min(max(wait_us, 0), SECOND_US // 20) / SECOND_US)


def _take(turn: _Turn, clock_us: int) -> None:
    lane = turn.lane
    due_us = lane.source.due_us()
    if due_us is not None and due_us <= clock_us:
        portion = lane.source.take(clock_us, TAKE)
        if portion is not None:
            lane.send(portion)
        due_us = lane.source.due_us()
        if due_us is not None and due_us <= clock_us:
            return
    lane.flush()
    if due_us is None:
        turn.ended = True
        return
    pause_us = lane.source.linger_us if lane.source.columns > 1 else TICK_US
    turn.wake_us = max(due_us, clock_us + pause_us)


def _settle(lanes: Sequence[Lane], sender: Sender, *, mark: bool) -> bool:
    """Wait until the broker has all, and keep the places; False when a stop could not wait for that."""
    for lane in lanes:
        lane.flush()
    settled = sender.settle()
    if settled and mark:
        for lane in lanes:
            lane.source.mark()
    return settled
