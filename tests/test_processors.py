"""Processors as services on real brokers: kills, rebalances, stops, outages, poison, and always the same windows."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from processor_line import BASE_MS, Processor, ProcessorLine, fill_the_store, last_readings, message_of, readings, until
from test_wire import BAD
from warm_start import run
from window_oracle import Reading

from headrace.broker.embedded import EmbeddedBroker
from servers.kafka import KafkaPart

pytestmark = pytest.mark.slow

MakeLine = Callable[..., ProcessorLine]
DEVICES = 12


@pytest.fixture
def lines(name: str, tmp_path: Path) -> Iterator[MakeLine]:
    """Makes a line on a broker; its readers are closed at the end."""
    made: list[ProcessorLine] = []

    def make(address: str, **settings: object) -> ProcessorLine:
        made.append(ProcessorLine(address, name, tmp_path, **settings))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for line in made:
        line.close()


@pytest.fixture
def line(broker: KafkaPart, lines: MakeLine) -> ProcessorLine:
    """A line whose topics are there."""
    line = lines(broker.address)
    line.make_topics()
    return line


def test_killed_midway_and_once_without_its_state_the_windows_are_the_same(line: ProcessorLine) -> None:
    line.send([*readings(DEVICES, 8_000, every_ms=50), *last_readings(DEVICES, 500)])
    expected = line.expected()
    for without_state in (False, True):
        with line.processor("--batch", "3") as processor:
            line.await_more(processor)
            processor.kill()
        assert len(line.results()) < len(expected)
        if without_state:
            shutil.rmtree(line.state())
    with line.processor() as processor:
        line.await_windows([processor], expected)
        ledger = line.await_ledger([processor])
        assert processor.stop() == 0
    counted = line.counts()
    assert {name: ledger.counts[name] for name in counted} == counted


def test_exactly_once_says_each_window_once_even_when_killed(line: ProcessorLine) -> None:
    line.send([*readings(DEVICES, 6_000, every_ms=50), *last_readings(DEVICES, 400)])
    expected = line.expected()
    with line.processor("--batch", "3", guarantee="exactly-once") as processor:
        line.await_more(processor)
        processor.kill()
    assert len(line.results()) < len(expected)
    with line.processor(guarantee="exactly-once", commit_s=0.05) as processor:
        line.await_windows([processor], expected)
        ledger = line.await_ledger([processor])
        # What silence brings must be committed too, though no offset is.
        assert ledger.counts["closed"] == len(expected)
        assert processor.stop() == 0
    line.drain()
    assert Counter(key for key, _ in line.said) == dict.fromkeys(expected, 1)


def round_of(number: int) -> list[Reading]:
    return readings(DEVICES, 200, from_s=20 * number)


def await_partition(line: ProcessorLine, processor: Processor, instance: str) -> None:
    """Wait until a processor has partitions: then it has state of them."""
    until(
        lambda: any(path.is_dir() for path in line.state(instance).glob("*/*/*/*")),
        "a partition of its own",
        running=[processor],
    )


def test_processors_that_join_and_are_killed_and_come_back_share_the_work(line: ProcessorLine) -> None:
    line.send(round_of(0))
    with line.processor() as first:
        line.await_ledger([first])
        with line.processor(instance="2") as second:
            await_partition(line, second, "2")
            for number in (1, 2):
                line.send(round_of(number))
            line.await_ledger([first, second])
            line.send(round_of(3))
            second.kill()
        line.send(round_of(4))
        with line.processor(instance="2") as second:
            line.send([*round_of(5), *last_readings(DEVICES, 300)])
            line.await_windows([first, second])
            line.await_ledger([first, second])
            assert (first.stop(), second.stop()) == (0, 0)


def test_the_partitions_of_a_processor_that_leaves_go_to_the_one_that_stays(
    embedded_broker: KafkaPart, lines: MakeLine
) -> None:
    line = lines(embedded_broker.address)
    line.make_topics()
    line.send(round_of(0))
    with line.processor() as first:
        line.await_ledger([first])
        with line.processor(instance="2") as second:
            await_partition(line, second, "2")
            line.send(round_of(1))
            line.await_ledger([first, second])
            assert second.stop() == 0
        # What the first remembers of those partitions is from before the second had them.
        line.send([*round_of(2), *last_readings(DEVICES, 300)])
        line.await_windows([first])
        line.await_ledger([first])


def test_a_sigterm_stops_it_in_time_with_everything_committed(line: ProcessorLine) -> None:
    stopped_in_time_with_everything_committed(line, signal.SIGTERM)


def test_a_ctrl_c_stops_it_in_time_with_everything_committed(embedded_broker: KafkaPart, lines: MakeLine) -> None:
    line = lines(embedded_broker.address)
    line.make_topics()
    stopped_in_time_with_everything_committed(line, signal.SIGINT)


def stopped_in_time_with_everything_committed(line: ProcessorLine, number: signal.Signals) -> None:
    line.send([*readings(DEVICES, 300), *last_readings(DEVICES, 60)])
    # Nothing is committed but by the stop: the next commit would be in an hour.
    with line.processor(commit_s=3_600) as processor:
        line.await_windows([processor])
        until(line.line, "the ledger", running=[processor])
        assert set(line.committed().values()) == {-1001}
        assert processor.stop(number) == 0
    ends = {partition: len(arrived) for partition, arrived in line.arrived.items()}
    assert line.committed() == ends
    # Started again it goes on from there: more readings, none twice.
    said = len(line.said)
    line.send(last_readings(DEVICES, 120))
    with line.processor() as processor:
        line.await_windows([processor])
        ledger = line.await_ledger([processor])
        assert processor.stop() == 0
    assert ledger.counts["read"] == line.sent
    assert len(line.said) - said == DEVICES


def test_every_kind_of_poison_is_counted_and_nothing_else_is_lost(line: ProcessorLine) -> None:
    good = [*readings(DEVICES, 200), *last_readings(DEVICES, 60)]
    tomorrow_us = time.time_ns() // 1_000 + 86_400_000_000
    tomorrow = message_of(Reading("meter-1", tomorrow_us, {"current": 1.0, "energy": 1}))
    deep = b'{"x": ' + b"[" * 250 + b"]" * 250
    poison: list[tuple[bytes | None, str]] = [(message, reason) for _, message, reason in BAD if reason != "future"]
    poison += [(tomorrow, "future"), (deep, "not_json"), (b"x" * 601, "too_large")]
    line.send(good[:1_000])
    line.send_messages((b"key", message, n % 4) for n, (message, _) in enumerate(poison))
    line.send(good[1_000:])
    with line.processor("--batch", "50") as processor:
        line.await_windows([processor])
        ledger = line.await_ledger([processor])
        assert processor.stop() == 0
    refused = {name.partition(":")[2]: n for name, n in ledger.counts.items() if name.startswith("refused:")}
    assert refused == Counter(reason for _, reason in poison)
    assert ledger.counts["read"] == len(good) == line.sent - len(poison)


def test_many_readings_a_message_give_the_same_windows(embedded_broker: KafkaPart, lines: MakeLine) -> None:
    line = lines(embedded_broker.address)
    line.make_topics()
    each = [*readings(DEVICES, 500), *last_readings(DEVICES, 100)]
    by_partition: dict[int, list[Reading]] = {}
    for reading in each:
        by_partition.setdefault(line.partition_of(reading.device), []).append(reading)
    for partition, of in by_partition.items():
        line.arrived[partition] += of
        some = [of[begin : begin + 7] for begin in range(0, len(of), 7)]
        line.send_messages((readings[0].device.encode(), columns_of(readings), partition) for readings in some)
    with line.processor() as processor:
        line.await_windows([processor])
        assert line.await_ledger([processor]).counts["read"] == len(each)


def test_readings_without_a_key_leave_the_windows_of_the_others_alone(line: ProcessorLine) -> None:
    good = [*readings(DEVICES, 200), *last_readings(DEVICES, 60)]
    line.send(good[:600])
    # As a producer without keys would: each device in every partition, and all partitions far ahead.
    spread = [
        Reading(f"meter-{n % DEVICES}", (BASE_MS + n * 1_000) * 1_000, {"current": 1, "energy": 1}) for n in range(40)
    ]
    line.send_messages((None, message_of(reading), n % 4) for n, reading in enumerate(spread))
    line.send(good[600:])
    with line.processor("--batch", "50") as processor:
        line.await_windows([processor])
        ledger = line.await_ledger([processor])
        fill_the_store(line)
        assert processor.stop() == 0
    assert ledger.counts["refused:no_key"] == ledger.refused == len(spread)
    assert ledger.counts["read"] == len(good)


def columns_of(some: list[Reading]) -> bytes:
    names = ("current", "energy", "note")
    columns = {name: [reading.values.get(name) for reading in some] for name in names}
    times = [reading.ts_us // 1_000 for reading in some]
    return json.dumps({"device": [reading.device for reading in some], "ts": times, **columns}).encode()


def test_silence_closes_the_last_windows(broker: KafkaPart, lines: MakeLine) -> None:
    line = lines(broker.address, idle="1s", grace="0s")
    line.make_topics()
    line.send(readings(DEVICES, 100, disorder_ms=1))
    with line.processor() as processor:

        def all_said() -> bool:
            processor.check()
            return bool(sum(window["count"] for window in line.results().values()) == 100 * DEVICES)

        until(all_said, "the last window")
        until(lambda: (found := line.line()) and found.counts["open"] == 0, "an empty state")
        processor.kill()
    # What silence closed stays closed.
    said = len(line.said)
    line.send([Reading("meter-0", (BASE_MS + 3_600_000) * 1_000, {"current": 1.0, "energy": 1})])
    with line.processor() as processor:
        line.await_ledger([processor])
        assert processor.stop() == 0
    line.drain()
    assert len(line.said) == said


def test_a_broker_that_comes_later_and_is_killed_midway_is_waited_for(lines: MakeLine, tmp_path: Path) -> None:
    folder = tmp_path / "broker"
    with EmbeddedBroker(folder) as broker:
        line = lines(broker.address)
        line.make_topics()
    with line.processor("--batch", "3") as processor:
        until(lambda: "waiting" in processor.log.read_text(), "a word of waiting", running=[processor])
        with broker:
            line.send([*readings(DEVICES, 1_500, every_ms=50), *last_readings(DEVICES, 300)])
            line.await_more(processor)
            broker.kill()
            processor.check()
            broker.start()
            line.await_windows([processor])
            line.await_ledger([processor])
            assert processor.stop() == 0
        said = processor.log.read_text()
    assert said.splitlines()[:2] == [
        f"waiting for the broker at {broker.address}",
        f"the broker at {broker.address} is there",
    ]
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "settings", "told"),
    [
        (["other"], {}, ["there is no stream 'other'", "name one of"]),
        ([], {"data": "pipeline.toml"}, ["the data folder", "cannot be written", "--data"]),
        (["--batch", "0"], {}, ["a micro-batch of no messages"]),
    ],
)
def test_what_it_is_told_wrong_is_told_in_two_lines(
    embedded_broker: KafkaPart, lines: MakeLine, arguments: list[str], settings: dict[str, str], told: list[str]
) -> None:
    line = lines(embedded_broker.address)
    given = replace(line.settings, **{name: line.folder / value for name, value in settings.items()})  # type: ignore[arg-type]
    ended = run("processors", *arguments, env={**os.environ, **given.environment()})
    assert ended.returncode == 2
    assert [said.partition(": ")[0] for said in ended.stderr.splitlines()] == ["error", "hint"]
    for words in told:
        assert words in ended.stderr
