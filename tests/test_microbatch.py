"""The micro-batch runtime on real brokers: what its rows promise, and its windows against Quix's own."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from processor_line import PATIENCE_S, ProcessorLine, last_readings, readings, until

from headrace.errors import SettingsError
from headrace.runtime import Consumption, MicroBatch, MicroBatchApplication
from headrace.runtime.quix import BaseSink
from headrace.topics import CLIENT, ONCE_IN_ORDER
from servers.kafka import KafkaPart

pytestmark = pytest.mark.slow

COLUMNS = ("count", "current_count", "current_min", "current_max", "current_mean")


class Topic:
    """A topic of plain bytes."""

    def __init__(self, address: str, name: str, partitions: int) -> None:
        self.name = name
        self._settings = {**CLIENT, "bootstrap.servers": address}
        admin = AdminClient(self._settings)
        for made in admin.create_topics([NewTopic(name, partitions)]).values():
            made.result(PATIENCE_S)
        until(lambda: name in admin.list_topics(timeout=5).topics, "the topic")

    def send(self, partition: int, values: list[bytes]) -> None:
        """Send, and wait until the broker has all."""
        producer = Producer({**self._settings, **ONCE_IN_ORDER, "linger.ms": 5})
        for value in values:
            producer.produce(self.name, value, partition=partition)
        assert producer.flush(PATIENCE_S) == 0


@dataclass
class Seen:
    """What an application's rows brought."""

    values: dict[int, list[bytes | None]] = field(default_factory=lambda: defaultdict(list))
    next_offset: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    idles: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    rows: int = 0
    deadline: float = field(default_factory=lambda: time.monotonic() + PATIENCE_S)

    def note(self, batch: MicroBatch) -> None:
        """Note a row; fails where one is lost, comes twice, or says idle while behind."""
        assert time.monotonic() < self.deadline, f"never came: {self}"
        self.rows += 1
        if batch.idle:
            assert (batch.first_offset, batch.next_offset, len(batch)) == (self.next_offset[batch.partition],) * 2 + (
                0,
            )
            self.idles[batch.partition] += 1
            return
        assert batch.first_offset == self.next_offset[batch.partition]
        assert batch.next_offset == batch.first_offset + len(batch)
        assert [batch.offset(place) for place in range(len(batch))] == list(
            range(batch.first_offset, batch.next_offset)
        )
        self.next_offset[batch.partition] = batch.next_offset
        self.values[batch.partition] += batch.values


@contextlib.contextmanager
def application(
    broker: KafkaPart, name: str, folder: Path, *, batch: int = 1_000, commit_s: float = 0.1, **settings: Any
) -> Iterator[MicroBatchApplication]:
    app = MicroBatchApplication(
        broker=broker.address,
        group=name,
        instance="1",
        state=folder / "state",
        consumes=Consumption(batch, commit_s),
        **settings,
    )
    yield app
    # A producer that was never flushed would speak up when it is collected.
    app.flush(PATIENCE_S)


def run(app: MicroBatchApplication, topic: Topic, then: Callable[[MicroBatch], None]) -> None:
    """Run until ``then`` stops the application."""
    app.batches(topic.name).update(then)
    app.run()


def test_a_partition_that_was_lost_while_it_was_paused_is_read_when_it_is_back(
    broker: KafkaPart, name: str, tmp_path: Path
) -> None:
    """As when the store is away, and the broker goes before the pause is over."""
    line = ProcessorLine(broker.address, name, tmp_path, partitions=1)
    line.make_topics()
    line.send(readings(2, 20))
    with application(broker, name, tmp_path) as app:
        begin = [TopicPartition(line.topic, 0, 0)]
        app.consumer.assign(begin)
        until(lambda: app.consumer.consume(1, timeout=0.1), "a message")
        app.consumer.trigger_backpressure({}, 1.0)
        app.consumer.reset_backpressure()
        app.consumer.unassign()
        app.consumer.assign(begin)
        until(lambda: app.consumer.consume(1, timeout=0.1), "a message of the partition that is back")
    line.close()


def test_windows_are_quix_s_own(broker: KafkaPart, name: str, tmp_path: Path) -> None:
    # No reading is late, as Quix has its own ways with those: out of order by less than the grace alone.
    line = ProcessorLine(broker.address, name, tmp_path, partitions=2, grace="2s", repeats='"keep"')
    line.make_topics()
    line.send([*readings(6, 600), *last_readings(6, 120)])
    expected = line.expected()
    assert len(expected) == 6 * 7
    with line.processor() as processor:
        line.await_windows([processor])
    ours = {
        (device, start // 1_000, w["end"] // 1_000): tuple(w[c] for c in COLUMNS)
        for (device, start), w in line.results().items()
    }
    assert ours == quix_windows(broker.address, line.topic, name, tmp_path, len(expected))
    line.close()


def quix_windows(
    address: str, topic: str, name: str, folder: Path, count: int
) -> dict[tuple[str, int, int], tuple[Any, ...]]:
    """What Quix's own tumbling windows say, by device, start and end (ms)."""
    from quixstreams import Application
    from quixstreams.dataframe.windows import Count, Max, Mean, Min

    app = Application(
        broker_address=address,
        consumer_group=f"{name}-quix",
        auto_offset_reset="earliest",
        state_dir=folder / "quix",
        loglevel=None,
        consumer_extra_config={"enable.metrics.push": False},
        producer_extra_config={"enable.metrics.push": False},
    )
    found: dict[tuple[str, int, int], tuple[Any, ...]] = {}

    def note(window: dict[str, Any], key: str, *_: object) -> None:
        assert (key, window["start"], window["end"]) not in found
        found[key, window["start"], window["end"]] = tuple(window[column] for column in COLUMNS)

    source = app.topic(
        topic, key_deserializer="str", value_deserializer="json", timestamp_extractor=lambda value, *_: value["ts"]
    )
    windows = (
        app.dataframe(source)
        .tumbling_window(10_000, grace_ms=2_000)
        .agg(
            count=Count(),
            current_count=Count(),
            current_min=Min("current"),
            current_max=Max("current"),
            current_mean=Mean("current"),
        )
    )
    windows.final(closing_strategy="key").update(note, metadata=True)
    app.run(count=count, timeout=PATIENCE_S)
    return found


def test_every_message_comes_once_and_in_order(broker: KafkaPart, name: str, tmp_path: Path) -> None:
    topic, seen = Topic(broker.address, name, 3), Seen()
    sent = {0: [b"%d" % n for n in range(20_000)], 1: [b"x"], 2: [b"%d" % -n for n in range(3_000)]}
    for partition, values in sent.items():
        topic.send(partition, values)
    with application(broker, name, tmp_path, batch=100) as app:

        def note(batch: MicroBatch) -> None:
            assert len(batch) <= 100
            seen.note(batch)
            if sum(map(len, seen.values.values())) == 23_001:
                app.stop()

        run(app, topic, note)
    assert seen.values == sent


def test_a_partition_is_idle_only_at_its_end_and_never_while_behind(
    broker: KafkaPart, name: str, tmp_path: Path
) -> None:
    topic, seen = Topic(broker.address, name, 3), Seen()
    topic.send(0, [b"%d" % n for n in range(6_000)])
    topic.send(1, [b"one"])
    again = False
    with application(broker, name, tmp_path, batch=10, silent_s=0.05, tick_s=0.05) as app:

        def note(batch: MicroBatch) -> None:
            nonlocal again
            # A row says idle at an end alone. What is sent again may be under way when the next one does.
            ends = {0: (6_000, 6_500) if again else (6_000,), 1: (1,), 2: (0,)}
            assert not batch.idle or seen.next_offset[batch.partition] in ends[batch.partition]
            seen.note(batch)
            if not again and all(seen.idles[partition] >= 3 for partition in range(3)):
                topic.send(0, [b"again"] * 500)
                seen.idles.clear()
                again = True
            if not batch.idle:
                seen.idles[batch.partition] = 0
            if seen.next_offset[0] == 6_500 and all(seen.idles[partition] >= 2 for partition in range(3)):
                app.stop()

        run(app, topic, note)
    assert seen.next_offset == {0: 6_500, 1: 1, 2: 0}


class AwaySink(BaseSink):
    """A sink that is away while ``away`` says so, and forgets then what it was given."""

    def __init__(self, away: Callable[[], bool]) -> None:
        super().__init__(lambda: None)
        self.away = away
        self.taken: dict[int, list[bytes | None]] = defaultdict(list)
        self.kept: dict[int, list[bytes | None]] = defaultdict(list)

    def add(self, *_: object, **__: object) -> None:
        raise TypeError

    def flush(self) -> None:
        from headrace.runtime.quix import SinkBackpressureError

        if any(self.taken.values()) and self.away():
            self.taken.clear()
            raise SinkBackpressureError(retry_after=0.05)
        for partition, values in self.taken.items():
            self.kept[partition] += values
        self.taken.clear()

    def on_paused(self) -> None:
        self.taken.clear()


def test_what_a_sink_that_is_away_could_not_keep_is_read_again_the_rows_that_waited_too(
    broker: KafkaPart, name: str, tmp_path: Path
) -> None:
    topic = Topic(broker.address, name, 6)
    sent = {partition: [b"%d" % n for n in range(300)] for partition in range(6)}
    for partition, values in sent.items():
        topic.send(partition, values)
    waited: list[bool] = []
    more = False

    def away() -> bool:
        # At first, and then when other partitions' rows of the same poll wait behind the one at hand.
        waited.append(more)
        return len(waited) < 2 or (more and sum(waited[1:]) == 1)

    sink, deadline = AwaySink(away), time.monotonic() + PATIENCE_S
    with application(broker, name, tmp_path, commit_s=0) as app:
        app.flush_at_commit(sink)

        def take(batch: MicroBatch) -> None:
            nonlocal more
            assert time.monotonic() < deadline, {n: len(values) for n, values in sink.kept.items()}
            more = batch.more
            sink.taken[batch.partition] += batch.values
            if sum(map(len, sink.kept.values())) >= 1_800:
                app.stop()

        run(app, topic, take)
    assert any(waited)
    assert sink.kept == sent


def test_a_message_that_comes_to_a_silent_partition_while_a_sink_is_away_is_not_passed_over(
    broker: KafkaPart, name: str, tmp_path: Path
) -> None:
    topic = Topic(broker.address, name, 3)
    topic.send(0, [b"first"])
    times = 0

    def away() -> bool:
        nonlocal times
        times += 1
        if times == 2:
            topic.send(0, [b"meanwhile"])
            topic.send(2, [b"meanwhile"])
        return times == 2

    sink, deadline = AwaySink(away), time.monotonic() + PATIENCE_S
    silent: set[int] = set()
    begun = all_came = False
    with application(broker, name, tmp_path, silent_s=0.05, tick_s=0.05) as app:
        app.flush_at_commit(sink)

        def take(batch: MicroBatch) -> None:
            nonlocal begun, all_came
            assert time.monotonic() < deadline, (dict(sink.kept), silent)
            sink.taken[batch.partition] += batch.values
            if batch.idle:
                silent.add(batch.partition)
            if len(silent) == 3 and not begun:
                topic.send(1, [b"second"])
                begun = True
            if sum(map(len, sink.kept.values())) >= 4 and not all_came:
                silent.clear()
                all_came = True
            if len(silent) == 3 and all_came:  # silence is noticed again after the pause
                app.stop()

        run(app, topic, take)
    assert sink.kept == {0: [b"first", b"meanwhile"], 1: [b"second"], 2: [b"meanwhile"]}


def test_what_is_read_again_from_a_silent_end_belongs_to_the_next_commit(
    embedded_broker: KafkaPart, name: str, tmp_path: Path
) -> None:
    topic = Topic(embedded_broker.address, name, 1)
    topic.send(0, [b"%d" % n for n in range(10)])
    sink, deadline, rewound = AwaySink(lambda: False), time.monotonic() + PATIENCE_S, False
    with application(embedded_broker, name, tmp_path, silent_s=0.05, tick_s=0.05) as app:
        app.flush_at_commit(sink)

        def take(batch: MicroBatch) -> None:
            nonlocal rewound
            assert time.monotonic() < deadline, sink.kept
            sink.taken[0] += batch.values
            if batch.idle and len(sink.kept[0]) == 10 and not rewound:
                app.rewind(batch.topic, 0, 5)
                rewound = True
            if len(sink.kept[0]) == 15:
                app.stop()

        run(app, topic, take)
    assert sink.kept[0][10:] == [b"5", b"6", b"7", b"8", b"9"]


def test_a_batch_of_nothing_is_refused() -> None:
    with pytest.raises(SettingsError, match="micro-batch of no messages"):
        Consumption(batch=0)


def read_to_end(broker: KafkaPart, group: str, topic: Topic, folder: Path, *, since: int = 0) -> dict[str, int]:
    """What of the offsets from ``since`` a run to the end finds: messages, empty and expired offsets, the end."""
    found = {"messages": 0, "empty": 0, "expired": 0, "next": since}
    with application(broker, group, folder, batch=7) as app:

        def count(batch: MicroBatch) -> None:
            passed = app.passed(batch, found["next"])
            found["messages"] += len(batch)
            found["empty"] += passed.empty
            found["expired"] += passed.expired
            found["next"] = max(found["next"], batch.next_offset)
            if batch.idle:
                app.stop()

        run(app, topic, count)
    return found


def send_transaction(topic: Topic, messages: int, *, commit: bool = True) -> None:
    producer = Producer({**topic._settings, "transactional.id": f"{topic.name}-t"})
    producer.init_transactions(PATIENCE_S)
    producer.begin_transaction()
    for n in range(messages):
        producer.produce(topic.name, str(n), partition=0)
    producer.flush(PATIENCE_S)
    if commit:
        producer.commit_transaction(PATIENCE_S)
    else:
        producer.abort_transaction(PATIENCE_S)


def test_offsets_that_hold_nothing_are_told_from_those_that_were_left_out(
    broker: KafkaPart, name: str, tmp_path: Path
) -> None:
    topic = Topic(broker.address, name, 1)
    send_transaction(topic, 10)
    send_transaction(topic, 5, commit=False)
    send_transaction(topic, 20)
    # Three markers, and what was taken back.
    assert read_to_end(broker, name, topic, tmp_path / "a") == {"messages": 30, "empty": 8, "expired": 0, "next": 38}
    # Whoever goes on at a marker sees it empty, though nothing was delivered before it.
    assert read_to_end(broker, name, topic, tmp_path / "b", since=37)["empty"] == 1
    # The group reads on from the end, and this one has counted nothing: no message of the first ten is a gap.
    send_transaction(topic, 1)
    left_out = read_to_end(broker, name, topic, tmp_path / "c")
    assert left_out == {"messages": 1, "empty": 1, "expired": 0, "next": 40}


def test_deleted_messages_have_expired(broker: KafkaPart, name: str, tmp_path: Path) -> None:
    topic = Topic(broker.address, name, 1)
    send_transaction(topic, 10)
    send_transaction(topic, 20)
    where = TopicPartition(name, 0, 12)
    admin = AdminClient(topic._settings)
    admin.delete_records([where])[where].result(PATIENCE_S)
    found = read_to_end(broker, name, topic, tmp_path)
    assert found == {"messages": 19, "empty": 1, "expired": 12, "next": 32}
