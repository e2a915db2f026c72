"""What the sinks have counted as stored, held against the rows of the store and against the topics they came from."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from headrace.ledger import Line
from headrace.pipeline import Pipeline, all_tables
from headrace.stores import Store
from headrace.stores.port import Progress
from headrace.verify.recount import Recount, Rows
from headrace.verify.verdict import Verdict

HOUR_US = 3_600_000_000

Progresses = Mapping[tuple[str, int], Progress]


@dataclass(frozen=True)
class Kept:
    """What a table of the store holds."""

    rows: int
    recent_rows: int
    """of times that no retention can have deleted"""
    recent_in_final: int
    """readings in the final windows among these; 0 for a table of readings"""


@dataclass(frozen=True)
class Look:
    """The store at one moment, between two looks at its counts: the same ones, where the store has snapshots."""

    before: Progresses
    after: Progresses
    kept: Mapping[str, Kept]
    since_us: int
    """rows of this time and later are the recent ones"""


def look_at(pipeline: Pipeline, store: Store) -> Look:
    """The store as it is now."""
    # By an hour too late, as the store's clock may be another.
    since_us = time.time_ns() // 1_000 - int(pipeline.store.retention) + HOUR_US
    with store.snapshot():
        before = store.progress()
        kept = {
            name: Kept(
                store.count(table),
                store.count(table, since_us),
                store.total(table, "count", since_us) if table.kind == "windows" else 0,
            )
            for name, table in all_tables(pipeline).items()
        }
        return Look(before, store.progress(), kept, since_us)


def check_rows(line: Line, found: Recount, look: Look, verdict: Verdict) -> None:
    """That a table holds the rows that its sink has counted and its topic makes, but for what retention has deleted."""
    name, kept = line.topic, look.kept[line.topic]
    first, last = found.rows(_upto(look.before, name)), found.rows(_upto(look.after, name))
    stored, stored_after = line.counts.get("stored", 0), _stored(look.after, name)
    if found.whole and not first.count() - line.dropped <= stored <= first.count():
        verdict.faults.append(f"{name}: the ledger says {stored} rows are stored, a recount finds {first.count()}")
    too_long = line.counts.get("dropped:too_long", 0)
    if not (
        kept.rows <= stored_after
        and first.count(look.since_us) - too_long <= kept.recent_rows
        and (not found.whole or kept.recent_rows <= last.count(look.since_us))
        and (not found.whole or kept.rows - kept.recent_rows <= _older(last, look.since_us))
    ):
        verdict.faults.append(f"{name}: the ledger says {stored} rows are stored, the store has {kept.rows}")
    elif kept.rows < stored - too_long:
        gone = stored - kept.rows
        verdict.notes.append(f"{name}: {gone} rows are older than the retention, and no longer in the store")
    low, high = first.readings(look.since_us), last.readings(look.since_us)
    if not low <= kept.recent_in_final or (found.whole and kept.recent_in_final > high):
        verdict.faults.append(
            f"{name}: the store's windows hold {kept.recent_in_final} readings, those of the topic {low}"
        )


def _older(rows: Rows, since_us: int) -> int:
    return rows.count() - rows.count(since_us)


def _upto(progress: Progresses, name: str) -> dict[int, int]:
    return {partition: kept.next_offset for (topic, partition), kept in progress.items() if topic == name}


def _stored(progress: Progresses, name: str) -> int:
    return sum(kept.counts.get("stored", 0) for (topic, _), kept in progress.items() if topic == name)
