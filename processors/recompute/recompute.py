"""The windows of a span of event time, as the live line would have given them had every reading come in time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from headrace.batch import Batch
from headrace.column import Bools
from headrace.pipeline.model import Sliding
from processors.recompute.boundaries import Chains, Scan, chain_us, reach_us
from processors.recompute.in_time import InTime
from processors.windows.spec import WindowSpec

FOR_EVER_US = 2**62
"""Beyond all event times."""


@dataclass(frozen=True)
class Step:
    """What some more stored readings bring.

    ``windows``: those that are over, as streams emit them (ts = start; columns end, aggregates, tags or ``by``,
    revision 0, final). ``complete_us``: all windows that start before it have come. ``readings``: how many were read.
    """

    windows: list[Batch]
    complete_us: int
    readings: int


def recompute(
    spec: WindowSpec, scan: Scan, start_us: int, end_us: int, *, first_us: int, clock_us: int
) -> Iterator[Step]:
    """The final windows that hold a reading of ``start_us`` <= time < ``end_us``, or could hold one; each once.

    ``first_us``: no stored reading is older. ``clock_us``: how far event time is, which windows must have passed with
    the stream's grace. The readings are asked of ``scan``, each span once but for what sessions and the windows that
    silence ends need before it. Memory goes with what is open, not with the span.
    """
    if start_us >= end_us:
        return
    windows, chain, reach = InTime(spec), None, reach_us(spec, start_us, end_us)
    if (gap_us := chain_us(spec)) is not None:
        chain = Chains(windows, scan, start_us, gap_us=gap_us, first_us=first_us)
        # How far the last windows reach is seen when they are over.
        reach = chain.begin_us, FOR_EVER_US
    for stored in scan(reach[0], min(reach[1], clock_us + 1)):
        batch = windows.named(stored)
        if chain is not None and int(batch.ts_us[0]) < start_us:
            batch = chain.of(batch)
        found = windows.add(batch) if len(batch) else []
        yield Step(_concerned(spec, found, start_us, end_us), windows.complete_us, len(stored))
        if chain is not None and windows.complete_us >= end_us:
            return
    yield Step(_concerned(spec, windows.pass_to(clock_us), start_us, end_us), windows.complete_us, 0)


def concerned(spec: WindowSpec, windows: Batch, start_us: int, end_us: int) -> Bools:
    """Which windows hold a reading of start <= time < end, or could hold one."""
    ends_us = windows.column("end").values
    if isinstance(spec.window, Sliding):
        inside: Bools = (ends_us >= start_us) & (ends_us < end_us + int(spec.window.size))
        return inside
    if spec.alignment is not None:
        return np.asarray((windows.ts_us < end_us) & (ends_us > start_us))
    return np.asarray((windows.ts_us < end_us) & (ends_us >= start_us))


def _concerned(spec: WindowSpec, found: list[Batch], start_us: int, end_us: int) -> list[Batch]:
    chosen = [(windows, concerned(spec, windows, start_us, end_us)) for windows in found]
    return [
        windows if inside.all() else windows.take(np.flatnonzero(inside)) for windows, inside in chosen if inside.any()
    ]
