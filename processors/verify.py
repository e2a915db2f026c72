"""``python -m processors verify``: the final windows in the store, computed again from the stored readings, by value.

Windows are compared as far as event time has passed them on the live line, so it may go on beside. What is under way
between two parts for a moment looks like a difference once: what differs is looked at again, and is a fault if it
stays.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from headrace.batch import Batch
from headrace.duration import Duration
from headrace.errors import HeadraceError, SettingsError, StoreError
from headrace.event_time import iso, parser
from headrace.ledger import STARTED_OVER, LedgerReader, Line
from headrace.pipeline import Pipeline, into
from headrace.pipeline.model import Stream, Time, Tumbling
from headrace.settings import Settings
from headrace.stores import Store, open_store
from headrace.topics import ONE_AFTER_ANOTHER, Ends, reader, wait_for_broker
from headrace.verify import lines_of
from headrace.verify.windows import closes_windows
from headrace.waiting import NotYet, Waiting, wait_for
from processors.recompute.differences import Differences, compared, is_compared, result_names
from processors.recompute.due import due
from processors.recompute.recompute import recompute
from processors.stored import StoredStream
from processors.windows import WindowSpec

LOOK_AGAIN_AFTER_S = (0.5, 1.0, 2.0)
MOST_TOLD = 20
"""Of so many windows of a stream it is told what differs; the others are counted."""
SINKS_S = 30.0
"""How long sinks that are behind are waited for."""
LEFT_OUT = ("late", "corrected", STARTED_OVER)
"""What a line's counts say of readings that are stored and in no window, and of windows that were never emitted."""
HOUR_US = 3_600_000_000
FIRST_US = -(2**61)


@dataclass
class Found:
    """What the comparison of one stream has brought.

    ``differing``: of each window that differs its group, its start and in words what does. ``lacking``: how many
    readings the stored windows have less than the computed ones, of ``lagging`` windows that differ in nothing but
    what readings they lack.
    """

    windows: int = 0
    readings: int = 0
    differing: list[tuple[str, int, str]] = field(default_factory=list)
    count: int = 0
    lacking: int = 0
    lagging: int = 0
    span_us: tuple[int, int] | None = None
    """where the differing windows start"""

    def take(self, spec: WindowSpec, part: Differences) -> None:
        """Take what differs in a part of the windows."""
        self.windows += part.compared
        for kind, batch, was in (
            ("missing", part.new, None),
            ("changed", part.changed, part.was),
            ("withdrawn", part.withdrawn, None),
        ):
            starts_us = batch.ts_us.tolist()
            for place, (group, start_us) in enumerate(zip(batch.devices, starts_us, strict=True)):
                self.count += 1
                low, high = self.span_us or (start_us, start_us)
                self.span_us = min(low, start_us), max(high, start_us)
                count = int(batch.value("count", place))
                if kind != "withdrawn":
                    stored = 0 if was is None else int(was.value("count", place))
                    self.lacking += max(count - stored, 0)
                    self.lagging += stored < count
                if len(self.differing) < MOST_TOLD:
                    self.differing.append((group, start_us, _told(kind, spec, batch, was, place)))


def _told(kind: str, spec: WindowSpec, batch: Batch, was: Batch | None, place: int) -> str:
    if kind == "missing":
        return f"is not stored; its {batch.value('count', place)} readings are"
    if kind == "withdrawn" or was is None:
        return f"is stored with {batch.value('count', place)} readings, and is no window of the stored readings"
    names = [name for name in result_names(spec) if is_compared(spec, name, batch.value("count", place))]
    pairs = [(name, was.value(name, place), batch.value(name, place)) for name in names]
    return ", ".join(f"{name} is {said!r}, computed {right!r}" for name, said, right in pairs if said != right)


def verify_stream(
    stream: StoredStream, clock_us: int, start_us: int, end_us: int, progress: Callable[[Found], None] | None = None
) -> Found:
    """Hold the stored windows that start at ``start_us`` <= time < ``end_us`` against the computed ones."""
    found = Found()
    first_us = stream.first_us()
    # Windows that start in the span hold readings from its beginning on, and as far beyond its end as they reach.
    steps = recompute(
        stream.spec, stream.readings, start_us, end_us, first_us=start_us if first_us is None else first_us,
        clock_us=clock_us,
    )  # fmt: skip
    for part, step in compared(stream.spec, steps, stream.windows, start_us, end_us):
        must = due(stream.spec, part.new, clock_us, stream.progress_us)
        found.take(stream.spec, part if must.all() else replace(part, new=part.new.take(np.flatnonzero(must))))
        found.readings += step.readings
        if progress is not None:
            progress(found)
    return found


def run(
    settings: Settings,
    pipeline: Pipeline,
    *,
    streams: Annotated[
        list[str] | None, typer.Argument(metavar="STREAM", help="the streams to verify; all if none is named")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="TIME", help="windows that start from then on: ISO 8601, or as 2h ago"),
    ] = None,
    end: Annotated[str | None, typer.Option("--to", metavar="TIME", help="windows that start before then")] = None,
) -> int:
    """Compare; 0 if all windows are as the stored readings have them, else 1."""
    now_us = time.time_ns() // 1_000
    names = streams or list(pipeline.streams)
    for name in names:
        if name not in pipeline.streams:
            known = ", ".join(pipeline.streams) or "none is declared"
            raise SettingsError(f"there is no stream {name!r}", hint=f"name one of {known}")
    span = _time(start, now_us, "--from", FIRST_US), _time(end, now_us, "--to", 2**61)
    wait_for_broker(settings.broker, patience_s=10)
    store = open_store(settings.store, readonly=True)
    consumer, ledger = reader(settings.broker, **ONE_AFTER_ANOTHER), LedgerReader(reader(settings.broker), pipeline)
    try:
        ends = Ends(consumer)
        lines = [line for line in lines_of(ends, pipeline, ledger, None) if line.stage == "processors"]
        closing = {
            line.name: line.watermark_us
            for line in lines
            if line.name in pipeline.streams and closes_windows(pipeline, line)
        }
        _await_sinks(ends, store, pipeline, names)
        verdicts, windows = [], 0
        for name in names:
            found = _compare(store, pipeline, name, closing.get(name), span, now_us)
            windows += found.windows
            left_out = _left_out(lines_of(ends, pipeline, ledger, None), name)
            for pause_s in LOOK_AGAIN_AFTER_S:
                if not found.count or _explained(found, left_out, pipeline.streams[name])[1]:
                    break
                # A late reading may be in the store before the ledger has it.
                time.sleep(pause_s)
                left_out = _left_out(lines_of(ends, pipeline, ledger, None), name)
            verdicts.append(_tell(name, found, pipeline, left_out))
    finally:
        ledger.close()
        consumer.close()
        store.close()
    if not windows:
        raise HeadraceError(
            "there is no window to compare: none has closed in that time",
            hint="start the line and let it run for a while, or give another --from and --to",
        )
    return 0 if all(verdicts) else 1


def _await_sinks(ends: Ends, store: Store, pipeline: Pipeline, names: Sequence[str]) -> None:
    """Wait until the store has all that there was when the watermarks were read: readings, and windows of theirs.

    Raises StoreError when that takes too long.
    """
    topics = {pipeline.streams[name].source for name in names} | {into(pipeline, name) for name in names}
    wanted = ends.of(topics)

    def look() -> None:
        kept = store.progress()
        behind = sum(max(end - (kept[at].next_offset if at in kept else 0), 0) for at, end in wanted.items())
        if behind:
            error = StoreError(
                f"the sinks have {behind} messages to write before windows can be compared",
                hint="start them (`headrace sinks`), or wait until they are no more behind (`headrace topics`)",
            )
            raise NotYet(f"the sinks, to write {behind} messages", error)

    wait_for(look, Waiting("the store has them", patience_s=SINKS_S), every_s=0.2)


def _compare(
    store: Store, pipeline: Pipeline, name: str, watermark_us: int | None, span: tuple[int, int], now_us: int
) -> Found:
    """Compare a stream's windows up to its watermark, telling how far it is."""
    stream = StoredStream(store, pipeline, name)
    if watermark_us is None:
        return Found()
    clock_us = watermark_us + stream.spec.grace_us
    oldest_us = now_us - int(pipeline.store.retention) + HOUR_US
    start_us, end_us = max(span[0], oldest_us), min(span[1], watermark_us)
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=None)
        begun_s = time.monotonic()

        def show(found: Found) -> None:
            rate = found.readings / max(time.monotonic() - begun_s, 1e-6)
            bar.update(
                task, description=f"{name}: {found.windows:,} windows, {found.readings:,} readings, {rate:,.0f}/s"
            )

        found = verify_stream(stream, clock_us, start_us, end_us, show)
        for pause_s in LOOK_AGAIN_AFTER_S:
            if found.span_us is None:
                break
            time.sleep(pause_s)
            again = verify_stream(stream, clock_us, found.span_us[0], found.span_us[1] + 1)
            again.windows, again.readings = found.windows, found.readings
            found = again
    return found


def _tell(name: str, found: Found, pipeline: Pipeline, left_out: Counter[str]) -> bool:
    """Tell what was found of a stream; whether its windows are right, or as is declared."""
    print(f"{name}: {found.windows:,} windows of {found.readings:,} stored readings: ", end="")
    if not found.windows:
        print("nothing to compare, as none has closed in that time")
        return True
    if not found.count:
        print("all are as computed again")
        return True
    print(f"{found.count:,} differ", flush=True)
    why, sound = _explained(found, left_out, pipeline.streams[name])
    where = sys.stdout if sound else sys.stderr
    for group, start_us, text in found.differing:
        [start] = iso(np.array([start_us], np.int64))
        print(f"{'note' if sound else 'fault'}: {name} {group} {start}: {text}", file=where)
    if found.count > len(found.differing):
        print(f"... and {found.count - len(found.differing):,} more", file=where)
    print(f"note: {name}: {why}", file=where)
    return sound


def _left_out(lines: Sequence[Line], name: str) -> Counter[str]:
    """How many of a stream's readings came late or corrected others, in whichever of its stages."""
    counts: Counter[str] = Counter()
    for line in lines:
        if (line.stage, line.name) == ("processors", name):
            counts.update({fate: line.counts.get(fate, 0) for fate in LEFT_OUT})
    return counts


def _explained(found: Found, left_out: Counter[str], stream: Stream) -> tuple[str, bool]:
    """Why they differ, where that can be known, and whether it is as declared."""
    if left_out[STARTED_OVER]:
        return "it was started over, so what was open then was never emitted", True
    late, corrected = left_out["late"], left_out["corrected"]
    if not late + corrected:
        why = "no reading came late and none was corrected, so rows were changed, or lost, after they were stored"
        return why, False
    why = f"{late:,} of its readings came late and {corrected:,} corrected others"
    # Each late reading is missing from one window, where a reading is in no more than one.
    too_many = isinstance(stream.window, Tumbling) and found.lacking > late + corrected
    if not too_many and (corrected or found.lagging == found.count):
        return f"{why}; late = {stream.late!r} leaves its windows without them", True
    return f"{why}, which does not explain all of it: rows were changed, or lost, after they were stored", False


def _time(text: str | None, now_us: int, flag: str, default: int) -> int:
    """A moment in µs: as ISO 8601, or so long ago."""
    if text is None:
        return default
    try:
        return now_us - int(Duration.parse(text))
    except ValueError:
        pass
    try:
        return int(parser(Time(format="iso8601"))([text])[0])
    except (ValueError, HeadraceError):
        raise SettingsError(
            f"{flag} is {text!r}, which is no time", hint="write it as 2026-11-22T08:00:00Z, or as 2h for two hours ago"
        ) from None
