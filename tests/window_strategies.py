"""Streams of every kind and variant, and what may happen to them: what the properties of windows are tried with."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from hypothesis import strategies as st
from window_oracle import Driver, Oracle, Where, always
from window_readings import SECOND, Happening, Reading, Tick, at, spec_of

from headrace.pipeline.model import Hopping, Tumbling
from processors.windows import WindowOperator, WindowSpec

IN_ORDER = {"current": ["delta", "rate", "time_weighted_mean"], "energy": ["delta", "sum"], "note": ["first", "last"]}
"""Aggregates for which readings must wait."""


@dataclass(frozen=True)
class Case:
    """A stream as the pipeline file says it, and its conditions and computed fields in Python."""

    window: str
    settings: dict[str, Any] = field(default_factory=dict)
    where: Where = always
    starts: Where = always
    ends: Where = always
    computed: dict[str, Callable[[Reading], Any]] = field(default_factory=dict)

    def spec(self, **more: str) -> WindowSpec:
        """Its spec, with further settings."""
        return spec_of(self.window, **{**self.settings, **more})

    def oracle(self, spec: WindowSpec) -> Oracle:
        """What its windows should say."""
        return Oracle(spec, self.where, self.starts, self.ends, self.computed)


KINDS = {
    "tumbling": Case('kind = "tumbling", size = "10s"'),
    "tumbling, offset": Case('kind = "tumbling", size = "7s", offset = "2s"', {"grace": "1s", "idle": "0s"}),
    "tumbling, where": Case(
        'kind = "tumbling", size = "500ms"',
        {"grace": "10s", "idle": "20s", "where": "not door or energy = 1"},
        where=lambda r: r.values.get("door") is False or r.values.get("energy") == 1,
    ),
    "tumbling, zone": Case('kind = "tumbling", size = "1d", zone = "Europe/Paris"', {"grace": "3s", "idle": "12s"}),
    "hopping": Case('kind = "hopping", size = "10s", step = "2s"', {"grace": "3s", "idle": "12s"}),
    "hopping, step does not divide": Case('kind = "hopping", size = "10s", step = "3s"', {"idle": "12s"}),
    "hopping, where": Case(
        'kind = "hopping", size = "10s", step = "4s", offset = "1s"',
        {"idle": "12s", "where": "current > 0"},
        where=lambda r: (r.values.get("current") or 0) > 0,
    ),
    "hopping, in order": Case('kind = "hopping", size = "10s", step = "5s"', {"grace": "3s", "aggregates": IN_ORDER}),
    "sliding": Case('kind = "sliding", size = "5s"', {"grace": "2s"}),
    "session": Case('kind = "session", gap = "3s"', {"grace": "2s", "idle": "12s"}),
    "session, longest": Case('kind = "session", gap = "3s", longest = "8s"', {"idle": "20s"}),
    "state of text": Case('kind = "state", field = "note"', {"grace": "2s", "idle": "12s"}),
    "state of bool": Case('kind = "state", field = "door"', {"idle": "3s"}),
    "state, computed": Case(
        'kind = "state", field = "level"',
        {"computed": '{ level = "floor(current / 5)" }', "grace": "2s"},
        computed={"level": lambda r: None if (v := r.values.get("current")) is None else math.floor(v / 5)},
    ),
    "count": Case('kind = "count", count = 3', {"grace": "2s", "idle": "12s"}),
    "count, step": Case('kind = "count", count = 5, step = 2', {"idle": "3s"}),
    "event": Case(
        'kind = "event", start = "current > 5", end = "energy = 1"',
        {"grace": "1s", "idle": "12s"},
        starts=lambda r: (r.values.get("current") or 0) > 5,
        ends=lambda r: r.values.get("energy") == 1,
    ),
}
VARIANTS: dict[str, dict[str, str]] = {
    "by device": {},
    "repeats kept": {"repeats": '"keep"'},
    "clock of the partition": {"clock": '"partition"'},
    "by room": {"by": '["room"]'},
    "all as one": {"by": "[]"},
    "by device and note": {"by": '["device", "note"]'},
}
SEVERAL_DEVICES = ("by room", "all as one")

CASES = [
    (kind, variant)
    for kind in KINDS
    for variant in VARIANTS
    if not (kind == "hopping, in order" and variant in SEVERAL_DEVICES)
]
"""Aggregates that follow one device's values cannot be over several."""


@cache
def spec_for(kind: str, variant: str, **more: str) -> WindowSpec:
    """The spec of a case, with further settings."""
    return KINDS[kind].spec(**VARIANTS[variant], **more)


patience = st.sampled_from(
    [
        (),
        (("grace", "0s"), ("idle", "0s")),
        (("grace", "0s"), ("idle", "0s"), ("forget_after", "2s")),
        (("grace", "5s"), ("idle", "1s")),
        (("grace", "5s"), ("idle", "1s"), ("forget_after", "8s")),
        (("idle", "20s"),),
        (("idle", "12s"), ("forget_after", "13s")),
    ]
)
"""Settings in place of the case's own; with the shortest ``forget_after`` devices are forgotten all the time."""
devices = st.sampled_from(["a", "b", "c"])
quarters = st.integers(-40, 40).map(lambda n: n / 4)
"""Sums of these are exact in whatever order."""


@st.composite
def values_of(draw: st.DrawFn) -> dict[str, Any]:
    """What a reading may say; each value may be missing."""
    values: dict[str, st.SearchStrategy[Any]] = {
        "current": st.none() | quarters,
        "energy": st.none() | st.sampled_from([0, 1, -7, 2**53 + 1, -(2**60)]),
        "door": st.none() | st.booleans(),
        "note": st.none() | st.sampled_from(["", "x", "y", "é"]),
        "checked": st.none() | st.integers(at(0), at(5)),
        "room": st.none() | st.sampled_from(["r", "s"]),
    }
    return {name: draw(strategy) for name, strategy in values.items()}


readings = st.builds(Reading, devices, st.integers(-3, 60).map(at), values_of())
far_readings = st.builds(Reading, devices, st.sampled_from([0, at(-500), at(500), at(90_000)]), values_of())
ticks = st.builds(Tick, st.sampled_from([SECOND, 9 * SECOND, 40 * SECOND]))
cut_lists = st.lists(st.integers(0, 40), max_size=10)


@st.composite
def event_lists(draw: st.DrawFn, longest: int = 30) -> list[Happening]:
    """Readings, silence, and some of the readings once more."""
    events = draw(st.lists(st.one_of(readings, readings, readings, readings, far_readings, ticks), max_size=longest))
    again = [event for event in events if isinstance(event, Reading)]
    for _ in range(draw(st.integers(0, 3)) if again else 0):
        events.insert(draw(st.integers(0, len(events))), draw(st.sampled_from(again)))
    return events


def same(found: Any, right: Any) -> bool:
    """Whether results are equal, floats but for their last digits."""
    if isinstance(found, float) and isinstance(right, float):
        return math.isclose(found, right, rel_tol=1e-9, abs_tol=1e-6)
    if isinstance(found, dict) and isinstance(right, dict):
        return found.keys() == right.keys() and all(same(found[name], right[name]) for name in found)
    return bool(found == right)


def differing(found: dict[Any, dict[str, Any]], right: dict[Any, dict[str, Any]]) -> list[Any]:
    """The windows that differ, said shortly: key (seconds), what was found, what is right."""
    return [
        ((key[0], (key[1] - at(0)) / SECOND), found.get(key), right.get(key))
        for key in sorted({*found, *right})
        if not same(found.get(key), right.get(key))
    ]


def drive(spec: WindowSpec, events: Sequence[Happening], cuts: Sequence[int] = ()) -> Driver:
    """Fresh windows, after all the events."""
    return Driver(WindowOperator(spec)).run(events, cuts)


def overwritten(spec: WindowSpec) -> bool:
    """Whether a sliding window may emit again, as a further reading of the very same time may come after it did.

    Of these windows the last one is right, and how many there were depends on the batches.
    """
    return not spec.drop_repeats and not isinstance(spec.window, Tumbling | Hopping)
