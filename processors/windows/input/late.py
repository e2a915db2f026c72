"""Late and corrected readings, with the bounds of the windows that they are missing from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from headrace.batch import Batch, Int64s
from headrace.column import Bools
from headrace.pipeline.model import Session, Sliding
from processors.windows.input.intake import Intake, Judged, Placed
from processors.windows.spec import WindowSpec
from processors.windows.time.watermark import NEVER

Reason = Literal["late", "corrected"]

_FOR_EVER = 2**62 - 1


@dataclass(frozen=True)
class LateReadings:
    """``n`` readings that came too late for a window, or correct what it has.

    ``readings`` in their order, ``groups``: what results call each one's group, ``reasons``. ``windows``:
    for each window that lacks one, the reading's place among the n, its start and end (µs).
    """

    readings: Batch
    groups: list[str]
    reasons: list[Reason]
    windows: tuple[Int64s, Int64s, Int64s]


def late_of(intake: Intake, placed: Placed, judged: Judged) -> LateReadings | None:
    """The readings that are missing from a window, where the stream asks for them; None if there is none."""
    spec = intake.spec
    if spec.late == "drop":
        return None
    chosen: dict[Reason, Bools] = {}
    if judged.corrected is not None:
        chosen["corrected"] = judged.corrected
    if judged.late is not None:
        chosen["late"] = judged.late
    if spec.late == "heal" and spec.overlapping and placed.before_us is not None:
        # What is in time for some of its windows is missing from the others all the same.
        missing = judged.keep & (intake.first_end(placed.batch.ts_us) <= placed.before_us)
        chosen["late"] = missing if judged.late is None else missing | judged.late
    if not any(mask.any() for mask in chosen.values()):
        return None
    return _late_readings(spec, placed, intake.group_names(placed.slots), chosen)


def _late_readings(spec: WindowSpec, placed: Placed, groups: list[str], chosen: dict[Reason, Bools]) -> LateReadings:
    """The readings ``chosen`` for a reason, and the windows that lack them.

    Of windows that readings make (session, sliding) the bounds are those of all that the reading could belong to; of
    state, count and event windows, whose bounds one reading can move without limit, the reading's own time.
    """
    batch, before_us, alignment = placed.batch, placed.before_us, spec.alignment
    places = np.concatenate([np.flatnonzero(mask) for mask in chosen.values()])
    reasons: list[Reason] = [reason for reason, mask in chosen.items() for _ in range(int(np.count_nonzero(mask)))]
    order = np.argsort(places, kind="stable")
    places, reasons = places[order], [reasons[place] for place in order.tolist()]
    ts_us = batch.ts_us[places]
    if alignment is not None:
        upto = np.full(len(places), _FOR_EVER, np.int64)
        if before_us is not None and not spec.ordered:
            missed = np.array([reason == "late" for reason in reasons], np.bool_)
            upto[missed] = before_us[places[missed]]
        windows = alignment.windows(alignment.panes(ts_us), np.full(len(places), NEVER, np.int64), upto)
    else:
        window = spec.window
        reach = int(window.size) if isinstance(window, Sliding) else 0
        if isinstance(window, Session):
            reach = int(window.gap)
        windows = np.arange(len(places)), ts_us - reach, ts_us + reach
    return LateReadings(batch.take(places), [groups[place] for place in places.tolist()], reasons, windows)
