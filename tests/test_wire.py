"""Messages to readings and back: every kind of bad message, alone and among good ones, and nothing else lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.batch import Batch
from headrace.duration import Duration
from headrace.pipeline.model import Field, Time, Topic
from headrace.wire import Decoded, Decoder, Encoder, Reason

METERS = Topic(
    fields={
        "current": Field(type="float"),
        "energy": Field(type="int"),
        "door": Field(type="bool", optional=True),
        "note": Field(type="text", optional=True),
        "checked": Field(type="time", optional=True),
    },
    tags={"room": Field(type="text"), "since": Field(type="time")},
    max_bytes=600,
    max_text=100,
)
KEYED = Topic(fields={"value": Field(type="float")}, key_in="message")
NOW_MS = 1_795_204_810_000
HEAD = '"device": "meter-1", "ts": 1795204810000, '
DEEP = 100_000


@dataclass
class Arrival:
    """What the broker says of the messages beside their values."""

    times_ms: Sequence[int] = ()
    keys: dict[int, bytes | None] = field(default_factory=dict)

    def timestamp_ms(self, place: int) -> int:
        return self.times_ms[place] if self.times_ms else NOW_MS

    def key(self, place: int) -> bytes | None:
        return self.keys.get(place, b"meter-1")

    def all_keyed(self) -> bool:
        return all(self.keys.values())


def reading(device: str = "meter-1", ts: Any = NOW_MS, **values: Any) -> bytes:
    return json.dumps({"device": device, "ts": ts, "current": 10.2, "energy": 7, **values}).encode()


def columns(devices: Sequence[str] = ("meter-2", "meter-3"), **values: Any) -> bytes:
    n = len(devices)
    given = {"device": list(devices), "ts": [NOW_MS] * n, "current": [9.5] * n, "energy": [8] * n}
    return json.dumps({**given, **values}).encode()


def decode(
    values: Sequence[bytes | None],
    topic: Topic = METERS,
    arrival: Arrival | None = None,
    decoder: Decoder | None = None,
) -> Decoded:
    return (decoder or Decoder(topic)).decode(values, arrival or Arrival())


def rows(decoded: Decoded, topic: Topic = METERS) -> list[tuple[Any, ...]]:
    """Each reading as device, time and all its values."""
    batch = decoded.batch
    listed = [batch.column(name) for name in (*topic.fields, *topic.tags)]
    return list(zip(batch.devices, batch.ts_us.tolist(), *listed, strict=True))


BAD: list[tuple[str, bytes | None, Reason]] = [
    ("nothing", b"", "not_json"),
    ("blanks", b"  ", "not_json"),
    ("no JSON", b"temperature=20.5", "not_json"),
    ("cut short", reading()[:-1], "not_json"),
    ("more behind it", reading() + b" x", "not_json"),
    ("bytes that are no text", b"\xff\xfe\x00", "not_json"),
    ("a name that is no UTF-8", b'{"device": "m\xff", "ts": 1, "current": 1, "energy": 1}', "not_json"),
    ("half a surrogate", b'{"device": "m\\ud800", "ts": 1, "current": 1, "energy": 1}', "not_json"),
    ("a byte order mark", b"\xef\xbb\xbf" + reading(), "not_json"),
    ("UTF-16", reading().decode().encode("utf-16"), "not_json"),
    ("single quotes", b"{'device': 'meter-1'}", "not_json"),
    ("a word", b'"hello"', "unknown_shape"),
    ("a number", b"17", "unknown_shape"),
    ("null", b"null", "unknown_shape"),
    ("a list", b"[" + reading() + b"]", "unknown_shape"),
    ("columns of unlike lengths", columns(current=[1.0]), "unknown_shape"),
    ("fewer devices than times", columns(ts=[NOW_MS] * 3), "unknown_shape"),
    ("a text for a number", reading(current="10.2"), "wrong_type"),
    ("a number for a text", reading(note=5), "wrong_type"),
    ("a number for a truth", reading(door=1), "wrong_type"),
    ("a fraction for a whole number", reading(energy=7.5), "wrong_type"),
    ("a truth for a whole number", reading(energy=True), "wrong_type"),
    ("null in a field that must be there", reading(current=None), "wrong_type"),
    ("a list in one reading", reading(current=[1.0]), "wrong_type"),
    ("an object for a number", reading(current={"A": 1}), "wrong_type"),
    ("a whole number above 64 bits", reading(energy=2**63), "wrong_type"),
    ("a whole number below 64 bits", reading(energy=-(2**63) - 1), "wrong_type"),
    ("a whole number far above 64 bits", reading(energy=2**80), "wrong_type"),
    ("no name in the name", reading(device=""), "wrong_type"),
    ("a number for the device", reading(device=5), "wrong_type"),  # type: ignore[arg-type]
    ("a field's time that is none", reading(checked="yesterday"), "wrong_type"),
    ("a tag's time that is none", reading(since="long ago"), "wrong_type"),
    ("one wrong value in a column", columns(current=[1.0, "x"]), "wrong_type"),
    ("one null in a column", columns(energy=[1, None]), "wrong_type"),
    ("one nameless device in a column", columns(["meter-2", ""]), "wrong_type"),
    ("an empty object", b"{}", "missing_field"),
    ("no field", b'{"device": "m", "ts": 1, "energy": 1}', "missing_field"),
    ("no device", b'{"ts": 1, "energy": 1, "current": 1}', "missing_field"),
    ("a column is missing", b'{"device": ["m"], "ts": [1], "energy": [1]}', "missing_field"),
    ("NaN", reading(current=float("nan")), "nan"),
    ("minus infinity", reading(current=float("-inf")), "nan"),
    ("a number beyond all floats", b"{" + HEAD.encode() + b'"current": 1e999, "energy": 1}', "nan"),
    ("NaN in a column", columns(current=[1.0, float("nan")]), "nan"),
    ("a number beyond all floats in a column", columns(current=[1.0, 2.0]).replace(b"2.0", b"1e999"), "nan"),
    ("no time", b'{"device": "m", "energy": 1, "current": 1}', "bad_time"),
    ("null for the time", reading(ts=None), "bad_time"),
    ("a text for the time", reading(ts="2026-11-20T20:00:10Z"), "bad_time"),
    ("a truth for the time", reading(ts=True), "bad_time"),
    ("a time beyond 2199", reading(ts=10**16), "bad_time"),
    ("a time before 1900", reading(ts=-(10**14)), "bad_time"),
    ("a time beyond all integers", reading(ts=10**30), "bad_time"),
    ("a time beyond all floats", reading().replace(b"1795204810000", b"1e999"), "bad_time"),
    ("one text among a column's times", columns(ts=[NOW_MS, "now"]), "bad_time"),
    ("one wild time among a column's", columns(ts=[NOW_MS, 10**17]), "bad_time"),
    ("a minute beyond the skew", reading(ts=NOW_MS + 360_000), "future"),
    ("one beyond the skew in a column", columns(ts=[NOW_MS, NOW_MS + 300_001]), "future"),
    ("too large", reading(note="x" * 600), "too_large"),
    ("too large, and no JSON", b"x" * 601, "too_large"),
    ("too long a name", reading("m" * 513), "too_long"),
    ("too long a name in a column", columns(["m" * 513]), "too_long"),
    ("too long a text", reading(note="x" * 101), "too_long"),
    ("too long a tag", reading(room="x" * 101), "too_long"),
    ("too long a text in a column", columns(["m"], note=["x" * 101]), "too_long"),
]


def test_every_reason_is_among_the_bad_messages() -> None:
    assert {reason for _, _, reason in BAD} | {"no_key"} == set(get_args(Reason))


def test_a_message_without_a_key_is_refused_where_its_device_may_be_in_any_partition() -> None:
    values = [reading("a"), None, b"{", columns(["b", "c"]), reading("d"), reading("e", ts="now"), b"x" * 601]
    for values_of in (values, [value for value in values if value != columns(["b", "c"])]):
        arrival = Arrival(keys={0: b"", 1: None, 4 - (len(values) - len(values_of)): None})
        decoded = decode(values_of, arrival=arrival)
        assert "a" not in decoded.batch.devices and "d" not in decoded.batch.devices
        refused = {one.place: one.reason for one in decoded.refused}
        assert [refused[place] for place in sorted(refused)] == [
            "no_key",
            "not_json",
            "no_key",
            "bad_time",
            "too_large",
        ]
        assert decoded.tombstones == 1
    everywhere = Arrival(keys=dict.fromkeys(range(7)))
    for change in ({"unkeyed": "merge"}, {"partitions": 1}):
        whole = decode(values, msgspec.structs.replace(METERS, **change), everywhere)  # type: ignore[arg-type]
        assert whole.batch.devices.tolist() == ["a", "b", "c", "d"]
    assert [one.reason for one in decode(values, arrival=everywhere).refused].count("no_key") == 5


@pytest.mark.parametrize(("message", "reason"), [(m, r) for _, m, r in BAD], ids=[name for name, _, _ in BAD])
def test_a_bad_message_is_refused_and_its_neighbours_are_kept(message: bytes | None, reason: Reason) -> None:
    good_rows, good_columns = [reading("before"), reading("after", note="ok")], [columns(["c-1", "c-2"])]
    for good in (good_rows, good_columns, good_rows + good_columns):
        whole = rows(decode(good))
        for place in range(len(good) + 1):
            decoded = decode([*good[:place], message, *good[place:]])
            assert [(one.place, one.reason) for one in decoded.refused] == [(place, reason)]
            assert decoded.refused[0].detail
            assert rows(decoded) == whole
    assert [(one.place, one.reason) for one in decode([message]).refused] == [(0, reason)]


def reworded(decoder: Decoder) -> Decoder:
    """The same decoder on a msgspec that refuses the same, and says so in other words."""

    def of(decode: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
        def called(value: bytes) -> Any:
            try:
                return decode(value)
            except msgspec.MsgspecError as error:
                raise type(error)("C'est faux : missing required field `ts`, got `array`, out of range") from None

        return called

    for name in [name for name in vars(decoder) if name.startswith("_decode_")]:
        setattr(decoder, name, of(getattr(decoder, name)))
    return decoder


@pytest.mark.parametrize(("message", "reason"), [(m, r) for _, m, r in BAD], ids=[name for name, _, _ in BAD])
def test_the_reason_does_not_hang_on_msgspec_s_wording(message: bytes | None, reason: Reason) -> None:
    for good in ([], [reading("before")], [columns(["c-1", "c-2"])], [reading("before"), columns(["c-1"])]):
        decoded = decode([*good, message], decoder=reworded(Decoder(METERS)))
        assert [(one.place, one.reason) for one in decoded.refused] == [(len(good), reason)]
        assert rows(decoded) == rows(decode(good))


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b'{"device": 5, "ts": 1, "current": 1', "not_json"),
        (b'{"device": 5, "ts": "now"}', "wrong_type"),
        (b'{"device": "m", "ts": "now"}', "bad_time"),
        (b'{"device": "m", "ts": 1, "current": "x"}', "wrong_type"),
        (b'{"ts": 1, "note": "%s"}' % (b"x" * 101), "too_long"),
        (b'{"energy": 1, "current": 1}', "missing_field"),
        (b'{"device": "m", "ts": 1, "energy": 1, "current": %s}' % (b"9" * 500), "nan"),
        (b'{"device": "m", "ts": 1, "energy": 1, "current": %s}' % (b"9" * 5_000), "nan"),
        (b'{"device": "m", "ts": %s, "energy": 1, "current": 1}' % (b"9" * 5_000), "bad_time"),
        (b'{"device": "m", "ts": 1, "energy": -%s, "current": 1}' % (b"9" * 100), "wrong_type"),
    ],
)
def test_of_several_mistakes_one_is_the_reason_however_the_message_is_laid_out(message: bytes, reason: Reason) -> None:
    topic = msgspec.structs.replace(METERS, max_bytes=100_000)
    assert [one.reason for one in decode([message], topic).refused] == [reason]
    assert [one.reason for one in decode([reading("before"), message], topic).refused] == [reason]
    if reason != "not_json":
        # Turned as text: Python cannot read whole numbers of so many digits.
        turned = b"{" + b", ".join(reversed(message[1:-1].split(b", "))) + b"}"
        assert [one.reason for one in decode([turned], topic).refused] == [reason]


def test_every_bad_message_at_once_among_good_ones() -> None:
    values: list[bytes | None] = []
    expected = []
    for n, (_, message, reason) in enumerate(BAD):
        expected.append((len(values) + 1, reason))
        values += [reading(f"good-{n}"), message]
    decoded = decode(values)
    assert sorted((one.place, one.reason) for one in decoded.refused) == expected
    assert decoded.batch.devices.tolist() == [f"good-{n}" for n in range(len(BAD))]


@pytest.mark.parametrize(
    "message",
    [
        b'{"x": ' + b"[" * DEEP + b"]" * DEEP + b"}",
        b'{"x": ' * DEEP + b"1" + b"}" * DEEP,
        b"[" * DEEP,
        b'{"current": ' + b"[" * DEEP,
    ],
)
def test_a_message_nested_without_measure_is_refused_like_any_other(message: bytes) -> None:
    topic = Topic(fields=METERS.fields)
    decoded = decode([reading("before"), message, reading("after")], topic)
    assert decoded.batch.devices.tolist() == ["before", "after"]
    assert [one.place for one in decoded.refused] == [1]


def test_readings_and_columns_mixed_keep_their_order() -> None:
    decoded = decode([reading("a"), columns(["b", "c"]), reading("d"), columns([]), columns(["e"]), reading("f")])
    assert decoded.batch.devices.tolist() == list("abcdef")
    assert not decoded.refused


def test_a_decoder_that_has_seen_columns_reads_readings_and_the_other_way_round() -> None:
    decoder = Decoder(METERS)
    for values, devices in (
        ([columns(["a", "b"])], ["a", "b"]),
        ([reading("c")], ["c"]),
        ([reading("d"), reading("e")], ["d", "e"]),
        ([columns(["f"])], ["f"]),
    ):
        assert decode(values, decoder=decoder).batch.devices.tolist() == devices


def test_what_may_be_missing_is_none() -> None:
    [absent] = rows(decode([reading()]))
    [null] = rows(decode([reading(door=None, note=None, checked=None, room=None, since=None)]))
    [column] = rows(decode([columns(["meter-1"], energy=[7], current=[10.2], note=[None])]))
    assert absent == null == column == ("meter-1", NOW_MS * 1000, 10.2, 7, None, None, None, None, None)


def test_times_in_fields_and_tags_become_microseconds() -> None:
    decoded = decode([reading(checked="2026-11-20T21:00:10.5+01:00"), reading(since="2026-11-20T20:00:10Z")])
    assert decoded.batch.column("checked").tolist() == [NOW_MS * 1000 + 500_000, None]
    assert decoded.batch.column("since").tolist() == [None, NOW_MS * 1000]


def test_whole_numbers_keep_all_64_bits_and_floats_take_whole_numbers() -> None:
    limits = [2**63 - 1, -(2**63), 2**53 + 1, 0]
    decoded = decode([reading(energy=n, current=3) for n in limits])
    assert decoded.batch.column("energy").tolist() == limits
    assert decoded.batch.column("current").floats().tolist() == [3.0] * 4


def test_keys_that_the_topic_does_not_declare_are_ignored_and_of_a_repeated_one_the_last_counts() -> None:
    decoded = decode([reading(firmware={"version": [1, 2]}), b'{"device": "x", ' + reading()[1:]])
    assert decoded.batch.devices.tolist() == ["meter-1", "meter-1"]


def test_the_device_can_be_the_messages_key_alone() -> None:
    row, many = b'{"ts": 1795204810000, "value": 1}', b'{"ts": [1795204810000, 1795204810001], "value": [2, 3]}'
    keys = {0: "température".encode(), 1: b"b", 2: None, 3: b"", 4: b"\xff", 5: b"e"}
    decoded = decode([row, many, row, row, row, row], KEYED, Arrival(keys=keys))
    assert decoded.batch.devices.tolist() == ["température", "b", "b", "e"]
    assert decoded.batch.column("value").tolist() == [1, 2, 3, 1]
    assert [(one.place, one.reason) for one in decoded.refused] == [
        (2, "missing_field"),
        (3, "missing_field"),
        (4, "wrong_type"),
    ]


def test_names_and_texts_are_bounded_by_characters_to_the_last_one() -> None:
    lengths = [1, 511, 512, 513, 150_000]
    topic = Topic(fields=METERS.fields)
    decoded = decode([reading("é" * n) for n in lengths], topic)
    assert [len(device) for device in decoded.batch.devices] == [1, 511, 512]
    assert [(one.place, one.reason) for one in decoded.refused] == [(3, "too_long"), (4, "too_long")]
    decoded = decode([reading(note="é" * n) for n in (4_095, 4_096, 4_097)], topic)
    assert [len(note) for note in decoded.batch.column("note")] == [4_095, 4_096]
    assert [(one.place, one.reason) for one in decoded.refused] == [(2, "too_long")]
    value = b'{"ts": 1795204810000, "value": 1}'
    keys = {place: b"k" * n for place, n in enumerate(lengths)}
    decoded = decode([value] * len(lengths), KEYED, Arrival(keys=keys))
    assert [len(device) for device in decoded.batch.devices] == [1, 511, 512]
    assert [(one.place, one.reason) for one in decoded.refused] == [(3, "too_long"), (4, "too_long")]


def test_tombstones_are_counted_and_neither_readings_nor_refused() -> None:
    for good in ([], [reading("a"), reading("b")], [columns(["a", "b"])], [reading("a"), columns(["b"])]):
        whole = rows(decode(good))
        for place in range(len(good) + 1):
            decoded = decode([*good[:place], None, None, *good[place:]])
            assert (rows(decoded), list(decoded.refused), decoded.tombstones) == (whole, [], 2)
    decoded = decode([None, b"{", None, reading("a"), b"x" * 601])
    assert (decoded.batch.devices.tolist(), decoded.tombstones) == (["a"], 2)
    assert sorted((one.place, one.reason) for one in decoded.refused) == [(1, "not_json"), (4, "too_large")]


def test_a_device_in_the_value_is_ignored_when_the_key_names_it() -> None:
    decoded = decode([b'{"device": "other", "ts": 1795204810000, "value": 1}'], KEYED)
    assert decoded.batch.devices.tolist() == ["meter-1"]


def test_the_future_is_told_by_each_messages_own_time_at_the_broker() -> None:
    topic = Topic(fields=METERS.fields, max_future_skew=Duration.parse("1s"))
    times_ms = [NOW_MS, NOW_MS, NOW_MS + 5_000, NOW_MS + 5_000]
    values = [reading("a", NOW_MS + 1_000), reading("b", NOW_MS + 1_001), reading("c", NOW_MS + 6_000), reading("d", 0)]
    for more in ([], [columns(["e"], ts=[NOW_MS + 6_000])]):
        decoded = decode([*values, *more], topic, Arrival([*times_ms, NOW_MS + 5_000]))
        assert decoded.batch.devices.tolist() == ["a", "c", "d", *("e" for _ in more)]
        assert [(one.place, one.reason) for one in decoded.refused] == [(1, "future")]


def test_the_future_is_told_alike_where_the_times_at_the_broker_fall_within_a_batch() -> None:
    topic = Topic(fields=METERS.fields, max_future_skew=Duration.parse("1s"))
    values = [reading("a", NOW_MS), reading("b", NOW_MS + 700), reading("c", NOW_MS + 600)]
    decoded = decode(values, topic, Arrival([NOW_MS, NOW_MS - 400, NOW_MS - 400]))
    assert decoded.batch.devices.tolist() == ["a", "c"]
    assert [(one.place, one.reason) for one in decoded.refused] == [(1, "future")]


def test_the_device_is_a_column_in_every_shape() -> None:
    by_key = b'{"ts": [1795204810000], "value": [1]}', b'{"ts": 1795204810000, "value": 1}'
    for values, topic in (
        ([reading()], METERS),
        ([columns()], METERS),
        ([reading(), columns()], METERS),
        ([], METERS),
        ([by_key[0]], KEYED),
        ([by_key[1]], KEYED),
        ([*by_key], KEYED),
    ):
        batch = decode(values, topic).batch
        assert batch.column("device").tolist() == batch.devices.tolist()


@pytest.mark.parametrize("undeclared", [[1, 2], [], "a: [b", {"a": [1]}, None])
@pytest.mark.parametrize("others", [[], [reading("d")], [columns(["d"])], [reading(ts="now")]])
def test_what_a_topic_does_not_declare_may_come_first_in_any_message(undeclared: object, others: list[bytes]) -> None:
    first = json.dumps({"seen": undeclared}).encode()[:-1] + b", "
    decoded = decode([first + reading("a")[1:], *others, first + columns(["b", "c"])[1:]])
    assert [name for name in decoded.batch.devices if name != "d"] == ["a", "b", "c"]
    assert len(decoded.refused) == others.count(reading(ts="now"))


def test_no_messages_give_no_readings() -> None:
    decoded = decode([])
    assert (rows(decoded), list(decoded.refused)) == ([], [])


good_messages = st.builds(
    reading, st.sampled_from("abc"), st.integers(NOW_MS - 10, NOW_MS + 400_000), note=st.sampled_from([None, "n"])
)
# A member that the topic does not declare may be of any kind, and stand anywhere.
odd_messages = st.builds(
    lambda message, odd: b'{"seen": ' + odd + b", " + message[1:],
    st.one_of(good_messages, st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(columns)),
    st.sampled_from([b"[1, 2]", b"[]", b'"a:[b"', b"{}"]),
)
good_columns = st.lists(st.sampled_from("abc"), max_size=3).map(columns)
some_messages = st.one_of(
    good_messages, good_columns, odd_messages, st.none(), st.sampled_from([message for _, message, _ in BAD])
)


@given(st.lists(st.tuples(some_messages, st.integers(0, 200_000)), max_size=8), st.lists(some_messages, max_size=3))
def test_a_message_is_judged_alike_alone_and_among_any_others(
    arrived: list[tuple[bytes | None, int]], before: list[bytes | None]
) -> None:
    times_ms = [NOW_MS + later for later in sorted(later for _, later in arrived)]
    values = [message for message, _ in arrived]
    alone = [decode([value], arrival=Arrival([time])) for value, time in zip(values, times_ms, strict=True)]
    used = Decoder(METERS)
    decode(before, decoder=used)
    for decoder in (Decoder(METERS), used):
        decoded = decode(values, arrival=Arrival(times_ms), decoder=decoder)
        assert rows(decoded) == [row for one in alone for row in rows(one)]
        refused = {one.place: (one.reason, one.detail) for one in decoded.refused}
        assert refused == {
            place: (one.refused[0].reason, one.refused[0].detail) for place, one in enumerate(alone) if one.refused
        }
        assert decoded.tombstones == sum(one.tombstones for one in alone)
        # What is a dead letter is no reading, and what is neither is an empty list of readings.
        assert len(refused) == len(decoded.refused)


described = st.builds(
    lambda devices, rooms, said: columns(devices, **({"room": rooms[: len(devices)]} if said else {})),
    st.lists(st.sampled_from(["a", "b", "long name", "\u00e9"]), max_size=4),
    st.lists(st.sampled_from([None, "hall", "attic"]), min_size=4, max_size=4),
    st.booleans(),
)


@given(st.lists(st.lists(described | st.just(columns(room=None)), min_size=1, max_size=4), max_size=6))
def test_what_is_said_again_is_what_it_was_however_much_is_remembered(polls: list[list[bytes]]) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("headrace.wire.repeated.MOST_BYTES", 40)
        patched.setattr("headrace.wire.repeated.MOST_WORDS", 2)
        forgetful, used = Decoder(METERS), Decoder(METERS)
        decode([columns()], decoder=forgetful)
        kept = []
        for values in polls:
            batch = decode(values, decoder=forgetful).batch
            slots = {name: place for place, name in enumerate(["a", "b", "long name", "\u00e9", "meter-2", "meter-3"])}
            assert batch.devices.looked_up(slots).tolist() == [slots[name] for name in batch.devices]
            kept.append(batch)
    for values, batch in zip(polls, kept, strict=True):
        alone = [row for value in values for row in rows(decode([value]))]
        assert rows(decode(values, decoder=used)) == alone
        # What was decoded before is not touched by what came after it.
        assert rows(Decoded(batch, ())) == alone


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5)
times_us = st.integers(-(10**15), NOW_MS * 1000)
whole_readings = st.fixed_dictionaries(
    {
        "device": texts,
        "ts": times_us,
        "current": st.floats(allow_nan=False, allow_infinity=False),
        "energy": st.integers(-(2**63), 2**63 - 1),
        "door": st.none() | st.booleans(),
        "note": st.none() | texts,
        "checked": st.none() | times_us,
        "room": st.none() | texts,
        "since": st.none() | times_us,
    }
)


@given(st.lists(whole_readings, max_size=5), st.sampled_from(["epoch_us", "epoch_ns", "iso8601"]), st.booleans())
def test_readings_come_back_as_they_were_sent(sent: list[dict[str, Any]], format: str, as_columns: bool) -> None:  # noqa: A002
    topic = Topic(fields=METERS.fields, tags=METERS.tags, time=Time(format=format))
    names = [*topic.fields, *topic.tags]
    batch = Batch(
        [one["device"] for one in sent],
        np.array([one["ts"] for one in sent], np.int64),
        {name: [one[name] for one in sent] for name in names},
    )
    encoder = Encoder(topic)
    values = [encoder.columns(batch)] if as_columns else encoder.rows(batch)
    decoded = decode(values, topic)
    assert not decoded.refused
    assert rows(decoded, topic) == [(one["device"], one["ts"], *(one[name] for name in names)) for one in sent]


def test_a_message_as_a_person_sees_it_in_a_console() -> None:
    topic = Topic(
        key="sensor",
        time=Time(format="iso8601", zone="Europe/Paris"),
        fields={"value": Field(type="int")},
        tags={"city": Field(type="text")},
    )
    batch = Batch(["Sensor1"], np.array([NOW_MS * 1000]), {"value": [42], "city": ["Lyon"]})
    [message] = Encoder(topic).rows(batch)
    assert json.loads(message) == {
        "sensor": "Sensor1",
        "city": "Lyon",
        "ts": "2026-11-20T21:00:10.000000+01:00",
        "value": 42,
    }
