"""Messages of every size around every limit: each is stored or a dead letter, and none stops a service."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from confluent_kafka import Message, Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from processor_line import BASE_MS, PATIENCE_S, ProcessorLine, fill_the_store, until

from headrace.batch import Batch
from headrace.ledger import LedgerReader
from headrace.pipeline import parse
from headrace.runtime import Outgoing, dead_letter, size_of
from headrace.runtime.limits import HEADER_BYTES
from headrace.stores import open_store
from headrace.topics import BROKER_BYTES, CLIENT, ENVELOPE_BYTES, reader
from headrace.verify import verify
from processors.windows import WindowSpec
from processors.windows.repartition.local import Local
from processors.windows.repartition.update import Panes, times_of
from servers.kafka import KafkaPart

pytestmark = pytest.mark.slow

LIMIT = 1_000_000
"""The longest message that these topics believe."""
COMPRESSION = ("none", "gzip", "snappy", "lz4", "zstd")
TIMES_MS = iter(range(BASE_MS, BASE_MS + 1_000_000))


class Anything:
    """Limits that are all the same."""

    def __init__(self, most: int) -> None:
        self.most = most

    def of(self, topic: str) -> int:
        return self.most


@pytest.mark.parametrize("room", [-1_000_000, -1, 0, 1, 1_000])
def test_a_dead_letter_is_whole_where_it_fits_to_the_last_byte(room: int) -> None:
    message = Outgoing("t.dlq", b"key", b"x" * 100_000, 5)
    said = {"reason": "not_json", "detail": "no JSON"}
    whole = Outgoing("t.dlq", b"key", message.value, 5, [(name, text.encode()) for name, text in said.items()])
    letter = dead_letter(message, said, Anything(size_of(whole) + room))
    if room >= 0:
        assert letter == whole
        return
    assert (letter.key, letter.value, letter.timestamp_ms) == (b"key", b"", 5)
    assert dict(letter.headers) == {
        "reason": b"not_json",
        "detail": b"no JSON",
        "carried": b"by reference",
        "size": b"100000",
        "digest": b"sha256:" + hashlib.sha256(message.value).hexdigest().encode(),
    }


def test_what_a_dead_letter_says_is_bounded_and_a_long_key_is_left_out() -> None:
    said = {"detail": "é" * 600_000, "reason": "x" * HEADER_BYTES}
    letter = dead_letter(Outgoing("t.dlq", b"k" * 2_000, b"v", 5), said, Anything(3_000))
    headers = dict(letter.headers)
    assert (letter.key, headers["key_size"], headers["reason"]) == (None, b"2000", b"x" * HEADER_BYTES)
    assert headers["detail"].decode() == "é" * 498 + "…"
    assert size_of(letter) < 3_000


class Case(ProcessorLine):
    """A line with messages of all sizes, and what became of them."""

    def __init__(self, address: str, name: str, folder: Path, **settings: Any) -> None:
        settings = {"window": 'kind = "tumbling", size = "1s"', **settings}
        super().__init__(address, name, folder, partitions=1, idle="1s", grace="0s", **settings)
        self.producers: dict[str, Producer] = {}
        declared = self.settings.pipeline.read_text(encoding="utf-8")
        self.write(declared.replace("max_bytes = 600\n", "").replace("max_text = 100\n", ""))
        self.make_topics()

    def throw(self, value: bytes, key: bytes | None = b"k", *, compression: str = "none", topic: str = "") -> None:
        """Send a message as somebody else's producer might, whatever its size."""
        if compression not in self.producers:
            settings = {"compression.type": compression, "message.max.bytes": 1_000_000_000}
            self.producers[compression] = Producer({**CLIENT, "bootstrap.servers": self.address, **settings})
        producer, failed = self.producers[compression], list[object]()
        producer.produce(topic or self.topic, value, key, on_delivery=lambda error, _: failed.append(error))
        assert producer.flush(PATIENCE_S) == 0
        assert failed == [None]
        self.sent += 1

    def letters(self, topic: str) -> list[Message]:
        """The dead letters of a topic, all of them, by the offsets of what they are of."""
        found = reader(self.address)
        try:
            found.subscribe([f"{topic}.dlq"])
            letters: list[Message] = []

            def at_end() -> bool:
                message = found.poll(0.5)
                if message is not None and message.error() is None:
                    letters.append(message)
                return message is not None and message.error() is not None

            until(at_end, "the end of the dead letters")
            return sorted(letters, key=lambda letter: int(dict(letter.headers()).get("offset", -1)))
        finally:
            found.close()

    def faults(self) -> list[str]:
        """What the ledger, recounted, finds wrong."""
        consumer, entries = reader(self.address), LedgerReader(reader(self.address), self.pipeline)
        store = open_store(self.settings.store, readonly=True)
        try:
            return verify(consumer, self.pipeline, entries, store).faults
        finally:
            entries.close()
            consumer.close()
            store.close()


def padded(size: int, device: str = "meter-0") -> bytes:
    """A reading whose message has ``size`` bytes."""
    reading = json.dumps({"device": device, "ts": next(TIMES_MS), "current": 1.5, "energy": 1, "pad": ""}).encode()
    assert size >= len(reading)
    return reading[:-2] + b"x" * (size - len(reading)) + reading[-2:]


def named(device: str, **values: object) -> bytes:
    """A reading of a device."""
    reading = {"device": device, "ts": next(TIMES_MS), "current": 1.5, "energy": 1, **values}
    return json.dumps(reading, ensure_ascii=False).encode()


def test_no_size_stops_a_service(broker: KafkaPart, name: str, tmp_path: Path) -> None:  # noqa: PLR0915 - one story
    line = Case(broker.address, name, tmp_path)
    refused: list[tuple[str, bytes, bytes]] = []
    kept = 0
    for size in (1_000, 300_000, LIMIT - 1, LIMIT):
        line.throw(padded(size))
        kept += 1
    for length in (511, 512):
        line.throw(named("n" * length))
        line.throw(named("é" * length))
        kept += 2
    for length in (4_095, 4_096):
        line.throw(named("meter-0", note="é" * length, room="x" * length))
        line.knows("meter-0", "x" * length)
        kept += 1

    def throw_bad(reason: str, value: bytes, key: bytes = b"k", *, compression: str = "none") -> None:
        line.throw(value, key, compression=compression)
        refused.append((reason, key, value))

    # Around the limit of the topic's own, and of brokers: what is no JSON must be carried whole as long as it fits.
    most = LIMIT + ENVELOPE_BYTES
    for size in (LIMIT - 1, LIMIT):
        throw_bad("not_json", b"\xff" + os.urandom(size - 1))
    throw_bad("not_json", b"\xff" + os.urandom(999_989))
    for size in (LIMIT + 1, BROKER_BYTES - 1, BROKER_BYTES, BROKER_BYTES + 1, most - 76, most - 75):
        throw_bad("too_large", os.urandom(size))
    # A key may be as long as there is room.
    throw_bad("not_json", b"\xff" * 100, os.urandom(most - 200))
    for compression in COMPRESSION[1:]:
        throw_bad("too_large", b"0" * 5_000_000, compression=compression)
        throw_bad("too_large", padded(5_000_000), compression=compression)
    future = {"ts": 4_102_444_800_000}
    for length in (513, 100_000, 600_000, 900_000):
        throw_bad("too_long", named("n" * length))
        throw_bad("too_long", named("n" * length, **future))
        throw_bad("too_long", named("meter-0", room="r" * (length + 4_000)))
    throw_bad("future", named("n" * 512, **future))
    throw_bad("bad_time", named("meter-0", ts="t" * 900_000))
    throw_bad("wrong_type", named("meter-0", checked="t" * 900_000))
    throw_bad("not_json", b'{"device": ' + b"9" * 900_000)
    line.throw(named("meter-0"))
    kept += 1

    with line.processor("--batch", "7") as processor:
        ledger = line.await_ledger([processor])
        until(lambda: (found := line.line()) and not found.counts["open"], "closed windows", running=[processor])
        line.drain()
        fill_the_store(line)
        assert processor.stop() == 0
    assert ledger.counts["read"] == kept
    assert ledger.refused == len(refused)
    letters = line.letters(line.topic)
    assert len(letters) == len(refused)
    by_reference = 0
    for letter, (reason, key, value) in zip(letters, refused, strict=True):
        headers = dict(letter.headers())
        assert headers["reason"].decode() == reason
        assert max(map(len, headers.values())) <= HEADER_BYTES
        assert {"topic", "partition", "offset", "time", "detail"} <= headers.keys()
        if "carried" not in headers:
            assert (letter.key(), letter.value()) == (key, value)
            continue
        by_reference += 1
        assert letter.value() == b""
        assert (int(headers["size"]), headers["digest"]) == (
            len(value),
            b"sha256:" + hashlib.sha256(value).hexdigest().encode(),
        )
        assert len(value) > most
    assert by_reference == 2 * len(COMPRESSION[1:])
    assert line.faults() == []


@pytest.mark.parametrize("guarantee", ["at-least-once", "exactly-once"])
def test_a_result_that_its_topic_does_not_take_is_a_dead_letter(
    guarantee: str, broker: KafkaPart, name: str, tmp_path: Path
) -> None:
    line = Case(broker.address, name, tmp_path, aggregates='note = ["first", "last"]', late='"dead-letter"')
    limit(line.address, line.stream, 2_000)
    limit(line.address, f"{line.stream}.late", 1_000)
    texts = (10, 500, *range(830, 880), 2_000, 4_000)
    for n, length in enumerate(texts):
        line.throw(dated(n, note="x" * length))
    with line.processor(guarantee=guarantee, commit_s=0.1) as processor:
        until(lambda: (found := line.line()) and not found.counts["open"], "closed windows", running=[processor])
        # These come late: one fits into the topic of late readings, the other does not.
        line.throw(dated(0, note="y" * 100, ms=1))
        line.throw(dated(0, note="z" * 1_000, ms=2))
        until(lambda: (found := line.line()) and found.counts["late"] == 2, "late readings", running=[processor])
        line.drain()
        ledger = line.await_ledger([processor])
        said = line.results()
        fill_the_store(line)
        assert processor.stop() == 0
    lengths = sorted(len(window["note_last"]) for window in said.values())
    assert lengths == list(texts[: len(lengths)])
    assert 830 < lengths[-1] < 879
    assert ledger.counts["closed"] == len(texts)
    assert (ledger.counts["too_large"], ledger.counts["in_too_large"]) == (len(texts) - len(said),) * 2
    letters = [dict(letter.headers()) | {"value": letter.value()} for letter in line.letters(line.stream)]
    assert {(letter["reason"], letter["stream"].decode()) for letter in letters} == {(b"too_large", line.stream)}
    windows = {letter["start"]: letter for letter in letters if letter["topic"].decode() == line.stream}
    assert len(windows) == len(texts) - len(said)
    # Their own topic takes them as they are.
    assert all(len(json.loads(letter["value"])["note_last"]) > lengths[-1] for letter in windows.values())
    late = {letter["value"] for letter in letters if letter["topic"].decode() == f"{line.stream}.late"}
    assert [json.loads(value)["note"] for value in late] == ["z" * 1_000]
    assert line.faults() == []


def test_windows_that_speak_together_are_sent_in_as_many_messages_as_they_need(
    embedded_broker: KafkaPart, name: str, tmp_path: Path
) -> None:
    window = 'kind = "sliding", size = "10s"'
    line = Case(embedded_broker.address, name, tmp_path, window=window, aggregates='note = ["last"]')
    limit(line.address, line.stream, 20_000)
    # All at once, so that hundreds of windows of one device emit together: a megabyte in all.
    notes = [f"{n:04}" * (1_000 if n == 250 else 600) for n in range(400)]
    for n, note in enumerate(notes):
        line.throw(dated(0, note=note, ms=n))
    with line.processor() as processor:
        until(lambda: len(line.results()) >= len(notes), "windows", running=[processor])
        assert line.await_ledger([processor]).counts.get("too_large", 0) == 0
        assert processor.stop() == 0
    assert [window["note_last"] for _, window in sorted(line.results().items())] == notes


def dated(second: int, *, ms: int = 0, **values: object) -> bytes:
    """A reading of the one device, so many seconds on."""
    reading = {"device": "meter-0", "ts": BASE_MS + second * 1_000 + ms, "current": 1.5, "energy": 1, **values}
    return json.dumps(reading).encode()


def limit(address: str, topic: str, most: int) -> None:
    """Let a topic take smaller messages than it was made for."""
    admin = AdminClient({**CLIENT, "bootstrap.servers": address})
    entry = ConfigEntry("max.message.bytes", str(most), incremental_operation=AlterConfigOpType.SET)
    where = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin.incremental_alter_configs([where])[where].result(PATIENCE_S)

    def is_so() -> bool:
        found = admin.describe_configs([ConfigResource(ResourceType.TOPIC, topic)])
        return all(config.result(PATIENCE_S)["max.message.bytes"].value == str(most) for config in found.values())

    until(is_so, "the topic's new limit")


@pytest.mark.parametrize("kind", ["panes", "readings"])
def test_what_partitions_hand_on_is_cut_to_what_a_message_takes(kind: str) -> None:
    window = 'kind = "tumbling", size = "10s"' if kind == "panes" else 'kind = "session", gap = "5s"'
    pipeline = parse(
        f"""
        [topics.meters]
        tags = {{ room = "text" }}
        fields = {{ current = "float", note = "text" }}
        [streams.rooms]
        from = "meters"
        by = ["room"]
        window = {{ {window} }}
        aggregates = {{ current = ["p99"], note = ["last"] }}
        """
    )
    rooms, each = 800, 3
    n = rooms * each
    columns: dict[str, list[object]] = {
        "room": [f"room-{place % rooms}" for place in range(n)],
        "current": [float(place) for place in range(n)],
        "note": ["x" * 1_500] * n,
    }
    devices = [f"meter-{place % 7}" for place in range(n)]
    batch = Batch(devices, np.arange(BASE_MS, BASE_MS + n) * 1_000, columns)
    for most in (500_000, 10_000, 100):
        local = Local(WindowSpec.of(pipeline, "rooms"))
        local.add(batch.take(np.arange(n)), 0)
        local.tick(60_000_000)
        handed = [what for _, what in local.forwarded(4, most)]
        counts = [len(times_of(what.pane if isinstance(what, Panes) else what.ts_us)) for what in handed]
        assert sum(counts) == (rooms if kind == "panes" else n)
        sizes = [len(msgspec.msgpack.encode(what)) for what in handed]
        assert all(size <= most or count == 1 for size, count in zip(sizes, counts, strict=True))
        # As few messages as there may be.
        assert len(handed) <= 4 * (2 * sum(sizes) // (4 * most) + 2) or max(counts) == 1
