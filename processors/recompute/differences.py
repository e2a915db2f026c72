"""Windows computed again held against the stored ones: which are new, which say something else, which are none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from headrace.batch import Batch, Int64s
from headrace.column import Bools, Column
from headrace.pipeline.model import Sliding
from processors.recompute.recompute import Step
from processors.windows.aggregates.quantiles import RANKS
from processors.windows.spec import WindowSpec

EXACT_VALUES = 200
"""Quantiles of more values are estimates that flip coins, but in sliding windows: they are not compared."""
ROUNDING = 1e-11
"""How far two floats may be apart, in proportion: what is rounded in another order may differ in its last digits."""


@dataclass(frozen=True)
class Differences:
    """What of ``compared`` windows (computed or stored) is not the same.

    ``new``: computed, and not stored. ``changed`` and ``was``: n computed windows and the n stored ones that they
    differ from. ``withdrawn``: stored, and no windows of the stored readings. All of them in order of start and group.
    """

    compared: int
    new: Batch
    changed: Batch
    was: Batch
    withdrawn: Batch

    def __len__(self) -> int:
        return len(self.new) + len(self.changed) + len(self.withdrawn)


def result_names(spec: WindowSpec) -> list[str]:
    """The columns that a window's result has beside its group, start, tags, revision and whether it is final."""
    return ["end", "count", *(f"{m.field}_{aggregate}" for m in spec.measures for aggregate in m.aggregates)]


def is_compared(spec: WindowSpec, name: str, count: int) -> bool:
    """Whether a result's column is compared in a window of so many readings: an estimate is not."""
    return isinstance(spec.window, Sliding) or count <= EXACT_VALUES or name.rpartition("_")[2] not in RANKS


def differences(spec: WindowSpec, computed: Batch, stored: Batch) -> Differences:
    """Hold windows against each other; of both each group and start once."""
    names: dict[str, int] = {}
    for windows in (computed, stored):
        for name in dict.fromkeys(windows.devices):
            names.setdefault(name, len(names))
    # Ranks by name, so that what is said of them is in an order that everybody can follow.
    ranked = {name: rank for rank, name in enumerate(sorted(names))}
    groups = [windows.devices.looked_up(ranked) for windows in (computed, stored)]
    orders = [np.lexsort((slots, windows.ts_us)) for slots, windows in zip(groups, (computed, stored), strict=True)]
    computed, stored = computed.take(orders[0]), stored.take(orders[1])
    mine, theirs = groups[0][orders[0]], groups[1][orders[1]]
    here, there = _pairs(mine, computed.ts_us, theirs, stored.ts_us)
    same = np.ones(len(here), np.bool_)
    for name, comparable in _compared(spec, computed):
        same &= ~comparable[here] | _equal(computed.column(name).take(here), stored.column(name).take(there))
    differs = np.flatnonzero(~same)
    unmatched, spare = np.ones(len(computed), np.bool_), np.ones(len(stored), np.bool_)
    unmatched[here], spare[there] = False, False
    return Differences(
        compared=len(computed) + int(np.count_nonzero(spare)),
        new=computed.take(np.flatnonzero(unmatched)),
        changed=computed.take(here[differs]),
        was=stored.take(there[differs]),
        withdrawn=stored.take(np.flatnonzero(spare)),
    )


def compared(
    spec: WindowSpec,
    steps: Iterator[Step],
    stored: Callable[[int, int], Iterator[Batch]],
    start_us: int,
    end_us: int,
) -> Iterator[tuple[Differences, Step]]:
    """Hold windows against the stored ones as they come: those that start at ``start_us`` <= time < ``end_us``.

    ``stored(start_us, end_us)`` gives the final windows that start there. Memory goes with the windows of a step.
    """
    names = [*result_names(spec), *(spec.tags if spec.by is None else spec.by), "revision", "final"]
    waiting: list[Batch] = []
    begin_us = start_us
    for step in steps:
        waiting += step.windows
        upto_us = min(step.complete_us, end_us)
        if upto_us <= begin_us and step.complete_us < end_us:
            continue
        whole = Batch.joined(waiting, names)
        ready, later = (whole.ts_us >= begin_us) & (whole.ts_us < upto_us), whole.ts_us >= upto_us
        there = Batch.joined(list(stored(begin_us, upto_us)), names)
        yield differences(spec, whole.take(np.flatnonzero(ready)), there), step
        waiting = [whole.take(np.flatnonzero(later))] if later.any() else []
        begin_us = upto_us


def _pairs(mine: Int64s, mine_us: Int64s, theirs: Int64s, theirs_us: Int64s) -> tuple[Int64s, Int64s]:
    """The places of what both have, of groups and starts that are sorted by start and group."""
    slots, starts = np.concatenate([mine, theirs]), np.concatenate([mine_us, theirs_us])
    whose = np.repeat([0, 1], [len(mine), len(theirs)])
    order = np.lexsort((whose, slots, starts))
    first, second = order[:-1], order[1:]
    pair = (slots[first] == slots[second]) & (starts[first] == starts[second]) & (whose[first] != whose[second])
    return first[pair], second[pair] - len(mine)


def _compared(spec: WindowSpec, computed: Batch) -> Sequence[tuple[str, Bools]]:
    """The columns to be compared, and in which windows: an estimate is not."""
    everywhere = np.ones(len(computed), np.bool_)
    exact = everywhere
    if not isinstance(spec.window, Sliding):
        exact = np.asarray(computed.column("count").values <= EXACT_VALUES)
    found = [("end", everywhere), ("count", everywhere)]
    for measure in spec.measures:
        for aggregate in measure.aggregates:
            found.append((f"{measure.field}_{aggregate}", exact if aggregate in RANKS else everywhere))
    return found


def _equal(mine: Column, theirs: Column) -> Bools:
    """Where two columns say the same; what is missing in both is."""
    equal = np.asarray(mine.values == theirs.values)
    if mine.dtype.kind == "f" and not equal.all():
        equal = np.isclose(mine.values, theirs.values, rtol=ROUNDING, atol=0.0)
    if mine.valid is None and theirs.valid is None:
        return equal
    there, stored = (
        np.ones(len(equal), np.bool_) if column.valid is None else column.valid for column in (mine, theirs)
    )
    return np.asarray((there & stored & equal) | (~there & ~stored))
