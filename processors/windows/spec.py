"""What a stream asks for, compiled from the pipeline file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from headrace.batch import Batch, Int64s
from headrace.column import Column
from headrace.expression import Expression, parse, parse_condition
from headrace.field_types import FieldType
from headrace.pipeline.model import (
    FORGET_AFTER,
    Count,
    Event,
    Hopping,
    Pipeline,
    Session,
    Sliding,
    State,
    Tumbling,
    Window,
)
from headrace.pipeline.tables import by_device, devices_span, of_one_device, stream_types
from processors.windows.aggregates import Aggregates, Measure
from processors.windows.time.alignment import Alignment, Fixed
from processors.windows.time.watermark import Follows
from processors.windows.time.zoned import Zoned


@dataclass(frozen=True)
class WindowSpec:
    """A stream, ready to be run over batches of its topic's readings."""

    stream: str
    window: Window
    measures: tuple[Measure, ...]
    key: str
    topic_tags: tuple[str, ...]
    tags: tuple[str, ...]
    """those that results carry: all, where a stream aggregates each device for itself"""
    by: tuple[str, ...] | None
    """what is aggregated together; None: each device for itself"""
    types: dict[str, FieldType]
    """of every name that the stream may use"""
    computed: tuple[tuple[str, Expression], ...]
    where: Expression | None
    starts: Expression | None
    ends: Expression | None
    devices_span: bool
    """whether one device's readings may be in several partitions"""
    follows: Follows
    grace_us: int
    idle_us: int
    forget_us: int
    """how long a device or group must have been silent to be forgotten; never less than ``idle_us``"""
    drop_repeats: bool
    emit_us: int | None
    """how long a change may wait for a provisional result; None: for ever"""
    late: str

    @classmethod
    def of(cls, pipeline: Pipeline, name: str) -> WindowSpec:
        """The spec of a stream of the pipeline file."""
        stream = pipeline.streams[name]
        source = pipeline.topics[stream.source]
        types = stream_types(stream, source)
        within = of_one_device(stream, source) and not devices_span(source)
        follows: Follows = "device" if within else "slowest"
        event = stream.window if isinstance(stream.window, Event) else None
        return cls(
            stream=name,
            window=stream.window,
            measures=tuple(Measure(field, types[field], tuple(of)) for field, of in stream.aggregates.items()),
            key=source.key,
            topic_tags=tuple(source.tags),
            tags=tuple(source.tags) if by_device(stream, source) else (),
            by=None if by_device(stream, source) else tuple(stream.by or ()),
            types=types,
            computed=tuple((field, parse(text, types)) for field, text in stream.computed.items()),
            where=None if stream.where is None else parse_condition(stream.where, types),
            starts=None if event is None else parse_condition(event.start, types),
            ends=None if event is None else parse_condition(event.end, types),
            devices_span=devices_span(source),
            follows="furthest" if stream.clock == "partition" else follows,
            grace_us=int(stream.grace),
            idle_us=int(stream.idle),
            forget_us=int(max(stream.idle, FORGET_AFTER) if stream.forget_after is None else stream.forget_after),
            drop_repeats=stream.repeats == "drop",
            emit_us={"close": None, "at-once": 0, "max-delay": int(stream.max_delay or 0)}[stream.emit],
            late=stream.late,
        )

    @cached_property
    def of_one_device(self) -> bool:
        """Whether each group is within one device."""
        return self.by is None or self.key in self.by

    @cached_property
    def ordered(self) -> bool:
        """Whether readings must wait until their place in the order is sure."""
        if not isinstance(self.window, Tumbling | Hopping):
            return True
        return self.aggregates.ordered

    @cached_property
    def forwards_readings(self) -> bool:
        """Whether partitions forward readings, where groups span them, and not what they have folded of them.

        They must where order matters, and where a reading and its repeat may be in two partitions.
        """
        return self.ordered or (self.devices_span and self.drop_repeats)

    @cached_property
    def ties(self) -> bool:
        """Whether a reading's place is sure only when its time has been passed, as others of that time may come.

        Of one device they come in their order, one after the other. But a sliding window is to hold all of them.
        """
        return not self.of_one_device or (isinstance(self.window, Sliding) and not self.drop_repeats)

    @cached_property
    def alignment(self) -> Alignment | None:
        """Which windows there are along event time; None where readings make them."""
        window = self.window
        if not isinstance(window, Tumbling | Hopping):
            return None
        step = int(window.step if isinstance(window, Hopping) else window.size)
        if window.zone is not None:
            return Zoned(window.zone, int(window.size), step, int(window.offset))
        return Fixed(int(window.size), step, int(window.offset))

    @cached_property
    def overlapping(self) -> bool:
        """Whether a reading may be too late for some of its windows and in time for others."""
        return self.alignment is not None and self.alignment.overlapping and not self.ordered

    @cached_property
    def ends_in_silence(self) -> bool:
        """Whether a window ends when its group falls silent, as no time of its own ends it."""
        return isinstance(self.window, State | Event | Count)

    @cached_property
    def unit_us(self) -> int:
        """A length that panes begin at multiples of, each from the others; 1 if none is known."""
        alignment = self.alignment
        return alignment.step if isinstance(alignment, Fixed) and alignment.size % alignment.step == 0 else 1

    @cached_property
    def aggregates(self) -> Aggregates:
        """What is kept of a window's readings."""
        times = isinstance(self.window, Session | State | Count | Event)
        return Aggregates(self.measures, times=times, sketches=not isinstance(self.window, Sliding))

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """The fields and tags that readings are kept with: what is measured, and what makes the windows."""
        names = [measure.field for measure in self.measures]
        if isinstance(self.window, State):
            names.append(self.window.field)
        return tuple(dict.fromkeys(names))

    @cached_property
    def remembered_tags(self) -> tuple[str, ...]:
        """The tags that are kept of each device as it last sent them: for results, or to tell its group."""
        return self.tags if self.by is None else tuple(name for name in self.by if name in self.topic_tags)

    @cached_property
    def used(self) -> tuple[str, ...]:
        """The topic's own fields and tags that matter to the stream: what a repeated reading is compared by."""
        own = {*self.fields, *(self.by or ())}
        for expression in (self.where, self.starts, self.ends, *(made for _, made in self.computed)):
            own |= expression.names if expression is not None else set()
        own -= {name for name, _ in self.computed}
        return tuple(sorted(own - {self.key}))

    @cached_property
    def forwarded(self) -> tuple[str, ...]:
        """The topic's own fields and tags that readings are forwarded with, where groups span partitions."""
        if self.late == "dead-letter":
            return tuple(sorted(self.types.keys() - {self.key} - {name for name, _ in self.computed}))
        return tuple(sorted({*self.used, *self.tags}))

    def columns(self, batch: Batch) -> dict[str, Column]:
        """What a batch says in the spec's ``fields``, and by its conditions."""
        columns = {name: batch.column(name).to(self.types[name]) for name in self.fields}
        if self.starts is not None and self.ends is not None:
            columns[STARTS], columns[ENDS] = Column(self.starts.mask(batch)), Column(self.ends.mask(batch))
        return columns

    def used_columns(self, batch: Batch) -> list[Column]:
        """What a batch says in the topic's own fields and tags that matter here."""
        return [batch.column(name).to(self.types[name]) for name in self.used]

    def compute(self, batch: Batch) -> Batch:
        """The batch with its computed fields; one may be computed from those before it."""
        for name, expression in self.computed:
            batch = batch.with_columns({name: expression.evaluate(batch)})
        return batch

    def fingerprint(self) -> str:
        """What a state must have been made with to be of use to this spec."""
        return repr(
            (
                _plain(self.window),
                [(measure.field, measure.type, measure.aggregates) for measure in self.measures],
                self.tags,
                self.by,
                [(name, expression.text) for name, expression in self.computed],
                None if self.where is None else self.where.text,
                self.drop_repeats,
                self.devices_span,
            )
        )

    @cached_property
    def digest(self) -> str:
        """The fingerprint, short."""
        return hashlib.blake2b(self.fingerprint().encode(), digest_size=8).hexdigest()


STARTS, ENDS = " starts", " ends"
"""Columns beside the fields: whether a reading fits an event window's conditions. No field is called so."""


def _plain(window: Window) -> tuple[Any, ...]:
    return (type(window).__name__, *(getattr(window, name) for name in window.__struct_fields__))


def until_us(spec: WindowSpec, alignment: Alignment | None, ts_us: Int64s) -> Int64s:
    """The watermark at which each reading would be late: when the last window it belongs to has closed, or, where
    readings are put in order, when its place has been passed.
    """
    if alignment is None or spec.ordered:
        return ts_us + 1
    return np.asarray(alignment.last_end(alignment.panes(ts_us)))
