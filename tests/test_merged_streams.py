"""Merged streams follow from what each partition holds alone: not from when, or how often, it was forwarded.

Two stages over a topic that is already written, whoever comes first: partitions take turns as they like, cut into
batches anywhere, say that they are silent when they are not, die and begin again from an older checkpoint, and so
does the stage that merges them. The windows are those of a plain oracle that looks at one partition at a time.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from test_window_merging import Line, keep
from window_oracle import FOR_EVER_US, SECOND, Driver, Oracle, Reading, Results, at, sound
from window_strategies import CASES, KINDS, SEVERAL_DEVICES, Case, devices, differing, patience, spec_for, values_of

from headrace.pipeline.model import Count, Event, Hopping, State, Tumbling
from processors.windows import WindowSpec
from processors.windows.repartition.merged import Merged
from processors.windows.repartition.update import decode
from processors.windows.state import restore_into

pytestmark = pytest.mark.slow

MERGED = [(kind, variant) for kind, variant in CASES if variant in SEVERAL_DEVICES]


class PartitionOracle(Oracle):
    """What counts in which window, and what waits, of one partition: nothing of it ever closes or is released."""

    def _close_what_is_over(self) -> None:
        pass

    def _release(self) -> None:
        pass


def expected(case: Case, spec: WindowSpec, partitions: Sequence[Sequence[Reading]]) -> tuple[Results, int, int]:
    """The windows of all partitions together, how many readings are not late, and how many of these are no repeats.

    Repeats are left out by each partition that has both; here those that are in two, where they are to be.
    """
    oracles = [case.oracle(spec) for _ in partitions]
    for oracle, readings in zip(oracles, partitions, strict=True):
        oracle.__class__ = PartitionOracle
        for reading in readings:
            oracle.take(reading)
    whole = case.oracle(spec)
    kept = sum(oracle.counts["windowed"] + len(oracle.waiting) for oracle in oracles)
    own = kept
    if not spec.ordered:
        for oracle in oracles:
            for bounds, held in oracle.open.items():
                whole.open.setdefault(bounds, []).extend(held)
        if spec.devices_span and spec.drop_repeats:
            whole.open = {bounds: distinct(held) for bounds, held in whole.open.items()}
            own = len({(r.device, r.ts_us) for held in whole.open.values() for r in held})
    else:
        waiting = [held for oracle in oracles for held in oracle.waiting]
        if spec.devices_span and spec.drop_repeats:
            waiting = list({(reading.device, reading.ts_us): (group, reading) for group, reading in waiting}.values())
            own = len(waiting)
        last: dict[tuple[Any, ...], int] = {}
        for group, reading in sorted(waiting, key=lambda held: (held[1].ts_us, held[1].device)):
            silent = reading.ts_us - last.get(group, reading.ts_us) > spec.idle_us + spec.grace_us
            if silent and isinstance(spec.window, State | Count | Event):
                for key in [key for key in whole.open if key == group or key[0] == group]:
                    whole._end(key)
                whole.counted.pop(group, None)
            last[group] = reading.ts_us
            whole._in_order(group, reading)
    for key in list(whole.open):
        whole._end(key)
    return whole.closed, kept, own


def distinct(held: Sequence[Reading]) -> list[Reading]:
    """Each device's readings of one time once."""
    return list({(reading.device, reading.ts_us): reading for reading in held}.values())


@dataclass
class SecondStage:
    """One partition of the repartition topic, and who merges it."""

    spec: WindowSpec
    line: Line
    target: int
    unread: Any
    position: int = 0
    checkpoint: tuple[dict[str, bytes], int] = field(default_factory=lambda: ({}, 0))
    pieces: dict[str, bytes] = field(default_factory=dict)
    said: Results = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.driver = Driver(self._fresh())

    def _fresh(self) -> Merged:
        merged = Merged(self.spec)
        merged.clocks.any_unread = self.unread
        return merged

    @property
    def merged(self) -> Merged:
        """The windows."""
        assert isinstance(self.driver.windowed, Merged)
        return self.driver.windowed

    def take(self, messages: int, now_us: int) -> None:
        """Take so many more messages, if there are."""
        for message in self.line.queues[self.target][self.position : self.position + messages]:
            self._note(self.driver._note(self.merged.take(decode(message), now_us)))
            self.position += 1

    def tick(self, now_us: int) -> None:
        """Nothing comes."""
        self._note(self.driver._note(self.merged.tick(now_us)))

    def commit(self) -> None:
        """Make a checkpoint."""
        keep(self.merged, self.pieces)
        self.checkpoint = dict(self.pieces), self.position

    def die(self) -> None:
        """Begin again from the last checkpoint."""
        pieces, self.position = self.checkpoint
        self.pieces = dict(pieces)
        self.driver.windowed = self._fresh()
        restore_into(self.driver.windowed, self.pieces.get)

    def _note(self, closed: Results) -> None:
        for key, window in closed.items():
            if isinstance(self.spec.window, Tumbling | Hopping):
                assert not differing({key: window}, {key: self.said.get(key, window)}), "it says something else"
            self.said[key] = window


def run(chance: random.Random, spec: WindowSpec, partitions: Sequence[Sequence[Reading]], targets: int) -> Any:
    """All that may happen on the way, until everything is read and silent: both stages at the end."""
    line = Line(spec, len(partitions), targets)
    stages = [SecondStage(spec, line, n, lambda source, since: since < len(partitions[source])) for n in range(targets)]
    checkpoints: list[dict[str, bytes]] = [{} for _ in partitions]
    for source in range(len(partitions)):
        checkpoints[source] = line.put_away(source)
    while any(line.offsets[n] < len(readings) for n, readings in enumerate(partitions)):
        source, stage = chance.randrange(len(partitions)), chance.choice(stages)
        match chance.choice(["read"] * 6 + ["merge"] * 6 + ["commit", "die", "silence", "commit 2", "die 2", "tick"]):
            case "read":
                offset = line.offsets[source]
                line.read(source, partitions[source][offset : offset + chance.randint(1, 6)])
            case "commit":
                checkpoints[source] = line.put_away(source)
            case "die":
                line.restart(source, dict(checkpoints[source]))
            case "silence":
                line.silence(source, chance.choice([0, 10 * SECOND]))
            case "merge":
                stage.take(chance.randint(1, 5), line.now_us)
            case "commit 2":
                stage.commit()
            case "die 2":
                stage.die()
            case "tick":
                stage.tick(line.now_us)
        line.now_us += chance.choice([0, SECOND // 10, SECOND])
    for source in range(len(partitions)):
        line.silence(source)
    for stage in stages:
        stage.take(len(line.queues[stage.target]), line.now_us)
        stage.tick(line.now_us + FOR_EVER_US)
    return line, stages


@dataclass
class Topic:
    """What is in a topic, and how its stream is read."""

    settled: tuple[tuple[str, str], ...]
    readings: list[Reading]
    sources: int
    targets: int
    emit: str


topics = st.builds(
    Topic,
    patience,
    st.lists(
        st.builds(Reading, devices | st.sampled_from(["d", "e"]), st.integers(-3, 60).map(at), values_of()),
        max_size=30,
        unique_by=lambda reading: (reading.device, reading.ts_us),
    ),
    st.integers(1, 3),
    st.integers(1, 2),
    st.sampled_from(['"close"', '"at-once"']),
)


@pytest.mark.parametrize(("kind", "variant"), MERGED)
def test_windows_follow_from_each_partition_alone(kind: str, variant: str) -> None:
    @settings(max_examples=20, phases=[Phase.generate])
    @given(topics, st.randoms(use_true_random=False))
    def holds(topic: Topic, chance: random.Random) -> None:
        spec = spec_for(kind, variant, **dict(topic.settled), emit=topic.emit)
        partitions = [[r for r in topic.readings if ord(r.device) % topic.sources == n] for n in range(topic.sources)]
        check(chance, KINDS[kind], spec, partitions, topic.targets)

    holds()


def check(
    chance: random.Random, case: Case, spec: WindowSpec, partitions: Sequence[Sequence[Reading]], targets: int
) -> None:
    """That whatever happens on the way the windows are the oracle's, and every reading is accounted for."""
    right, kept, own = expected(case, spec, partitions)
    line, stages = run(chance, spec, partitions, targets)
    said = {key: window for stage in stages for key, window in stage.said.items()}
    assert not differing(said, right)
    for stage in stages:
        assert sound(stage.merged)
        assert stage.merged.counts["late"] == 0
        assert stage.merged.gauges["open"] == stage.merged.gauges["waiting"] == 0
    counts = [stage.merged.counts for stage in stages]
    assert sum(count["windowed"] + count["outside"] for count in counts) == own
    assert sum(local.counts["windowed"] for local in line.locals) == kept


SPREAD = [
    (kind, variant)
    for kind, variant in CASES
    if variant in ("by device", "repeats kept") or (kind in ("tumbling", "hopping", "session", "count"))
]


@pytest.mark.parametrize(("kind", "variant"), SPREAD)
def test_windows_are_of_all_readings_of_a_device_wherever_they_are(kind: str, variant: str) -> None:
    @settings(max_examples=20, phases=[Phase.generate])
    @given(topics, st.lists(st.integers(0, 2), min_size=60, max_size=60), st.randoms(use_true_random=False))
    def holds(topic: Topic, where: list[int], chance: random.Random) -> None:
        more = dict(topic.settled)
        spec = spec_for(kind, variant, **more, emit=topic.emit, unkeyed="merge")
        sent = list(topic.readings)
        if spec.drop_repeats and variant != "by room":
            if isinstance(spec.window, Hopping) and not spec.ordered:
                # A reading and its repeat may be in time for other windows: which of them counts is not said.
                spec = spec_for(kind, variant, grace="70s", emit=topic.emit, unkeyed="merge")
            sent += chance.sample(sent, len(sent) // 3)
        partitions: list[list[Reading]] = [[] for _ in range(topic.sources)]
        for place, reading in zip(where, sent, strict=False):
            partitions[place % topic.sources].append(reading)
        check(chance, KINDS[kind], spec, partitions, topic.targets)

    holds()


@pytest.mark.parametrize("repeats", ["drop", "keep"])
def test_a_device_has_the_tags_of_its_newest_reading_wherever_that_is(repeats: str) -> None:
    spec = spec_for("tumbling", "by device", repeats=f'"{repeats}"', unkeyed="merge")
    line = Line(spec, 2, 1)
    for source, second, room in ((1, 9, None), (1, 5, "new"), (0, 1, "old"), (0, 4, "older"), (0, 6, None)):
        line.read(source, [Reading("a", at(second), {"room": room})])
        line.restart(source, line.put_away(source))
    line.read(0, [Reading("b", at(2), {})])
    stage = SecondStage(spec, line, 0, lambda _source, _since: False)
    for source in (0, 1):
        line.silence(source)
    while stage.position < len(line.queues[0]):
        stage.take(1, line.now_us)
        stage.commit()
        stage.die()
    stage.tick(line.now_us + FOR_EVER_US)
    assert {key[0]: (stage.said[key]["count"], tags) for key, tags in stage.driver.tags.items()} == {
        "a": (5, {"room": "new"}),
        "b": (1, {"room": None}),
    }


def test_a_reading_behind_the_slowest_device_of_its_partition_is_late_there_and_not_where_it_is_merged() -> None:
    spec = spec_for("tumbling", "by device", unkeyed="merge")
    line, merged = Line(spec, 1, 1), Merged(spec)
    for device, second in (("a", 1), ("a", 25), ("b", 5), ("b", 26)):
        line.read(0, [Reading(device, at(second), {})])
    for message in line.queues[0]:
        merged.take(decode(message), line.now_us)
    assert line.locals[0].counts["late"] == 1
    assert (merged.counts["late"], merged.counts["read"]) == (0, 3)


@pytest.mark.parametrize("late", ["dead-letter", "heal"])
def test_what_corrects_a_reading_of_another_partition_is_recognised(late: str) -> None:
    spec = spec_for("tumbling", "by device", late=f'"{late}"', unkeyed="merge")
    line = Line(spec, 2, 1)
    line.read(0, [Reading("a", at(1), {"current": 1.0, "room": "r"})])
    line.read(1, [Reading("a", at(1), {"current": 2.0, "room": "r"}), Reading("a", at(2), {"current": 3.0})])
    merged = Merged(spec)
    outcomes = [merged.take(decode(message), line.now_us) for message in line.queues[0]]
    assert merged.counts["corrected"] == 1
    assert sound(merged)
    [said] = [found for outcome in outcomes for found in outcome.late]
    assert (said.groups, said.reasons) == (["a"], ["corrected"])
    if late == "dead-letter":
        # It goes to the late topic as a whole.
        assert [said.readings.column(name).tolist() for name in ("current", "room", "door")] == [[2.0], ["r"], [None]]
