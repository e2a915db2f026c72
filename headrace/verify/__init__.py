"""``headrace verify``: the ledger as it is kept, held against the broker and the store, recounted.

Everything is compared as of one offset. The store's counts, rows and totals are read in one look (where the store
can; else between two looks at its counts); then every topic is read again up to the offsets to which the ledger
counts, and decoded as the stages did. So readings may go on flowing.

What is under way between two parts for a moment (a result that the broker does not have yet, a row that TDengine has
counted and not written) looks like a loss once. So what is found wrong is looked at again, and is a fault if it stays.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from confluent_kafka import Consumer

from headrace.ledger import EXPIRED, SKIPPED, STARTED_OVER, Entry, Key, LedgerReader, Line, add_up, of_store
from headrace.pipeline import Pipeline, all_topics
from headrace.pipeline.tables import repartition_topic
from headrace.stores import Store
from headrace.topics import Ends, reaches
from headrace.verify.messages import check_letters, check_messages, check_partitions
from headrace.verify.recount import Recount
from headrace.verify.rows import Look, Progresses, check_rows, look_at
from headrace.verify.verdict import Verdict, who
from headrace.verify.windows import check_windows, closes_windows, windows_known

__all__ = ["Verdict", "expected_lines", "lines_of", "looked_over", "verify"]

LOOK_AGAIN_AFTER_S = (0.5, 1.0, 2.0)


def lines_of(ends: Ends, pipeline: Pipeline, ledger: LedgerReader, store: Store | None) -> list[Line]:
    """The ledger's lines as they are now: one for each stage and topic of the pipeline, and what else has counted."""
    return _lines(ends, pipeline, ledger.refresh(), None if store is None else store.progress())


def expected_lines(pipeline: Pipeline) -> list[Key]:
    """Which lines a ledger of this pipeline has: stage, name and topic."""
    keys: list[Key] = [("sinks", name, name) for name in all_topics(pipeline)]
    for name, stream in pipeline.streams.items():
        keys.append(("processors", name, stream.source))
        if (repartition := repartition_topic(pipeline, name)) is not None:
            keys.append(("processors", name, repartition))
    return keys


def verify(
    consumer: Consumer, pipeline: Pipeline, ledger: LedgerReader, store: Store, *, drained: bool = False
) -> Verdict:
    """Hold the ledger against a recount of the broker and the store; the line may be running.

    ``drained``: whether everything must have been read by now, so that a message that waits is a fault.
    Raises StoreUnavailable when the store is away, and KafkaException when the broker is.
    """
    verdict = _verify_once(consumer, pipeline, ledger, store, drained=drained)
    for pause_s in LOOK_AGAIN_AFTER_S:
        if verdict.sound:
            break
        time.sleep(pause_s)
        verdict = _verify_once(consumer, pipeline, ledger, store, drained=drained)
    return verdict


def looked_over(lines: list[Line], *, drained: bool = False) -> Verdict:
    """What the ledger's counts say of themselves, without a recount of broker or store."""
    verdict = Verdict(lines)
    for line in lines:
        _check_line(line, verdict, drained=drained)
    return verdict


def _verify_once(
    consumer: Consumer, pipeline: Pipeline, ledger: LedgerReader, store: Store, *, drained: bool
) -> Verdict:
    entries = ledger.refresh()
    look = look_at(pipeline, store)
    ends = Ends(consumer)
    lines = _lines(ends, pipeline, entries, look.before)
    verdict = looked_over(lines, drained=drained)
    recounts = _recounts(consumer, pipeline, lines, look)
    for name, found in recounts.items():
        check_messages(name, found, [line for line in lines if line.topic == name], verdict)
        check_partitions(pipeline, name, found, verdict)
    for line in lines:
        if line.stage == "sinks" and line.topic in look.kept:
            check_rows(line, recounts[line.topic], look, verdict)
            check_letters(consumer, pipeline.name, line, verdict)
    for line in lines:
        if line.stage == "processors" and windows_known(pipeline, line, verdict) and closes_windows(pipeline, line):
            later = _lines(ends, pipeline, ledger.refresh(), None)
            check_windows(pipeline, line, later, recounts, verdict)
    return verdict


def _lines(ends: Ends, pipeline: Pipeline, counted: Iterable[Entry], progress: Progresses | None) -> list[Line]:
    entries = [*counted, *of_store(progress or {})]
    expected = [key for key in expected_lines(pipeline) if key[0] != "sinks" or progress is not None]
    topics = sorted({entry.topic for entry in entries} | {topic for _, _, topic in expected})
    return add_up(entries, ends.of(topics, [(entry.topic, entry.partition) for entry in entries]), expected)


def _recounts(consumer: Consumer, pipeline: Pipeline, lines: list[Line], look: Look) -> dict[str, Recount]:
    """Every topic read again, with the offsets marked up to which somebody has counted it."""
    declared = all_topics(pipeline)
    recounts = {}
    for name in dict.fromkeys(line.topic for line in lines):
        marks: dict[int, list[int]] = {}
        for line in lines:
            for partition, entry in line.entries.items() if line.topic == name else ():
                marks.setdefault(partition, []).extend((entry.counts.get(SKIPPED, 0), entry.next_offset))
        for (topic, partition), progress in look.after.items():
            if topic == name:
                marks.setdefault(partition, []).append(progress.next_offset)
        # And the ends of now: by these, results are held against what the processors say of them.
        for partition, reach in reaches(consumer, name).items():
            marks.setdefault(partition, []).append(reach.end)
        recounts[name] = Recount(consumer, name, declared.get(name), marks)
    return recounts


def _check_line(line: Line, verdict: Verdict, *, drained: bool) -> None:
    if not line.all_read:
        verdict.faults.append(f"{who(line)}: {line.missed} messages of {line.topic} are neither read nor waiting")
    if line.gap:
        verdict.faults.append(f"{who(line)}: {line.gap} readings of {line.topic} are not accounted for")
    if line.counts.get(SKIPPED) and not line.counts.get(STARTED_OVER):
        verdict.faults.append(f"{who(line)}: it skipped messages of {line.topic}, and was not started over")
    if line.beyond:
        verdict.faults.append(f"{who(line)}: it counts {line.beyond} offsets of {line.topic} beyond the broker's end")
    if line.behind:
        waiting = verdict.faults if drained else verdict.notes
        waiting.append(f"{who(line)}: {line.behind} messages of {line.topic} wait to be read")
    if expired := line.counts.get(EXPIRED):
        verdict.notes.append(f"{who(line)}: {expired} messages of {line.topic} had expired before they were read")
