"""Every kind of window as a service: killed in mid-run, once without its state, and always the oracle's windows."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from processor_line import BASE_MS, MakeLine, ProcessorLine, assert_alike, last_readings, making_lines
from window_oracle import Reading, always

from servers.kafka import KafkaPart

pytestmark = pytest.mark.slow

DEVICES, EACH = 8, 700

EXACT = 'current = ["min", "max", "range", "mean"], energy = ["sum", "delta", "last"], note = ["first", "missing"]'
ANY_ORDER = 'current = ["min", "max", "range", "mean"], energy = ["sum", "first", "last"], note = ["distinct"]'


def begins(reading: Reading) -> bool:
    return bool(reading.values["current"] > 90)


def ends(reading: Reading) -> bool:
    return bool(reading.values["current"] < 40)


KINDS: dict[str, dict[str, Any]] = {
    "hopping": {"window": 'kind = "hopping", size = "10s", step = "2s"', "aggregates": ANY_ORDER},
    "sliding": {"window": 'kind = "sliding", size = "3s"', "aggregates": EXACT.replace(', "last"', "")},
    "session": {"window": 'kind = "session", gap = "3s", longest = "20s"', "aggregates": EXACT},
    "state": {"window": 'kind = "state", field = "note"', "aggregates": EXACT},
    "count": {"window": 'kind = "count", count = 12, step = 5', "aggregates": EXACT},
    "event": {
        "window": 'kind = "event", start = "current > 90", end = "current < 40"',
        "aggregates": EXACT,
        "conditions": (always, begins, ends),
    },
    "rates": {
        "window": 'kind = "tumbling", size = "10s"',
        "aggregates": 'energy = ["rate", "delta"], current = ["time_weighted_mean", "max"]',
    },
}


def fleet(devices: int, each: int) -> list[Reading]:
    """Readings with pauses, runs of one note, disorder less than a second, counters that fall, repeats, corrections."""
    made: list[Reading] = []
    for n in range(each):
        for device in range(devices):
            pauses = (n + 7 * device) // 60
            disorder_ms = (n * 7919 + device * 104_729) % 900 if n % 3 else 0
            ts_ms = BASE_MS + n * 100 + pauses * 4_500 - disorder_ms
            values: Mapping[str, Any] = {
                "current": (n * 31 + device * 7) % 1_000 / 8,
                "energy": n % 250,
                "note": f"n{n // 20 % 4}" if n % 50 < 45 else None,
            }
            made.append(Reading(f"meter-{device}", ts_ms * 1_000, dict(values)))
            if n % 11 == 0 and n:
                earlier = made[-1 - devices]
                made.append(earlier)
            if n % 37 == 0 and n:
                earlier = made[-1 - devices]
                made.append(Reading(earlier.device, earlier.ts_us, {**earlier.values, "energy": 1_000}))
    return made


@pytest.fixture
def lines(name: str, tmp_path: Path) -> Iterator[MakeLine]:
    """Makes lines on a broker, with their topics; their readers are closed at the end."""
    with making_lines(name, tmp_path) as make:
        yield make


@pytest.mark.parametrize("kind", KINDS)
def test_killed_in_mid_run_and_once_without_its_state(kind: str, embedded_broker: KafkaPart, lines: MakeLine) -> None:
    the_windows_are_the_oracle_s(lines(embedded_broker.address, **KINDS[kind]))


@pytest.mark.parametrize("kind", ["hopping", "session"])
def test_on_a_real_broker(kind: str, real_broker: KafkaPart, lines: MakeLine) -> None:
    the_windows_are_the_oracle_s(lines(real_broker.address, **KINDS[kind]))


def the_windows_are_the_oracle_s(line: ProcessorLine) -> None:
    every = [*fleet(DEVICES, EACH), *last_readings(DEVICES, 300)]
    third = len(every) // 3
    for round_number, without_state in enumerate((False, True)):
        line.send(every[third * round_number : third * (round_number + 1)])
        with line.processor("--batch", "3", commit_s=0.05) as processor:
            line.await_more(processor)
            processor.kill()
        if without_state:
            shutil.rmtree(line.state())
    line.send(every[2 * third :])
    expected, counted = line.expected(), line.counts()
    assert len(line.results()) < len(expected)
    assert min(counted[fate] for fate in ("windowed", "repeated", "corrected")) > 0
    with line.processor() as processor:
        line.await_windows([processor], expected)
        ledger = line.await_ledger([processor])
        assert processor.stop() == 0
    line.drain()
    assert_alike(line.results(), expected)
    # What waits when it all ends is a gauge; the oracle counts it when it is looked at.
    assert {name: ledger.counts[name] for name in counted} == counted
