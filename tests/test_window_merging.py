"""Groups that span partitions: folded where they are read, merged behind a topic, they equal those of one partition."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from processor_line import assert_alike
from window_oracle import EPOCH_NOON, FOR_EVER_US, SECOND, Driver, Reading, Tick, at, batch_of, sound, spec_of

from processors.windows import WindowOperator, WindowSpec
from processors.windows.repartition.local import Local, Source, target_of
from processors.windows.repartition.merged import Merged
from processors.windows.repartition.update import Panes, Update, decode, encode
from processors.windows.state import changed_pieces, restore_into
from processors.windows.time.watermark import NEVER

pytestmark = pytest.mark.slow

DEVICES = tuple(f"d{n}" for n in range(6))
KINDS: dict[str, dict[str, str]] = {
    "tumbling": {"window": 'kind = "tumbling", size = "10s"'},
    "hopping": {"window": 'kind = "hopping", size = "10s", step = "2s"'},
    "uneven": {"window": 'kind = "hopping", size = "10s", step = "4s", offset = "1s"', "where": "current > 0"},
    "sliding": {"window": 'kind = "sliding", size = "5s"'},
    "session": {"window": 'kind = "session", gap = "3s", longest = "20s"'},
    "state": {"window": 'kind = "state", field = "note"'},
    "count": {"window": 'kind = "count", count = 5, step = 2'},
    "event": {"window": 'kind = "event", start = "current > 5", end = "energy = 1"'},
}
GROUPS = ('["room"]', "[]", '["note", "door"]')


def stream(kind: str, by: str = '["room"]', **more: str) -> WindowSpec:
    """A stream that no reading of these tests is late for, as disorder is less than its grace."""
    return spec_of(**{"by": by, "idle": "1h", "grace": "70s", **KINDS[kind], **more})  # type: ignore[arg-type]


@dataclass
class Line:
    """Local parts of ``sources`` partitions and what they forward to ``targets``, by a queue each."""

    spec: WindowSpec
    sources: int
    targets: int
    queues: list[list[bytes]] = field(default_factory=list)
    locals: list[Local] = field(default_factory=list)
    kept: list[dict[str, bytes]] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    """of each partition the next one"""
    now_us: int = EPOCH_NOON

    def __post_init__(self) -> None:
        self.queues = [[] for _ in range(self.targets)]
        self.locals = [Local(self.spec) for _ in range(self.sources)]
        self.kept = [{} for _ in range(self.sources)]
        self.offsets = [0] * self.sources
        for local in self.locals:
            local.since = 0

    def read(self, source: int, readings: Sequence[Reading]) -> None:
        """Give a partition readings; it forwards what it has to, and says how far it is."""
        local = self.locals[source]
        if readings:
            local.add(batch_of(readings, self.spec), self.now_us)
            self.offsets[source] += len(readings)
        self.hand_on(source)

    def silence(self, source: int, us: int = 0) -> None:
        """A partition says that it is silent, and has been for so long."""
        self.locals[source].tick(self.now_us + us)
        self.hand_on(source, self.now_us + us)

    def hand_on(self, source: int, silent_since_us: int | None = None) -> None:
        local = self.locals[source]
        for target, what in local.forwarded(self.targets):
            held = Update(source, self.sources, 0, 0, NEVER, NEVER, silent=False)
            if isinstance(what, Panes):
                held.panes = what
            else:
                held.kept = what
            self.queues[target].append(encode(held))
        for queue in self.queues:
            of = Source(source, self.sources, self.offsets[source])
            queue.append(encode(local.part(of, silent_since_us)))

    def put_away(self, source: int) -> dict[str, bytes]:
        """A partition's state as it is now."""
        keep(self.locals[source], self.kept[source], self.offsets[source])
        return dict(self.kept[source])

    def restart(self, source: int, kept: dict[str, bytes]) -> None:
        """Begin again from a state."""
        self.locals[source] = Local(self.spec)
        self.kept[source] = kept
        self.offsets[source] = restore_into(self.locals[source], kept.get)


@dataclass
class Ends:
    """The second stage, one for each target; what it says goes to one driver."""

    spec: WindowSpec
    targets: int
    merged: list[Merged] = field(default_factory=list)
    kept: list[dict[str, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.merged = [Merged(self.spec) for _ in range(self.targets)]
        self.kept = [{} for _ in range(self.targets)]
        self.driver = Driver(self.merged[0])

    def take(self, target: int, part: Update, now_us: int = EPOCH_NOON) -> dict[tuple[str, int], dict[str, Any]]:
        """The windows that a part closes."""
        self.driver.windowed = self.merged[target]
        return self.driver._note(self.merged[target].take(part, now_us))

    def take_all(self, line: Line) -> None:
        """All that waits in the queues."""
        for target, queue in enumerate(line.queues):
            for message in queue:
                self.take(target, decode(message), line.now_us)
            queue.clear()

    def restart(self, target: int) -> None:
        """Put the state away and begin again from it."""
        keep(self.merged[target], self.kept[target])
        self.merged[target] = Merged(self.spec)
        restore_into(self.merged[target], self.kept[target].get)


def keep(windowed: WindowOperator, kept: dict[str, bytes], next_offset: int = 0) -> None:
    for name, piece in changed_pieces(windowed, next_offset):
        if piece is None:
            kept.pop(name, None)
        else:
            kept[name] = piece


def test_a_partition_that_is_read_again_takes_nothing_back() -> None:
    spec = stream("tumbling", emit='"at-once"')
    line, ends = Line(spec, sources=2, targets=1), Ends(spec, targets=1)
    begun = line.put_away(0)
    three = [Reading("a", at(second), {"room": "r", "energy": second}) for second in (1, 2, 3)]
    for reading in three:
        line.read(0, [reading])
    line.read(1, [Reading("b", at(1), {"room": "r", "energy": 7})])
    ends.take_all(line)
    # From the first checkpoint on, cut otherwise, and no further yet.
    line.restart(0, begun)
    line.read(0, three[:1])
    ends.take_all(line)
    line.read(1, [Reading("b", at(2), {"room": "r", "energy": 7})])
    ends.take_all(line)
    counts = [said["count"] for _, said in ends.driver.provisional]
    assert counts == sorted(counts)
    assert counts[-1] == 5
    line.read(0, three[1:])
    for source in (0, 1):
        line.silence(source, us=FOR_EVER_US)
    ends.take_all(line)
    assert [said["count"] for said in ends.driver.closed.values()] == [5]
    assert sound(ends.merged[0])


@st.composite
def readings(draw: st.DrawFn) -> list[Reading]:
    """Readings within a minute, in any order; no device has two of one time."""
    values = st.fixed_dictionaries(
        {
            "current": st.none() | st.integers(-40, 40).map(lambda n: n / 4),
            "energy": st.none() | st.sampled_from([0, 1, -7, 2**53 + 1]),
            "door": st.none() | st.booleans(),
            "note": st.none() | st.sampled_from(["", "x", "é"]),
            "room": st.none() | st.sampled_from(["r", "s"]),
        }
    )
    return draw(
        st.lists(
            st.builds(Reading, st.sampled_from(DEVICES), st.integers(0, 60).map(at), values),
            max_size=40,
            unique_by=lambda reading: (reading.device, reading.ts_us),
        )
    )


def interleaved(chance: random.Random, line: Line, made: Sequence[Reading]) -> Iterator[tuple[int, list[Reading]]]:
    """The readings of each partition in their order, in batches that come in any order."""
    waiting = [[r for r in made if DEVICES.index(r.device) % line.sources == n] for n in range(line.sources)]
    turns = [n for n in range(line.sources) for _ in range(5)]
    chance.shuffle(turns)
    for turn in turns:
        taken = chance.randint(0, 6)
        yield turn, waiting[turn][:taken]
        del waiting[turn][:taken]
    yield from enumerate(waiting)


@pytest.mark.parametrize(("emit", "repeats"), [("close", "drop"), ("at-once", "drop"), ("close", "keep")])
@pytest.mark.parametrize("by", GROUPS)
@pytest.mark.parametrize("kind", KINDS)
def test_parts_merged_are_the_windows_of_one_partition(kind: str, by: str, emit: str, repeats: str) -> None:
    spec = stream(kind, by, emit=f'"{emit}"', repeats=f'"{repeats}"')

    @settings(max_examples=25)
    @given(readings(), st.randoms(use_true_random=False), st.integers(1, 3), st.integers(1, 3))
    def holds(made: list[Reading], chance: random.Random, sources: int, targets: int) -> None:
        one = Driver(WindowOperator(spec)).run([*made, Tick(FOR_EVER_US)])
        line, ends = Line(spec, sources, targets), Ends(spec, targets)
        for source, batch in interleaved(chance, line, made):
            kept = line.put_away(source) if chance.random() < 0.3 else None
            line.read(source, batch)
            if kept is not None:
                # Killed before its next checkpoint: it does the same again, cut into batches otherwise.
                line.restart(source, kept)
                cut = chance.randint(0, len(batch))
                line.read(source, batch[:cut])
                line.read(source, batch[cut:])
        for source in range(sources):
            line.silence(source, FOR_EVER_US)
        for target, queue in enumerate(line.queues):
            for message in queue:
                ends.take(target, decode(message))
                if chance.random() < 0.2:
                    ends.take(target, decode(message))
                if chance.random() < 0.2:
                    ends.restart(target)
        assert_alike(ends.driver.closed, one.closed)
        for merged in ends.merged:
            assert sound(merged)
            assert merged.gauges["waiting"] == 0
            assert kind == "sliding" or merged.gauges["open"] == 0
        assert all(sound(local) for local in line.locals)
        if emit == "close":
            assert ends.driver.provisional == []

    holds()


# ---- named situations


def reading(device: str, seconds: float, **values: Any) -> Reading:
    return Reading(device, at(seconds), {"room": "hall", "current": 1.0, **values})


def tumbling(**more: str) -> WindowSpec:
    return stream("tumbling", **{"grace": "0s", **more})


def counts(ends: Ends) -> dict[tuple[str, float], int]:
    """How many readings the closed windows hold, by group and second."""
    return {(group, (us - at(0)) / SECOND): said["count"] for (group, us), said in ends.driver.closed.items()}


def test_a_group_closes_when_its_last_partition_has_passed_its_window() -> None:
    line, ends = Line(tumbling(), 2, 1), Ends(tumbling(), 1)
    line.read(0, [reading("d0", 1), reading("d0", 12)])
    line.read(1, [reading("d1", 2), reading("d1", 9.9)])
    ends.take_all(line)
    assert counts(ends) == {}
    line.read(1, [reading("d1", 10)])
    ends.take_all(line)
    assert counts(ends) == {("hall", 0.0): 3}


def test_a_partition_that_is_behind_holds_all_up_however_long() -> None:
    line, ends = Line(tumbling(idle="30s"), 2, 1), Ends(tumbling(idle="30s"), 1)
    line.read(1, [reading("d1", 2)])
    line.read(0, [reading("d0", second) for second in range(0, 7_200, 5)])
    ends.take_all(line)
    assert counts(ends) == {}
    line.read(1, [reading("d1", 3), reading("d1", 7_200)])
    ends.take_all(line)
    assert counts(ends)["hall", 0.0] == 4
    assert sum(counts(ends).values()) == 7_200 // 5  # two more, and the last two are in a window that is open


def test_a_partition_that_has_not_spoken_yet_holds_all_up() -> None:
    line, ends = Line(tumbling(idle="30s"), 3, 1), Ends(tumbling(idle="30s"), 1)
    line.read(0, [reading("d0", second) for second in range(0, 100, 5)])
    line.read(1, [reading("d1", second) for second in range(0, 100, 5)])
    ends.take_all(line)
    assert counts(ends) == {}
    line.silence(2)
    ends.take_all(line)
    assert counts(ends)["hall", 80.0] == 4


def test_a_silent_partition_holds_up_no_longer_than_idle() -> None:
    line, ends = Line(tumbling(idle="30s"), 2, 1), Ends(tumbling(idle="30s"), 1)
    line.read(0, [reading("d0", 1)])
    line.read(1, [reading("d1", 2)])
    line.silence(1)
    line.read(0, [reading("d0", 39)])
    ends.take_all(line)
    assert counts(ends) == {}
    line.read(0, [reading("d0", 40)])
    ends.take_all(line)
    assert counts(ends) == {("hall", 0.0): 2}


def test_when_all_are_silent_the_wall_clock_closes_the_last_windows() -> None:
    line, ends = Line(tumbling(idle="30s"), 2, 1), Ends(tumbling(idle="30s"), 1)
    line.read(0, [reading("d0", 1)])
    line.read(1, [reading("d1", 2)])
    line.silence(0, 38 * SECOND)
    line.silence(1, 37 * SECOND)
    ends.take_all(line)
    assert counts(ends) == {}
    line.silence(0, 39 * SECOND)
    line.silence(1, 39 * SECOND)
    ends.take_all(line)
    assert counts(ends) == {("hall", 0.0): 2}


def test_a_reading_that_is_late_for_its_own_partition_is_counted_there() -> None:
    spec = tumbling(late='"dead-letter"')
    line, ends = Line(spec, 2, 1), Ends(spec, 1)
    line.read(0, [reading("d0", 1), reading("d0", 12)])
    line.read(1, [reading("d1", 2), reading("d1", 12)])
    assert line.locals[0].add(batch_of([reading("d0", 3)], spec), EPOCH_NOON).late[0].reasons == ["late"]
    line.hand_on(0)
    ends.take_all(line)
    assert counts(ends) == {("hall", 0.0): 2}
    assert line.locals[0].counts["late"] == 1
    assert all(sound(local) for local in line.locals)


@pytest.mark.parametrize("repeats", ["drop", "keep"])
@pytest.mark.parametrize("kind", ["hopping", "session"])
def test_what_a_restarted_partition_hands_on_again_counts_once(kind: str, repeats: str) -> None:
    spec = stream(kind, grace="1s", repeats=f'"{repeats}"')
    line, ends = Line(spec, 2, 1), Ends(spec, 1)
    before = line.put_away(0)
    first = [reading("d0", second, energy=1) for second in (0, 1, 2, 14, 16)]
    line.read(0, first)
    line.restart(0, before)
    for again in first:
        line.read(0, [again])
    line.read(1, [reading("d1", second, energy=1) for second in (0.5, 1.5, 15.5)])
    ends.take_all(line)
    every = [*first, *(reading("d1", second, energy=1) for second in (0.5, 1.5, 15.5))]
    every.sort(key=lambda reading: reading.ts_us)
    one = Driver(WindowOperator(spec)).run(every)
    assert ends.driver.closed
    assert_alike(ends.driver.closed, one.closed)
    assert ends.merged[0].counts["repeated"] > 0
    assert ends.merged[0].counts["late"] == 0
    assert sound(ends.merged[0])


def test_a_flush_that_comes_again_after_its_windows_closed_says_nothing_anew() -> None:
    spec = tumbling()
    line, ends = Line(spec, 1, 1), Ends(spec, 1)
    before = line.put_away(0)
    line.read(0, [reading("d0", 1), reading("d0", 12), reading("d0", 22)])
    ends.take_all(line)
    assert counts(ends) == {("hall", 0.0): 1, ("hall", 10.0): 1}
    line.restart(0, before)
    line.read(0, [reading("d0", 1), reading("d0", 12), reading("d0", 22)])
    ends.take_all(line)
    assert ends.merged[0].counts["closed"] == 2
    assert (ends.merged[0].counts["repeated"], ends.merged[0].counts["late"]) == (2, 0)
    assert sound(ends.merged[0])


def test_a_pane_counts_in_the_windows_that_its_partition_had_open_however_long_others_hold_them_up() -> None:
    spec = stream("hopping", grace="0s")
    line, ends = Line(spec, 2, 1), Ends(spec, 1)
    line.read(1, [reading("d1", 0)])
    line.read(0, [reading("d0", second) for second in (9, 11, 9.5)])  # the last one is late for what ends at 10
    ends.take_all(line)
    assert counts(ends) == {}
    line.read(1, [reading("d1", 12)])
    line.read(0, [reading("d0", 12)])
    ends.take_all(line)
    assert [counts(ends)["hall", start] for start in (0.0, 2.0)] == [2, 3]


def test_what_comes_after_a_silence_that_was_too_long_is_late_once() -> None:
    spec = tumbling(idle="30s")
    line, ends = Line(spec, 2, 1), Ends(spec, 1)
    line.read(0, [reading("d0", 1)])
    line.read(1, [reading("d1", 2)])
    line.silence(1)
    line.read(0, [reading("d0", 50)])
    ends.take_all(line)
    assert counts(ends) == {("hall", 0.0): 2}
    before = line.put_away(1)
    line.read(1, [reading("d1", second) for second in (3, 4, 15, 20)])
    ends.take_all(line)
    ends.restart(0)
    line.restart(1, before)
    line.read(1, [reading("d1", second) for second in (3, 4)])
    line.read(1, [reading("d1", second) for second in (15, 20)])
    ends.take_all(line)
    # Two for the window until 10, one for the next; the last one's window is open in its partition.
    said = ends.merged[0].counts
    assert (said["windowed"], said["late"]) == (2, 3)
    assert sound(ends.merged[0])


def test_one_that_is_written_to_is_not_taken_to_be_silent_though_it_said_so() -> None:
    spec, end = tumbling(idle="30s"), [1]
    line, ends = Line(spec, 2, 1), Ends(spec, 1)
    ends.merged[0].clocks.any_unread = lambda source, since: source == 1 and end[0] > since
    line.read(0, [reading("d0", 1)])
    line.read(1, [reading("d1", 2)])
    line.silence(1)
    end[0] = 2  # and whoever reads it is dead
    line.read(0, [reading("d0", 50)])
    ends.take_all(line)
    assert counts(ends) == {}
    line.read(1, [reading("d1", 3)])
    line.silence(1)
    line.now_us += SECOND
    ends.take_all(line)
    assert counts(ends) == {("hall", 0.0): 3}


def test_windows_that_span_partitions_speak_at_once_before_they_close() -> None:
    spec = tumbling(emit='"at-once"')
    line, ends = Line(spec, 2, 1), Ends(spec, 1)
    line.read(0, [reading("d0", 1)])
    ends.take_all(line)
    line.read(1, [reading("d1", 2), reading("d1", 3)])
    ends.take_all(line)
    assert [(key[0], said["count"], said["final"]) for key, said in ends.driver.provisional] == [
        ("hall", 1, False),
        ("hall", 3, False),
    ]
    line.read(0, [reading("d0", 10)])
    line.read(1, [reading("d1", 10)])
    ends.take_all(line)
    assert counts(ends) == {("hall", 0.0): 3}


def test_each_group_comes_together_in_one_partition_wherever_it_is_asked() -> None:
    assert {target_of(("hall", 3), 4) for _ in range(3)} == {target_of(("hall", 3), 4)}
    assert {target_of((f"room {n}",), 4) for n in range(100)} == {0, 1, 2, 3}
    assert target_of((), 1) == 0
