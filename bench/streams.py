"""Runs streams as they run in production, ``python -m processors`` in a process, and measures them by their results.

Quix' own windows are measured alike: by what arrives in the topic of results, from the first look that finds some to
the one that finds all that were to be closed.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.brokers import Broker
from bench.measured import Run
from bench.process import Subject, running, watched
from bench.topic import Readings
from bench.windows import Windows, check, end
from headrace.pipeline import parse
from headrace.settings import Guarantee
from headrace.topics import ensure_topics, reader, wait_for_broker

TOPIC = "readings"

PIPELINE = """\
name = "bench-{name}"

[topics.{source}]
partitions = {partitions}
fields = {{ current = "float", voltage = "int" }}

[streams.windows-{name}]
from = "{source}"
window = {window}
grace = "{grace_ms}ms"
idle = "{idle}"
repeats = "{repeats}"
aggregates = {{ current = ["count", "min", "max", "mean"] }}
"""


@dataclass(frozen=True)
class Stream:
    """A stream over a topic of readings, for one run: ``name`` is its own, as is all that it leaves on the broker.

    Producers never repeat here and the peers would not notice, so ``repeats`` are kept unless it says otherwise.
    """

    name: str
    windows: Windows
    source: str = TOPIC
    repeats: Literal["keep", "drop"] = "keep"
    partitions: int = 1
    idle: str = "30s"
    guarantee: Guarantee = "at-least-once"

    @property
    def text(self) -> str:
        """The pipeline file."""
        return PIPELINE.format(
            name=self.name,
            source=self.source,
            partitions=self.partitions,
            window=self.windows.toml,
            grace_ms=self.windows.grace_ms,
            idle=self.idle,
            repeats=self.repeats,
        )

    @property
    def into(self) -> str:
        """The topic of its results."""
        return f"windows-{self.name}"

    @property
    def group(self) -> str:
        """Its consumer group."""
        return f"bench-{self.name}-processors"

    def make_topics(self, broker: Broker) -> None:
        """Make its topics that are not there yet, that of the readings among them."""
        ensure_topics(wait_for_broker(broker.address), parse(self.text))


@contextmanager
def processors(broker: Broker, stream: Stream, instances: int = 1) -> Iterator[list[Subject]]:
    """So many processes of ``python -m processors`` that run a stream."""
    stream.make_topics(broker)
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        commands = [processor(broker, stream, Path(folder), str(n)) for n in range(1, instances + 1)]
        with _all_running(commands) as subjects:
            yield subjects


def processor(broker: Broker, stream: Stream, folder: Path, instance: str = "1") -> list[str]:
    """The command of a processor; the pipeline file is written to its folder."""
    file = folder / "pipeline.toml"
    file.write_text(stream.text, encoding="utf-8")
    command = [sys.executable, "-m", "processors", "--pipeline", str(file), "--broker", broker.address]
    return [*command, "--data", str(folder), "--instance", instance, "--guarantee", stream.guarantee]


@contextmanager
def _all_running(commands: Sequence[Sequence[str]]) -> Iterator[list[Subject]]:
    if not commands:
        yield []
        return
    with running(commands[0]) as subject, _all_running(commands[1:]) as others:
        yield [subject, *others]


def headrace(broker: Broker, stream: Stream, readings: Readings) -> Run:
    """Measure a stream over a topic, by its results, and check them."""
    stream.make_topics(broker)
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        command = processor(broker, stream, Path(folder))
        return by_results(command, broker, stream.into, stream.windows, readings, count=readings.count)


def quix(broker: Broker, windows: Windows, readings: Readings, count: int, into: str, *, begin: int = 0) -> Run:
    """Measure Quix' own windows over the first ``count`` readings of the same topic, and check their results.

    The first ``begin`` readings are not measured: until then windows are filling up.
    """
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        command = [sys.executable, "-m", "bench.subjects.quix_windows", broker.address, TOPIC, into, folder]
        command += [windows.kind, str(windows.size_ms), str(windows.step_ms), str(windows.grace_ms)]
        # Quix' sliding windows hold what is at their start, too.
        return by_results(
            command, broker, into, windows, readings, count=count, begin=begin, with_start=windows.kind == "sliding"
        )


def by_results(
    command: Sequence[str],
    broker: Broker,
    into: str,
    windows: Windows,
    readings: Readings,
    *,
    count: int,
    begin: int = 0,
    with_start: bool = False,
) -> Run:
    """Measure a command by the windows in its topic of results, each of which stands for readings, and check these."""
    target = windows.closed(readings, count)
    # Results of an open transaction are progress, too: what is committed comes in leaps.
    consumer = reader(broker.address, **{"isolation.level": "read_uncommitted"})
    try:
        with running(command) as subject:
            run = watched(
                subject,
                lambda: end(consumer, into),
                target,
                lambda results: results * windows.a_result(readings),
                begin=windows.closed(readings, begin) if begin else 0,
            )
    finally:
        consumer.close()
    check(broker.address, into, windows, readings, target, with_start=with_start)
    return run
