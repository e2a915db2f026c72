"""Processors with different streams on one topic: each set of streams has a consumer group, a state, of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from processor_line import MakeLine, ProcessorLine, last_readings, making_lines, readings, until
from warm_start import run

from headrace.ledger import LedgerReader, Line
from headrace.pipeline import parse
from headrace.pipeline.consumer_groups import processors_group, streams_of_groups
from headrace.topics import Ends, reader
from headrace.verify import lines_of
from servers.kafka import KafkaPart

pytestmark = pytest.mark.slow

DEVICES = 6
OTHER = """
[streams.{other}]
from = "{topic}"
window = {{ kind = "tumbling", size = "20s" }}
by = []
idle = "10m"
"""


@pytest.fixture
def lines(name: str, tmp_path: Path) -> Iterator[MakeLine]:
    """Makes lines on a broker, with their topics; their readers are closed at the end."""
    with making_lines(f"set-{name[-8:]}", tmp_path) as make:
        yield make


def with_another_stream(line: ProcessorLine) -> str:
    """Declare a second stream on the line's topic: its name."""
    other = f"{line.stream}-other"
    declared = line.settings.pipeline.read_text(encoding="utf-8")
    line.write(declared + OTHER.format(other=other, topic=line.topic))
    line.make_topics()
    return other


def streams_of(line: ProcessorLine) -> dict[tuple[str, str], Line]:
    """The ledger's lines of the processors, by stream and topic."""
    consumer, entries = reader(line.address), LedgerReader(reader(line.address), line.pipeline)
    try:
        return {(found.name, found.topic): found for found in lines_of(Ends(consumer), line.pipeline, entries, None)}
    finally:
        entries.close()
        consumer.close()


@pytest.mark.parametrize("guarantee", ["at-least-once", "exactly-once"])
def test_each_set_of_streams_reads_all_and_is_rebuilt_alone(guarantee: str, broker: KafkaPart, lines: MakeLine) -> None:
    line = lines(broker.address)
    other = with_another_stream(line)
    line.send([*readings(DEVICES, 300), *last_readings(DEVICES, 60)])
    chosen = (line.stream, other)

    def all_read() -> bool:
        found = streams_of(line)
        return all(
            (name, line.topic) in found
            and found[name, line.topic].messages == line.sent
            and not found[name, line.topic].behind
            for name in chosen
        )

    with ExitStack() as stack:
        # Both of the same instance: they share a folder as they would on one machine.
        first, second = (
            stack.enter_context(line.processor(name, guarantee=guarantee, commit_s=0.1)) for name in chosen
        )
        until(all_read, "both streams' readings", running=[first, second])
        line.await_windows([first, second])
        assert line.await_ledger([first, second]).counts["read"] == line.sent
        arguments = ("--broker", line.address, "--pipeline", str(line.settings.pipeline))
        told = run("headrace.cli", "topics", *arguments)
        head = told.stdout.partition("changelog__")[0]
        assert [head.count(f"{name} ") for name in chosen] == [1, 1], told
        # One is computed again while the other runs.
        assert first.stop() == 0
        line.look_away()
        again = stack.enter_context(line.processor(line.stream, "--rebuild", guarantee=guarantee, commit_s=0.1))
        line.await_windows([again, second])
        until(all_read, "both streams' readings", running=[again, second])
        assert (again.stop(), second.stop()) == (0, 0)


def test_processors_that_share_some_of_their_streams_do_not_run_at_once(
    embedded_broker: KafkaPart, lines: MakeLine
) -> None:
    line = lines(embedded_broker.address)
    other = with_another_stream(line)
    line.send([*readings(DEVICES, 100), *last_readings(DEVICES, 60)])
    session = ("--session", "1")
    with line.processor(line.stream, *session) as first:
        line.await_windows([first])
        with line.processor(*session, instance="2") as second:
            # It is told what to do, and nothing of it was begun.
            assert second.process.wait(60) == 2
            told = second.log.read_text(encoding="utf-8")
            assert f"waiting for the processors of {line.stream} to stop" in told
            assert f"other processors run {line.stream}, too" in told
            assert "hint: stop them, or name the same streams in both" in told
        with line.processor(other, *session, instance="3") as third:
            until(lambda: streams_of(line)[other, line.topic].messages, "the other stream", running=[first, third])
            assert third.stop() == 0
        # The session of one that has died ends, and then the others may begin.
        first.kill()
        with line.processor(*session, instance="2") as second:
            until(lambda: processors_are_all(line), "the ledger of all", running=[second])
            assert second.stop() == 0


def processors_are_all(line: ProcessorLine) -> bool:
    """Whether the group of all streams has read something."""
    return line.committed() != {}


def test_a_set_of_streams_has_its_group_whatever_their_order() -> None:
    names = ["a", "b", "c.d", "c"]
    declared = "".join(
        f'[streams."{name}"]\nfrom = "t"\nwindow = {{ kind = "tumbling", size = "1s" }}\n' for name in names
    )
    pipeline = parse(f'name = "line"\n[topics.t]\nfields = {{ current = "float" }}\n{declared}')
    assert processors_group(pipeline, names) == processors_group(pipeline, names[::-1]) == "line-processors"
    sets = [["a"], ["b"], ["a", "b"], ["c.d"], ["c"], ["a", "c"], ["a", "b", "c"]]
    groups = [processors_group(pipeline, chosen) for chosen in sets]
    assert len({*groups}) == len(sets)
    assert processors_group(pipeline, ["b", "a"]) == groups[2]
    foreign = ["line-processors-other", "line2-processors", "line-sinks", "line-processors-0123abcd"]
    found = streams_of_groups(pipeline, [*groups, *foreign])
    assert [sorted(found[group]) for group in groups] == sets
    assert found["line-processors"] == tuple(names)
    assert found["line-processors-0123abcd"] == ()
    assert len(found) == len(sets) + 2
