"""Which windows a live line must have emitted by now: those that are not due yet may be missing from the store."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from headrace.batch import Batch, Int64s
from headrace.column import Bools
from headrace.pipeline.model import Count, Session, Sliding
from processors.recompute.boundaries import chain_us
from processors.windows.spec import WindowSpec


def due(spec: WindowSpec, windows: Batch, clock_us: int, progress_us: Mapping[str, int]) -> Bools:
    """Which of n computed windows the line has closed, its clock being at ``clock_us``.

    ``progress_us``: the greatest time of each device's readings up to the clock. Where a group follows its own device
    and more is not known of it than that, a window is due a little later than it may have closed.
    """
    ends_us = np.asarray(windows.column("end").values)
    if spec.follows != "device":
        return np.ones(len(ends_us), np.bool_)
    silent_us = clock_us - spec.idle_us - spec.grace_us
    watermark_us: Int64s = np.full(len(ends_us), silent_us, np.int64)
    if spec.by is None:
        own = [progress_us.get(device, silent_us) for device in windows.devices]
        watermark_us = np.maximum(watermark_us, np.array(own, np.int64) - spec.grace_us)
    if isinstance(spec.window, Sliding):
        # It closes with its reading, or where times may repeat, with the next one.
        return np.asarray(ends_us < watermark_us)
    if isinstance(spec.window, Session):
        return np.asarray(ends_us + int(spec.window.gap) < watermark_us)
    if not spec.ends_in_silence:
        return np.asarray(ends_us <= watermark_us)
    # The reading that ends it comes before the silence would; of what is full it is the last one.
    over = ends_us + (chain_us(spec) or 0) <= silent_us
    if isinstance(spec.window, Count):
        full = windows.column("count").values == spec.window.count
        over |= full & (ends_us <= watermark_us)
    return np.asarray(over)
