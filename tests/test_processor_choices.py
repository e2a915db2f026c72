"""A stream that is declared otherwise than its state was made: start over, or rebuild; and nothing twice."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from processor_line import (
    MakeLine,
    Processor,
    ProcessorLine,
    last_readings,
    making_lines,
    readings,
    until,
)
from warm_start import run
from window_oracle import Oracle, Reading, Results

from headrace.broker.embedded import EmbeddedBroker
from servers.kafka import KafkaPart

pytestmark = pytest.mark.slow

DEVICES = 8
OTHER = {"window": 'kind = "tumbling", size = "20s"', "aggregates": 'energy = ["max", "first"], note = ["distinct"]'}
ROOMS = {"by": '["room"]'}


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


def refused(line: ProcessorLine, *arguments: str) -> str:
    """What a processor says that will not run: two lines."""
    ended = run("processors", *arguments, env={**os.environ, **line.settings.environment()})
    assert ended.returncode == 2, ended.stderr
    # That it waits for the group before it gives up is told first.
    lines = [said for said in ended.stderr.splitlines() if not said.startswith("waiting for ")]
    assert [said.partition(": ")[0] for said in lines] == ["error", "hint"]
    return ended.stderr


# ---- a stream that is declared otherwise


def test_a_stream_that_has_changed_is_refused_and_rebuilt(embedded_broker: KafkaPart, lines: MakeLine) -> None:
    line = lines(embedded_broker.address, **ROOMS)
    line.send(part(0))
    with line.processor() as processor:
        line.await_more(processor)
        line.await_ledger([processor])
        processor.kill()
    line.declare(**OTHER, **ROOMS)
    said = refused(line)
    assert "--rebuild" in said
    assert "--reset-state" in said
    assert f"stream {line.stream}" in said
    line.look_away()
    line.send([*part(1, 600), *last_readings(DEVICES, 300)])
    expected = line.expected()
    with line.processor("--rebuild", "--batch", "10", commit_s=0.05) as processor:
        line.await_more(processor)
        processor.kill()
    # It is under way: from here on it goes on as always, on another machine too.
    shutil.rmtree(line.state())
    with line.processor() as processor:
        line.await_windows([processor], expected)
        await_ledger(line, processor)
        assert processor.stop() == 0


def await_ledger(line: ProcessorLine, processor: Processor) -> None:
    """Wait for a ledger that says what the oracle says, in one line or two."""
    counted = line.counts()
    if line.repartition is None:
        ledger = line.await_ledger([processor])
        assert {name: ledger.counts[name] for name in counted} == counted
    else:
        first, _ = line.await_both_lines([processor], counted["in_closed"])
        assert first.counts["read"] == counted["read"]


def test_a_rebuild_with_a_longer_grace_has_what_was_late_before(embedded_broker: KafkaPart, lines: MakeLine) -> None:
    # What the first stage handed on before, and how far it said to be, must not count when it is all done again.
    line = lines(embedded_broker.address, grace="0s", **ROOMS)
    line.send([*part(0), *last_readings(DEVICES, 100)])
    with line.processor() as processor:
        line.await_more(processor)
        assert line.await_ledger([processor]).counts["late"] > 0
        assert processor.stop() == 0
    line.declare(grace="2s", **ROOMS)
    line.look_away()
    with line.processor("--rebuild") as processor:
        line.await_windows([processor])
        await_ledger(line, processor)
        assert processor.stop() == 0


@pytest.mark.parametrize("groups", [{}, ROOMS], ids=["devices", "groups"])
def test_reset_state_goes_on_from_here_with_new_windows(
    groups: dict[str, str], embedded_broker: KafkaPart, lines: MakeLine
) -> None:
    line = lines(embedded_broker.address, **groups)
    line.send(part(0))
    with line.processor() as processor:
        line.await_more(processor)
        line.await_ledger([processor])
        assert processor.stop() == 0
    line.declare(**OTHER, **groups)
    line.look_away()
    fresh = [*part(1), *last_readings(DEVICES, 300)]
    line.send(fresh)
    with line.processor("--reset-state") as processor:
        line.await_windows([processor], windows_of(line, fresh))
        ledger = line.await_ledger([processor])
        assert ledger.counts["read"] == len(fresh)
        assert ledger.counts["skipped"] == line.sent - len(fresh)
        assert processor.stop() == 0


def windows_of(line: ProcessorLine, some: list[Reading]) -> Results:
    """What the oracle makes of some readings alone, each partition for itself, or all where groups span them."""
    closed: Results = {}
    places = {line.partition_of(one.device) for one in some} if line.repartition is None else {None}
    for place in places:
        oracle = Oracle(line.spec)
        for one in some:
            if place in (None, line.partition_of(one.device)):
                oracle.take(one)
        closed |= oracle.closed
    return closed


def test_nothing_is_reset_twice_nor_while_another_processor_runs(line: ProcessorLine) -> None:
    line.send(part(0))
    with line.processor("--reset-state") as first:
        line.await_ledger([first])
        with line.processor(instance="2") as second:
            until(
                lambda: any(path.is_dir() for path in line.state("2").glob("*/*/*/*")),
                "a partition of the second's own",
                running=[first, second],
            )
            line.send(readings(DEVICES, 20, from_s=30))
            line.await_ledger([first, second])
            assert second.stop() == 0
        line.settings = replace(line.settings, instance="3")
        said = refused(line, "--rebuild")
        assert f"{line.pipeline.name}-processors" in said
        assert "a member of it is still running" in said
        assert "stop every service of this group" in said
        # All partitions are the first's again, with the windows that were open when the second had them.
        line.send([*readings(DEVICES, 20, from_s=32), *last_readings(DEVICES, 100)])
        line.await_windows([first])
        assert line.await_ledger([first]).counts["read"] == line.sent
        assert first.stop() == 0


def test_a_broker_that_comes_back_does_not_reset_a_second_time(lines: MakeLine, tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path / "broker") as broker:
        line = lines(broker.address)
        line.send(part(0))
        with line.processor("--reset-state") as processor:
            line.await_ledger([processor])
            until(lambda: sum(max(n, 0) for n in line.committed().values()) == line.sent, "a commit")
            broker.kill()
            broker.start()
            line.send([*part(1), *last_readings(DEVICES, 300)])
            line.await_windows([processor])
            assert line.await_ledger([processor]).counts["read"] == line.sent
            assert processor.stop() == 0
