"""The pipeline file: what it declares, every kind of mistake with its place and remedy, and no other way to fail."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.duration import Duration
from headrace.errors import PipelineError, SettingsError
from headrace.pipeline import all_tables, all_topics, into, load, parse, stream_topic
from headrace.pipeline.model import Field, Simulate, Time
from headrace.topics import wanted

GOOD = """
[topics.meters]
key = "meter"
tags = { room = "text" }
time = { field = "at", format = "iso8601", zone = "Europe/Paris" }
partitions = 2

[topics.meters.fields]
current = { type = "float", unit = "A" }
energy = { type = "int", optional = true }
note = "text"

[streams.meters-10s]
from = "meters"
window = { kind = "tumbling", size = "10s" }
grace = "1s500ms"
where = "current > 0"
aggregates = { current = ["mean", "count"], energy = ["sum"], note = ["last"] }
into = "agg"

[producers.fleet]
kind = "simulate"
topic = "meters"

[[panels]]
title = "Means"
kind = "lines"
of = "meters-10s"
columns = ["current_mean"]
"""

# What stands behind # is the mistake that the line is to be told for: its problem begins so, and what to write instead.
WRONG = r"""
name = "no spaces please"               # name: 'no spaces please' is no name | letters, digits
colour = "blue"                         # colour: there is no such key | write one of name, panels
[topics."bad topic"]                    # topics.bad topic: 'bad topic' is no topic name | write letters, digits
fields = { x = "float" }
[topics.meters]
partitons = 3                           # topics.meters.partitons: there is no such key | write partitions
max_bytes = 0                           # topics.meters.max_bytes: this is a whole number (0) | >= 1
[topics.meters.fields]
current = { type = "flaot" }            # topics.meters.fields.current.type: 'flaot' is not known | write float
[topics.empty]
fields = {}                             # topics.empty.fields: there is no field | declare at least one
[topics.bare]                           # topics.bare: fields is missing | add fields = { ... }
[topics.sensors]
time.field = "device"                   # topics.sensors.time.field: 'device' is the key | name another
time.format = "epoch_sec"               # topics.sensors.time.format: 'epoch_sec' is no format | write epoch_s
time.zone = "Mars/Base"                 # topics.sensors.time.zone: 'Mars/Base' is no time zone | Europe/Paris
retention = "5s"
tags.note = "text"                      # topics.sensors.tags.note: 'note' is one of the fields | another
tags.start = "text"                     # topics.sensors.tags.start: 'start' is a name that window | another
[topics.sensors.fields]
current = "float"
note = "text"
2nd = "int"                             # topics.sensors.fields.2nd: '2nd' is no field name | a letter first
[topics."x.dlq"]                        # topics.x.dlq: 'x.dlq' is a name that Headrace uses | another name
fields = { x = "float" }
[topics.odd]
fields = [1]                            # topics.odd.fields: this is a list, not a table | [topics.odd.fields]
max_future_skew = 5                     # topics.odd.max_future_skew: 5 is no duration | "500ms", "10s" or "1m30s"
key_in = "header"                       # topics.odd.key_in: 'header' is not known here | message, value
[streams.a]
from = "sensor"                         # streams.a.from: there is no topic 'sensor' | write sensors
window = { kind = "tumbling", size = "10s" }
[streams.b]
from = "sensors"
window.kind = "tumblin"                 # streams.b.window.kind: 'tumblin' is not known | write tumbling
window.size = "10s"
[streams.g]
from = "sensors"
window.kind = "tumbling"
window.size = "ten"                     # streams.g.window.size: 'ten' is no duration | "10s"
[streams.c]
from = "sensors"
window.kind = "tumbling"
window.size = "0s"                      # streams.c.window.size: a window has no length | "10s"
grace = "1m"                            # streams.c.grace: a window and its grace (0s + 1m) outlast | longer
into = "sensors"                        # streams.c.into: topics.sensors has the topic 'sensors' | into = ...
where = "current >"                     # streams.c.where: expected a value, found the end | write a field
aggregates.curent = ["mean"]            # streams.c.aggregates.curent: sensors has no field | write current
aggregates.note = ["sum", "first"]      # streams.c.aggregates.note: sum needs numbers | one of count, missing
[streams.d]
from = "sensors"
window = { kind = "tumbling", size = "1s" }
late = "forgive"                        # streams.d.late: 'forgive' is not known here | write one of
[streams.e]                             # streams.e: from is missing | add from = "..."
window = "10s"                          # streams.e.window: this is a text ('10s'), not a table | [streams.e.window]
[streams.f]
from = "sensors"
window = { kind = "tumbling", size = "1s" }
where = "current + 1"                   # streams.f.where: a condition is bool | compare it
into = "headrace.ledger"                # streams.f.into: 'headrace.ledger' cannot be a stream's topic | another
aggregates.current = ["sum", "sum"]     # streams.f.aggregates.current: an aggregate is named twice | once
[producers.p]
kind = "simulat"                        # producers.p.kind: 'simulat' is not known here | write simulate
[producers.q]                           # producers.q: kind is missing | simulate, replay
topic = "sensors"
[producers.r]
kind = "simulate"
topic = "sensor"                        # producers.r.topic: there is no topic 'sensor' | write sensors
[producers.t]
kind = "simulate"
topic = "sensors"
rate = 0                                # producers.t.rate: this is a whole number (0) | > 0
[producers.s]
kind = "simulate"
topic = "sensors"
name = "{m}"                            # producers.s.name: '{m}' is no pattern | {n}
curves.curent = { base = 1 }            # producers.s.curves.curent: sensors has no field 'curent' | current
[producers.u]
kind = "replay"
topic = "sensors"
file = "x.csv"
time = { columns = ["t"], format = "epoch" } # producers.u.time.format: 'epoch' is no format | write epoch_s
fields.curr = "I"                       # producers.u.fields.curr: sensors has no field 'curr' | write current
[store]
retention = "1h"                        # store.retention: 1h is less than a day | "1d"
[[panels]]
title = "One"
kind = "line"                           # panels.0.kind: 'line' is not known here | write lines
of = "sensors"
[[panels]]                              # panels.1: title is missing | add title = "..."
kind = "lines"
of = "sensors"
[[panels]]
title = "Three"
kind = "lines"
of = "sensors"
rows = 100_000                          # panels.2.rows: this is a whole number (100000) | <= 20000
"""


def mistakes(text: str) -> list[tuple[str, str, str]]:
    with pytest.raises(PipelineError) as refused:
        parse(text)
    assert "headrace check" in refused.value.hint
    for mistake in refused.value.mistakes:
        assert str(mistake) in refused.value.message
    return [(mistake.place, mistake.problem, mistake.fix) for mistake in refused.value.mistakes]


def test_every_kind_of_mistake_at_once_each_with_its_place_and_what_to_write_instead() -> None:
    wanted = []
    for number, line in enumerate(WRONG.splitlines(), 1):
        _, marked, told = line.partition("# ")
        if marked:
            path, _, rest = told.partition(": ")
            problem, _, fix = rest.partition(" | ")
            wanted.append((f"pipeline.toml:{number} {path}", problem, fix))
    found = mistakes(WRONG)
    assert [place for place, _, _ in found] == [place for place, _, _ in wanted]
    for (place, problem, fix), (_, begins, says) in zip(found, wanted, strict=True):
        assert problem.startswith(begins), place
        assert says in fix, place


def test_panels_of_what_is_not_there() -> None:
    panel = '[[panels]]\ntitle = "x"\nkind = "table"\nof = "{}"\ncolumns = ["{}"]\n'
    text = GOOD + panel.format("meter", "x") + panel.format("meters", "curent") + panel.format("agg", "curent_mean")
    assert [(problem, fix) for _, problem, fix in mistakes(text)] == [
        ("there is no topic or stream 'meter'", "write meters"),
        ("meters has no column 'curent'", "write current"),
        ("agg has no column 'curent_mean'", "write current_mean"),
    ]


def test_a_condition_shows_where_it_goes_wrong() -> None:
    [(place, problem, fix)] = mistakes(GOOD.replace("current > 0", "current > 0 and curent < 5"))
    assert place.endswith("streams.meters-10s.where")
    assert problem.splitlines()[1:] == ["      current > 0 and curent < 5", "                      ^"]
    assert "current" in fix


def test_a_file_without_topics_says_so() -> None:
    assert mistakes("") == [("pipeline.toml:1 the file", "topics is missing", "add topics = { ... }")]
    assert mistakes("[topics]")[0][1:] == ("there is no topic", "declare one as [topics.NAME]")


def test_what_is_no_toml_is_told_with_its_line() -> None:
    [(place, problem, _)] = mistakes('name = "x"\n[topics\n')
    assert place == "pipeline.toml:2"
    assert problem.startswith("this is no TOML")


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read") as absent:
        load(tmp_path / "nowhere.toml")
    assert "--pipeline" in absent.value.hint
    latin = tmp_path / "latin.toml"
    latin.write_bytes('name = "été"'.encode("latin-1"))
    with pytest.raises(SettingsError, match="not UTF-8"):
        load(latin)


def test_a_good_file_becomes_types_with_its_defaults() -> None:
    pipeline = parse(GOOD)
    meters, stream = pipeline.topics["meters"], pipeline.streams["meters-10s"]
    assert pipeline.name == "headrace"
    assert meters.fields["note"] == Field(type="text")
    assert meters.time == Time(field="at", format="iso8601", zone="Europe/Paris")
    assert (meters.max_future_skew, meters.retention) == (300_000_000, 7 * 86_400_000_000)
    assert stream.grace == 1_500_000
    assert isinstance(pipeline.producers["fleet"], Simulate)


def test_a_stream_is_a_topic_and_a_supertable_like_any_other() -> None:
    pipeline = parse(GOOD)
    assert into(pipeline, "meters-10s") == "agg"
    topic = stream_topic(pipeline, "meters-10s")
    assert all_topics(pipeline) == {"meters": pipeline.topics["meters"], "agg": topic}
    assert (topic.key, topic.partitions, topic.time.field) == ("meter", 2, "start")
    assert {name: field.type for name, field in topic.fields.items()} == {
        "end": "time",
        "count": "int",
        "current_mean": "float",
        "current_count": "int",
        "energy_sum": "int",
        "note_last": "text",
        "revision": "int",
        "final": "bool",
    }
    tables = all_tables(pipeline)
    assert [(table.kind, table.key, table.time) for table in tables.values()] == [
        ("readings", "meter", "at"),
        ("windows", "meter", "start"),
    ]
    assert next(column.unit for column in tables["agg"].columns if column.name == "current_mean") == "A"
    assert [tag.name for tag in tables["agg"].tags] == ["room"]


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("500ms", 500_000),
        ("10s", 10_000_000),
        ("1m30s", 90_000_000),
        ("0.5h", 1_800_000_000),
        ("1d 2us", 86_400_000_002),
    ],
)
def test_durations(text: str, us: int) -> None:
    assert Duration.parse(text) == us
    assert Duration.parse(str(Duration(us))) == us


@pytest.mark.parametrize("text", ["", "10", "s", "-5s", "10 parsecs", "1s and more", "1e3s", "36501d"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="no duration"):
        Duration.parse(text)


@pytest.mark.slow
def test_a_wrong_file_never_starts_a_service(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.toml"
    file.write_text(GOOD.replace('"tumbling"', '"tumblin"').replace("partitions", "partitons"), encoding="utf-8")
    # Nothing listens at port 1: a service that got as far as the broker would wait there for ever.
    started = subprocess.run(
        [sys.executable, "-m", "processors", "--broker", "127.0.0.1:1", "--pipeline", file, "--data", tmp_path],
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert started.returncode == 2
    assert "2 mistakes" in started.stderr
    assert "write tumbling" in started.stderr
    assert "write partitions" in started.stderr
    assert "Traceback" not in started.stderr


# ---- whatever stands in the file, it is either sound or its mistakes are told

SOUND: dict[str, Any] = {
    "name": "line",
    "topics": {
        "m": {
            "fields": {"x": {"type": "float"}, "y": "text"},
            "time": {"field": "t", "format": "iso8601"},
            "partitions": 1,
        }
    },
    "streams": {
        "s": {
            "from": "m",
            "window": {"kind": "tumbling", "size": "1s"},
            "aggregates": {"x": ["mean"]},
            "where": "x > 1",
        }
    },
    "producers": {
        "a": {
            "kind": "simulate",
            "topic": "m",
            "curves": {"x": {"base": 1}},
            "faults": {"late": 0.1},
            "start": "2026-01-01",
        },
        "b": {"kind": "replay", "topic": "m", "file": "f.csv", "time": {"columns": ["t"]}, "constants": {"y": "z"}},
    },
    "store": {"retention": "7d"},
    "panels": [{"title": "P", "kind": "lines", "of": "s", "columns": ["x_mean"]}],
}
odd = st.one_of(
    st.sampled_from(["", "m", "s", "x", "1s", "{", "%", "iso8601", "mean", "x >", "../..", "a" * 300, "é"]),
    st.sampled_from([0, -1, 10**30, 1.5, float("nan"), True, [], [1], ["x"], [[]], {}, {"type": "int"}, {"x": {}}]),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place of a nested value, below the top."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*([path] if path else []), *(place for key, item in items for place in places(item, (*path, key)))]


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return "nan" if value != value else json.dumps(value, ensure_ascii=False)  # noqa: PLR0124 - NaN alone is so


@given(st.lists(st.tuples(st.sampled_from(places(SOUND)), st.none() | odd, st.booleans()), min_size=1, max_size=3))
def test_a_file_is_sound_or_its_mistakes_are_told(changes: list[tuple[tuple[Any, ...], Any, bool]]) -> None:
    data = copy.deepcopy(SOUND)
    for path, replacement, misspell in changes:
        inner: Any = data
        for key in path[:-1]:
            inner = inner[key] if isinstance(inner, dict) and key in inner else None
        if not isinstance(inner, dict) or path[-1] not in inner:
            continue
        if replacement is None:
            del inner[path[-1]]
        elif misspell:
            inner[f"{path[-1]}x"] = inner.pop(path[-1])
        else:
            inner[path[-1]] = replacement
    text = "\n".join(f"{key} = {toml(value)}" for key, value in data.items())
    try:
        pipeline = parse(text)
    except PipelineError as error:
        assert all(m.place and m.problem and m.fix for m in error.mistakes)
    else:
        assert all_tables(pipeline)


def test_the_file_that_is_changed_above_is_sound() -> None:
    assert parse("\n".join(f"{key} = {toml(value)}" for key, value in SOUND.items())).name == "line"


SHARED = """
name = "{name}"
[topics.sensors]
partitions = 4
fields = {{ current = "float" }}
tags = {{ room = "text" }}
[streams.rooms]
from = "sensors"
into = "{name}-rooms"
window = {{ kind = "tumbling", size = "10s" }}
by = ["room"]
late = "dead-letter"
"""


def test_lines_that_share_a_cluster_have_no_topic_of_their_own_in_common() -> None:
    """But for the topic of readings, which both declare, and its dead letters, which say whose they are."""
    topics = [{topic.name for topic in wanted(parse(SHARED.format(name=name)))} for name in ("north", "south")]
    assert topics[0] & topics[1] == {"sensors", "sensors.dlq"}
    assert {"north.ledger", "north.rooms.repartition", "north-rooms.late"} <= topics[0]


def test_names_that_make_too_long_a_name_together_are_told() -> None:
    ((place, problem, fix),) = mistakes(SHARED.format(name="n" * 120))
    assert place.endswith(" streams.rooms")
    assert "the topics made of this name and the line's have up to" in problem
    assert "249" in fix
