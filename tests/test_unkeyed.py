"""Messages without a key on a real line: one device's readings in all partitions, and right windows all the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from processor_line import BASE_MS, MakeLine, ProcessorLine, fill_the_store, making_lines, message_of, until
from test_stream_verify import verdict
from window_oracle import Reading

from servers.kafka import KafkaPart

DEVICES = 5
PARTITIONS = 4
SIZE_US = 10_000_000
AGGREGATES = 'current = ["min", "max", "mean"], energy = ["count", "sum"]'
MERGED = {
    "readings": {"aggregates": AGGREGATES},
    "in-order": {"aggregates": 'current = ["mean"], energy = ["count", "sum", "delta"]'},
    "panes": {"aggregates": AGGREGATES, "repeats": '"keep"'},
}


@pytest.fixture
def lines(name: str, tmp_path: Path) -> Iterator[MakeLine]:
    """Makes lines on a broker, with their topics; their readings are sent without a key, to any partition."""
    with making_lines(f"any-{name[-8:]}", tmp_path, partitions=PARTITIONS) as make:
        yield make


def declare_unkeyed(line: ProcessorLine, unkeyed: str) -> None:
    """Say in the pipeline file what becomes of messages without a key."""
    declared = line.settings.pipeline.read_text(encoding="utf-8")
    line.write(declared.replace("max_bytes = 600\n", f'max_bytes = 600\nunkeyed = "{unkeyed}"\n'))
    line.make_topics()


def readings_of(each: int, *, from_n: int = 0) -> list[Reading]:
    """``each`` readings of every device, ten a second, some out of order by less than the grace."""
    return [
        Reading(
            f"plant/{device}",  # a group's name would be escaped, and a device's is not
            (BASE_MS + n * 100 - (n * 7919 + device) % 13 * 100) * 1_000,
            {"current": (n * 31 + device) % 1_000 / 8, "energy": n % 17, "room": ("hall", "attic", None)[device % 3]},
        )
        for n in range(from_n, from_n + each)
        for device in range(DEVICES)
    ]


def distinct(some: list[Reading]) -> list[Reading]:
    """One reading of each device and time."""
    return list({(reading.device, reading.ts_us): reading for reading in some}.values())


def send(line: ProcessorLine, some: list[Reading], *, repeated: bool) -> None:
    """Send readings without a key, one after the other to each partition; some again, to the next one."""
    messages: list[tuple[bytes | None, bytes | None, int]] = []
    for n, reading in enumerate(some):
        line.everything.append(reading)
        line.knows(reading.device, reading.values.get("room"))
        messages.append((None, message_of(reading), n % PARTITIONS))
        if repeated and n % 7 == 0:
            line.everything.append(reading)
            messages.append((None, message_of(reading), (n + 1) % PARTITIONS))
    line.send_messages(messages)


def last(line: ProcessorLine, at_s: float) -> None:
    """One more reading of every device in every partition: far enough on to close all windows before."""
    made = [
        (Reading(f"plant/{device}", (BASE_MS + round(at_s * 1_000) + n) * 1_000, {"current": 0.0, "energy": 0}), n)
        for n in range(PARTITIONS)
        for device in range(DEVICES)
    ]
    line.everything += [reading for reading, _ in made]
    line.send_messages((None, message_of(reading), n) for reading, n in made)


def recounted(some: list[Reading]) -> dict[tuple[str, int], tuple[int, int, float]]:
    """By device and start the count, the sum of energy and the greatest current, of the windows before the last."""
    windows: dict[tuple[str, int], tuple[int, int, float]] = {}
    for reading in some:
        key = reading.device, reading.ts_us // SIZE_US * SIZE_US
        count, energy, most = windows.get(key, (0, 0, 0.0))
        energy += reading.values["energy"]
        windows[key] = count + 1, energy, max(most, reading.values["current"])
    return windows


@pytest.mark.parametrize("how", MERGED)
def test_windows_are_of_all_of_a_device_s_readings_whichever_partitions_they_are_in(
    how: str, broker: KafkaPart, lines: MakeLine
) -> None:
    line = lines(broker.address, **MERGED[how])
    declare_unkeyed(line, "merge")
    repeated = how != "panes"
    every = distinct(readings_of(600))
    half = len(every) // 2
    send(line, every[:half], repeated=repeated)
    with line.processor("--batch", "20", commit_s=0.05) as processor:
        line.await_more(processor)
        processor.kill()
    send(line, every[half:], repeated=repeated)
    last(line, 120)
    wanted = recounted(every)
    with line.processor() as processor:
        until(lambda: len(line.results()) >= len(wanted), "the windows", running=[processor])
        line.drain()
        assert {
            key: (window["count"], window["energy_sum"], window.get("current_max", wanted[key][2]))
            for key, window in line.results().items()
        } == wanted
        first, second = line.await_both_lines([processor], len(every))
        assert processor.stop() == 0
    assert first.refused == 0
    assert first.counts["read"] == len(line.everything)
    # Of what is still open panes may not have been handed on yet.
    forwarded = second.counts["read"] - second.counts["repeated"]
    assert 0 <= forwarded - len(every) <= PARTITIONS * DEVICES
    assert second.counts["repeated"] > 0 or not repeated
    fill_the_store(line)
    assert verdict(line).faults == []


def test_a_device_that_is_in_several_partitions_is_a_fault_where_that_is_not_declared(
    embedded_broker: KafkaPart, lines: MakeLine
) -> None:
    line = lines(embedded_broker.address)
    # Each message has a key, but not the device's: what is checked of every message lets them through.
    made = [Reading(f"plant/{n % 2}", (BASE_MS + n * 100) * 1_000, {"current": 1.0, "energy": 1}) for n in range(40)]
    line.send_messages((b"%d" % (n % 3), message_of(reading), n % 3 % 2) for n, reading in enumerate(made))
    with line.processor() as processor:
        line.await_ledger([processor])
        assert processor.stop() == 0
    fill_the_store(line)
    [fault] = [fault for fault in verdict(line).faults if "partitions" in fault]
    assert "2 devices are in several partitions, as 'plant/0' in [0, 1]" in fault
    assert line.stream in fault
    assert 'unkeyed = "merge"' in fault
