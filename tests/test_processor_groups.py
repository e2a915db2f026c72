"""Groups that span partitions, as services: the windows of one partition, whoever reads the four and who dies when."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Producer
from processor_line import (
    BASE_MS,
    MakeLine,
    Processor,
    ProcessorLine,
    assert_alike,
    last_readings,
    making_lines,
    rooms,
    until,
)
from window_oracle import Reading

from headrace.topics import CLIENT
from servers.kafka import KafkaPart

pytestmark = pytest.mark.slow

DEVICES = 12
ROOM = {"by": '["room"]'}
ALL = {"by": "[]"}
AGGREGATES = 'current = ["min", "max", "mean"], energy = ["sum"], note = ["count", "distinct"]'
HOPPING = 'kind = "hopping", size = "10s", step = "2s"'
SESSION = 'kind = "session", gap = "400ms"'


@pytest.fixture
def lines(name: str, tmp_path: Path) -> Iterator[MakeLine]:
    """Makes lines on a broker, with their topics; their readers are closed at the end."""
    with making_lines(name, tmp_path, aggregates=AGGREGATES) as make:
        yield make


def await_all(line: ProcessorLine, processors: list[Processor]) -> None:
    """Wait for every window that the oracle has, and for a ledger of two sound lines."""
    line.await_windows(processors)
    counted = line.counts()
    first, _ = line.await_both_lines(processors, counted["in_closed"])
    assert first.counts["read"] == counted["read"]
    assert first.counts["late"] == counted["late"] == 0


KILLED = {
    "rooms": (ROOM, (False, True)),
    "hopping": ({**ROOM, "window": HOPPING}, (True,)),
    "session": ({**ROOM, "window": SESSION}, (True,)),
    "session-keep": ({**ALL, "window": SESSION, "repeats": '"keep"'}, (False,)),
}
"""Streams, and for each time that they are killed whether the state folder is lost with it."""


@pytest.mark.parametrize("stream", KILLED)
def test_killed_at_any_point_and_with_the_state_lost(stream: str, embedded_broker: KafkaPart, lines: MakeLine) -> None:
    settings, deaths = KILLED[stream]
    killed_at_any_point(lines(embedded_broker.address, **settings), deaths)


def test_killed_on_a_real_broker(real_broker: KafkaPart, lines: MakeLine) -> None:
    killed_at_any_point(lines(real_broker.address, **ROOM), (True,))


def killed_at_any_point(line: ProcessorLine, deaths: tuple[bool, ...]) -> None:
    every = [*rooms(DEVICES, 300), *last_readings(DEVICES, 200)]
    length = len(every) // (len(deaths) + 1)
    for number, state_is_lost in enumerate(deaths):
        line.send(every[length * number : length * (number + 1)])
        with line.processor("--batch", "10", commit_s=0.05) as processor:
            line.await_more(processor)
            processor.kill()
        if state_is_lost:
            shutil.rmtree(line.state())
    line.send(every[length * len(deaths) :])
    with line.processor() as processor:
        await_all(line, [processor])
        assert processor.stop() == 0


def test_exactly_once_says_each_window_once(embedded_broker: KafkaPart, lines: MakeLine) -> None:
    line = lines(embedded_broker.address, **ROOM)
    line.send(rooms(DEVICES, 300))
    with line.processor("--batch", "10", guarantee="exactly-once", commit_s=0.1) as processor:
        line.await_more(processor)
        processor.kill()
    line.send([*rooms(DEVICES, 300, from_s=60), *last_readings(DEVICES, 200)])
    with line.processor(guarantee="exactly-once", commit_s=0.1) as processor:
        await_all(line, [processor])
        assert processor.stop() == 0
    line.drain()
    assert len(line.said) == len(line.results())


def test_two_processors_share_a_group_and_one_is_killed(embedded_broker: KafkaPart, lines: MakeLine) -> None:
    line = lines(embedded_broker.address, **ROOM)
    line.send(rooms(DEVICES, 200))
    with line.processor("--batch", "20") as first:
        line.await_more(first)
        with line.processor("--batch", "20", instance="2") as second:
            until(
                lambda: any(path.is_dir() for path in line.state("2").glob("*/*/*/*")),
                "a partition of the second's own",
                running=[first, second],
            )
            line.send(rooms(DEVICES, 200, from_s=40))
            line.await_more(first)
            second.kill()
        line.send(rooms(DEVICES, 200, from_s=80))
        with line.processor(instance="2") as second:
            line.send(last_readings(DEVICES, 200))
            await_all(line, [first, second])
            assert (first.stop(), second.stop()) == (0, 0)


def test_a_partition_falls_silent_and_another_never_had_a_reading(embedded_broker: KafkaPart, lines: MakeLine) -> None:
    # Of four partitions: the devices of the third are silent from the start, those of the fourth after a while.
    line = lines(embedded_broker.address, **ROOM, idle="20s")
    third, fourth = tuple(range(2, DEVICES, 4)), tuple(range(3, DEVICES, 4))
    line.send(rooms(DEVICES, 60, silent=third))
    line.send(rooms(DEVICES, 60, from_s=10, silent=(*third, *fourth)))
    awake = [reading for reading in last_readings(DEVICES, 100) if int(reading.device[6:]) % 4 < 2]
    with line.processor() as processor:
        # The wall clock may close more later on: what the readings have closed is there first.
        line.send(awake)
        expected = line.expected()
        assert len(expected) >= 6
        until(lambda: len(line.results()) >= len(expected), "the windows", running=[processor])
        line.await_ledger([processor])
        processor.kill()
    assert_alike({key: line.results()[key] for key in expected}, expected)


def test_silence_of_all_closes_the_last_windows_of_groups(embedded_broker: KafkaPart, lines: MakeLine) -> None:
    line = lines(embedded_broker.address, **ROOM, idle="1s", grace="1s")
    # Within a second of each other, so that nobody is idle while others still send.
    line.send(
        Reading(f"meter-{n}", (BASE_MS + 9_900 + n) * 1_000, {"current": n, "energy": 1, "room": "hall"})
        for n in range(8)
    )
    with line.processor() as processor:
        until(lambda: line.results(), "the window", running=[processor])
        [window] = line.results().values()
        assert (window["count"], window["energy_sum"], window["current_max"]) == (8, 8, 7.0)
        first, second = line.await_both_lines([processor], 8)
        assert first.counts["windowed"] == second.counts["windowed"] == 8
        assert processor.stop() == 0


def test_nothing_is_written_while_the_line_is_idle(embedded_broker: KafkaPart, lines: MakeLine) -> None:
    line = lines(embedded_broker.address, **ROOM, idle="1s", grace="1s", emit='"at-once"')
    line.send(rooms(DEVICES, 20))
    with line.processor() as processor:
        until(line.results, "the windows", running=[processor])
        ends, since = line.ends(), time.monotonic()

        def at_rest() -> bool:
            nonlocal ends, since
            if (now := line.ends()) != ends:
                ends, since = now, time.monotonic()
            # Longer than anything that is said regularly takes to be said again, several times over.
            return time.monotonic() - since > 4

        until(at_rest, "rest", running=[processor])
        kinds = {"in", "out", "repartition", "ledger", "changelog"}
        assert {kind for kind in kinds for topic, _ in ends if kind in topic} == kinds
        assert processor.stop() == 0


def test_at_once_says_groups_provisionally_and_then_for_good(embedded_broker: KafkaPart, lines: MakeLine) -> None:
    line = lines(embedded_broker.address, **ROOM, emit='"at-once"')
    line.send(rooms(DEVICES, 20))
    with line.processor() as processor:
        until(lambda: line.results() == {} and len(line.provisional) >= 3, "provisional windows", running=[processor])
        line.send([*rooms(DEVICES, 200, from_s=2), *last_readings(DEVICES, 100)])
        await_all(line, [processor])
        assert processor.stop() == 0
    final = line.results()
    both = [(window["count"], final[key]["count"]) for key, window in line.provisional if key in final]
    assert both
    assert all(before <= after for before, after in both)


def test_foreign_bytes_in_the_repartition_topic_are_refused_and_counted(
    embedded_broker: KafkaPart, lines: MakeLine
) -> None:
    line = lines(embedded_broker.address, **ROOM)
    line.send([*rooms(DEVICES, 100), *last_readings(DEVICES, 60)])
    part = {"source": 0, "sources": 4, "watermark_us": 2**61, "clock_us": 2**61, "silent": False}
    foreign = [b"", None, b"{}", b"\xff\x00", b'{"device": "a"}', msgspec.msgpack.encode({"source": "x"})]
    foreign.append(msgspec.msgpack.encode({**part, "version": 99}))
    foreign.append(msgspec.msgpack.encode({**part, "made_by": "another declaration"}))
    producer = Producer({**CLIENT, "bootstrap.servers": line.address})
    for number, value in enumerate(foreign):
        producer.produce(line.repartition, value, partition=number % 4)
    assert producer.flush(30) == 0
    with line.processor() as processor:
        await_all(line, [processor])
        assert line.repartition is not None
        assert line.lines()[line.repartition].counts["refused:unknown_shape"] == len(foreign)
        assert processor.stop() == 0
