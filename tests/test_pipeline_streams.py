"""What cannot be asked of a stream: every mistake in it, with its place, the problem and the fix."""

from __future__ import annotations

import re

import pytest

from headrace.errors import PipelineError
from headrace.pipeline import parse

TOPICS = """
[topics.meters]
key = "device"
tags = { site = "text", rating = "float" }
time = { field = "ts", format = "iso8601" }
retention = "7d"
partitions = 4

[topics.meters.fields]
current = "float"
voltage = "int"
mode = "text"
on = "bool"
installed = "time"

[topics.brief]
fields = { x = "float" }
retention = "1h"

[store]
retention = "2d"
"""

# What stands behind # is the mistake that the line is to be told for: its place below the stream, how the problem
# begins, and what to write instead.
WRONG = (
    TOPICS
    + r"""
# ---- what it reads, and where it writes
[streams."no spaces"]                   # : 'no spaces' is no stream name | write letters, digits
from = "meters"
window = { kind = "sliding", size = "10s" }
into = "spaceless"
[streams.chained]
from = "by_mode"                        # .from: 'by_mode' is a stream, and a stream reads a topic | brief
window = { kind = "sliding", size = "10s" }
[streams.twice]
from = "meters"
window = { kind = "sliding", size = "10s" }
into = "spaceless"                      # .into: streams.no spaces has the topic 'spaceless' | into = ...
[streams.onto]
from = "meters"
window = { kind = "sliding", size = "10s" }
into = "x.late"                         # .into: 'x.late' cannot be a stream's topic | another name

# ---- windows that cannot be
[streams.no_kind]
from = "meters"
window = { size = "10s" }               # .window: kind is missing | tumbling, hopping, sliding, session
[streams.no_size]
from = "meters"
window = { kind = "hopping", step = "1s" }  # .window: size is missing | size = "10s"
[streams.not_its]
from = "meters"
window = { kind = "sliding", size = "1s", step = "1s" }  # .window.step: there is no such key | size
[streams.long_step]
from = "meters"
window = { kind = "hopping", size = "10s", step = "1m" }  # .window.step: a step of 1m leaves time | most
[streams.no_step]
from = "meters"
window = { kind = "hopping", size = "10s", step = "0s" }  # .window.step: a step has no length | "1s"
[streams.dense]
from = "meters"
window = { kind = "hopping", size = "1d", step = "1us" }  # .window.step: each reading would | "864ms"
[streams.short_lived]
from = "meters"
window = { kind = "tumbling", size = "1h" }
retention = "10m"                       # .retention: a result comes each 1h, and is kept | "1h"
[streams.no_slide]
from = "meters"
window = { kind = "sliding", size = "0s" }  # .window.size: a window has no length | "10s"
[streams.no_gap]
from = "meters"
window = { kind = "session", gap = "0s" }  # .window.gap: a gap has no length | "30s"
[streams.no_longest]
from = "meters"
window = { kind = "session", gap = "1s", longest = "0s" }  # .window.longest: a window has no | "1h"
[streams.no_count]
from = "meters"
window = { kind = "count", count = 0 }  # .window.count: this is a whole number (0) | >= 1
[streams.far_apart]
from = "meters"
window = { kind = "count", count = 3, step = 4 }  # .window.step: a step of 4 leaves readings out | 3 at
[streams.crowded]
from = "meters"
window = { kind = "count", count = 1_000_001, step = 1 }  # .window.step: each reading would | least 11
[streams.no_state]
from = "meters"
window = { kind = "state", field = "moed" }  # .window.field: meters has no field 'moed' | write mode
[streams.no_event]
from = "meters"
window = { kind = "event", start = "current >", end = "on" }  # .window.start: expected a value | field
[streams.no_end]
from = "meters"
window = { kind = "event", start = "on", end = "of" }  # .window.end: there is no field or tag `of` | there are device

# ---- zones
[streams.nowhere]
from = "meters"
window = { kind = "tumbling", size = "1d", zone = "Mars/Base" }  # .window.zone: 'Mars/Base' is no | Paris
[streams.quarters]
from = "meters"
window = { kind = "tumbling", size = "15m", zone = "Asia/Tokyo" }  # .window.zone: steps of 15m | leave the
[streams.fives]
from = "meters"
window = { kind = "tumbling", size = "5h", zone = "Asia/Tokyo" }  # .window.zone: steps of 5h do not | 4h, 6h
[streams.uneven]
from = "meters"
window = { kind = "hopping", size = "8h", step = "6h", zone = "UTC" }  # .window.zone: in the zone UTC | 6h or

# ---- lengths
[streams.outlasts]
from = "brief"
window = { kind = "tumbling", size = "50m" }
grace = "15m"                           # .grace: a window and its grace (50m + 15m) outlast | brief.ret
[streams.outlives]
from = "meters"
window = { kind = "session", gap = "1d" }
grace = "36h"                           # .grace: a window and its grace (1d + 1d12h) are longer | store.
[streams.endless]
from = "meters"
window = { kind = "tumbling", size = "1s" }
idle = "99999999d"                      # .idle: '99999999d' is no duration that can | 36500d at the most
[streams.forgets]
from = "meters"
window = { kind = "tumbling", size = "1s" }
idle = "2h"
forget_after = "90m"                    # .forget_after: a device would be forgotten after 1h30m | least "2h"
[streams.typed]
from = "meters"
window = { kind = "tumbling", size = "1s" }
forget_after = 60                       # .forget_after: 60 is no duration | write

# ---- fields
[streams.computes]
from = "meters"
window = { kind = "tumbling", size = "1s" }
where = "also wrong"
[streams.computes.computed]
power = "curent * voltage"              # .computed.power: there is no field or tag `curent` | current
voltage = "current * 2"                 # .computed.voltage: 'voltage' is a name that is taken | another
ts = "current * 2"                      # .computed.ts: 'ts' is a name that is taken already | another
group = "current * 2"                   # .computed.group: 'group' is a name that is taken | another
2nd = "current * 2"                     # .computed.2nd: '2nd' is no field name | a letter first
[streams.computes.aggregates]
power = ["mean"]
[streams.early]
from = "meters"
window = { kind = "tumbling", size = "1s" }
[streams.early.computed]
double = "half * 4"                     # .computed.double: there is no field or tag `half` | write half above double
half = "current / 2"
[streams.picks]
from = "meters"
window = { kind = "tumbling", size = "1s" }
where = "current + 1"                   # .where: a condition is bool | compare it

# ---- groups
[streams.by_float]
from = "meters"
window = { kind = "tumbling", size = "1s" }
by = ["current"]                        # .by: current is float, and groups need text | floor(current / 10)
[streams.by_time]
from = "meters"
window = { kind = "tumbling", size = "1s" }
by = ["installed"]                      # .by: installed is time, and groups need text | name another
[streams.by_nothing_known]
from = "meters"
window = { kind = "tumbling", size = "1s" }
by = ["sit"]                            # .by: meters has no field 'sit' | write site
[streams.by_twice]
from = "meters"
window = { kind = "tumbling", size = "1s" }
by = ["site", "site"]                   # .by: a name is there twice | name each once
[streams.by_mode]
from = "meters"
window = { kind = "tumbling", size = "1s" }
by = ["mode"]
aggregates.current = ["rate"]           # .aggregates.current: rate follows one device's | name "device"

# ---- aggregates
[streams.sums]
from = "meters"
window = { kind = "tumbling", size = "1s" }
[streams.sums.aggregates]
curent = ["sum"]                        # .aggregates.curent: meters has no field 'curent' | write current
mode = ["count", "mean"]                # .aggregates.mode: mean needs numbers, and mode is text | distinct
on = ["p95"]                            # .aggregates.on: p95 needs numbers, and on is bool | first, last
site = ["distinct"]                     # .aggregates.site: site is a tag, no field | the_site = "site"
device = ["distinct"]                   # .aggregates.device: device is the key, no field | "device"
voltage = ["max", "max"]                # .aggregates.voltage: an aggregate is named twice | once
[streams.unheard_of]
from = "meters"
window = { kind = "tumbling", size = "1s" }
aggregates.current = ["sum", "median"]  # .aggregates.current.1: 'median' is not known here | mean
[streams.doubles]
from = "meters"
window = { kind = "tumbling", size = "1s" }
computed = { current_time_weighted = "current" }
[streams.doubles.aggregates]
current = ["time_weighted_mean"]
current_time_weighted = ["mean"]        # .aggregates.current_time_weighted: 'current_time_weighted_mean' | other

# ---- when windows emit, and what comes late
[streams.emits]
from = "meters"
window = { kind = "tumbling", size = "1s" }
emit = "max-delay"                      # .emit: max-delay needs to know how long | max_delay = "5s"
[streams.delays]
from = "meters"
window = { kind = "tumbling", size = "1s" }
max_delay = "5s"                        # .max_delay: emit = "close" has no use for it | "max-delay"
[streams.delays_not]
from = "meters"
window = { kind = "tumbling", size = "1s" }
emit = "max-delay"
max_delay = "0s"                        # .max_delay: a delay has no length | "at-once"
[streams.heals]
from = "meters"
window = { kind = "count", count = 10 }
late = "heal"                           # .late: one late reading can move the bounds of every count | dead-
[streams.odd]
from = "meters"
window = { kind = "tumbling", size = "1s" }
late = "forgive"                        # .late: 'forgive' is not known here | drop, heal
clock = "wall"                          # .clock: 'wall' is not known here | device, partition
repeats = "dropp"                       # .repeats: 'dropp' is not known here | write drop
emit = "closed"                         # .emit: 'closed' is not known here | write close
"""
)


def mistakes(text: str) -> list[tuple[str, str, str]]:
    with pytest.raises(PipelineError) as refused:
        parse(text)
    return [(mistake.place, mistake.problem, mistake.fix) for mistake in refused.value.mistakes]


def of_stream(text: str) -> list[tuple[str, str, str]]:
    """The mistakes of one stream over the meters, without the file and line."""
    found = mistakes(f'{TOPICS}[streams.s]\nfrom = "meters"\n{text}')
    return [(place.partition(" ")[2], problem, fix) for place, problem, fix in found]


def test_every_mistake_in_streams_at_once_each_with_its_place_and_what_to_write_instead() -> None:
    wanted, stream = [], ""
    for number, line in enumerate(WRONG.splitlines(), 1):
        header = re.match(r'\[(streams\.)(?:"(.+?)"|(\w+))', line)
        stream = "".join(filter(None, header.groups())) if header else stream
        _, marked, told = line.partition(" # ")
        if marked:
            path, _, rest = told.partition(": ")
            problem, _, fix = rest.partition(" | ")
            wanted.append((f"pipeline.toml:{number} {stream}{path}", problem, fix))
    found = mistakes(WRONG)
    assert [place for place, _, _ in found] == [place for place, _, _ in wanted]
    for (place, problem, fix), (_, begins, says) in zip(found, wanted, strict=True):
        assert problem.startswith(begins), place
        assert says in fix, place
    assert len(found) > 50


@pytest.mark.parametrize("end", ["start", "end"])
def test_a_condition_of_an_event_points_at_the_character(end: str) -> None:
    good = {"start": "current > 14", "end": "current < 13"}
    written = ", ".join(f'{name} = "{text}"' for name, text in {**good, end: "current > 1 and curent < 13"}.items())
    [(place, problem, fix)] = of_stream(f'window = {{ kind = "event", {written} }}')
    assert place == f"streams.s.window.{end}"
    assert problem.splitlines() == [
        "there is no field or tag `curent` (character 17)",
        "      current > 1 and curent < 13",
        "                      ^",
    ]
    assert "did you mean current" in fix


def test_a_computed_field_points_at_the_character() -> None:
    [(place, problem, fix)] = of_stream(
        'window = { kind = "count", count = 2 }\ncomputed = { power = "current * mode" }'
    )
    assert place == "streams.s.computed.power"
    assert problem.splitlines()[1:] == ["      current * mode", "              ^"]
    assert fix


def test_a_field_whose_expression_is_wrong_is_told_once_wherever_it_is_used() -> None:
    found = of_stream(
        """
window = { kind = "state", field = "level" }
computed = { level = "flor(current)" }
where = "level > 2"
by = ["level"]
aggregates = { level = ["max"] }
"""
    )
    assert [place for place, _, _ in found] == ["streams.s.computed.level"]


def test_a_wrong_group_does_not_hide_a_wrong_condition() -> None:
    found = of_stream('window = { kind = "count", count = 2 }\nby = ["sit"]\nwhere = "curent > 2"\n')
    assert [place for place, _, _ in found] == ["streams.s.by", "streams.s.where"]


def test_a_name_that_no_store_could_keep_is_refused() -> None:
    name = "a" * 46
    found = of_stream(
        f'window = {{ kind = "count", count = 2 }}\ncomputed = {{ {name} = "current" }}\n'
        f'aggregates = {{ {name} = ["max", "time_weighted_mean"] }}'
    )
    problem = f"'{name}_time_weighted_mean' is too long a name for a result"
    assert found == [(f"streams.s.aggregates.{name}", problem, "compute a field of a shorter name")]


def test_a_lone_mistake_reads_as_a_sentence() -> None:
    with pytest.raises(PipelineError) as refused:
        parse(f'{TOPICS}[streams.s]\nfrom = "meters"\nwindow = {{ kind = "hopping", size = "10s", step = "1m" }}\n')
    assert refused.value.message == (
        "pipeline.toml: 1 mistake\n"
        "  pipeline.toml:24 streams.s.window.step: a step of 1m leaves time out between windows of 10s;"
        " write at most the size"
    )


def test_a_key_that_results_use_is_refused() -> None:
    [(place, problem, _)] = mistakes('[topics.m]\nkey = "start"\nfields = { x = "float" }\n')
    assert (place, problem) == ("pipeline.toml:2 topics.m.key", "'start' is a name that window results use")


SOUND = [
    'window = { kind = "hopping", size = "10s", step = "10s" }',
    'window = { kind = "hopping", size = "10s", step = "3s", offset = "1m" }',
    'window = { kind = "tumbling", size = "15m", offset = "5m" }',
    'window = { kind = "tumbling", size = "1d", zone = "Europe/Paris" }',
    'window = { kind = "hopping", size = "1d", step = "6h", zone = "Asia/Kathmandu" }',
    'window = { kind = "session", gap = "1h", longest = "10s" }\nlate = "heal"',
    'window = { kind = "state", field = "site" }\nlate = "dead-letter"',
    'window = { kind = "state", field = "device" }\nby = []',
    'window = { kind = "count", count = 10, step = 3 }\nemit = "at-once"',
    'window = { kind = "event", start = "on", end = "not on" }\nby = ["rating", "device"]',
    'window = { kind = "sliding", size = "10s" }\nby = ["on", "voltage"]\nemit = "max-delay"\nmax_delay = "1s"',
    'window = { kind = "tumbling", size = "1s" }\nby = ["device", "mode"]\naggregates = { current = ["rate"] }',
    'window = { kind = "tumbling", size = "1s" }\nby = ["c"]\naggregates = { b = ["p999"], on = ["first", "distinct"] }'
    '\ncomputed = { a = "current", b = "a * a", c = "floor(b)" }',
    'window = { kind = "tumbling", size = "23h" }\ngrace = "1d"\nidle = "0s"',
    'window = { kind = "tumbling", size = "10s" }\nidle = "1h"\nforget_after = "1h"',
    'window = { kind = "tumbling", size = "10s" }\nidle = "30d"',
]


@pytest.mark.parametrize("text", SOUND)
def test_what_can_be_asked_of_a_stream_is_not_refused(text: str) -> None:
    assert parse(f'{TOPICS}[streams.s]\nfrom = "meters"\n{text}\n').streams["s"]
