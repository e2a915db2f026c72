"""``devices``: 100,000 devices beside 10, a reading a second each, windows of 10 s, devices in turn.

A window holds 10 readings either way, so both have as many results to make of a reading. ``10 of 100,000`` has a
window of each of the 100,000 open all the time, and readings of 10 of them only: what is not touched should cost
nothing. Measured by the ledger, as 100,000 windows close in one burst.
"""

from __future__ import annotations

import statistics
from dataclasses import replace

from rich.console import Console

from bench.brokers import Broker, settle
from bench.by_ledger import Covered, covered
from bench.measured import Line, Run, figure, lines
from bench.options import Options
from bench.streams import Stream, processors
from bench.topic import Readings, fill
from bench.windows import Windows, check, messages
from headrace.topics import reader

MANY, FEW = 100_000, 10
EACH_MS = 1_000
WINDOWS = Windows("tumbling")
FEW_DEVICES, MANY_DEVICES = f"{FEW} devices", f"{MANY:,} devices"
DROP, UNTOUCHED = f"{MANY:,}, repeats dropped", f"{FEW} of {MANY:,} devices"
BETWEEN_CHECKPOINTS_MS = 200
"""A checkpoint, one a second, writes its part of the changelog at once."""

SOURCES = {
    FEW_DEVICES: "readings-few",
    MANY_DEVICES: "readings-many",
    DROP: "readings-many",
    UNTOUCHED: "readings-some",
}


def run(broker: Broker, options: Options, console: Console) -> list[Line]:
    """Measure the four in rounds, with memory and the changelog's growth."""
    few = Readings.lately(options.readings, FEW, step_ms=EACH_MS)
    # Some windows of 10 readings of each device must fit.
    many = Readings.lately(max(2 * options.readings, 25 * MANY), MANY, step_ms=EACH_MS)
    one_each = Readings(MANY, MANY, few.start_ms, EACH_MS)
    rest = replace(few, start_ms=few.start_ms + EACH_MS)
    for source, parts in {"readings-few": [few], "readings-many": [many], "readings-some": [one_each, rest]}.items():
        Stream("fill", WINDOWS, source).make_topics(broker)
        for part in parts:
            console.print(f"devices: producing {part.count:,} readings of {part.devices:,} devices to {broker.name}")
            fill(broker.address, source, part)
    # For counting them: those of one partition are so many, whoever they are of.
    some = replace(rest, count=rest.count + MANY)
    rounds_, details = [], []
    for number in range(1, options.repeat + 1):
        round_: dict[str, Run] = {}
        detail: dict[str, tuple[Covered, float]] = {}
        for subject, readings in ((FEW_DEVICES, few), (MANY_DEVICES, many), (DROP, many), (UNTOUCHED, some)):
            settle()
            stream = Stream(
                f"{SOURCES[subject]}-{'drop' if subject == DROP else 'keep'}-{number}",
                WINDOWS,
                SOURCES[subject],
                repeats="drop" if subject == DROP else "keep",
                # Long enough that the windows which are not touched stay open.
                idle="300d",
            )
            with processors(broker, stream) as running:
                watched = covered(broker, stream, readings, running, after=MANY if subject == UNTOUCHED else 0)
            if subject != UNTOUCHED:
                check(broker.address, stream.into, WINDOWS, readings, WINDOWS.closed(readings, readings.count))
            detail[subject] = watched, _changelog(broker, stream)
            round_[subject] = watched.run
            console.print(f"devices: round {number}, {subject}: {watched.run.per_s:,.0f} readings/s")
        rounds_.append(round_)
        details.append(detail)
    made = lines("devices", rounds_, {FEW_DEVICES.replace(" ", "_"): FEW_DEVICES}, {}, {"keep": (DROP, MANY_DEVICES)})
    for line in made:
        line.figures = _figures(line.subject, details)
    return made


def _figures(subject: str, details: list[dict[str, tuple[Covered, float]]]) -> dict[str, float]:
    """Memory and the changelog, medians over the rounds."""

    def median(of: list[float]) -> float:
        return figure(statistics.median(of))

    made = {"changelog_bytes_per_s": median([detail[subject][1] for detail in details])}
    pairs = [(detail[subject][0], detail[FEW_DEVICES][0]) for detail in details]
    if subject in (MANY_DEVICES, UNTOUCHED):
        made["bytes_a_device_and_open_window"] = median([(of.open_rss - few.open_rss) / of.open for of, few in pairs])
    if subject == DROP:
        kept = [(detail[DROP][0], detail[MANY_DEVICES][0]) for detail in details]
        made["bytes_a_watched_reading"] = median(
            [(drop.open_rss - keep.open_rss) / drop.in_open for drop, keep in kept]
        )
    made["open_windows"] = median([of.open for of, _ in pairs])
    return made


def _changelog(broker: Broker, stream: Stream) -> float:
    """The bytes a second, keys and values, that a stream's changelog grew by, from its first checkpoint to its last.

    What the first one wrote is not of that time. Raises RuntimeError when there was one only.
    """
    consumer = reader(broker.address)
    try:
        names = [name for name in consumer.list_topics(timeout=10).topics if "changelog" in name]
    finally:
        consumer.close()
    written: list[tuple[int, int]] = sorted(
        (message.timestamp()[1], len(message.key() or b"") + len(message.value() or b""))
        for name in names
        if f"__{stream.group}--" in name
        for message in messages(broker.address, name)
    )
    if not written:
        raise RuntimeError(f"{stream.group} has no changelog; there are {', '.join(names)}")
    checkpoints = [
        0,
        *(n for n in range(1, len(written)) if written[n][0] - written[n - 1][0] > BETWEEN_CHECKPOINTS_MS),
    ]
    if len(checkpoints) == 1:
        raise RuntimeError("too few readings: there was one checkpoint only; raise --readings")
    seconds = (written[checkpoints[-1]][0] - written[0][0]) / 1_000
    return sum(size for _, size in written[checkpoints[1] :]) / seconds
