"""A hundred ways to break a line, or to tamper with what it has counted, so that its ledger must no longer add up."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
from confluent_kafka import ConsumerGroupTopicPartitions, Message, TopicPartition
from ledger_line import PARTITIONS, MutableLine, Plant, Stage
from processor_line import PATIENCE_S

from headrace.ledger import Entry
from headrace.pipeline.tables import DLQ_SUFFIX
from headrace.runtime import MicroBatch, Outgoing, Passed
from headrace.stores import Position
from headrace.stores.port import Progress
from headrace.wire import Decoded, Refused

# ---- between the broker's client and the stage


def of_topic(stage: Stage, messages: Sequence[Message]) -> list[int]:
    """The places of the topic's messages in what a poll has brought."""
    return [n for n, m in enumerate(messages) if m.error() is None and m.topic() == stage.line.topic]


def consumed(change: Callable[[list[Message], list[int]], list[Message] | None], first: int = 100, **how: Any) -> Plant:
    """Change what a poll brings of the topic, from offset ``first`` on.

    Not the first messages of a partition: a stage that finds these too late asks for them again, and all is well.
    """

    def plant(stage: Stage) -> None:
        def changed(messages: list[Message], *_: Any) -> list[Message] | None:
            places = [n for n in of_topic(stage, messages) if messages[n].offset() >= first]
            return change(messages, places) if places else None

        stage.change_result(stage.app.consumer, "consume", changed, **how)

    return plant


def without(messages: list[Message], places: Sequence[int]) -> list[Message]:
    return [message for n, message in enumerate(messages) if n not in places]


def without_partition(messages: list[Message], places: list[int]) -> list[Message] | None:
    return without(messages, [n for n in places if messages[n].partition() == 1])


def batch_fault(change: Callable[[Callable[..., Any], MicroBatch, Any], Any], nth: int) -> Plant:
    """Change what a stage is given: ``change(real, batch, other)`` stands for its taking a batch of the topic."""

    def plant(stage: Stage) -> None:
        owner: Any = stage.sink if stage.streams is None else stage.streams
        method = "_keep" if stage.streams is None else "process"

        def when(batch: MicroBatch, *_: Any) -> bool:
            return len(batch) > 2 and batch.topic == stage.line.topic

        stage.change_call(owner, method, change, nth=nth, when=when)

    return plant


def less_one(batch: MicroBatch) -> MicroBatch:
    return batch._part([message for n, message in enumerate(batch._messages) if n != len(batch) // 2])


def decoded(change: Callable[[Decoded], Decoded | None], nth: int) -> Plant:
    """Change what becomes of messages."""

    def plant(stage: Stage) -> None:
        decoder = stage.sink._decoders[stage.line.topic] if stage.streams is None else stage.streams._decoder
        stage.change_result(decoder, "decode", lambda found, *_: change(found), nth=nth)

    return plant


def lose_reading(found: Decoded) -> Decoded | None:
    return replace(found, batch=found.batch.take(np.arange(len(found.batch) - 1))) if len(found.batch) else None


def double_reading(found: Decoded) -> Decoded | None:
    n = len(found.batch)
    return replace(found, batch=found.batch.take(np.array([0, *range(n)]))) if n else None


def lose_refused(found: Decoded) -> Decoded | None:
    return replace(found, refused=found.refused[1:]) if found.refused else None


def refuse_reading(found: Decoded) -> Decoded | None:
    if (less := lose_reading(found)) is None:
        return None
    return replace(less, refused=[*found.refused, Refused(0, "nan", "it never was")])


def lose_tombstone(found: Decoded) -> Decoded | None:
    return replace(found, tombstones=found.tombstones - 1) if found.tombstones else None


def gap_too_many(nth: int) -> Plant:
    def plant(stage: Stage) -> None:
        change = lambda found, *_: Passed(found.empty + 1, found.expired)  # noqa: E731
        stage.change_result(stage.app, "passed", change, nth=nth)

    return plant


def produced(
    change: Callable[[list[Outgoing]], list[Outgoing]], suffix: str, nth: int, *, always: bool = False
) -> Plant:
    """Change what is produced into the topics of a name that ends so."""

    def plant(stage: Stage) -> None:
        def changed(real: Callable[..., Any], outgoing: Sequence[Outgoing]) -> None:
            of = [one for one in outgoing if one.topic.endswith(suffix)]
            real([*(one for one in outgoing if not one.topic.endswith(suffix)), *change(of)])

        def when(outgoing: Sequence[Outgoing]) -> bool:
            return any(one.topic.endswith(suffix) for one in outgoing)

        stage.change_call(stage.app, "produce", changed, nth=nth, when=when, always=always)
        real: Any = stage.app.produce
        # Both stages give an iterator in places, which would be used up by looking at it.
        stage.app.produce = lambda outgoing: real(list(outgoing))  # type: ignore[method-assign]

    return plant


def edited(field: str, by: int) -> Callable[[list[Outgoing]], list[Outgoing]]:
    """The first result, with another number in it."""

    def change(outgoing: list[Outgoing]) -> list[Outgoing]:
        said = json.loads(outgoing[0].value)
        said[field] += by
        return [replace(outgoing[0], value=json.dumps(said).encode()), *outgoing[1:]]

    return change


def one_more(outgoing: list[Outgoing]) -> list[Outgoing]:
    said = json.loads(outgoing[0].value)
    said["start"] = "2023-12-31T00:00:00Z"
    return [replace(outgoing[0], value=json.dumps(said).encode()), *outgoing]


# ---- in the processors


def windows_fault(change: Callable[..., Any], nth: int) -> Plant:
    """Change how windows take readings."""

    def plant(stage: Stage) -> None:
        assert stage.streams is not None

        def fresh(made: dict[str, Any], *_: Any) -> dict[str, Any]:
            for windowed in made.values():
                stage.change_call(windowed, "add", change, nth=nth, when=lambda batch, *_: len(batch) > 1)
            return made

        real = stage.streams.fresh
        stage.streams.fresh = lambda: fresh(real())  # type: ignore[method-assign]

    return plant


def add_twice(real: Callable[..., Any], batch: Any, now_us: int) -> Any:
    real(batch, now_us)
    return real(batch, now_us)


def method_fault(method: str, change: Callable[..., Any], *, nth: int = 0, always: bool = False) -> Plant:
    """Change a method of the streams."""
    return lambda stage: stage.change_call(stage.streams, method, change, nth=nth, always=always)


def from_the_middle(stage: Stage) -> None:
    """The group has committed what nobody has read, and what was read is not asked again."""
    group = stage.app.config.consumer_group
    offsets = [TopicPartition(stage.line.topic, n, 200) for n in range(PARTITIONS)]
    [done] = stage.line.admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, offsets)]).values()
    done.result(PATIENCE_S)
    stage.sink._begins_late = lambda *_: False  # type: ignore[method-assign]
    stage.struck = True


def no_state(stage: Stage) -> None:
    """Offsets are committed, and the state is not written with them."""
    stage.app._before_commit.clear()
    stage.struck = True


# ---- in the store


def written(change: Callable[..., Any], nth: int, *, always: bool = False) -> Plant:
    """Change a write of the topic's rows."""

    def plant(stage: Stage) -> None:
        def when(_table: Any, batch: Any, position: Position) -> bool:
            return position.topic == stage.line.topic and len(batch) > 1

        stage.change_call(stage.store, "write", change, nth=nth, when=when, always=always)

    return plant


def no_rows(real: Callable[..., Any], table: Any, batch: Any, position: Position) -> Any:
    return real(table, batch.take(np.arange(0)), position)


def one_row_less(real: Callable[..., Any], table: Any, batch: Any, position: Position) -> Any:
    return real(table, batch.take(np.arange(len(batch) - 1)), position)


def nothing(_real: Callable[..., Any], _table: Any, _batch: Any, position: Position) -> Any:
    return Progress(position.next_offset, {})


def no_counts(real: Callable[..., Any], table: Any, batch: Any, position: Position) -> Any:
    return real(table, batch, replace(position, counts={}))


def double_counts(real: Callable[..., Any], table: Any, batch: Any, position: Position) -> Any:
    return real(table, batch, replace(position, counts={name: 2 * n for name, n in position.counts.items()}))


def counted_ahead(real: Callable[..., Any], table: Any, batch: Any, position: Position) -> Any:
    return real(table, batch, replace(position, next_offset=position.next_offset + 5))


@dataclass(frozen=True)
class Broken:
    """A way to break a stage while it runs; ``runs``: so often it is run, the first time broken."""

    name: str
    plant: Plant
    stage: str
    runs: int = 1


def broken() -> Iterator[Broken]:
    """Every way to break a running stage."""
    for stage in ("sinks", "processors"):
        for name, plant in {
            "a message is lost before the runtime": consumed(lambda m, at: without(m, at[:1])),
            "a poll is lost": consumed(without),
            "a message comes twice in one poll": consumed(lambda m, at: [*m[: at[0]], m[at[0]], *m[at[0] :]]),
            "a partition is never read": consumed(without_partition, first=0, always=True),
            "a batch is lost before the stage": batch_fault(lambda *_: [], 1),
            "a message is lost before the stage": batch_fault(lambda real, b, other: real(less_one(b), other), 1),
            "a batch is cut short": batch_fault(lambda real, b, o: real(b.before(b.next_offset - 2), o), 1),
            "the last batches are cut short": batch_fault(lambda real, b, o: real(b.before(b.next_offset - 2), o), 10),
            "a reading is lost": decoded(lose_reading, 1),
            "a reading is doubled": decoded(double_reading, 1),
            "a reading is refused that is none to refuse": decoded(refuse_reading, 1),
            "a dead letter is not counted": decoded(lose_refused, 1),
            "a tombstone is not counted": decoded(lose_tombstone, 1),
            "a gap is seen that is none": gap_too_many(1),
            "offsets are committed before anything is read": from_the_middle,
        }.items():
            yield Broken(f"{stage}: {name}", plant, stage)
    for name, plant in {
        "a batch is counted twice": batch_fault(lambda real, b, o: [*real(b, o), *real(b, o)], 1),
        "a write loses its rows": written(no_rows, 1),
        "a write loses a row": written(one_row_less, 1),
        "a write is said to be done": written(nothing, 0),
        "the next write is said to be done": written(nothing, 1),
        "a write loses its counts": written(no_counts, 1),
        "a write counts twice": written(double_counts, 1),
        "a write counts ahead": written(counted_ahead, 0),
        "writes stop, and offsets are committed": written(nothing, 1, always=True),
        "a dead letter is not sent": produced(lambda out: out[1:], DLQ_SUFFIX, 1),
    }.items():
        yield Broken(f"sinks: {name}", plant, "sinks")
    for name, plant in {
        "windows are given nothing": windows_fault(lambda real, b, now: real(b.take(np.arange(0)), now), 3),
        "windows are given a batch twice": windows_fault(add_twice, 3),
        "windows lack a reading": windows_fault(lambda real, b, now: real(b.take(np.arange(1, len(b))), now), 3),
        "counts are lost": method_fault("_cover", lambda *_: None, nth=1),
        "a window is not sent": produced(lambda out: out[1:], "-windows", 0),
        "a later window is not sent": produced(lambda out: out[1:], "-windows", 3),
        "a window has a reading too many": produced(edited("count", 1), "-windows", 1),
        "a window has a reading too few": produced(edited("count", -1), "-windows", 1),
        "a window is sent that is none": produced(one_more, "-windows", 1),
        "the ledger is published no more": produced(lambda _: [], ".ledger", 1, always=True),
    }.items():
        yield Broken(f"processors: {name}", plant, "processors")
    yield Broken("processors: checkpoints have no state", no_state, "processors", runs=2)


# ---- afterwards

Counts = dict[str, int]

TAMPERED: dict[str, dict[str, Counts]] = {
    "both": {
        "a message less": {"messages": -1},
        "a message more": {"messages": 1},
        "a message for a gap": {"messages": -1, "gaps": 1},
        "a gap for a message": {"messages": 1, "gaps": -1},
        "a message for an expired one": {"messages": -1, "expired": 1},
        "a message for a skipped one": {"messages": -1, "skipped": 1},
        "a reading more": {"read": 1},
        "a dead letter less": {"refused:not_json": -1},
        "a dead letter for a tombstone": {"refused:not_json": -1, "tombstones": 1},
    },
    "sinks": {
        "a row more": {"stored": 1},
        "a row less": {"stored": -1},
        "a duplicate for a row": {"stored": -1, "duplicate": 1},
        "an update for a row": {"stored": -1, "updated": 1},
        "an update more": {"updated": 1},
        "a row for a duplicate": {"stored": 1, "duplicate": -1},
        "a row dropped": {"stored": -1, "dropped:retention": 1},
        "a reading and its row less": {"stored": -1, "read": -1},
    },
    "processors": {
        "a reading in windows more": {"windowed": 1},
        "a late one for one in windows": {"windowed": -1, "late": 1},
        "a repeated one for one in windows": {"windowed": -1, "repeated": 1},
        "a reading in closed windows more": {"in_closed": 1, "in_open": -1},
        "a reading in closed windows less": {"in_closed": -1, "in_open": 1},
        "a reading less": {"windowed": -1, "read": -1},
    },
}
OFFSETS = {"an offset less": -1, "an offset more": 1, "a hundred offsets more": 100}

ROWS = {
    "a reading is gone": 'DELETE FROM "{raw}:rows" WHERE _arrival = (SELECT min(_arrival) FROM "{raw}:rows")',
    "the last reading is gone": 'DELETE FROM "{raw}:rows" WHERE _arrival = (SELECT max(_arrival) FROM "{raw}:rows")',
    "a device's readings are gone": 'DELETE FROM "{raw}:rows" WHERE _device = 2',
    "all readings are gone": 'DELETE FROM "{raw}:rows"',
    "a reading is there that never came": 'INSERT INTO "{raw}:rows" (_arrival, _device, ts, current)'
    " VALUES (1, 1, 1704067200000001, 1.0)",
    "an old reading is there that never came": 'INSERT INTO "{raw}:rows" (_arrival, _device, ts, current)'
    " VALUES (1, 1, 1, 1.0)",
    "a window is gone": 'DELETE FROM "{windows}:rows" WHERE _arrival = (SELECT min(_arrival) FROM "{windows}:rows")',
    "a device's windows are gone": 'DELETE FROM "{windows}:rows" WHERE _device = 1',
    "a window has a reading more": 'UPDATE "{windows}:rows" SET count = count + 1 WHERE _device = 1 AND count > 20',
    "a window has no reading": 'UPDATE "{windows}:rows" SET count = 0 WHERE _arrival ='
    ' (SELECT max(_arrival) FROM "{windows}:rows")',
    "a window is not final": 'UPDATE "{windows}:rows" SET final = 0 WHERE _arrival ='
    ' (SELECT max(_arrival) FROM "{windows}:rows")',
    "a window is there twice": 'INSERT INTO "{windows}:rows" SELECT 1, _device, start + 1, "end", count, current_mean,'
    ' revision, final FROM "{windows}:rows" LIMIT 1',
    "a partition's counts are gone": "DELETE FROM \":progress\" WHERE topic = '{raw}' AND partition = 1",
    "all counts of windows are gone": "DELETE FROM \":progress\" WHERE topic = '{windows}'",
}


def changed_entry(entry: Entry, changes: Counts, offsets: int = 0) -> Entry:
    """An entry that says something else."""
    counts = {**entry.counts, **{name: entry.counts.get(name, 0) + n for name, n in changes.items()}}
    return msgspec.structs.replace(entry, counts=counts, next_offset=entry.next_offset + offsets)


@dataclass(frozen=True)
class Tampered:
    """A way to change what was counted or stored: by a statement in the store, or in the ledger's topic."""

    name: str
    statement: str = ""
    ledger: Callable[[MutableLine], AbstractContextManager[None]] = lambda _: nullcontext()


def tampered(line: MutableLine) -> Iterator[Tampered]:
    """Every way to tamper with what the sound line has left."""
    windows = next(iter(line.pipeline.streams))
    for name, statement in ROWS.items():
        yield Tampered(f"store: {name}", statement.format(raw=line.topic, windows=windows))
    turns = itertools.cycle(range(PARTITIONS))
    for name, changes in {**TAMPERED["both"], **TAMPERED["sinks"]}.items():
        sets = ", ".join(f"'$.\"{n}\"', coalesce(counts ->> '$.\"{n}\"', 0) + {by}" for n, by in changes.items())
        yield _in_progress(line, next(turns), name, f"counts = json_set(counts, {sets})")
    for name, by in OFFSETS.items():
        yield _in_progress(line, next(turns), name, f"next_offset = next_offset + {by}")
    for name, changes in {**TAMPERED["both"], **TAMPERED["processors"]}.items():
        yield _in_ledger(next(turns), name, lambda entry, changes=changes: changed_entry(entry, changes))
    for name, by in OFFSETS.items():
        yield _in_ledger(next(turns), name, lambda entry, by=by: changed_entry(entry, {}, by))
    yield _in_ledger(next(turns), "its entry is gone", lambda _: None)


def _in_progress(line: MutableLine, partition: int, name: str, sets: str) -> Tampered:
    where = f"topic = '{line.topic}' AND partition = {partition}"
    statement = f'UPDATE ":progress" SET {sets} WHERE {where}'
    return Tampered(f"counts of sinks[{partition}]: {name}", statement)


def _in_ledger(partition: int, name: str, change: Callable[[Entry], Entry | None]) -> Tampered:
    return Tampered(f"ledger[{partition}]: {name}", ledger=lambda line: line.tampered(partition, change))
