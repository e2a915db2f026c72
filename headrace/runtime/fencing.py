"""The state of a partition, fenced: a former owner that still writes cannot spoil it.

At-least-once, anybody can write into a changelog. A process that was suspended beyond its session wakes up, writes
the checkpoint that it had begun, and only then is told that the partition is another's. So:

- Every owner writes under an *epoch* of its own: a number above all that it has found, and a random name. Its first
  checkpoint holds the whole state, so nothing of it can be overwritten by a former owner.
- A checkpoint's last record is the epoch's *head*, which carries the offset that it reaches. A restore applies a
  checkpoint when it has read its head, and leaves out what has none: one that was cut off by a crash never was.
- The state is that of the highest epoch (of two with one number: the one that reaches further), and the partition
  is read on from the offset in its head, wherever the group's committed offset may be.

So the state follows from the changelog alone. Zombie fencing by epochs is what Kafka does for transactional
producers (KIP-98); this does it where there is no transaction.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from headrace.errors import StateError
from headrace.runtime.quix import SEPARATOR, Marker, PartitionTransaction, RocksDBStorePartition, StorePartition

Change = tuple[str, bytes | None]
"""A named piece of state and its new value; None deletes it."""

_NUMBER_DIGITS = 12


class _Head(msgspec.Struct):
    next_offset: int


@dataclass(frozen=True, order=True)
class _Epoch:
    number: int
    next_offset: int
    name: bytes


class FencedState:
    """The pieces of state of one partition, for as long as it is assigned.

    ``transaction`` gives the store's transaction of the checkpoint that is open; ``prefix`` is that of all keys.
    """

    def __init__(
        self, partition: StorePartition, transaction: Callable[[], PartitionTransaction[Any, Any]], prefix: bytes
    ) -> None:
        self._partition, self._transaction, self._prefix = partition, transaction, prefix
        found = sorted(self._epochs())
        self._restored = found[-1] if found else None
        number = found[-1].number + 1 if found else 1
        self.epoch = number
        """This owner's epoch: above those of all owners before."""
        self._own = f"{number:0{_NUMBER_DIGITS}}.{secrets.token_hex(6)}".encode()
        self._checkpoints = 0

    @property
    def next_offset(self) -> int:
        """The offset from which the partition is to be read on; -1 if there is no state."""
        return self._restored.next_offset if self._restored else -1

    def get(self, name: str) -> bytes | None:
        """A piece as it was when the partition was assigned."""
        if self._restored is None:
            return None
        value = self._partition.get(self._key(self._restored.name, name))
        return None if value is Marker.UNDEFINED else value

    def write(self, changes: Iterable[Change], next_offset: int) -> None:
        """Write a checkpoint that reaches up to ``next_offset``. The first must hold every piece."""
        transaction = self._transaction()
        for name, value in changes:
            key = self._own + b"/" + name.encode()
            if value is None:
                transaction.delete(key, prefix=self._prefix)
            else:
                transaction.set_bytes(key, value, prefix=self._prefix)
        if self._checkpoints == 1:
            # The first checkpoint is committed, or there would be no second: what came before is needed no more.
            for key in self._superseded():
                transaction.delete(key, prefix=self._prefix)
        self._checkpoints += 1
        # Last of all, as it makes the others count. (Deletions follow in the changelog, and may.)
        head = msgspec.msgpack.encode(_Head(next_offset))
        transaction.set_bytes(self._own + b"/", head, prefix=self._prefix)

    def _key(self, epoch: bytes, name: str) -> bytes:
        return self._prefix + SEPARATOR + epoch + b"/" + name.encode()

    def _keys(self) -> Iterator[bytes]:
        """All keys of the store, without the prefix."""
        begin = self._prefix + SEPARATOR
        for key, _ in self._partition.iter_items(begin):  # type: ignore[attr-defined]
            if not key.startswith(begin):
                return
            yield key[len(begin) :]

    def _superseded(self) -> list[bytes]:
        return [key for key in self._keys() if not key.startswith(self._own + b"/")]

    def _epochs(self) -> Iterator[_Epoch]:
        """The epochs that have a head."""
        for name in dict.fromkeys(key.partition(b"/")[0] for key in self._keys()):
            packed = self._partition.get(self._key(name, ""))
            if packed is Marker.UNDEFINED:
                continue
            number = name.partition(b".")[0]
            try:
                yield _Epoch(int(number), msgspec.msgpack.decode(packed, type=_Head).next_offset, name)
            except (ValueError, msgspec.MsgspecError) as error:
                raise StateError(
                    f"the state holds a head that cannot be read: {error}",
                    hint="start over with --reset-state, or compute all streams again with --rebuild",
                ) from None


class CheckpointedPartition(RocksDBStorePartition):
    """A store that takes a changelog's records checkpoint by checkpoint, in the place of one by one."""

    # Quix may take values for others, stamped with a time to live, by how their first bytes look.
    uses_ttl_stamps = False

    def __init__(self, *arguments: Any, prefix: bytes, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._begin = prefix + SEPARATOR
        self._waiting: dict[bytes, list[tuple[bytes, bytes, int]]] = {}
        """Of each epoch the records since its last head: key, value, offset."""

    def recover_from_changelog_message(
        self, key: bytes, value: bytes | None, cf_name: str, offset: int, ttl_stamped: bool = False
    ) -> None:
        """Apply a record of the changelog, and what waited for it; or let it wait for the head of its checkpoint."""

        def apply(key: bytes, value: bytes | None, at: int) -> None:
            # Not beyond anything that waits: a recovery that is cut off here must read that again.
            upto = max(0, min([at, *(records[0][2] - 1 for records in self._waiting.values())]))
            recover(key=key, value=value, cf_name=cf_name, offset=upto, ttl_stamped=ttl_stamped)

        recover = super().recover_from_changelog_message
        epoch, _, name = key.removeprefix(self._begin).partition(b"/")
        if value is None:
            # Deletions follow the head of their checkpoint.
            apply(key, None, offset)
        elif name:
            self._waiting.setdefault(epoch, []).append((key, value, offset))
        else:
            for piece, content, at in self._waiting.pop(epoch, []):
                apply(piece, content, at)
            apply(key, value, offset)
