"""From the messages of a topic to batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import Any, Protocol

import msgspec
import numpy as np

from headrace.batch import Batch, Int64s
from headrace.event_time import is_number, parser, whole_parser
from headrace.pipeline.model import Time, Topic
from headrace.wire.reasons import BAD, OF_ENVELOPE, Judge, Refused, RefusedError
from headrace.wire.shapes import optional, struct_of


class Envelope(Protocol):
    """What a decoder asks about the messages beside their values, by place in the batch."""

    def timestamp_ms(self, place: int) -> int:
        """The broker's time of the message, in ms."""
        ...

    def key(self, place: int) -> bytes | None:
        """The message's key."""
        ...

    def all_keyed(self) -> bool:
        """Whether every message has a key, and none is empty."""
        ...


@dataclass(frozen=True)
class Decoded:
    """The readings of a micro-batch in their order, the messages that were refused, and how many were tombstones."""

    batch: Batch
    refused: Sequence[Refused]
    tombstones: int = 0
    """messages without a value: they carry no reading, and delete what a compacted topic has of their key"""


@dataclass(frozen=True)
class _Message:
    """The readings of one message that was looked at alone."""

    place: int
    batch: Batch


class Decoder:
    """From the messages of one topic to batches."""

    def __init__(self, topic: Topic) -> None:
        self.topic = topic
        self.names = [*topic.fields, *topic.tags]
        self._time = topic.time.field
        self._key = topic.key if topic.key_in == "value" else None
        self._parse_time = parser(topic.time)
        self._parse_iso = parser(Time(format="iso8601"))
        self._skew_us = int(topic.max_future_skew)
        # Where the key names the device, none is refused in any case.
        self._wants_keys = topic.unkeyed == "refuse" and topic.partitions > 1 and self._key is not None
        declared = {**topic.fields, **{tag: optional(field) for tag, field in topic.tags.items()}}
        self._judge = Judge(topic, declared, self._key)
        self._times = [name for name, field in declared.items() if field.type == "time"]
        number = is_number(topic.time.format)
        # Nearly all epochs are whole, and are parsed faster when that is known beforehand.
        self._parse_usual = whole_parser(topic.time) if number else self._parse_time
        usual = struct_of(topic, declared, self._key, columns=False, time=int if number else str)
        self._decode_usual = msgspec.json.Decoder(usual).decode
        self._decode_row = msgspec.json.Decoder(struct_of(topic, declared, self._key, columns=False)).decode
        usual = struct_of(topic, declared, self._key, columns=True, time=int if number else str)
        self._decode_usual_columns = msgspec.json.Decoder(usual).decode
        self._decode_columns = msgspec.json.Decoder(struct_of(topic, declared, self._key, columns=True)).decode
        self._columnar = False

    def decode(self, values: Sequence[bytes | None], envelope: Envelope) -> Decoded:
        """All readings of the messages ``values``, in their order; the refused messages and tombstones aside."""
        if not values:
            return Decoded(Batch.joined((), (self.topic.key, *self.names)), ())
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
        usual = self._columns_only if self._columnar else self._rows
        parts: list[_Message] | tuple[Sequence[int] | Int64s, Batch] | None
        parts = usual(values, places, refused, envelope)
        if parts is None:
            parts = self._each(values, places, refused, envelope)
        return self._judged(parts, refused, envelope, tombstones)

    def _fits(
        self,
        place: int,
        value: bytes | None,
        by_key: Callable[[int], bytes | None] | None,
        refused: list[Refused],
    ) -> bool:
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

    def _rows(
        self, values: Sequence[Any], places: Sequence[int], refused: list[Refused], envelope: Envelope
    ) -> list[_Message] | tuple[Sequence[int], Batch] | None:
        """All messages as one reading each, or None when a message alone must be looked at."""
        parse_time = self._parse_usual
        try:
            rows = list(map(self._decode_usual, values))
        except BAD:
            parse_time = self._parse_time
            rows, kept = [], []
            for place, value in zip(places, values, strict=True):
                try:
                    rows.append(self._decode_row(value))
                    kept.append(place)
                except BAD as error:
                    if _is_columns(value, self._decode_columns):
                        self._columnar = True
                        return None
                    refused.append(Refused(place, *self._judge.why(value, error)))
            places = kept
        time = self._time
        try:
            ts_us = parse_time(list(map(attrgetter(time), rows)))
            columns: dict[str, list[Any]] = {
                name: self._time_column(list(map(attrgetter(name), rows))) for name in self._times
            }
        except BAD:
            refused[:] = [r for r in refused if r.reason in OF_ENVELOPE]
            return None
        if self._key is not None:
            key = self._key
            devices = list(map(attrgetter(key), rows))
        else:
            try:
                devices = [self._device(envelope.key(place)) for place in places]
            except RefusedError:
                return None
        # The device is a column too, however it came: a condition may name it.
        columns[self.topic.key] = devices
        return places, Batch(devices, ts_us, columns, rows=rows)

    def _columns_only(
        self, values: Sequence[Any], places: Sequence[int], refused: list[Refused], envelope: Envelope
    ) -> tuple[Sequence[int] | Int64s, Batch] | None:
        """All messages as columns, or None when a message alone must be looked at."""
        try:
            parse_time = self._parse_usual
            try:
                made = list(map(self._decode_usual_columns, values))
            except msgspec.ValidationError:
                parse_time = self._parse_time
                made = list(map(self._decode_columns, values))
            lengths = list(map(len, map(attrgetter(self._time), made)))
            named = {name: list(map(attrgetter(name), made)) for name in self.names}
            for lists in named.values():
                if None in lists:
                    lists[:] = [[None] * n if of is None else of for of, n in zip(lists, lengths, strict=True)]
                if list(map(len, lists)) != lengths:
                    return None
            columns: dict[str, list[Any]] = {
                name: self._time_column(list(chain.from_iterable(named.pop(name)))) for name in self._times
            }
            ts_us = parse_time(list(chain.from_iterable(map(attrgetter(self._time), made))))
            if self._key is None:
                each = [self._device(envelope.key(place)) for place in places]
                devices = list(chain.from_iterable([name] * n for name, n in zip(each, lengths, strict=True)))
            else:
                written = list(map(attrgetter(self._key), made))
                if list(map(len, written)) != lengths:
                    return None
                devices = list(chain.from_iterable(written))
        except (*BAD, RefusedError):
            refused[:] = [r for r in refused if r.reason in OF_ENVELOPE]
            return None
        columns[self.topic.key] = devices
        of_message = np.repeat(np.array(places, np.int64), lengths)
        if self._is_ahead(ts_us, of_message, envelope):
            return None
        return of_message, Batch(devices, ts_us, columns, lists=named)

    def _is_ahead(self, ts_us: Int64s, places: Sequence[int] | Int64s, envelope: Envelope) -> bool:
        """Whether one of the messages may be dated beyond the future skew, so that each must be looked at.

        One look at the first message's time is enough as long as nothing lies far ahead of it. Where producers,
        not the broker, set the times (topics made elsewhere) these may fall within a batch: by half the skew,
        and every message is still judged by its own.
        """
        if not len(ts_us):
            return False
        return int(ts_us.max()) > envelope.timestamp_ms(int(places[0])) * 1_000 + self._skew_us // 2

    def _time_column(self, texts: list[str | None]) -> list[int | None]:
        if None in texts:
            present = self._parse_iso([text for text in texts if text is not None]).tolist()
            return [None if text is None else present.pop(0) for text in texts]
        times: list[int | None] = self._parse_iso(texts).tolist()
        return times

    def _each(
        self, values: Sequence[Any], places: Sequence[int], refused: list[Refused], envelope: Envelope
    ) -> list[_Message]:
        """Each message alone: a reading, columns, or refused."""
        seen = {r.place for r in refused}
        parts = []
        columnar = False
        for place, value in zip(places, values, strict=True):
            if place in seen:
                continue
            try:
                if _is_columns(value, self._decode_columns):
                    parts.append(_Message(place, self._columns(value, place, envelope)))
                    columnar = True
                else:
                    parts.append(_Message(place, self._row(value, place, envelope)))
            except RefusedError as error:
                refused.append(Refused(place, error.reason, error.detail))
            except BAD as error:
                refused.append(Refused(place, *self._judge.why(value, error)))
        self._columnar = columnar
        return parts

    def _row(self, value: bytes, place: int, envelope: Envelope) -> Batch:
        row = self._decode_row(value)
        device = getattr(row, self._key) if self._key is not None else self._device(envelope.key(place))
        columns = {**self._dates(row, single=True), self.topic.key: [device]}
        return Batch([device], self._times_of([getattr(row, self._time)]), columns, rows=[row])

    def _columns(self, value: bytes, place: int, envelope: Envelope) -> Batch:
        made = self._decode_columns(value)
        times = getattr(made, self._time)
        n = len(times)
        columns = {name: getattr(made, name) for name in self.names}
        for name, column in columns.items():
            if column is None:
                columns[name] = [None] * n
            elif len(column) != n:
                raise RefusedError("unknown_shape", f"{n} times, and {len(column)} values of {name}")
        if self._key is not None:
            devices = getattr(made, self._key)
            if len(devices) != n:
                raise RefusedError("unknown_shape", f"{n} times, and {len(devices)} values of {self._key}")
        else:
            devices = [self._device(envelope.key(place))] * n
        columns.update(self._dates(made, single=False))
        columns[self.topic.key] = devices
        return Batch(devices, self._times_of(times), columns)

    def _device(self, key: bytes | None) -> str:
        """The device that a message's key names."""
        if not key:
            raise RefusedError("missing_field", "the message has no key, and the key names the device")
        try:
            name = key.decode()
        except UnicodeDecodeError:
            raise RefusedError("wrong_type", "the message's key is not UTF-8 text") from None
        if len(name) > self.topic.max_name:
            raise RefusedError(
                "too_long", f"the key has {len(name)} characters, and {self.topic.max_name} may name a device"
            )
        return name

    def _times_of(self, times: list[Any]) -> Int64s:
        try:
            return self._parse_time(times)
        except BAD as error:
            raise RefusedError("bad_time", f"{self._time}: {error}") from None

    def _dates(self, made: Any, *, single: bool) -> dict[str, list[Any]]:
        dates = {}
        for name in self._times:
            written = getattr(made, name)
            if written is None and not single:
                continue
            try:
                dates[name] = self._time_column([written] if single else written)
            except BAD as error:
                raise RefusedError("wrong_type", f"{name}: {error}") from None
        return dates

    def _judged(
        self,
        parts: list[_Message] | tuple[Sequence[int] | Int64s, Batch],
        refused: list[Refused],
        envelope: Envelope,
        tombstones: int,
    ) -> Decoded:
        """What is dated beyond the future skew is refused; the rest becomes one batch."""
        if isinstance(parts, tuple):
            places, batch = parts
            if self._is_ahead(batch.ts_us, places, envelope):
                limits = np.array([envelope.timestamp_ms(place) * 1_000 for place in places]) + self._skew_us
                ahead = batch.ts_us > limits
                for i in np.flatnonzero(ahead).tolist():
                    refused.append(self._future(places[i], batch.devices[i]))
                batch = batch.take(np.flatnonzero(~ahead))
            return Decoded(batch, refused, tombstones)
        kept = []
        for part in parts:
            if len(part.batch):
                latest = int(np.argmax(part.batch.ts_us))
                if int(part.batch.ts_us[latest]) > envelope.timestamp_ms(part.place) * 1_000 + self._skew_us:
                    refused.append(self._future(part.place, part.batch.devices[latest]))
                    continue
            kept.append(part.batch)
        return Decoded(Batch.joined(kept, (self.topic.key, *self.names)), refused, tombstones)

    def _future(self, place: int, device: str) -> Refused:
        detail = f"{device}: dated more than {self.topic.max_future_skew} ahead"
        return Refused(place, "future", detail, device)


def _is_columns(value: bytes, decode: Callable[[bytes], Any]) -> bool:
    """Whether a message is columns rather than one reading: its first member is a list."""
    head = value[:200].partition(b":")[2].lstrip()
    if head.startswith(b"["):
        return True
    try:
        decode(value)
    except BAD:
        return False
    return True
