"""The pipeline file as types: topics, streams, producers, store, panels.

Each struct is a table of ``pipeline.toml``; its docstring and the comments behind its fields are the
reference that ``docs/pipeline.md`` is made from.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct, field

from headrace.duration import Duration
from headrace.field_types import FieldType

Aggregate = Literal[
    "count",
    "missing",
    "sum",
    "min",
    "max",
    "range",
    "mean",
    "variance",
    "stddev",
    "first",
    "last",
    "delta",
    "rate",
    "time_weighted_mean",
    "distinct",
    "p01",
    "p05",
    "p10",
    "p25",
    "p50",
    "p75",
    "p90",
    "p95",
    "p99",
    "p999",
]
Positive = Annotated[int, Meta(gt=0)]
Share = Annotated[float, Meta(ge=0, le=1)]


def _doc(text: str) -> Meta:
    return Meta(description=text)


class Table(Struct, kw_only=True, forbid_unknown_fields=True, frozen=True):
    """What all tables of the file have in common: unknown keys are mistakes."""


class Field(Table, kw_only=True, frozen=True):
    """A measured field, or a tag that describes the device. ``"float"`` is short for ``{ type = "float" }``."""

    type: Annotated[FieldType, _doc("float, int (64 bit), bool, text, or time (ISO 8601 text with a zone)")]
    unit: Annotated[str | None, _doc("the unit it is measured in, shown beside it")] = None
    optional: Annotated[bool, _doc("may be null or absent; otherwise a reading without it is a dead letter")] = False


class Time(Table, kw_only=True, frozen=True):
    """Where a reading carries its event time, and how it is written; nanoseconds are cut to microseconds."""

    field: Annotated[str, _doc("the field that holds it")] = "ts"
    format: Annotated[
        str, _doc("epoch_s, epoch_ms, epoch_us, epoch_ns, iso8601, or a strptime pattern such as %d/%m/%Y %H:%M:%S")
    ] = "epoch_ms"
    zone: Annotated[
        str | None, _doc("the named time zone of times that carry none, as Europe/Paris; UTC if absent")
    ] = None


class Topic(Table, kw_only=True, frozen=True):
    """A raw topic of readings."""

    fields: Annotated[dict[str, Field], _doc("the measured fields, by name")]
    tags: Annotated[dict[str, Field], _doc("what describes the device and rarely changes, by name")] = {}
    key: Annotated[str, _doc("the field that names the device; messages are keyed by it")] = "device"
    key_in: Annotated[
        Literal["value", "message"], _doc("value: a member of the JSON object; message: only the message's key")
    ] = "value"
    time: Annotated[Time, _doc("the event time")] = Time()
    max_future_skew: Annotated[
        Duration, _doc("a reading further than this beyond the broker's time of its message is a dead letter")
    ] = Duration.parse("5m")
    max_bytes: Annotated[Positive, _doc("a longer message is a dead letter")] = 1_000_000
    max_name: Annotated[
        Positive, _doc("a message with a device's name of more characters is a dead letter; TDengine holds 2,048 bytes")
    ] = 512
    max_text: Annotated[
        Positive, _doc("a message with a text of more characters is a dead letter; TDengine holds 4,096 bytes")
    ] = 4_096
    partitions: Annotated[Positive, _doc("how many partitions the topic is made with")] = 4
    unkeyed: Annotated[
        Literal["refuse", "merge"],
        _doc(
            "refuse: where there are several partitions, a message without a key is a dead letter, as a device's"
            " readings must be in one of them; merge: they may be in any, and its windows are merged from all of them"
        ),
    ] = "refuse"
    retention: Annotated[Duration, _doc("how long the broker keeps its messages")] = Duration.parse("7d")


_TIME_OFFSET = _doc("moves the bounds of the windows by so much, away from the epoch or from the zone's midnight")
_ZONE = _doc("the named time zone whose days and hours the windows follow, as Europe/Paris; without one, the epoch's")


class Tumbling(Table, kw_only=True, frozen=True, tag_field="kind", tag="tumbling"):
    """One window after the other: each reading is in one."""

    size: Annotated[Duration, _doc("how long a window is")]
    offset: Annotated[Duration, _TIME_OFFSET] = Duration.parse("0s")
    zone: Annotated[str | None, _ZONE] = None


class Hopping(Table, kw_only=True, frozen=True, tag_field="kind", tag="hopping"):
    """Windows of one size that begin every step and overlap: each reading is in ``size / step`` of them."""

    size: Annotated[Duration, _doc("how long a window is")]
    step: Annotated[Duration, _doc("how much later the next one begins; at most the size")]
    offset: Annotated[Duration, _TIME_OFFSET] = Duration.parse("0s")
    zone: Annotated[str | None, _ZONE] = None


class Sliding(Table, kw_only=True, frozen=True, tag_field="kind", tag="sliding"):
    """Each reading closes a window over the last ``size``: after ``ts - size``, up to and with ``ts``."""

    size: Annotated[Duration, _doc("how long a window is")]


class Session(Table, kw_only=True, frozen=True, tag_field="kind", tag="session"):
    """Readings that follow each other by no more than a gap."""

    gap: Annotated[Duration, _doc("a reading further than this from the one before it begins a new window")]
    longest: Annotated[
        Duration | None, _doc("a reading this far from the window's first one begins a new window; no limit if absent")
    ] = None


class State(Table, kw_only=True, frozen=True, tag_field="kind", tag="state"):
    """Readings that follow each other in which a field keeps its value."""

    field: Annotated[str, _doc("the field, tag or computed field; a reading without it is in no window")]


class Count(Table, kw_only=True, frozen=True, tag_field="kind", tag="count"):
    """So many readings that follow each other."""

    count: Annotated[Positive, _doc("how many readings a window holds")]
    step: Annotated[Positive | None, _doc("after how many readings the next one begins; its count if absent")] = None


class Event(Table, kw_only=True, frozen=True, tag_field="kind", tag="event"):
    """From a reading that fits one condition to the next that fits another, both included."""

    start: Annotated[str, _doc('the condition that begins a window, as "voltage > 250"')]
    end: Annotated[str, _doc('the condition that ends it, as "voltage < 240"')]


Window = Tumbling | Hopping | Sliding | Session | State | Count | Event


FORGET_AFTER: Final = Duration.parse("7d")
"""How long a device is silent before it is forgotten, where a stream does not say."""


class Stream(Table, kw_only=True, frozen=True):
    """A continuous query: windows over a topic, aggregated by device or by what else is asked for."""

    source: Annotated[str, _doc("the topic it reads")] = field(name="from")
    window: Annotated[Window, _doc("which readings belong together")]
    aggregates: Annotated[
        dict[str, list[Aggregate]], _doc("what is made of each field; the result names them field_aggregate")
    ] = {}
    computed: Annotated[
        dict[str, str], _doc('further fields, each an expression over fields and tags, as power = "current * voltage"')
    ] = {}
    where: Annotated[str | None, _doc('only readings for which this holds, as "voltage > 220"')] = None
    by: Annotated[
        list[str] | None,
        _doc("what is aggregated together: tags, text or int fields, the key; [] for all as one; the key if absent"),
    ] = None
    clock: Annotated[
        Literal["device", "partition"],
        _doc("device: its own readings close a device's windows; partition: the furthest device closes all of its own"),
    ] = "device"
    repeats: Annotated[
        Literal["drop", "keep"],
        _doc("drop: a device's second reading of the same time is left out; keep: where producers never repeat"),
    ] = "drop"
    emit: Annotated[
        Literal["close", "at-once", "max-delay"],
        _doc("close: a window emits when it closes; at-once: whenever it changes, too; max-delay: not more often"),
    ] = "close"
    max_delay: Annotated[
        Duration | None, _doc("with emit = max-delay: how long a change may wait for a provisional result")
    ] = None
    grace: Annotated[Duration, _doc("how long a window waits beyond its end for readings out of order")] = (
        Duration.parse("0s")
    )
    idle: Annotated[
        Duration, _doc("a silent device's window closes when event time elsewhere is this far beyond its end and grace")
    ] = Duration.parse("30s")
    forget_after: Annotated[
        Duration | None,
        _doc(
            "a device or group that has been silent for so long (event time) and of which no window is open is"
            " forgotten; 7d if absent, or idle if that is longer"
        ),
    ] = None
    late: Annotated[
        Literal["drop", "dead-letter", "heal"],
        _doc(
            "drop: a late reading is counted and left out; dead-letter: it goes to the stream's late topic, too;"
            " heal: its window's bounds do, for the healer to compute it again from the store"
        ),
    ] = "drop"
    into: Annotated[str | None, _doc("the topic it writes into; the stream's own name if absent")] = None
    partitions: Annotated[Positive | None, _doc("of the topic it writes into; as its source if absent")] = None
    retention: Annotated[Duration, _doc("how long the broker keeps its results")] = Duration.parse("7d")


class Curve(Table, kw_only=True, frozen=True):
    """How a simulated field moves: base + the device's own offset + waves + drift + noise, between low and high.

    An int field is rounded, a bool field is true from 0.5 on, a time field is the reading's own time and
    ``base`` seconds. A tag takes the value that its device has for good.
    """

    base: Annotated[float, _doc("the level it moves around")] = 0.0
    spread: Annotated[float, Meta(ge=0), _doc("the standard deviation of the devices' own offsets from base")] = 0.0
    swing: Annotated[float, _doc("the amplitude of its regular wave; each device is at another point of it")] = 0.0
    period: Annotated[Duration, _doc("the length of that wave; a text field changes after each")] = Duration.parse(
        "60s"
    )
    daily: Annotated[float, _doc("the amplitude of the day's wave, highest at 16:00 UTC for all devices")] = 0.0
    drift: Annotated[float, _doc("how far it wanders slowly, over tens of periods")] = 0.0
    noise: Annotated[float, Meta(ge=0), _doc("the standard deviation of its jitter")] = 0.0
    low: Annotated[float | None, _doc("never below this")] = None
    high: Annotated[float | None, _doc("never above this")] = None
    decimals: Annotated[int, Meta(ge=0, le=15), _doc("rounded to so many decimals")] = 3
    absent: Annotated[Share, _doc("for an optional field: the share of readings in which it is null")] = 0.0
    choices: Annotated[
        list[str | int | float | bool],
        _doc("instead of a curve: one of these; a tag keeps its device's, a field changes after each period"),
    ] = []


class Faults(Table, kw_only=True, frozen=True):
    """The shares of readings that go wrong on purpose, each between 0 and 1, together at most 1.

    A reading has at most one fault.
    """

    late: Annotated[Share, _doc("sent after late_by, with its own time")] = 0.0
    late_by: Annotated[Duration, _doc("how much later a late reading is sent")] = Duration.parse("20s")
    repeated: Annotated[Share, _doc("sent twice")] = 0.0
    missing: Annotated[Share, _doc("not sent at all")] = 0.0
    out_of_order: Annotated[Share, _doc("sent after the device's next reading")] = 0.0
    future: Annotated[Share, _doc("dated a day ahead")] = 0.0
    malformed: Annotated[Share, _doc("not JSON, a wrong type, a missing field, an unparsable time or NaN, in turn")] = (
        0.0
    )


class Simulate(Table, kw_only=True, frozen=True, tag_field="kind", tag="simulate"):
    """A fleet of simulated devices."""

    topic: Annotated[str, _doc("the topic it writes into")]
    devices: Annotated[Positive, _doc("how many devices")] = 10
    name: Annotated[str, _doc("a device's name; {n} is its number from 1 on, {n:04} padded, {topic} the topic")] = (
        "{topic}-{n:04}"
    )
    rate: Annotated[float, Meta(gt=0), _doc("readings a second of event time, all devices together")] = 100.0
    seed: Annotated[int, _doc("the same seed gives the same readings")] = 1
    count: Annotated[Positive | None, _doc("so many readings are made, then it ends; without end if absent")] = None
    start: Annotated[
        str | None, _doc("the event time it begins at (ISO 8601; UTC if it has no zone); now if absent")
    ] = None
    speed: Annotated[
        float, Meta(ge=0), _doc("how fast event time runs: 1 as the clock, 60 a minute a second, 0 as fast as possible")
    ] = 1.0
    columns: Annotated[Positive, _doc("readings a message: 1 is a JSON object each, more are columns")] = 1
    linger: Annotated[Duration, _doc("with columns: how long a message waits to fill")] = Duration.parse("100ms")
    curves: Annotated[
        dict[str, Curve], _doc("how each field moves, or which value a tag takes; a plain curve if absent")
    ] = {}
    faults: Annotated[Faults, _doc("what goes wrong on purpose")] = Faults()


class ReplayTime(Table, kw_only=True, frozen=True):
    """Where a recording carries its time."""

    columns: Annotated[list[str], _doc("the column that holds it, or several that are joined by a space")]
    format: Annotated[str, _doc("as for a topic's time")] = "iso8601"
    zone: Annotated[str | None, _doc("the named time zone of times that carry none")] = None


class Replay(Table, kw_only=True, frozen=True, tag_field="kind", tag="replay"):
    """A recording (CSV or Parquet), replayed. Its rows are expected in the order of their times."""

    topic: Annotated[str, _doc("the topic it writes into")]
    file: Annotated[str, _doc("the recording, relative to the pipeline file: .csv, .csv.gz or .parquet")]
    time: Annotated[ReplayTime, _doc("where the recording carries its time")]
    fields: Annotated[
        dict[str, str], _doc("for each field or tag of the topic, the recording's column; its own name if absent")
    ] = {}
    constants: Annotated[
        dict[str, str | int | float | bool], _doc("values for fields or tags without a column; {n} in a text")
    ] = {}
    missing: Annotated[list[str], _doc("what stands in a CSV for a value that is missing")] = field(
        default_factory=lambda: ["", "?", "NA", "null"]
    )
    delimiter: Annotated[str, Meta(min_length=1, max_length=1), _doc("between the columns of a CSV")] = ","
    decimal: Annotated[Literal[".", ","], _doc("the decimal point in a CSV")] = "."
    device: Annotated[str | None, _doc("the column that names the device")] = None
    devices: Annotated[
        Positive, _doc("without a device column: replay as so many devices, each begun at another place")
    ] = 1
    name: Annotated[str, _doc("a device's name; {n} is its number from 1 on, {topic} the topic")] = "{topic}-{n}"
    speed: Annotated[
        float, Meta(ge=0), _doc("1 is as it was recorded, 60 a minute a second, 0 as fast as possible")
    ] = 1.0
    loop: Annotated[bool, _doc("begin again at its end, with time going on")] = False
    shift: Annotated[
        Literal["none", "now"],
        _doc("none: times as recorded; now: the time of sending (at speed 0: shifted so that the recording ends now)"),
    ] = "none"
    columns: Annotated[Positive, _doc("readings a message: 1 is a JSON object each, more are columns")] = 1
    linger: Annotated[Duration, _doc("with columns: how long a message waits to fill")] = Duration.parse("100ms")


class Store(Table, kw_only=True, frozen=True):
    """The store."""

    retention: Annotated[Duration, _doc("how long rows are kept (TDengine's KEEP; at least a day)")] = Duration.parse(
        "3650d"
    )


class Panel(Table, kw_only=True, frozen=True):
    """A panel of the page."""

    title: Annotated[str, _doc("its heading")]
    kind: Annotated[
        Literal["last", "lines", "bars", "table"],
        _doc("last: the last values by device; lines or bars: over time, one a device; table: rows, the newest first"),
    ]
    of: Annotated[str, _doc("the topic or stream it shows")]
    columns: Annotated[list[str], _doc("the fields or aggregates it shows; all if absent")] = []
    rows: Annotated[Positive, Meta(le=20_000), _doc("the most rows it holds")] = 5_000


class Pipeline(Table, kw_only=True, frozen=True):
    """The whole file."""

    name: Annotated[str, _doc("the line's name: its consumer groups and its own topics carry it")] = "headrace"
    topics: Annotated[dict[str, Topic], _doc("raw topics, by name")]
    streams: Annotated[dict[str, Stream], _doc("continuous queries, by name")] = {}
    producers: Annotated[dict[str, Simulate | Replay], _doc("what feeds the topics, by name")] = {}
    store: Annotated[Store, _doc("the store")] = Store()
    panels: Annotated[list[Panel], _doc("what the page shows, in its order")] = []
