"""What a stream says, and when: provisional results, late readings, and what moves its clock."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Message, TopicPartition
from processor_line import (
    BASE_MS,
    PATIENCE_S,
    MakeLine,
    ProcessorLine,
    fill_the_store,
    last_readings,
    making_lines,
    message_of,
    readings,
    until,
)
from window_oracle import Reading

from headrace.ledger import Entry, decode
from headrace.pipeline import all_tables
from headrace.pipeline.tables import late_topic, ledger_topic
from headrace.stores import open_store
from headrace.topics import reaches, reader
from headrace.wire import Decoder
from servers.kafka import KafkaPart

pytestmark = pytest.mark.slow

DEVICES = 8


@pytest.fixture
def lines(name: str, tmp_path: Path) -> Iterator[MakeLine]:
    """Makes lines on a broker, with their topics; their readers are closed at the end."""
    with making_lines(name, tmp_path) as make:
        yield make


@pytest.fixture
def line(embedded_broker: KafkaPart, lines: MakeLine) -> ProcessorLine:
    """A line of tumbling windows by device."""
    return lines(embedded_broker.address)


def part(number: int, each: int = 300) -> list[Reading]:
    """Readings of half a minute or so, each part after the one before; a device is always in one room."""
    made = readings(DEVICES, each, from_s=100 * number)
    return [replace(one, values={**one.values, "room": f"r{one.device[-1]}"}) for one in made]


# ---- late readings


def messages_in(line: ProcessorLine, topic: str) -> list[Message]:
    """All that a topic holds, as one who reads committed messages sees it."""
    consumer = reader(line.address, **{"isolation.level": "read_committed"})
    found = []
    try:
        there = reaches(consumer, topic)
        consumer.assign([TopicPartition(topic, n, 0) for n in there])
        ended = 0
        while ended < len(there):
            message = consumer.poll(5)
            assert message is not None
            if message.error() is None:
                found.append(message)
            else:
                ended += 1
    finally:
        consumer.close()
    return found


def disordered() -> tuple[list[Reading], list[Reading], list[Reading]]:
    """On time, late, and corrections: of windows of 10 s by device with 2 s of grace."""
    on_time = part(0)
    late = [Reading(f"meter-{n}", (BASE_MS + n * 1_000 + 7) * 1_000, {"current": 5.0, "energy": 7}) for n in range(4)]
    earlier = on_time[-DEVICES]
    corrections = [replace(earlier, values={**earlier.values, "energy": -5})]
    return on_time, late, corrections


def after_disorder(line: ProcessorLine) -> list[Message]:
    """The late topic's messages, when all is said."""
    on_time, late, corrections = disordered()
    line.send([*on_time, *late, *corrections, *corrections, *last_readings(DEVICES, 100)])
    with line.processor() as processor:
        line.await_windows([processor])
        ledger = line.await_ledger([processor])
        counted = line.counts()
        assert {name: ledger.counts[name] for name in counted} == counted
        assert processor.stop() == 0
    assert counted["late"] == len(late)
    assert counted["corrected"] >= 2
    topic = late_topic(line.pipeline, line.stream)
    assert topic == f"{line.stream}.late"
    return messages_in(line, topic)


def seconds(text: bytes | str) -> float:
    """A time in ISO 8601 as seconds from the tests' beginning."""
    return datetime.fromisoformat(text if isinstance(text, str) else text.decode()).timestamp() - BASE_MS / 1_000


def test_late_readings_become_dead_letters_that_say_what_they_are_missing_from(
    embedded_broker: KafkaPart, lines: MakeLine
) -> None:
    line = lines(embedded_broker.address, late='"dead-letter"')
    letters = after_disorder(line)
    _, late, corrections = disordered()
    headers = [dict(letter.headers()) for letter in letters]
    assert {header["stream"] for header in headers} == {line.stream.encode()}
    counted = line.counts()
    reasons = Counter(header["reason"] for header in headers)
    assert reasons == {b"late": counted["late"], b"corrected": counted["corrected"]}
    for header in headers:
        assert seconds(header["end"]) - seconds(header["start"]) == 10
    # Each is a message that its topic would take, and says what was sent.
    decoder = Decoder(line.pipeline.topics[line.topic])
    found: dict[bytes, list[tuple[str, int, Any]]] = {b"late": [], b"corrected": []}
    for letter, header in zip(letters, headers, strict=True):
        decoded = decoder.decode([letter.value()], Envelope(letter))
        assert not decoded.refused
        [device], [ts_us] = decoded.batch.devices, decoded.batch.ts_us.tolist()
        assert letter.key() == device.encode()
        assert seconds(header["start"]) <= ts_us / 1e6 - BASE_MS / 1e3 < seconds(header["end"])
        found[header["reason"]].append((device, ts_us, decoded.batch.value("energy", 0)))
    assert sorted(found[b"late"]) == sorted((one.device, one.ts_us, one.values["energy"]) for one in late)
    corrected = Counter(found[b"corrected"])
    assert all(corrected[one.device, one.ts_us, one.values["energy"]] == 2 for one in corrections)


class Envelope:
    """What a decoder asks about a message of the late topic."""

    def __init__(self, message: Message) -> None:
        self._message = message

    def timestamp_ms(self, place: int) -> int:
        return int(self._message.timestamp()[1])

    def key(self, place: int) -> bytes | None:
        key: bytes | None = self._message.key()
        return key

    def all_keyed(self) -> bool:
        return True


def test_the_bounds_of_windows_to_heal_are_told_once_a_batch(embedded_broker: KafkaPart, lines: MakeLine) -> None:
    line = lines(embedded_broker.address, late='"heal"')
    told = [json.loads(message.value()) for message in after_disorder(line)]
    _, late, corrections = disordered()
    assert all(set(one) == {"device", "start", "end", "reason", "reading"} for one in told)
    for one in told:
        assert seconds(one["start"]) <= seconds(one["reading"]) < seconds(one["end"])
        assert seconds(one["end"]) - seconds(one["start"]) == 10
    bounds = {(one["device"], seconds(one["start"]), one["reason"]) for one in told}
    assert {(one.device, 0.0, "late") for one in late} <= bounds
    for one in corrections:
        start = (one.ts_us / 1e6 - BASE_MS / 1e3) // 10 * 10
        assert (one.device, start, "corrected") in bounds


def test_a_hopping_window_s_late_reading_names_the_windows_that_lack_it(
    embedded_broker: KafkaPart, lines: MakeLine
) -> None:
    line = lines(
        embedded_broker.address, late='"heal"', grace="0s", window='kind = "hopping", size = "10s", step = "5s"'
    )
    at = [1, 12, 8, 3, 60]
    line.send([Reading("meter-0", (BASE_MS + 1_000 * second) * 1_000, {"current": 1.0, "energy": 1}) for second in at])
    with line.processor() as processor:
        line.await_windows([processor])
        line.await_ledger([processor])
        assert processor.stop() == 0
    told = [json.loads(message.value()) for message in messages_in(line, f"{line.stream}.late")]
    # 8 is in time for the window from 5 on and missing from that from 0 on; 3 is missing from both of its own.
    assert {(seconds(one["start"]), seconds(one["end"])) for one in told} == {(0.0, 10.0), (-5.0, 5.0)}
    assert {seconds(one["reading"]) for one in told} == {8.0, 3.0}


def test_groups_name_themselves_and_the_device_in_what_is_to_be_healed(
    embedded_broker: KafkaPart, lines: MakeLine
) -> None:
    line = lines(embedded_broker.address, late='"heal"', grace="0s", partitions=1, by='["room"]')
    sent = [("meter-0", 1), ("meter-1", 2), ("meter-0", 12), ("meter-1", 13), ("meter-1", 3), ("meter-0", 60)]
    line.send(
        Reading(device, (BASE_MS + 1_000 * second) * 1_000, {"current": 1.0, "energy": 1, "room": "hall"})
        for device, second in [*sent, ("meter-1", 60)]
    )
    with line.processor() as processor:
        line.await_windows([processor])
        line.await_ledger([processor])
        assert processor.stop() == 0
    [told] = [json.loads(message.value()) for message in messages_in(line, f"{line.stream}.late")]
    assert (told["group"], told["device"], told["reason"]) == ("hall", "meter-1", "late")
    assert (seconds(told["start"]), seconds(told["end"]), seconds(told["reading"])) == (0, 10, 3)


# ---- when windows emit


def said_provisionally(line: ProcessorLine) -> set[tuple[str, int]]:
    """The windows of which there is a provisional result."""
    line.drain()
    return {key for key, _ in line.provisional}


@pytest.mark.parametrize(
    "emit", [{"emit": '"at-once"'}, {"emit": '"max-delay"', "max_delay": '"200ms"'}], ids=["at-once", "max-delay"]
)
def test_provisional_results_come_before_the_final_one_which_is_what_the_store_keeps(
    emit: dict[str, str], embedded_broker: KafkaPart, lines: MakeLine
) -> None:
    line = lines(embedded_broker.address, **emit)
    line.send(part(0, 60))
    with line.processor() as processor:
        until(
            lambda: len(said_provisionally(line)) >= DEVICES,
            "a provisional result of every device",
            running=[processor],
        )
        line.send([*part(1), *last_readings(DEVICES, 300)])
        expected = line.expected()
        line.await_windows([processor], expected)
        ledger = line.await_ledger([processor])
        assert (ledger.counts["closed"], ledger.counts["in_closed"]) == (
            len(expected),
            sum(window["count"] for window in expected.values()),
        )
        # The last readings' own windows are open: all that is to be said of them is provisional.
        opened = {(one.device, one.ts_us) for one in last_readings(DEVICES, 300)}
        until(lambda: opened <= said_provisionally(line), "the open windows")
        assert processor.stop() == 0
    assert all(window["revision"] == 0 for _, window in line.provisional)
    assert all(key in opened or said["count"] <= expected[key]["count"] for key, said in line.provisional)
    fill_the_store(line)
    table = all_tables(line.pipeline)[line.stream]
    store = open_store(line.settings.store, readonly=True)
    try:
        rows = {name: list(values) for name, values in store.latest(table, 100_000).items()}
    finally:
        store.close()
    columns = zip(rows["device"], rows["start"], rows["count"], rows["final"], strict=True)
    kept = {(device, start): (count, final) for device, start, count, final in columns}
    final = {key: (window["count"], True) for key, window in expected.items()}
    assert kept == final | dict.fromkeys(opened, (1, False))


# ---- clocks


def entries(line: ProcessorLine) -> list[Entry]:
    """The newest ledger entries of the line's stream."""
    newest: dict[bytes | None, Entry] = {}
    for message in messages_in(line, ledger_topic(line.pipeline)):
        entry = decode(message.value())
        if entry.name == line.stream:
            newest[message.key()] = entry
    return list(newest.values())


def test_a_reading_from_the_future_moves_no_clock_and_its_device_is_named(line: ProcessorLine) -> None:
    tomorrow_us = time.time_ns() // 1_000 + 86_400_000_000
    ahead = message_of(Reading("meter-1", tomorrow_us, {"current": 1.0, "energy": 1}))
    line.send(part(0))
    line.send_messages([(b"meter-1", ahead, 1), (b"meter-1", ahead, 1), (b"meter-5", ahead.replace(b"r-1", b"r-5"), 1)])
    line.send([*part(1), *last_readings(DEVICES, 300)])
    with line.processor() as processor:
        line.await_windows([processor])
        ledger = line.await_ledger([processor])
        assert processor.stop() == 0
    assert ledger.counts["refused:future"] == 3
    assert ledger.counts["late"] == 0
    # The clock is the last reading's, moved on by the wall clock while all is silent; the watermark is behind it.
    assert ledger.watermark_us is not None
    clock_s = ledger.watermark_us / 1e6 + 2 - BASE_MS / 1e3
    assert 300 <= clock_s < 300 + PATIENCE_S
    named = {name: n for entry in entries(line) for name, n in entry.counts.items() if name.startswith("future:")}
    assert named == {"future:meter-1": 2, "future:meter-5": 1}


def test_the_furthest_device_closes_all_of_its_partition_where_the_clock_is_the_partition_s(
    embedded_broker: KafkaPart, lines: MakeLine
) -> None:
    line = lines(embedded_broker.address, clock='"partition"', partitions=2)
    ahead = [replace(one, ts_us=one.ts_us + 3_000_000) if one.device == "meter-0" else one for one in part(0)]
    line.send([*ahead, *last_readings(1, 100)])
    with line.processor() as processor:
        line.await_windows([processor])
        counted, ledger = line.counts(), line.await_ledger([processor])
        assert processor.stop() == 0
    assert {name: ledger.counts[name] for name in counted} == counted
    # Its neighbours are behind it by more than the grace; those in the other partition are not.
    assert counted["late"] > 0
    assert {device for device, _ in line.results()} == {f"meter-{n}" for n in range(DEVICES)}
