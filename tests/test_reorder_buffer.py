"""Readings that wait for their place in the order: exactly those of a plain sorted list, at a cost of what moves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec
import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from window_readings import FOR_EVER_US, SECOND, Reading, Tick, at, spec_of
from window_situations import read, windows

from headrace.batch import Int64s
from headrace.column import Column, as_array
from headrace.errors import StateError
from processors.windows.input import held_readings, sorted_runs
from processors.windows.input.held_readings import HeldReadings
from processors.windows.input.readings import Readings
from processors.windows.input.reorder_buffer import ReorderBuffer
from processors.windows.state import changed_pieces, restore
from processors.windows.time.watermark import NEVER

GROUPS = 4
NAMES = ["d", "b", "a", "c"]
"""Of the devices, whose order is not that of their slots."""
DTYPES = {"value": np.float64, "note": object}

Plain = tuple[int, int, int, int]
"""Group, time, device, and the number in the order of arrival."""


def readings_of(plain: list[Plain]) -> Readings:
    slots, ts_us, devices, numbers = (np.array(column, np.int64) for column in zip(*plain, strict=True))
    notes = as_array([f"n{n}" if n % 3 else "" for n in numbers.tolist()], object)
    columns = {"value": Column(numbers.astype(np.float64)), "note": Column(notes, numbers % 3 > 0)}
    return Readings(slots, devices, ts_us, columns)


def plain_of(readings: Readings) -> list[Plain]:
    numbers = readings.columns["value"].values.astype(np.int64)
    notes = readings.columns["note"]
    assert notes.values.tolist() == [f"n{n}" if n % 3 else "" for n in numbers.tolist()]
    assert notes.valid is None or notes.valid.tolist() == [n % 3 > 0 for n in numbers.tolist()]
    columns = (readings.slots, readings.ts_us, readings.devices, numbers)
    return list(zip(*(column.tolist() for column in columns), strict=True))


@dataclass
class Kept:
    """State as it was written: the pieces, and the fronts of each group."""

    pieces: dict[str, bytes] = field(default_factory=dict)
    fronts: dict[int, bytes] = field(default_factory=dict)

    def write(self, held: HeldReadings, touched: set[int], deletions: int | None = None) -> None:
        """A checkpoint; only so many ``deletions``, if it is cut short there: they follow what makes it count."""
        self.fronts |= {slot: held.fronts(slot, slot + 1) for slot in touched}
        for name, value in held.changed():
            if value is not None:
                assert len(value) <= held_readings.PIECE_BYTES or name == held.name
                self.pieces[name] = value
            elif deletions is None or deletions > 0:
                self.pieces.pop(name, None)
                deletions = None if deletions is None else deletions - 1

    def restore(self, held: HeldReadings) -> None:
        for slot, fronts in self.fronts.items():
            held.take_fronts(fronts, slot)
        held.restore(self.pieces.get, DTYPES)

    def listed(self, name: str) -> set[str]:
        """The pieces that the index has."""
        if name not in self.pieces:
            return set()
        index = msgspec.msgpack.decode(self.pieces[name])
        pairs = zip(np.frombuffer(index["firsts"], "<i8"), np.frombuffer(index["counts"], "<i8"), strict=True)
        return {f"{name}.{number}" for first, count in pairs for number in range(first, first + count)}


class AgainstASortedList(RuleBasedStateMachine):
    """Batches, times that move on by group, checkpoints and crashes in any order; a grace that becomes longer."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        # So that runs are merged, thinned out and cut into pieces after tens of readings, not ten thousands.
        for name, size in {"MOST": 12, "FULL": 6, "PIECE_BYTES": 200}.items():
            self.patch.setattr(held_readings, name, size)
        self.patch.setattr(sorted_runs, "FACTOR", 3)

    @initialize(ties=st.booleans())
    def begin(self, ties: bool) -> None:
        self.ties = ties
        self.buffer = ReorderBuffer(ties=ties)
        self.waiting: list[Plain] = []
        self.closed_us = np.full(GROUPS, NEVER, np.int64)
        self.seen_us = np.full(GROUPS, NEVER, np.int64)
        self.number = 0
        self.touched: set[int] = set()
        self.kept, self.at_checkpoint = Kept(), (list[Plain](), self.closed_us.copy())

    @rule(drawn=st.lists(st.tuples(st.integers(0, GROUPS - 1), st.integers(0, 12), st.integers(0, 3)), min_size=1))
    def put(self, drawn: list[tuple[int, int, int]]) -> None:
        """Readings that are not late; where ties do not matter all of a group are of one device."""
        batch: list[Plain] = []
        for slot, ahead, device in drawn:
            ts_us = max(int(self.closed_us[slot]), 0) + ahead
            batch.append((slot, ts_us, device if self.ties else slot, self.number))
            self.number += 1
        self.waiting += batch
        self.buffer.put(readings_of(batch))
        self.touched |= {slot for slot, *_ in batch}

    @rule(steps=st.lists(st.integers(0, 9), min_size=GROUPS, max_size=GROUPS))
    def release(self, steps: list[int]) -> None:
        self.closed_us = np.maximum(self.closed_us, 0) + np.array(steps, np.int64)
        released = self.buffer.release(self.closed_us, NAMES)
        ready = [one for one in self.waiting if one[1] + self.ties <= self.closed_us[one[0]]]
        self.waiting = [one for one in self.waiting if one not in ready]
        ready.sort(key=lambda one: (one[0], one[1], NAMES[one[2]] if self.ties else "", one[3]))
        assert (plain_of(released) if released is not None else []) == ready
        self.touched |= {slot for slot, *_ in ready}
        for slot, ts_us, *_ in ready:
            self.seen_us[slot] = max(int(self.seen_us[slot]), ts_us)

    @rule(by=st.integers(1, 8))
    def longer_grace(self, by: int) -> None:
        self.closed_us = np.maximum(self.closed_us, 0) - by

    @rule()
    def latest(self) -> None:
        """Those that were released have been seen, and are no reason to be silent."""
        latest_us = self.seen_us.copy()
        self.buffer.note_latest(latest_us)
        assert latest_us.tolist() == [
            max([seen, *(ts for group, ts, *_ in self.waiting if group == slot)])
            for slot, seen in enumerate(self.seen_us.tolist())
        ]

    @rule(deletions=st.none() | st.integers(0, 3))
    def checkpoint(self, deletions: int | None) -> None:
        self.kept.write(self.buffer.held, self.touched, deletions)
        self.touched = set()
        self.at_checkpoint = list(self.waiting), self.closed_us.copy()
        if deletions is None:
            assert self.kept.pieces.keys() - {"waiting"} == self.kept.listed("waiting")
        else:
            self.crash()

    @rule()
    def crash(self) -> None:
        """What came since the last checkpoint is lost, and sent again by the broker."""
        self.buffer = ReorderBuffer(ties=self.ties)
        self.kept.restore(self.buffer.held)
        self.waiting, self.closed_us = list(self.at_checkpoint[0]), self.at_checkpoint[1].copy()
        self.touched = set()

    @rule()
    def another_owner(self) -> None:
        """It begins with what was written, and writes all of it to a place of its own."""
        self.crash()
        self.buffer.held.forget_written()
        self.kept = Kept()
        self.touched = set(range(GROUPS))
        self.checkpoint(None)

    @invariant()
    def holds_as_many(self) -> None:
        if hasattr(self, "buffer"):
            assert len(self.buffer) == len(self.waiting)

    def teardown(self) -> None:
        if hasattr(self, "buffer"):
            self.checkpoint(None)
            self.crash()
            self.release([1_000] * GROUPS)
            assert len(self.buffer) == 0
            self.checkpoint(None)
            assert self.kept.pieces.keys() <= {"waiting"}
        self.patch.undo()


class TestAgainstASortedList(AgainstASortedList.TestCase):  # type: ignore[misc,valid-type]
    settings = settings(max_examples=80, stateful_step_count=30)


# ---- what a batch costs


def steady(groups: int, waits: int, batches: int, a_batch: int) -> Iterator[tuple[Readings, Int64s]]:
    """Batches of groups in turn, a µs a reading, and up to where all are closed: ``waits`` readings before the end."""
    for first in range(0, batches * a_batch, a_batch):
        numbers = np.arange(first, first + a_batch)
        batch = Readings(numbers % groups, numbers % groups, numbers, {"value": Column(numbers.astype(np.float64))})
        yield batch, np.full(groups, first + a_batch - waits, np.int64)


@pytest.mark.parametrize("groups", [5, 3_000])
def test_a_batch_copies_what_it_brings_and_what_is_taken_however_much_waits(
    groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = 0
    take, joined = Readings.take, Readings.joined.__func__  # type: ignore[attr-defined]

    def counting_take(self: Readings, places: Int64s) -> Readings:
        nonlocal copied
        copied += len(places)
        return take(self, places)

    def counting_joined(cls: type[Readings], parts: list[Readings]) -> Readings:
        nonlocal copied
        copied += sum(map(len, parts)) if len(parts) > 1 else 0
        return joined(cls, parts)

    monkeypatch.setattr(Readings, "take", counting_take)
    monkeypatch.setattr(Readings, "joined", classmethod(counting_joined))
    costs = []
    for waits in (20_000, 400_000):
        buffer, batches = ReorderBuffer(ties=False), waits // 1_000 + 200
        for place, (batch, closed_us) in enumerate(steady(groups, waits, batches, 1_000)):
            if place == batches - 200:
                copied = 0
            buffer.put(batch)
            buffer.release(closed_us, [])
        assert waits - 1 <= len(buffer) <= waits
        costs.append(copied / 200_000)
    # Sorted when it comes, merged into larger runs, taken, and sorted once more with what else is taken.
    assert max(costs) < 8
    assert costs[1] < 1.5 * costs[0]


def written(held: HeldReadings, kept: Kept) -> int:
    before = dict(kept.pieces)
    kept.write(held, set())
    return sum(len(value) for name, value in kept.pieces.items() if before.get(name) is not value)


@pytest.mark.parametrize("a_batch", [10, 1_000])
def test_a_checkpoint_writes_what_is_new_however_much_waits(a_batch: int) -> None:
    costs = []
    for waits in (20 * a_batch, 400 * a_batch):
        buffer, kept, batches, size = ReorderBuffer(ties=False), Kept(), 800, 0
        for place, (batch, closed_us) in enumerate(steady(5, waits, batches, a_batch)):
            buffer.put(batch)
            buffer.release(closed_us, [])
            wrote = written(buffer.held, kept)
            size += wrote if place >= 400 else 0
            assert kept.pieces.keys() == {"waiting", *kept.listed("waiting")}
        costs.append(size / (400 * a_batch))
        # Twenty bytes a reading; what was taken from a piece may be as much as what is held.
        assert sum(map(len, kept.pieces.values())) < 2 * 20 * waits + 20 * held_readings.MOST
        assert len(kept.pieces) < 15 * 4
    # Once when it comes, and at the most once for each factor of sixteen; an index and the names of a piece's columns.
    assert max(costs) < 3 * 20 + 1_000 / a_batch


@pytest.mark.parametrize("kind", ["session", "sliding"])
def test_the_state_of_a_stream_grows_by_what_changed_however_much_is_held(kind: str) -> None:
    """Bytes at a checkpoint of a reading of each device, with half a minute held and with ten."""
    costs = []
    for held_s in (30, 600):
        window = {"session": 'kind = "session", gap = "2s"', "sliding": f'kind = "sliding", size = "{held_s}s"'}[kind]
        driver = windows(window, grace=f"{held_s}s" if kind == "session" else "0s", aggregates={"energy": ["sum"]})
        sizes = []
        for second in range(held_s + 150):
            driver.read([Reading(f"meter-{n}", at(second), {"energy": n}) for n in range(5)])
            changed = changed_pieces(driver.windowed, 0)
            sizes.append(sum(len(piece or b"") for name, piece in changed if "seen" not in name))
        costs.append(sum(sizes[-128:]) / 128)
    assert costs[1] < 1.5 * costs[0]


def test_one_group_that_is_behind_does_not_keep_the_others_readings() -> None:
    buffer, kept, taken = ReorderBuffer(ties=False), Kept(), 0
    for batch, closed_us in steady(10, 1_000, 400, 1_000):
        buffer.put(batch)
        closed_us[3] = -1
        released = buffer.release(closed_us, [])
        taken += 0 if released is None else len(released)
        kept.write(buffer.held, set(range(10)))
        assert buffer.held.made_with <= 2 * len(buffer) + held_readings.MOST
    assert len(buffer) == 40_000 + 899
    size = sum(map(len, kept.pieces.values()))
    assert size < 2 * 20 * len(buffer) + 20 * held_readings.MOST
    last = buffer.release(np.full(10, 10**9), [])
    assert last is not None
    assert taken + len(last) == 400_000
    assert last.ts_us[last.slots == 3].tolist() == list(range(3, 400_000, 10))


def test_what_is_released_before_a_checkpoint_is_never_written() -> None:
    buffer, kept = ReorderBuffer(ties=False), Kept()
    for batch, closed_us in steady(5, 3_000, 50, 1_000):
        buffer.put(batch)
        buffer.release(closed_us, [])
    size = written(buffer.held, kept)
    assert 3_000 * 20 <= size < 3_000 * 20.1 + 200
    assert written(buffer.held, kept) == 0
    buffer.release(np.full(5, 10**9), [])
    kept.write(buffer.held, set(range(5)))
    assert list(kept.pieces) == ["waiting"]


def test_a_run_that_is_too_long_for_a_message_is_written_in_pieces() -> None:
    # Sessions whose readings wait for an hour.
    driver, kept = windows('kind = "session", gap = "1m"', grace="1h"), dict[str, bytes]()
    driver.read([read("a", n / 100, note="x" * 100, current=float(n)) for n in range(10_000)])
    kept |= {name: piece for name, piece in changed_pieces(driver.windowed, 0) if piece is not None}
    assert {"waiting", "waiting.0", "waiting.1", "waiting.2"} <= kept.keys()
    assert max(map(len, kept.values())) <= held_readings.PIECE_BYTES
    driver.windowed, _ = restore(driver.windowed.spec, kept.get)
    driver.run([Tick(FOR_EVER_US)])
    assert [one["count"] for one in driver.closed.values()] == [10_000]
    with pytest.raises(StateError, match=r"waiting\.1"):
        restore(driver.windowed.spec, {name: piece for name, piece in kept.items() if name != "waiting.1"}.get)


@pytest.mark.parametrize(("kind", "closed"), [("session", {0.0: 4}), ("sliding", {0.0: 1, 4.0: 2, 8.0: 3, 2.0: 2})])
def test_a_stream_that_goes_on_with_a_longer_grace_takes_what_was_too_late_before(
    kind: str, closed: dict[float, int]
) -> None:
    size = {"session": 'gap = "5s"', "sliding": 'size = "10s"'}[kind]
    driver, kept = windows(f'kind = "{kind}", {size}', grace="0s", idle="1h"), dict[str, bytes]()
    driver.read([read("a", 0), read("a", 4), read("a", 8)])
    for grace in ("0s", "1m", "1m"):
        for name, piece in changed_pieces(driver.windowed, 0):
            if piece is not None:
                kept[name] = piece
            else:
                del kept[name]
        driver.windowed, _ = restore(spec_of(f'kind = "{kind}", {size}', grace=grace, idle="1h"), kept.get)
        if grace == "1m":
            driver.read([read("a", 2)])
    driver.run([Tick(FOR_EVER_US)])
    before_s = 10 if kind == "sliding" else 0
    counts = {(start - at(0)) / SECOND + before_s: one["count"] for (_, start), one in driver.closed.items()}
    assert counts == closed
    assert driver.windowed.counts["repeated"] == 1


def test_deletions_that_were_cut_short_are_made_after_a_restore() -> None:
    buffer, kept = ReorderBuffer(ties=False), Kept()
    buffer.put(readings_of([(0, 5, 0, 1), (1, 6, 1, 2)]))
    kept.write(buffer.held, {0, 1})
    buffer.release(np.full(2, 9), [])
    kept.write(buffer.held, {0, 1}, deletions=0)
    assert kept.pieces.keys() == {"waiting", "waiting.0"}
    buffer = ReorderBuffer(ties=False)
    kept.restore(buffer.held)
    assert len(buffer) == 0
    kept.write(buffer.held, set())
    assert kept.pieces.keys() == {"waiting"}
