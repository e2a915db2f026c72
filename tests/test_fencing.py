"""The fenced state of a partition: whatever is cut off of its changelog, and whoever else writes into it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from headrace.runtime.consumer import KEY
from headrace.runtime.fencing import CheckpointedPartition, FencedState

Pieces = dict[str, bytes]
Record = tuple[bytes, bytes | None]


@dataclass
class Changelog:
    """A changelog's records in order, in the place of its producer."""

    records: list[Record] = field(default_factory=list)
    changelog_name: str = "changelog"
    partition: int = 0

    def produce(self, key: bytes, value: bytes | None, **_: Any) -> None:
        self.records.append((key, value))


class Owner:
    """One that owns the partition, or believes to: its store, restored from the changelog, and its state."""

    def __init__(self, folder: Path, changelog: Changelog, records: list[Record]) -> None:
        self.changelog = changelog
        self.store = CheckpointedPartition(str(folder), changelog_producer=changelog, prefix=KEY)
        for offset, (key, value) in enumerate(records):
            if offset > (self.store.get_changelog_offset() or -1):
                self.store.recover_from_changelog_message(key, value, "default", offset)
        self._transaction: Any = None
        self.state = FencedState(self.store, lambda: self._transaction, KEY)
        self.pieces: Pieces = {}
        self.reached = self.state.next_offset

    def checkpoint(self, changed: dict[str, bytes | None], reached: int) -> None:
        """Write a checkpoint: all pieces in the first, and what has changed in the others."""
        self._transaction = self.store.begin()
        self.state.write(changed.items(), reached)
        self._transaction.prepare({})
        self._transaction.flush(len(self.changelog.records) - 1)
        self.reached = reached
        self.pieces = {k: v for k, v in {**self.pieces, **changed}.items() if v is not None}

    def restored(self) -> tuple[int, Pieces]:
        found = {name: self.state.get(name) for name in NAMES}
        return self.state.next_offset, {name: value for name, value in found.items() if value is not None}


NAMES = [f"piece.{n}" for n in range(6)]


@pytest.fixture
def owners(tmp_path: Path) -> Iterator[Any]:
    made: list[Owner] = []

    @contextmanager
    def owner(changelog: Changelog, records: list[Record] | None = None) -> Iterator[Owner]:
        folder = tmp_path / str(len(made))
        made.append(Owner(folder, changelog, changelog.records if records is None else records))
        yield made[-1]

    yield owner
    for one in made:
        one.store.close()


def test_what_a_former_owner_writes_late_is_left_out(owners: Any) -> None:
    log = Changelog()
    with owners(log) as first, owners(log) as other:
        first.checkpoint({"piece.0": b"one", "piece.1": b"one"}, 10)
        with owners(log) as second:
            assert second.restored() == (10, first.pieces)
            second.checkpoint({"piece.0": b"two", "piece.1": b"one"}, 40)
            # Woken, both: one with the checkpoint that it had begun, one that never was the owner for long.
            first.checkpoint({"piece.0": b"late", "piece.1": b"late"}, 90)
            other.checkpoint({"piece.0": b"never"}, 90)
            with owners(log) as third:
                assert third.restored() == (40, second.pieces)
                assert third.state.epoch > second.state.epoch > first.state.epoch


def test_a_checkpoint_counts_when_its_head_is_there_and_not_before(owners: Any) -> None:
    log = Changelog()
    whole: list[tuple[int, int, Pieces]] = [(0, -1, {})]
    with owners(log) as one:
        for n in range(1, 5):
            one.checkpoint({name: f"{n} {name}".encode() for name in NAMES[n - 1 :]}, 10 * n)
            whole.append((len(log.records), 10 * n, dict(one.pieces)))
        for cut in range(len(log.records) + 1):
            _, reached, pieces = max((found for found in whole if found[0] <= cut), key=lambda found: found[0])
            with owners(log, log.records[:cut]) as restored:
                assert restored.restored() == (reached, pieces)


@pytest.mark.parametrize("seed", range(20))
def test_whoever_writes_in_between_the_newest_owner_is_believed(owners: Any, seed: int) -> None:
    """Owners come and go, former ones write late, warm and cold stores are restored: always the newest one's last."""
    rng, log = random.Random(seed), Changelog()
    believed: list[Owner] = []
    newest: Owner | None = None
    for step in range(12):
        if newest is None or rng.random() < 0.3:
            with owners(log) as owner:
                if newest is not None and newest.pieces:
                    assert owner.restored() == (newest.reached, newest.pieces)
                elif owner.pieces:
                    pytest.fail("pieces of nobody")
                first = {name: f"{step} {name}".encode() for name in rng.sample(NAMES, rng.randint(1, 6))}
                owner.checkpoint(first, 100 + step)
                if newest is not None:
                    believed.append(newest)
                newest = owner
        elif believed and rng.random() < 0.5:
            rng.choice(believed).checkpoint({rng.choice(NAMES): b"late"}, 1_000 + step)
        else:
            changed: dict[str, bytes | None] = {rng.choice(NAMES): f"{step}".encode()}
            gone = rng.choice(sorted(newest.pieces))
            if gone not in changed and rng.random() < 0.3:
                changed[gone] = None
            newest.checkpoint(changed, 100 + step)
    assert newest is not None
    with owners(log) as last:
        assert last.restored() == (newest.reached, newest.pieces)


def test_what_is_superseded_is_deleted_once_the_first_checkpoint_is_safe(owners: Any) -> None:
    log = Changelog()
    with owners(log) as first:
        first.checkpoint(dict.fromkeys(NAMES, b"one"), 10)
        with owners(log) as second:
            second.checkpoint(dict.fromkeys(NAMES, b"two"), 20)
            assert not any(value is None for _, value in log.records)
            second.checkpoint({"piece.0": b"three"}, 30)
            deleted = {key for key, value in log.records if value is None}
            assert deleted == {key for key, _ in log.records[: len(NAMES) + 1]}
            with owners(log) as third:
                assert third.restored() == (30, second.pieces)
