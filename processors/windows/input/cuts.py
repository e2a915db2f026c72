"""Where a batch must be cut for results not to depend on how readings were cut into batches.

A window that closes between two readings of a batch must have closed before the second one is taken where that one
could not be told apart from those that count in the window.
"""

from __future__ import annotations

import numpy as np

from headrace.batch import Int64s
from processors.windows.input.intake import Intake, Placed
from processors.windows.time.watermark import NEVER, Clocks, before_each, running_max_before


def where_closed(intake: Intake, placed: Placed) -> int:
    """The first reading that is too late for a window which other readings of the batch are to close; or 0.

    Panes do not tell the readings apart that came before their first window closed from those that came
    after, so that window must have emitted by then.
    """
    if placed.before_us is None:
        return 0
    closed = intake.clocks.watermark_us(placed.devices)
    missed = intake.first_end(placed.batch.ts_us, closed) <= placed.before_us
    return int(np.argmax(missed)) if missed.any() else 0


def where_silent(clocks: Clocks, seen_us: Int64s, slots: Int64s, ts_us: Int64s) -> int:
    """The first reading of a group that was silent before it, so that its window must end first; or 0."""
    silent = max(clocks.clock_us, int(ts_us.max())) - clocks.silence_us
    earlier = seen_us[slots]
    if not ((ts_us < silent) | ((earlier < silent) & (earlier != NEVER))).any():
        return 0
    before = running_max_before(slots, ts_us, seen_us)
    silent_before = before_each(np.maximum.accumulate(ts_us), clocks.clock_us) - clocks.silence_us
    ended = (before != NEVER) & (before < silent_before)
    ended[0] = False
    return int(np.argmax(ended))
