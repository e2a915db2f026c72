"""The ledger adds up, and says so when it does not."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from headrace.ledger import Entry, LedgerReader, add_up, count_messages, encode
from headrace.pipeline import parse
from headrace.pipeline.tables import ledger_topic
from headrace.topics import CLIENT, Ends, ensure_topics, reaches, reader
from headrace.wire import Refused
from servers.kafka import KafkaPart

SINK = {"messages": 10, "read": 8, "stored": 7, "duplicate": 1, "refused:nan": 2}
STREAM = {"messages": 10, "read": 8, "windowed": 5, "late": 2, "filtered": 1, "refused:nan": 2}


def test_partitions_of_a_stage_are_summed() -> None:
    entries = [Entry("sinks", "t", "t", 0, 10, SINK), Entry("sinks", "t", "t", 1, 10, SINK)]
    (line,) = add_up(entries, {("t", 0): 10, ("t", 1): 13})
    assert (line.produced, line.behind, line.messages, line.readings, line.refused) == (23, 3, 20, 16, 4)
    assert line.sound
    assert line.upto == {0: 10, 1: 10}


def test_a_stream_and_a_sink_are_lines_of_their_own() -> None:
    entries = [Entry("sinks", "t", "t", 0, 10, SINK), Entry("processors", "s", "t", 0, 10, STREAM, watermark_us=5)]
    lines = {line.stage: line for line in add_up(entries, {("t", 0): 10})}
    assert lines["processors"].watermark_us == 5
    assert all(line.sound for line in lines.values())


def test_a_reading_that_nobody_accounts_for_is_a_gap() -> None:
    (line,) = add_up([Entry("sinks", "t", "t", 0, 10, {**SINK, "stored": 6})], {("t", 0): 10})
    assert line.gap == 1
    assert not line.sound
    (line,) = add_up([Entry("processors", "s", "t", 0, 10, {**STREAM, "late": 0})], {("t", 0): 10})
    assert line.gap == 2
    assert not line.sound


def test_a_message_that_was_never_read_is_missed() -> None:
    (line,) = add_up([Entry("sinks", "t", "t", 0, 12, SINK)], {("t", 0): 12})
    assert line.missed == 2
    assert not line.sound


def test_transaction_markers_are_gaps_and_no_loss() -> None:
    counts: dict[str, int] = {}
    count_messages(counts, 8, [Refused(0, "nan", "")], gaps=2, expired=3)
    assert counts == {"messages": 8, "gaps": 2, "expired": 3, "refused:nan": 1}
    (line,) = add_up([Entry("sinks", "t", "t", 0, 13, {**counts, "read": 7, "stored": 7})], {("t", 0): 13})
    assert line.sound


def test_offsets_that_nobody_has_seen_empty_are_missed() -> None:
    (line,) = add_up([Entry("sinks", "t", "t", 0, 13, {**SINK, "gaps": 2})], {("t", 0): 13})
    assert line.missed == 1
    assert not line.sound


def test_a_partition_without_an_entry_waits_to_be_read() -> None:
    (line,) = add_up([Entry("sinks", "t", "t", 0, 10, SINK)], {("t", 0): 10, ("t", 1): 1_000})
    assert (line.produced, line.behind, line.missed) == (1_010, 1_000, 0)


def test_a_line_that_has_counted_nothing_waits_for_everything() -> None:
    (line,) = add_up([], {("t", 0): 600, ("t", 1): 400}, [("processors", "s", "t")])
    assert (line.produced, line.behind, line.messages) == (1_000, 1_000, 0)


def test_counts_beyond_the_broker_s_end_are_no_sound_ledger() -> None:
    (line,) = add_up([Entry("sinks", "t", "t", 0, 10, SINK)], {("t", 0): 8})
    assert line.beyond == 2
    assert not line.sound


@pytest.mark.parametrize(
    ("marks", "least"),
    [([7, 5], 5), ([7], None), ([7, None], 7)],
    ids=["both", "one not begun", "one without readings"],
)
def test_a_stream_s_watermark_is_the_least_of_its_partitions(marks: list[int | None], least: int | None) -> None:
    entries = [
        Entry("processors", "s", "t", n, 10, STREAM if mark else {"messages": 10}, watermark_us=mark)
        for n, mark in enumerate(marks)
    ]
    (line,) = add_up(entries, {("t", 0): 10, ("t", 1): 10})
    assert line.watermark_us == least


def test_tombstones_are_messages_under_their_own_name() -> None:
    counts: dict[str, int] = {}
    count_messages(counts, messages=8, refused=[Refused(0, "nan", "")], tombstones=2)
    assert counts == {"messages": 8, "tombstones": 2, "refused:nan": 1}
    (line,) = add_up([Entry("sinks", "t", "t", 0, 8, {**counts, "read": 5, "stored": 5})], {("t", 0): 8})
    assert (line.refused, line.sound) == (1, True)


def test_devices_that_send_from_the_future_are_named_within_bounds() -> None:
    counts: dict[str, int] = {}
    names = ["a", "\x00\n" + "b" * 500, "€" * 512, *(f"{n}" + "😀" * 500 for n in range(200))]
    count_messages(counts, 203, [Refused(0, "future", "", name) for name in names])
    assert (counts["refused:future"], counts["future:a"]) == (203, 1)
    assert counts["future:??" + "b" * 62] == counts["future:" + "€" * 21] == 1
    assert sum(name.startswith("future:") for name in counts) == 100
    # What a store keeps of it has its limit.
    assert len(json.dumps(counts, ensure_ascii=False).encode()) < 16_000


def test_what_a_former_owner_says_late_does_not_count(embedded_broker: KafkaPart, name: str) -> None:
    pipeline = parse(f'name = "{name}"\n[topics.t]\nfields = {{ x = "float" }}\n')
    ensure_topics(AdminClient({**CLIENT, "bootstrap.servers": embedded_broker.address}), pipeline)
    producer = Producer({**CLIENT, "bootstrap.servers": embedded_broker.address})
    said = [Entry("processors", "s", "t", 0, upto, STREAM, epoch=epoch) for upto, epoch in ((7, 1), (9, 2), (8, 1))]
    for entry in said:
        producer.produce(ledger_topic(pipeline), encode(entry), entry.key)
    producer.flush()
    entries = LedgerReader(reader(embedded_broker.address), pipeline)
    assert entries.refresh() == [said[1]]
    entries.close()


class Asked:
    """A consumer that notes what is asked of it."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        self.asked.append(name)
        return getattr(self._consumer, name)


def test_the_ends_of_all_partitions_are_one_request(embedded_broker: KafkaPart, name: str) -> None:
    admin = AdminClient({**CLIENT, "bootstrap.servers": embedded_broker.address})
    topics = {f"{name}-a": 3, f"{name}-b": 1}
    for made in admin.create_topics([NewTopic(topic, n) for topic, n in topics.items()]).values():
        made.result()
    producer = Producer({**CLIENT, "bootstrap.servers": embedded_broker.address})
    consumer = reader(embedded_broker.address)
    asked = Asked(consumer)
    ends = Ends(cast(Consumer, asked))
    wanted = {(topic, partition): 0 for topic, n in topics.items() for partition in range(n)}
    for round_ in range(3):
        assert ends.of([*topics, f"{name}-absent"][: 2 + (round_ == 0)]) == wanted
        for place in wanted:
            producer.produce(place[0], b"x", partition=place[1])
            wanted[place] += 1
            producer.flush()
    assert asked.asked == ["list_topics"] * 3 + ["offsets_for_times"] * 3
    # Somebody has counted a partition that was not there before.
    admin.create_partitions([NewPartitions(f"{name}-b", 2)])[f"{name}-b"].result()
    assert ends.of(topics) == wanted
    assert ends.of(topics, [(f"{name}-b", 1)]) == {**wanted, (f"{name}-b", 1): 0}
    assert {(topic, n): reach.end for topic in topics for n, reach in reaches(consumer, topic).items()} == {
        **wanted,
        (f"{name}-b", 1): 0,
    }
    consumer.close()


def test_what_a_store_does_not_keep_is_accounted_for_as_dropped() -> None:
    counts = {**SINK, "stored": 5, "dropped:retention": 2}
    (line,) = add_up([Entry("sinks", "t", "t", 0, 10, counts)], {("t", 0): 10})
    assert line.dropped == 2
    assert line.sound
