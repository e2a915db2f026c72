"""Readings that were sent before: recognised exactly, at a bounded cost of memory and state."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from headrace.batch import Int64s
from headrace.column import Column, as_array
from headrace.errors import StateError
from processors.windows.input import deduplication as module
from processors.windows.input import sorted_runs
from processors.windows.input.deduplication import CORRECTED, FRESH, INDEX, REPEATED, Deduplication
from processors.windows.input.digest import Digests, digests
from processors.windows.input.sorted_runs import PIECE_BYTES
from processors.windows.time.watermark import NEVER

SECOND = 1_000_000
START = 1_790_000_000 * SECOND
INT64 = np.iinfo(np.int64)

Reading = tuple[int, int, int]
"""Slot, time in µs, digest."""


class Sender:
    """Deduplication, with the progress of the devices that a stream's windows would keep."""

    def __init__(self, slots: int) -> None:
        self.repeats = Deduplication()
        self.progress_us = np.full(slots, NEVER, np.int64)
        self.kept: dict[str, bytes] = {}

    def send(self, readings: Iterable[Reading]) -> list[int]:
        columns = list(zip(*readings, strict=True)) or [(), (), ()]
        slots, ts_us = np.array(columns[0], np.int64), np.array(columns[1], np.int64)
        return self.sift(slots, ts_us, np.array(columns[2], np.uint32)).tolist()

    def sift(self, slots: Int64s, ts_us: Int64s, said: Digests) -> np.ndarray:
        if slots.size and slots.max() >= len(self.progress_us):
            more = np.full(int(slots.max()) + 1 - len(self.progress_us), NEVER, np.int64)
            self.progress_us = np.concatenate([self.progress_us, more])
        verdicts = self.repeats.sift(slots, ts_us, said, self.progress_us)
        np.maximum.at(self.progress_us, slots, ts_us)
        return verdicts

    def write(self) -> tuple[int, int]:
        """A checkpoint: how many bytes it wrote, and how many pieces it deleted."""
        size = deleted = 0
        for name, value in self.repeats.changed():
            if value is None:
                deleted += 1
                # What may have been deleted before a restart is deleted once more after it.
                self.kept.pop(name, None)
            else:
                size += len(value)
                self.kept[name] = value
        assert self.kept.keys() - {INDEX} == set(self.listed()), "every piece is in the index, or deleted"
        return size, deleted

    def listed(self) -> list[str]:
        """The pieces that the index has."""
        packed = self.kept.get(INDEX)
        if packed is None:
            return []
        return [f"{INDEX}.{n}" for n in np.frombuffer(msgspec.msgpack.decode(packed)["firsts"], "<i8")]

    def restart(self) -> None:
        self.repeats = Deduplication()
        self.repeats.restore(self.kept.get)


def readings_of(device_count: int, seconds: range) -> tuple[Int64s, Int64s, Digests]:
    """A reading a second of each device, in order."""
    times = np.repeat(np.arange(seconds.start, seconds.stop, dtype=np.int64), device_count) * SECOND + START
    slots = np.tile(np.arange(device_count, dtype=np.int64), len(seconds))
    return slots, times, (slots * 7 + times).astype(np.uint32)


# Exactness


class Memory:
    """What must be answered, as a plain dict says it."""

    def __init__(self) -> None:
        self.sure: dict[tuple[int, int], int] = {}
        self.maybe: dict[tuple[int, int], int] = {}
        """What may have been forgotten."""

    def copy(self) -> Memory:
        other = Memory()
        other.sure, other.maybe = dict(self.sure), dict(self.maybe)
        return other

    def check(self, readings: Iterable[Reading], verdicts: Iterable[int]) -> None:
        for (slot, ts_us, said), verdict in zip(readings, verdicts, strict=True):
            at = (slot, ts_us)
            if at in self.maybe:
                before = self.maybe.pop(at)
                self.sure[at] = said if verdict == FRESH else before
                if verdict == FRESH:
                    continue
            if at in self.sure:
                assert verdict == (REPEATED if self.sure[at] == said else CORRECTED), (slot, ts_us, said)
            else:
                assert verdict == FRESH, (slot, ts_us, said)
                self.sure[at] = said

    def forget(self, limit_us: int, odd_limit_us: int) -> None:
        for at in [at for at in self.sure if at[1] < (odd_limit_us if at[0] % 2 else limit_us)]:
            self.maybe[at] = self.sure.pop(at)


few_slots = st.sampled_from([0, 1, 2, 3])
any_slots = st.one_of(few_slots, st.sampled_from([7, 65_535, 65_536, 70_001, 300_000]))
anchors = st.sampled_from([START, 0, 1 << 47, START - START % (1 << 43), -(1 << 47), INT64.min, INT64.max - 9])
usual_times = st.builds(lambda n: START + n, st.integers(0, 30))
any_times = st.one_of(
    usual_times, st.builds(lambda a, n: a + n, anchors, st.integers(0, 9)), st.integers(-(2**63), 2**63 - 1)
)
said = st.sampled_from([0, 1, 2**32 - 1])
readings = st.one_of(st.tuples(few_slots, usual_times, said), st.tuples(any_slots, any_times, said))


class AgainstADict(RuleBasedStateMachine):
    """Batches, forgetting, checkpoints and crashes in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        # So that runs are merged, cut and thinned out after tens of readings, not ten thousands.
        for name, size in {"MOST": 40, "FULL": 30, "FACTOR": 3}.items():
            self.patch.setattr(sorted_runs, name, size)
        self.patch.setattr(module, "_PRUNED_AT_LEAST", 10)
        self.sender, self.memory = Sender(1), Memory()
        self.written = (self.sender.progress_us, self.memory.copy())
        self.deleted: set[str] = set()

    def teardown(self) -> None:
        self.patch.undo()

    @rule(batch=st.lists(readings, max_size=90))
    def send(self, batch: list[Reading]) -> None:
        self.memory.check(batch, self.sender.send(batch))

    @rule(start=st.integers(0, 20), count=st.integers(1, 120), slots=st.integers(1, 4), step=st.integers(1, 3))
    def send_many(self, start: int, count: int, slots: int, step: int) -> None:
        batch = [(n % slots, START + start + n // slots * step, 0) for n in range(count)]
        self.memory.check(batch, self.sender.send(batch))

    @rule(limit_us=any_times, odd_limit_us=any_times)
    def prune(self, limit_us: int, odd_limit_us: int) -> None:
        self.sender.repeats.prune(lambda slots, ts_us: ts_us >= np.where(slots % 2, odd_limit_us, limit_us))
        self.memory.forget(limit_us, odd_limit_us)

    @rule()
    def checkpoint(self) -> None:
        self.sender.write()
        self.written = (self.sender.progress_us.copy(), self.memory.copy())
        assert list(self.sender.repeats.changed()) == []

    @rule()
    def crash(self) -> None:
        self.sender.restart()
        progress_us, memory = self.written
        self.sender.progress_us, self.memory = progress_us.copy(), memory.copy()

    @rule(pieces=st.integers(0, 6))
    def crash_within_a_checkpoint(self, pieces: int) -> None:
        """Only some of the pieces were written; the last one leaves what is there as it was, or as it is."""
        for place, (name, value) in enumerate(self.sender.repeats.changed()):
            if place >= pieces:
                break
            if value is None:
                self.sender.kept.pop(name, None)
            else:
                self.sender.kept[name] = value
            if name == INDEX:
                self.written = (self.sender.progress_us.copy(), self.memory.copy())
        self.crash()
        # A checkpoint after it leaves nothing behind that would never be deleted, but what it writes over later.
        for name, value in self.sender.repeats.changed():
            assert value is None
            self.sender.kept.pop(name, None)
        self.sender.kept = {
            name: value
            for name, value in self.sender.kept.items()
            if name == INDEX or int(name.removeprefix("seen.")) < self.sender.repeats._pieces._next
        }

    @invariant()
    def counted(self) -> None:
        assert len(self.memory.sure) <= len(self.sender.repeats) <= len(self.memory.sure) + len(self.memory.maybe)


TestAgainstADict = AgainstADict.TestCase
TestAgainstADict.settings = settings(max_examples=150, stateful_step_count=40)


@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**32 - 1),
    devices=st.sampled_from([1, 5, 1_000, 70_000]),
    sizes=st.lists(st.sampled_from([1, 10, 500, 1_000, 3_000, 25_000]), min_size=5, max_size=30),
    disorder_us=st.sampled_from([0, 10, 100_000]),
)
def test_large_batches_answer_as_a_dict_does(seed: int, devices: int, sizes: list[int], disorder_us: int) -> None:
    rng = np.random.default_rng(seed)
    sender, memory, now_us = Sender(devices), Memory(), START
    for size in sizes:
        slots = rng.integers(0, devices, size)
        ts_us = now_us + np.arange(size) * 3 // devices - rng.integers(0, disorder_us + 1, size)
        batch = [
            (s, t, d) for s, t, d in zip(slots.tolist(), ts_us.tolist(), rng.integers(0, 2, size).tolist(), strict=True)
        ]
        memory.check(batch, sender.send(batch))
        now_us = int(ts_us.max())
        if rng.random() < 0.3:
            sender.write()
        if rng.random() < 0.3:
            sender.write()
            sender.restart()
        if rng.random() < 0.3:
            limit_us = now_us - int(rng.integers(0, disorder_us + 10))
            sender.repeats.prune(lambda _, ts_us, limit_us=limit_us: ts_us >= limit_us)
            memory.forget(limit_us, limit_us)
    assert len(memory.sure) <= len(sender.repeats)


def test_the_first_of_a_batch_is_what_the_others_are_compared_with() -> None:
    sender = Sender(2)
    assert sender.send([(0, 5, 1), (0, 5, 2), (1, 5, 2), (0, 5, 1), (0, 4, 9), (0, 5, 2)]) == [0, 2, 0, 1, 0, 2]
    assert sender.send([(0, 5, 2), (0, 5, 1), (0, 4, 9), (1, 4, 9), (1, 4, 8)]) == [2, 1, 1, 0, 2]


def test_a_correction_does_not_replace_what_is_remembered() -> None:
    sender = Sender(1)
    assert [sender.send([(0, START, said)]) for said in (1, 2, 2, 1)] == [[FRESH], [CORRECTED], [CORRECTED], [REPEATED]]


def test_an_empty_batch_is_nothing() -> None:
    sender = Sender(0)
    assert sender.send([]) == []
    assert (len(sender.repeats), list(sender.repeats.changed())) == (0, [])


def test_a_replay_of_everything_is_recognised_after_a_restart() -> None:
    sender = Sender(1_000)
    sent = readings_of(1_000, range(60))
    assert not sender.sift(*sent).any()
    sender.write()
    sender.restart()
    assert (sender.sift(*sent) == REPEATED).all()
    slots, ts_us, said = sent
    assert (sender.sift(slots, ts_us, said + np.uint32(1)) == CORRECTED).all()
    assert sender.write() == (0, 0)


def test_more_devices_than_before_change_no_answer() -> None:
    sender = Sender(5)
    batch = [(slot, START + n * 86_400 * SECOND * 500, 1) for slot in range(5) for n in range(20)]
    sender.send(batch)
    sender.write()
    for slots in (70_000, 3_000_000):
        assert sender.send([(slots, START, 1)]) == [FRESH]
        assert set(sender.send(batch)) == {REPEATED}
        sender.write()
        sender.restart()
        assert set(sender.send([*batch, (slots, START, 1)])) == {REPEATED}


# Memory


@pytest.mark.parametrize(("size", "batches"), [(1_000, 400), (10, 8_000), (30_000, 10)])
def test_memory_at_rest_is_at_most_16_bytes_a_reading(size: int, batches: int) -> None:
    slots, ts_us, said = readings_of(5, range(size * batches // 5))
    sender = Sender(5)
    sender.sift(*(column[:1] for column in (slots, ts_us, said)))
    tracemalloc.start()
    for start in range(1, size * batches, size):
        sender.sift(*(column[start : start + size].copy() for column in (slots, ts_us, said)))
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(sender.repeats) == size * batches
    assert taken < 16 * len(sender.repeats)
    # numpy keeps some small buffers for its next arrays.
    assert 12 * len(sender.repeats) <= taken < 1.1 * sender.repeats.nbytes + 200_000
    assert sender.repeats.nbytes < 12.2 * len(sender.repeats)


def test_pruning_in_order_forgets_all_but_a_chunk_and_looks_at_little() -> None:
    sender, looked_at, sent = Sender(5), 0, 0
    for start in range(0, 60_000, 200):
        columns = readings_of(5, range(start, start + 200))
        sender.sift(*columns)
        sent += 1_000
        limit_us = START + (start - 12_000) * SECOND

        def still(_: Int64s, ts_us: Int64s, limit_us: int = limit_us) -> np.ndarray:
            nonlocal looked_at
            looked_at += len(ts_us)
            return ts_us >= limit_us

        if start % 4_000 == 0 or sender.repeats.wants_pruning:
            sender.repeats.prune(still)
            assert len(sender.repeats) <= 5 * 12_200 + PIECE_BYTES // 12
        sender.write()
    assert looked_at < 3 * sent


def test_one_slow_device_does_not_keep_the_others_readings() -> None:
    """Its reading holds up the oldest run, until there is twice as much as before."""
    sender, looked_at, sent, greatest = Sender(5), 0, 1, 0
    sender.send([(4, START, 3)])

    def still(slots: Int64s, ts_us: Int64s) -> np.ndarray:
        nonlocal looked_at
        looked_at += len(ts_us)
        return (slots == 4) | (ts_us >= sender.progress_us[slots] - 1_000 * SECOND)

    for start in range(0, 200_000, 250):
        sender.sift(*readings_of(4, range(start, start + 250)))
        sent += 1_000
        if start % 5_000 == 0 or sender.repeats.wants_pruning:
            sender.repeats.prune(still)
        greatest = max(greatest, len(sender.repeats))
    assert sender.send([(4, START, 3), (4, START, 4)]) == [REPEATED, CORRECTED]
    assert greatest < 2 * 32_768 + 1_000
    assert looked_at < 6 * sent


# State


def test_a_checkpoint_writes_what_is_new_however_much_is_remembered() -> None:
    sender = Sender(1_000)
    for start in range(0, 300, 30):
        sender.sift(*readings_of(1_000, range(start, start + 30)))
    size, deleted = sender.write()
    assert 300_000 * 12 <= size <= 300_000 * 12.1
    assert deleted == 0
    assert sender.write() == (0, 0)
    sender.sift(*(column[:10] for column in readings_of(1_000, range(300, 301))))
    size, deleted = sender.write()
    assert size < 10 * 12 + 16 * len(sender.kept) + 200
    assert deleted == 0


@pytest.mark.parametrize("a_checkpoint", [1, 50, 700])
def test_many_checkpoints_write_each_reading_few_times_and_leave_few_pieces(a_checkpoint: int) -> None:
    sender, checkpoints = Sender(1), 1_500
    entries = index = deleted = 0
    for checkpoint in range(checkpoints):
        sender.sift(*readings_of(1, range(checkpoint * a_checkpoint, (checkpoint + 1) * a_checkpoint)))
        for name, value in sender.repeats.changed():
            if value is None:
                deleted += 1
                del sender.kept[name]
            else:
                assert len(value) <= PIECE_BYTES
                sender.kept[name] = value
                index = max(index, len(value)) if name == INDEX else index
                entries += len(msgspec.msgpack.decode(value)["digests"]) // 4 if name != INDEX else 0
    sent = checkpoints * a_checkpoint
    assert entries <= 4 * sent
    assert deleted <= checkpoints
    assert len(sender.kept) <= 3 * 15 + sent // 10_000 + 2
    assert index < 100 + 16 * 80 + 8 * sent // 10_000
    sender.restart()
    assert len(sender.repeats) == sent
    assert (sender.sift(*readings_of(1, range(sent))) == REPEATED).all()


def test_a_checkpoint_of_many_small_batches_is_one_piece() -> None:
    sender = Sender(5)
    for start in range(0, 3_000, 10):
        sender.sift(*readings_of(5, range(start, start + 10)))
    sender.write()
    assert list(sender.kept) == [f"{INDEX}.0", INDEX]


def test_a_window_that_moves_on_deletes_what_it_wrote() -> None:
    sender, written, deleted = Sender(5), 0, 0
    for start in range(0, 60_000, 100):
        sender.sift(*readings_of(5, range(start, start + 100)))
        limit_us = START + (start - 10_000) * SECOND
        sender.repeats.prune(lambda _, ts_us, limit_us=limit_us: ts_us >= limit_us)
        size, gone = sender.write()
        written, deleted = written + size, deleted + gone
    assert written < 3 * 300_000 * 12
    assert deleted > 300_000 * 12 // PIECE_BYTES
    assert sum(map(len, sender.kept.values())) < 16 * len(sender.repeats) < 16 * (50_000 + 25_000)
    sender.repeats.prune(lambda _, ts_us: np.zeros(len(ts_us), np.bool_))
    sender.write()
    assert (len(sender.repeats), list(sender.kept)) == (0, [INDEX])


def test_what_is_forgotten_before_a_checkpoint_is_never_written() -> None:
    sender = Sender(5)
    sender.sift(*readings_of(5, range(1_000)))
    sender.repeats.prune(lambda _, ts_us: np.zeros(len(ts_us), np.bool_))
    assert list(sender.repeats.changed()) == []


def test_names_of_pieces_are_never_used_again() -> None:
    sender, names = Sender(1), list[str]()
    for checkpoint in range(50):
        sender.send([(0, START + checkpoint, 0)])
        names += [name for name, value in sender.repeats.changed() if value is not None and name != INDEX]
        sender.repeats.prune(lambda _, ts_us: np.zeros(len(ts_us), np.bool_))
    assert names == [f"{INDEX}.{n}" for n in range(50)]


def test_a_lacking_piece_and_another_version_are_errors() -> None:
    sender = Sender(1)
    sender.send([(0, START, 0)])
    sender.write()
    with pytest.raises(StateError, match=r"lacks its piece seen\.0"):
        Deduplication().restore({INDEX: sender.kept[INDEX]}.get)
    other = msgspec.msgpack.decode(sender.kept[INDEX]) | {"version": 99}
    with pytest.raises(StateError, match="version 99"):
        Deduplication().restore({INDEX: msgspec.msgpack.encode(other)}.get)


def test_nothing_written_restores_to_nothing() -> None:
    sender = Sender(1)
    sender.send([(0, START, 0)])
    sender.restart()
    assert len(sender.repeats) == 0
    assert sender.repeats.sift(*readings_of(1, range(1)), np.array([NEVER])).tolist() == [FRESH]


# Digests


def column(values: list[object], dtype: type) -> Column:
    present = np.array([value is not None for value in values], np.bool_)
    blank = {float: np.nan, int: 0, bool: False, object: ""}[dtype]
    listed = [blank if value is None else value for value in values]
    return Column(as_array(listed, dtype), None if present.all() else present)


one_row = st.tuples(
    st.none() | st.floats(allow_nan=False),
    st.none() | st.integers(INT64.min, INT64.max),
    st.none() | st.booleans(),
    st.none() | st.text(),
)


@given(
    st.lists(st.one_of(one_row, st.sampled_from([(0.0, 0, False, ""), (-0.0, 0, False, ""), (None,) * 4])), min_size=1)
)
def test_digests_are_equal_where_readings_are(rows: list[tuple[object, ...]]) -> None:
    kinds = (float, int, bool, object)
    said = digests(
        [column(list(values), kind) for values, kind in zip(zip(*rows, strict=True), kinds, strict=True)], len(rows)
    )
    assert said.dtype == np.uint32
    assert len(set(said.tolist())) == len(set(rows))
    # And alone it says what it says among others.
    alone = [digests([column([value], kind) for value, kind in zip(row, kinds, strict=True)], 1)[0] for row in rows]
    assert said.tolist() == alone


@pytest.mark.parametrize(
    ("values", "dtype"),
    [([0.0, None], float), ([0, None, 1], int), ([False, None, True], bool), (["", None, "a"], object)],
)
def test_an_absent_value_differs_from_any(values: list[object], dtype: type) -> None:
    assert len(set(digests([column(values, dtype)], len(values)).tolist())) == len(values)


def test_what_stands_under_an_absent_value_does_not_matter() -> None:
    absent = np.array([False])
    said = [digests([Column(np.array([value]), absent)], 1)[0] for value in (1.0, np.nan, 5, True)]
    assert len(set(said)) == 1
    assert digests([Column(np.array([np.nan, -np.nan]))], 2).tolist() == [said[0]] * 2


def test_values_in_other_columns_are_other_readings() -> None:
    a, b = Column(np.array([1.0, 2.0])), Column(np.array([2.0, 1.0]))
    said = digests([a, b], 2)
    assert said[0] != said[1]
    assert digests([b, a], 2).tolist() == said[::-1].tolist()


def test_views_of_other_layouts_say_the_same() -> None:
    values = np.arange(20, dtype=np.float64)
    assert digests([Column(values[::2])], 10).tolist() == digests([Column(values[::2].copy())], 10).tolist()
    assert digests([Column(values.astype(">f8"))], 20).tolist() == digests([Column(values)], 20).tolist()
    before = values.copy()
    digests([Column(values), Column(values)], 20)
    assert (values == before).all()


def test_without_columns_all_readings_say_the_same() -> None:
    assert digests([], 3).tolist() == [0, 0, 0]


def test_digests_are_the_same_in_every_release() -> None:
    """They lie in states and changelogs."""
    columns = [
        column([20.5, -0.0, None], float),
        column([7, -1, None], int),
        column([True, False, None], bool),
        column(["on", "é\ud800", None], object),
    ]
    assert digests(columns, 3).tolist() == [1165927284, 3458242789, 3384439581]


@pytest.mark.parametrize("values", [np.arange(200_000) * 0.1, np.arange(200_000.0), np.arange(200_000) << 40])
def test_values_in_steps_collide_no_more_than_chance_would_have_it(values: np.ndarray) -> None:
    """Five pairs are expected of so many in 32 bits."""
    assert len(values) - len(np.unique(digests([Column(values)], len(values)))) <= 20
