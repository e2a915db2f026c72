"""From the messages of a topic to batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.batch import Batch, Int64s
from headrace.pipeline.model import Topic
from headrace.wire.envelope import Envelope
from headrace.wire.future import FutureSkew
from headrace.wire.lists import ListReader
from headrace.wire.reasons import BAD, OF_ENVELOPE, Judge, Refused, RefusedError
from headrace.wire.rows import RowReader
from headrace.wire.shapes import Shape


@dataclass(frozen=True)
class Decoded:
    """The readings of a micro-batch in their order, the messages that were refused, and how many were tombstones."""

    batch: Batch
    refused: Sequence[Refused]
    tombstones: int = 0
    """messages without a value: they carry no reading, and delete what a compacted topic has of their key"""


Whole = tuple[Sequence[int] | Int64s, Batch]
"""Of each reading the place of its message; and the readings, of all messages at once."""


class Decoder:
    """From the messages of one topic to batches.

    Messages come alike, so a micro-batch is read at once, as what the last one was: one reading each, or columns. Where
    that fails each message is looked at alone.
    """

    def __init__(self, topic: Topic) -> None:
        self.topic = topic
        shape = Shape(topic)
        self._shape = shape
        # Where the key names the device, none is refused in any case.
        self._wants_keys = topic.unkeyed == "refuse" and topic.partitions > 1 and shape.key is not None
        self._judge = Judge(topic, shape.declared, shape.key)
        self._skew = FutureSkew(topic)
        self._rows, self._lists = RowReader(shape), ListReader(shape)
        self._columnar = False

    def decode(self, values: Sequence[bytes | None], envelope: Envelope) -> Decoded:
        """All readings of the messages ``values``, in their order; the refused messages and tombstones aside."""
        if not values:
            return Decoded(self._joined(()), ())
        refused: list[Refused] = []
        tombstones = 0
        places: Sequence[int] = range(len(values))
        try:
            # Joining them tells their length together: four times as fast as asking each.
            suspect = len(b"".join(values)) > self.topic.max_bytes  # type: ignore[arg-type]
        except TypeError:
            suspect = True
            tombstones = values.count(None)
        unkeyed = self._wants_keys and not envelope.all_keyed()
        if suspect or unkeyed:
            by_key = envelope.key if unkeyed else None
            places = [place for place in places if self._fits(place, values[place], by_key, refused)]
            values = [values[place] for place in places]
        at_once = self._all_columns if self._columnar else self._all_rows
        whole = at_once(values, places, refused, envelope)
        if whole is None:
            return Decoded(self._each(values, places, refused, envelope), refused, tombstones)
        places_of, batch = whole
        return Decoded(self._skew.sift(batch, places_of, envelope, refused), refused, tombstones)

    def _fits(
        self,
        place: int,
        value: bytes | None,
        by_key: Callable[[int], bytes | None] | None,
        refused: list[Refused],
    ) -> bool:
        """Whether a message is to be decoded at all."""
        if value is None:
            return False
        if len(value) > self.topic.max_bytes:
            detail = f"{len(value)} bytes, and {self.topic.max_bytes} are allowed"
            refused.append(Refused(place, "too_large", detail))
            return False
        if by_key is not None and not by_key(place):
            detail = "the message has no key, so its device may be in any partition"
            refused.append(Refused(place, "no_key", detail))
            return False
        return True

    def _all_rows(
        self, values: Sequence[Any], places: Sequence[int], refused: list[Refused], envelope: Envelope
    ) -> Whole | None:
        """All messages as one reading each, or None when each must be looked at alone."""
        usual = True
        try:
            rows = self._rows.usual(values)
        except BAD:
            usual = False
            rows, kept = [], []
            for place, value in zip(places, values, strict=True):
                try:
                    rows.append(self._rows.decode(value))
                    kept.append(place)
                except BAD as error:
                    if self._lists.holds(value):
                        self._columnar = True
                        return None
                    refused.append(Refused(place, *self._judge.why(value, error)))
            places = kept
        try:
            return places, self._rows.batch(rows, places, envelope, usual=usual)
        except (*BAD, RefusedError):
            refused[:] = [one for one in refused if one.reason in OF_ENVELOPE]
            return None

    def _all_columns(
        self, values: Sequence[Any], places: Sequence[int], refused: list[Refused], envelope: Envelope
    ) -> Whole | None:
        """All messages as columns, or None when each must be looked at alone."""
        try:
            whole = self._lists.all(values, places, envelope)
        except (*BAD, RefusedError):
            refused[:] = [one for one in refused if one.reason in OF_ENVELOPE]
            return None
        # A message that is dated ahead is refused as a whole.
        return None if whole is None or self._skew.may_exceed(whole[1].ts_us, whole[0], envelope) else whole

    def _each(self, values: Sequence[Any], places: Sequence[int], refused: list[Refused], envelope: Envelope) -> Batch:
        """Each message alone: a reading, columns, or refused."""
        seen = {one.place for one in refused}
        batches = []
        columnar = False
        for place, value in zip(places, values, strict=True):
            if place in seen:
                continue
            try:
                if self._lists.holds(value):
                    batch, columnar = self._lists.one(value, place, envelope), True
                else:
                    batch = self._rows.one(value, place, envelope)
            except RefusedError as error:
                refused.append(Refused(place, error.reason, error.detail))
                continue
            except BAD as error:
                refused.append(Refused(place, *self._judge.why(value, error)))
                continue
            if (future := self._skew.judge(batch, place, envelope)) is not None:
                refused.append(future)
            else:
                batches.append(batch)
        self._columnar = columnar
        return self._joined(batches)

    def _joined(self, batches: Sequence[Batch]) -> Batch:
        if not batches:
            return self._rows.none()
        return Batch.joined(batches, (self.topic.key, *self._shape.names))
