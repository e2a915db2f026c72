"""Recordings replayed: every row once, in order, at the right time and place, whatever the file holds."""

from __future__ import annotations

import csv
import gzip
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import DataFolderError, SourceError
from headrace.event_time import EPOCH
from headrace.pipeline.model import Field, Replay, ReplayTime, Topic
from headrace.recorded_times import recorded_times
from producers.place import PlaceFile
from producers.recordings import Recording
from producers.replay import Place, Replaying

DATA = Path(__file__).parent.parent / "data"
NOW_US = 1_763_668_800_000_000
MINUTE_US = 60_000_000
HOUSE = Topic(
    fields={
        "power": Field(type="float"),
        "voltage": Field(type="float"),
        "kitchen": Field(type="int", optional=True),
    },
    tags={"city": Field(type="text"), "label": Field(type="text")},
)
HOUSEHOLD: dict[str, Any] = {
    "topic": "house",
    "file": str(DATA / "household_power.csv"),
    "time": ReplayTime(columns=["date", "time"], format="%d/%m/%Y %H:%M:%S", zone="Europe/Paris"),
    "fields": {"power": "global_active_power", "kitchen": "sub_metering_1"},
    "constants": {"city": "Sceaux", "label": "house {n}"},
    "speed": 0,
}
MACHINE = Topic(fields={"value": Field(type="float")})
TEMPERATURE: dict[str, Any] = {
    "topic": "machine",
    "file": str(DATA / "machine_temperature.csv"),
    "time": ReplayTime(columns=["timestamp"]),
    "speed": 0,
}
Reading = tuple[Any, ...]


class Memory:
    """Places kept in memory."""

    def __init__(self) -> None:
        self.place: Place | None = None

    def load(self) -> Place | None:
        return self.place

    def save(self, place: Place) -> None:
        self.place = place


def replaying(schema: Topic, places: Memory | None = None, *, now_us: int = NOW_US, **given: Any) -> Replaying:
    declared = Replay(**given)
    recording = Recording(Path(declared.file), declared, schema)
    return Replaying("r", declared, schema, recording, places or Memory(), now_us=now_us)


def some(replay: Replaying, turns: int, limit: int, now_us: int = NOW_US) -> list[Reading]:
    """What at most so many turns of ``limit`` readings give: (device, ts, values of fields and tags)."""
    names = [*replay.topic.fields, *replay.topic.tags]
    sent: list[Reading] = []
    for _ in range(turns):
        if replay.due_us() is None:
            break
        portion = replay.take(now_us, limit)
        if portion is not None:
            batch = portion.batch
            sent += zip(batch.devices, batch.ts_us.tolist(), *(batch.column(name) for name in names), strict=True)
    return sent


def everything(replay: Replaying, limit: int = 5_000) -> list[Reading]:
    return some(replay, 10**6, limit)


def written(tmp_path: Path, text: str, name: str = "r.csv") -> dict[str, Any]:
    path = tmp_path / name
    path.write_text(text)
    return {"topic": "machine", "file": str(path), "time": ReplayTime(columns=["timestamp"]), "speed": 0}


def household_rows() -> list[Reading]:
    """The household recording as the standard library reads it."""
    paris = ZoneInfo("Europe/Paris")
    rows: list[Reading] = []
    with (DATA / "household_power.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["global_active_power"] == "NA":
                continue
            local = datetime.strptime(f"{row['date']} {row['time']}", "%d/%m/%Y %H:%M:%S").replace(tzinfo=paris)
            ts_us = (local - EPOCH) // timedelta(microseconds=1)
            power, voltage = float(row["global_active_power"]), float(row["voltage"])
            rows.append(("house-1", ts_us, power, voltage, int(row["sub_metering_1"]), "Sceaux", "house 1"))
    return rows


def test_the_household_recording_is_replayed_whole() -> None:
    replay = replaying(HOUSE, **HOUSEHOLD)
    assert everything(replay) == household_rows()
    assert replay.counts == {"generated": 40_320, "skipped": 2, "sent": 40_318}


def test_repeated_times_of_a_recording_are_kept_as_they_are() -> None:
    with (DATA / "machine_temperature.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    sent = everything(replaying(MACHINE, **TEMPERATURE))
    assert [value for _, _, value in sent] == [float(row["value"]) for row in rows]
    assert [EPOCH + timedelta(microseconds=ts) for _, ts, _ in sent] == [
        datetime.fromisoformat(row["timestamp"] + "+00:00") for row in rows
    ]
    steps = np.diff([ts for _, ts, _ in sent])
    # An hour of it is there twice.
    assert steps.min() < 0


def by_device(sent: list[Reading]) -> dict[object, list[Reading]]:
    made: dict[object, list[Reading]] = {}
    for reading in sent:
        made.setdefault(reading[0], []).append(reading[1:])
    return made


@settings(max_examples=15, deadline=None)
@given(st.integers(40, 4_000), st.integers(1, 4))
def test_rows_do_not_depend_on_how_they_are_asked_for(limit: int, devices: int) -> None:
    given = {**TEMPERATURE, "devices": devices}
    whole = everything(replaying(MACHINE, **given))
    assert by_device(everything(replaying(MACHINE, **given), limit)) == by_device(whole)


def test_several_devices_begin_at_other_places_and_have_every_row_once() -> None:
    sent = everything(replaying(HOUSE, **{**HOUSEHOLD, "devices": 3}))
    own = {f"house-{n}": [r for r in sent if r[0] == f"house-{n}"] for n in (1, 2, 3)}
    expected = household_rows()
    assert [r[1:5] for r in own["house-1"]] == [r[1:5] for r in expected]
    for device, rows in own.items():
        assert sorted(r[2:5] for r in rows) == sorted(r[2:5] for r in expected)
        assert {r[6] for r in rows} == {device.replace("-", " ")}
        times = [r[1] for r in rows]
        assert times == sorted(times)
        # The skipped rows of the recording lie elsewhere for each device, so the ends may.
        assert abs(times[0] - expected[0][1]) <= MINUTE_US
        assert abs(times[-1] - expected[-1][1]) <= MINUTE_US
    thirds = [rows[0][2:5] for rows in own.values()]
    assert thirds == [expected[0][2:5], expected[13_440][2:5], expected[26_880][2:5]]
    assert [r[1] for r in sent] == sorted(r[1] for r in sent)


def test_a_loop_goes_on_in_time_without_a_gap() -> None:
    replay = replaying(HOUSE, **{**HOUSEHOLD, "loop": True})
    sent = some(replay, 20, 5_000)
    assert len(sent) > 2 * 40_318
    first, second = sent[:40_318], sent[40_318:80_636]
    period = 40_320 * MINUTE_US
    assert [(d, ts + period, *rest) for d, ts, *rest in first] == second
    assert second[0][1] - first[-1][1] == MINUTE_US


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 6), st.integers(1, 9_000), st.integers(1, 3))
def test_a_replay_goes_on_where_it_stopped(turns: int, limit: int, devices: int) -> None:
    given = {**TEMPERATURE, "devices": devices}
    places = Memory()
    before = replaying(MACHINE, places, **given)
    sent = some(before, turns, limit)
    before.mark()
    after = replaying(MACHINE, places, **given)
    assert after.resumed == (turns > 0)
    assert by_device(sent + everything(after)) == by_device(everything(replaying(MACHINE, **given)))
    assert before.counts["sent"] + after.counts["sent"] == 22_695 * devices


def test_a_loop_goes_on_where_it_stopped_in_its_second_round() -> None:
    given = {**TEMPERATURE, "devices": 2, "loop": True}
    places = Memory()
    before = replaying(MACHINE, places, **given)
    sent = some(before, 8, 10_000)
    before.mark()
    sent += some(replaying(MACHINE, places, **given), 8, 10_000)
    whole = by_device(some(replaying(MACHINE, **given), 20, 10_000))
    for device, rows in by_device(sent).items():
        assert len(rows) > 1.5 * 22_695
        assert rows == whole[device][: len(rows)]


def test_a_replay_that_died_repeats_what_was_not_acknowledged_and_loses_nothing() -> None:
    places = Memory()
    dying = replaying(HOUSE, places, **HOUSEHOLD)
    sent = some(dying, 3, 1_000)
    dying.mark()
    sent += some(dying, 2, 1_000)  # taken and perhaps sent, never acknowledged
    sent += everything(replaying(HOUSE, places, **HOUSEHOLD))
    expected = household_rows()
    assert sorted(set(sent)) == sorted(expected)
    assert len(sent) == len(expected) + 2_000


def test_a_replay_that_has_ended_stays_ended() -> None:
    places = Memory()
    first = replaying(HOUSE, places, **HOUSEHOLD)
    everything(first)
    first.mark()
    again = replaying(HOUSE, places, **HOUSEHOLD)
    assert again.due_us() is None
    assert everything(again) == []


def test_a_place_survives_in_its_file_and_only_for_its_recording(tmp_path: Path) -> None:
    recording = tmp_path / "r.csv"
    recording.write_text("timestamp,value\n2026-01-01,1\n")
    declared = Replay(topic="machine", file=str(recording), time=ReplayTime(columns=["timestamp"]))
    PlaceFile(tmp_path / "data", "a/b", recording, declared).save(Place((7,), 3))
    assert PlaceFile(tmp_path / "data", "a/b", recording, declared).load() == Place((7,), 3)
    assert PlaceFile(tmp_path / "data", "other", recording, declared).load() is None
    three = Replay(topic="machine", file=str(recording), time=ReplayTime(columns=["timestamp"]), devices=3)
    assert PlaceFile(tmp_path / "data", "a/b", recording, three).load() is None
    recording.write_text("timestamp,value\n2026-01-01,2\n")
    assert PlaceFile(tmp_path / "data", "a/b", recording, declared).load() is None


def test_a_place_that_was_torn_or_forgotten_begins_at_the_start(tmp_path: Path) -> None:
    recording = tmp_path / "r.csv"
    recording.write_text("timestamp,value\n2026-01-01,1\n")
    declared = Replay(topic="machine", file=str(recording), time=ReplayTime(columns=["timestamp"]))
    places = PlaceFile(tmp_path, "r", recording, declared)
    places.save(Place((1,), 0))
    places.path.write_bytes(places.path.read_bytes()[:-4])
    assert places.load() is None
    places.save(Place((1,), 0))
    places.forget()
    places.forget()
    assert places.load() is None


def test_a_data_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    declared = Replay(topic="machine", file="x", time=ReplayTime(columns=["timestamp"]))
    with pytest.raises(DataFolderError, match="cannot be written"):
        PlaceFile(tmp_path / "file" / "data", "r", tmp_path / "file", declared)


def test_a_recorded_minute_takes_a_second_at_speed_60() -> None:
    replay = replaying(HOUSE, **{**HOUSEHOLD, "speed": 60})
    assert replay.due_us() == NOW_US
    assert len(some(replay, 9, 100, NOW_US + 9_999_999)) == 10
    assert replay.due_us() == NOW_US + 10_000_000


def test_shifted_to_now_a_reading_is_dated_when_it_is_sent() -> None:
    replay = replaying(HOUSE, **{**HOUSEHOLD, "speed": 60, "shift": "now", "devices": 2})
    sent = some(replay, 9, 100, NOW_US + 5_000_000)
    assert [r[1] for r in sent if r[0] == "house-2"] == [NOW_US + n * 1_000_000 for n in range(6)]


def test_shifted_to_now_as_fast_as_possible_it_ends_now_even_when_resumed_later() -> None:
    given = {**HOUSEHOLD, "shift": "now"}
    places = Memory()
    before = replaying(HOUSE, places, **given)
    sent = some(before, 2, 10_000)
    before.mark()
    sent += everything(replaying(HOUSE, places, now_us=NOW_US + 3_600_000_000, **given))
    assert sent[-1][1] == NOW_US
    # Two rows side by side have no values.
    assert np.diff([r[1] for r in sent]).max() == 3 * MINUTE_US


@pytest.mark.parametrize("speed", [1, 60])
def test_a_resumed_live_replay_goes_on_from_now(speed: float) -> None:
    given = {**HOUSEHOLD, "speed": speed, "shift": "now"}
    places = Memory()
    before = replaying(HOUSE, places, **given)
    sent = some(before, 5, 10, NOW_US + 600_000_000)
    before.mark()
    later = NOW_US + 7_200_000_000
    after = replaying(HOUSE, places, now_us=later, **given)
    assert after.due_us() == later
    [first, *_] = some(after, 1, 1, later)
    assert first[1] == later
    assert first[2:] == household_rows()[len(sent)][2:]


@pytest.mark.parametrize(
    ("texts", "pattern", "zone", "expected"),
    [
        (["1763668800", "1763668800.25"], "epoch_s", None, [0, 250_000]),
        (["1763668800000", "1763668800001"], "epoch_ms", None, [0, 1_000]),
        (["1763668800000000"], "epoch_us", None, [0]),
        (["1763668800000000999"], "epoch_ns", None, [0]),
        (["2025-11-20 20:00:00", "2025-11-20 20:00:00.5"], "iso8601", None, [0, 500_000]),
        (["2025-11-20T21:00:00"], "iso8601", "Europe/Paris", [0]),
        (["2025-11-20T20:00:00Z", "2025-11-20T20:00:01Z"], "iso8601", "Europe/Paris", [0, 1_000_000]),
        (["2025-11-20T22:00:00+02:00", "2025-11-20T20:00:00Z"], "iso8601", None, [0, 0]),
        (["20/11/2025 21:00:00", "1/1/2026 1:00:00"], "%d/%m/%Y %H:%M:%S", "Europe/Paris", [0, 3_556_800_000_000]),
        (["11-20-25 8:00:00.5 PM"], "%m-%d-%y %I:%M:%S.%f %p", None, [500_000]),
        (["2025/11/20 22:00 +0200"], "%Y/%m/%d %H:%M %z", None, [0]),
    ],
)
def test_times_are_read_in_every_format(texts: list[str], pattern: str, zone: str | None, expected: list[int]) -> None:
    time = ReplayTime(columns=["t"], format=pattern, zone=zone)
    made, there = recorded_times([pa.array(texts)], time)
    assert (made - NOW_US).tolist() == expected
    assert there.all()


def test_the_hours_of_daylight_saving_are_read_as_the_docs_say() -> None:
    texts = ["2025-10-26 01:59", "2025-10-26 02:30", "2025-10-26 03:00", "2025-03-30 02:30", "2025-03-30 03:30"]
    made, _ = recorded_times([pa.array(texts)], ReplayTime(columns=["t"], format="%Y-%m-%d %H:%M", zone="Europe/Paris"))
    told = [(EPOCH + timedelta(microseconds=us)).strftime("%m-%d %H:%M") for us in made.tolist()]
    # The repeated hour is the earlier one, the skipped one is moved forward by an hour.
    assert told == ["10-25 23:59", "10-26 00:30", "10-26 02:00", "03-30 01:30", "03-30 01:30"]


def test_a_parquet_recording_gives_what_its_csv_gives(tmp_path: Path) -> None:
    rows = household_rows()
    path = tmp_path / "house.parquet"
    stamps = pa.array([r[1] for r in rows], pa.timestamp("us", tz="UTC"))
    names = pa.array(["north"] * len(rows)).dictionary_encode()
    table = pa.table(
        {
            "at": stamps,
            "local": pc.local_timestamp(pc.cast(stamps, pa.timestamp("us", tz="Europe/Paris"))),
            "ms": pa.array([r[1] // 1_000 for r in rows]),
            "who": names,
            "power": pa.array([r[2] for r in rows], pa.float32()),
            "voltage": pa.array([r[3] for r in rows]),
            "kitchen": pa.array([None if n % 5 == 0 else float(r[4]) for n, r in enumerate(rows)]),
        }
    )
    pq.write_table(table, path, row_group_size=3_000)
    made = []
    for time in (
        ReplayTime(columns=["at"]),
        ReplayTime(columns=["local"], zone="Europe/Paris"),
        ReplayTime(columns=["ms"], format="epoch_ms"),
    ):
        replay = replaying(HOUSE, topic="house", file=str(path), time=time, device="who", speed=0)
        made.append(everything(replay))
    assert made[0] == made[1] == made[2]
    assert {r[0] for r in made[0]} == {"north"}
    assert [r[1] for r in made[0]] == [r[1] for r in rows]
    assert [r[3] for r in made[0]] == [r[3] for r in rows]
    assert made[0][0][4] is None and made[0][1][4] == rows[1][4]


def test_a_compressed_csv_with_another_delimiter_and_decimal_comma_is_read(tmp_path: Path) -> None:
    path = tmp_path / "r.csv.gz"
    text = "\ufefftimestamp;value\r\n2026-01-01 00:00:00; 1,5 \r\n2026-01-01 00:01:00;-2\r\n"
    path.write_bytes(gzip.compress(text.encode()))
    given = {**TEMPERATURE, "file": str(path)}
    sent = everything(replaying(MACHINE, **given, delimiter=";", decimal=","))
    assert [value for _, _, value in sent] == [1.5, -2.0]


def test_missing_values_are_null_or_skip_the_reading_and_are_counted(tmp_path: Path) -> None:
    topic = Topic(
        fields={"value": Field(type="float"), "level": Field(type="int", optional=True)},
        tags={"site": Field(type="text")},
    )
    rows = ["2026-01-01,1,3,a", "2026-01-02,?,3,a", "2026-01-03,3,,", ",4,4,a", "2026-01-05,nan,1,a"]
    text = "\n".join(["timestamp,value,level,site", *rows, ""])
    replay = replaying(topic, **written(tmp_path, text))
    sent = everything(replay)
    assert [r[2:] for r in sent] == [(1.0, 3, "a"), (3.0, None, None)]
    assert replay.counts == {"generated": 5, "sent": 2, "skipped": 3}


def test_values_are_of_the_declared_type(tmp_path: Path) -> None:
    topic = Topic(
        fields={
            "i": Field(type="int"),
            "b": Field(type="bool"),
            "s": Field(type="text"),
            "t": Field(type="time"),
        }
    )
    rows = ["2026-01-01,4.0,yes,5,2026-01-01T00:00:00Z", "2026-01-02,-7,0,x y,2026-01-02T01:00:00+01:00"]
    text = "\n".join(["timestamp,i,b,s,t", *rows, ""])
    sent = everything(replaying(topic, **written(tmp_path, text)))
    day = 1_767_225_600_000_000
    assert [r[2:] for r in sent] == [(4, True, "5", day), (-7, False, "x y", day + 86_400_000_000)]


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("", "is empty", "header"),
        ("timestamp,value\n", "no usable row", "field"),
        ("timestamp,value\n,1\n2026-01-01,\n", "no usable row", "lacks"),
        ("timestmp,value\n2026-01-01,1\n", "no column 'timestamp'", "write timestmp"),
        ("timestamp,valu\n2026-01-01,1\n", "gives nothing for value", 'value = "valu"'),
        ("timestamp,value\n2026-01-01,1\nyesterday,2\n", "row 2: 'yesterday' is no time", "format"),
        ("timestamp,value\n2026-01-01,1\n2026-01-02,2\n2026-01-03,high\n", "row 3: value is 'high'", "missing"),
        ("timestamp,value\n2026-01-01,1\n2026-01-02,2,3\n", "cannot be read", "CSV"),
    ],
)
def test_an_unusable_recording_is_told_with_its_row(tmp_path: Path, text: str, message: str, hint: str) -> None:
    with pytest.raises(SourceError) as told:
        everything(replaying(MACHINE, **written(tmp_path, text)))
    assert message in told.value.message
    assert "r.csv" in told.value.message
    assert hint in told.value.hint


def test_a_recording_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is not there"):
        replaying(MACHINE, topic="machine", file=str(tmp_path / "no.csv"), time=ReplayTime(columns=["t"]))


def test_a_parquet_file_that_is_none_is_told(tmp_path: Path) -> None:
    given = written(tmp_path, "timestamp,value\n2026-01-01,1\n", "r.parquet")
    with pytest.raises(SourceError, match="cannot be read"):
        replaying(MACHINE, **given)


def test_an_error_far_into_a_large_recording_names_its_row(tmp_path: Path) -> None:
    lines = [f"2026-01-01 00:00:00.{n:06},{n}" for n in range(200_000)]
    lines[187_654] = "2026-01-01 00:00:00,oops"
    given = written(tmp_path, "timestamp,value\n" + "\n".join(lines) + "\n")
    with pytest.raises(SourceError, match=r"row 187655: value is 'oops'"):
        everything(replaying(MACHINE, **given))
