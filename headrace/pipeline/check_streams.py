"""What types alone cannot say of a stream: that it can be computed at all, and its result can be told apart."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from headrace.errors import ExpressionError
from headrace.expression import parse, parse_condition
from headrace.field_types import FieldType
from headrace.pipeline.model import (
    Aggregate,
    Count,
    Event,
    Hopping,
    Pipeline,
    Session,
    Sliding,
    State,
    Stream,
    Topic,
    Tumbling,
)
from headrace.pipeline.nearest import nearest_name
from headrace.pipeline.tables import GROUP, ORDERED_AGGREGATES, by_device, expression_types, of_one_device, result_name
from headrace.pipeline.zones import mistake

Path = tuple[str | int, ...]
Note = Callable[[Path, str, str], None]

TOPIC_NAME = re.compile(r"[A-Za-z0-9._-]{1,180}")
RESULT_NAMES = ("start", "end", "count", "revision", "final", GROUP)

_OF_ANYTHING: tuple[Aggregate, ...] = ("count", "missing", "first", "last", "distinct")
_NUMBERS = ("float", "int")
_FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_MOST_WINDOWS = 100_000
"""In more windows than these no reading should be: each of them is merged from as many panes."""


@dataclass(frozen=True)
class _Checked:
    """A stream with what is asked of it again and again."""

    stream: Stream
    source: Topic
    at: Path
    note: Note
    types: dict[str, FieldType]


def stream_is_sound(pipeline: Pipeline, name: str, note: Note) -> bool:
    """Note what is wrong with a stream; whether the names it uses are there, so that its result has a shape."""
    stream, at = pipeline.streams[name], ("streams", name)
    if not TOPIC_NAME.fullmatch(name):
        note(at, f"{name!r} is no stream name", "write letters, digits, '.', '-' and '_', 180 at the most")
    source = pipeline.topics.get(stream.source)
    if source is None:
        problem = f"there is no topic {stream.source!r}"
        if stream.source in pipeline.streams:
            problem = f"{stream.source!r} is a stream, and a stream reads a topic"
        note((*at, "from"), problem, nearest_name(stream.source, pipeline.topics))
        return False
    checked = _Checked(stream, source, at, note, expression_types(source))
    known = _computed(checked)
    sound = _by(checked) and known
    sound = _aggregates(checked) and sound
    if known:
        _condition(checked, ("where",), stream.where)
    _window(checked, known=known)
    _lengths(checked, pipeline)
    _emit_and_late(checked)
    return sound


def _computed(checked: _Checked) -> bool:
    """Note what is wrong with the computed fields, and learn the types of the others; whether all are known."""
    sound = True
    own = {*checked.types, checked.source.time.field, *RESULT_NAMES}
    rest = list(checked.stream.computed)
    for name, text in checked.stream.computed.items():
        at = (*checked.at, "computed", name)
        rest.remove(name)
        if not _FIELD_NAME.fullmatch(name):
            checked.note(at, f"{name!r} is no field name", "write letters, digits and _, a letter first")
        if name in own:
            checked.note(at, f"{name!r} is a name that is taken already", "choose another name")
            sound = False
            continue
        try:
            checked.types[name] = parse(text, checked.types).type
        except ExpressionError as error:
            later = next((other for other in rest if f"`{other}`" in error.message), None)
            _expression_mistake(checked, at, error, None if later is None else f"write {later} above {name}")
            sound = False
    return sound


def _condition(checked: _Checked, path: Path, text: str | None) -> None:
    if text is None:
        return
    try:
        parse_condition(text, checked.types)
    except ExpressionError as error:
        _expression_mistake(checked, (*checked.at, *path), error)


def _expression_mistake(checked: _Checked, at: Path, error: ExpressionError, fix: str | None = None) -> None:
    pointed = "\n".join(f"      {line}" for line in error.pointer().splitlines())
    checked.note(at, f"{error.message} (character {error.position + 1})\n{pointed}", fix or error.hint)


def _by(checked: _Checked) -> bool:
    by, at = checked.stream.by, (*checked.at, "by")
    if by is None:
        return True
    sound = True
    tags = checked.source.tags
    fits = [name for name, kind in checked.types.items() if kind in ("text", "int", "bool") or name in tags]
    for name in dict.fromkeys(by):
        if name not in checked.types:
            if name not in checked.stream.computed:
                checked.note(at, f"{checked.stream.source} has no field {name!r}", nearest_name(name, fits))
            sound = False
        elif name not in fits:
            kind = checked.types[name]
            fix = f'compute one, as {name}_step = "floor({name} / 10)"' if kind == "float" else "name another"
            checked.note(at, f"{name} is {kind}, and groups need text, int or bool", fix)
    if len(set(by)) < len(by):
        checked.note(at, "a name is there twice", "name each once")
    return sound


def _aggregates(checked: _Checked) -> bool:
    """Note what cannot be aggregated; whether all fields are known."""
    stream, source, note = checked.stream, checked.source, checked.note
    fields = {name: field.type for name, field in source.fields.items()}
    fields |= {name: checked.types[name] for name in stream.computed if name in checked.types}
    taken = {*RESULT_NAMES, source.key, *(source.tags if by_device(stream, source) else stream.by or ())}
    sound = True
    for field, aggregates in stream.aggregates.items():
        at = (*checked.at, "aggregates", field)
        kind = fields.get(field)
        if kind is None:
            sound = False
            if field == source.key or field in source.tags:
                which = "the key" if field == source.key else "a tag"
                note(at, f"{field} is {which}, no field", f'compute a field of it, as the_{field} = "{field}"')
            elif field not in stream.computed:
                note(at, f"{stream.source} has no field {field!r}", nearest_name(field, fields))
            continue
        for aggregate in dict.fromkeys(aggregates):
            if aggregate not in _OF_ANYTHING and kind not in _NUMBERS:
                note(at, f"{aggregate} needs numbers, and {field} is {kind}", f"write one of {', '.join(_OF_ANYTHING)}")
            if aggregate in ORDERED_AGGREGATES and not of_one_device(stream, source):
                note(
                    at,
                    f"{aggregate} follows one device's values, and a group here has several devices",
                    f'leave by out, or name "{source.key}" in it',
                )
            name = result_name(field, aggregate)
            if name in taken:
                note(at, f"{name!r} would be there twice in a result", "compute a field of another name")
            elif not _FIELD_NAME.fullmatch(name):
                note(at, f"{name!r} is too long a name for a result", "compute a field of a shorter name")
            taken.add(name)
        if len(set(aggregates)) < len(aggregates):
            note(at, "an aggregate is named twice", "name each once")
    return sound


def _window(checked: _Checked, *, known: bool) -> None:
    window, note, at = checked.stream.window, checked.note, (*checked.at, "window")
    match window:
        case Tumbling() | Hopping():
            _time_window(checked, window)
        case Sliding():
            if window.size <= 0:
                note((*at, "size"), "a window has no length", 'write one such as "10s"')
        case Session():
            if window.gap <= 0:
                note((*at, "gap"), "a gap has no length", 'write one such as "30s"')
            if window.longest is not None and window.longest <= 0:
                note((*at, "longest"), "a window has no length", 'write one such as "1h", or leave it out')
        case State():
            if known and window.field not in checked.types:
                note(
                    (*at, "field"),
                    f"{checked.stream.source} has no field {window.field!r}",
                    nearest_name(window.field, checked.types),
                )
        case Count():
            if window.step is not None and window.step > window.count:
                note(
                    (*at, "step"),
                    f"a step of {window.step} leaves readings out between windows of {window.count}",
                    f"write {window.count} at the most",
                )
            _overlap(checked, window.count, window.step or window.count, str(-(-window.count // _MOST_WINDOWS)))
        case Event():
            if known:
                _condition(checked, ("window", "start"), window.start)
                _condition(checked, ("window", "end"), window.end)


def _time_window(checked: _Checked, window: Tumbling | Hopping) -> None:
    note, at = checked.note, (*checked.at, "window")
    step = window.step if isinstance(window, Hopping) else window.size
    if window.size <= 0:
        note((*at, "size"), "a window has no length", 'write one such as "10s"')
        return
    if step <= 0:
        note((*at, "step"), "a step has no length", 'write one such as "1s"')
        return
    if step > window.size:
        note(
            (*at, "step"),
            f"a step of {step} leaves time out between windows of {window.size}",
            "write at most the size",
        )
    if step > checked.stream.retention:
        note(
            (*checked.at, "retention"),
            f"a result comes each {step}, and is kept for {checked.stream.retention} only",
            f'write at least "{step}"',
        )
    _overlap(checked, window.size, step, f'"{type(step)(-(-window.size // _MOST_WINDOWS))}"')
    wrong = None if window.zone is None or step > window.size else mistake(window.zone, window.size, step)
    if wrong is not None:
        note((*at, "zone"), *wrong)


def _overlap(checked: _Checked, size: int, step: int, least: str) -> None:
    if size > step * _MOST_WINDOWS:
        checked.note(
            (*checked.at, "window", "step"),
            f"each reading would be in {size // step:,} windows",
            f"write a step of at least {least}",
        )


def _lengths(checked: _Checked, pipeline: Pipeline) -> None:
    stream, source, note = checked.stream, checked.source, checked.note
    longest = _longest(stream)
    if longest + stream.grace > source.retention:
        note(
            (*checked.at, "grace"),
            f"a window and its grace ({type(stream.grace)(longest)} + {stream.grace}) outlast the topic's retention"
            f" ({source.retention})",
            f"keep topics.{stream.source}.retention longer, or the window shorter",
        )
    if longest + stream.grace > pipeline.store.retention:
        note(
            (*checked.at, "grace"),
            f"a window and its grace ({type(stream.grace)(longest)} + {stream.grace}) are longer than the store keeps"
            f" rows ({pipeline.store.retention})",
            "keep store.retention longer, or the grace shorter",
        )
    forgotten, idle = stream.forget_after, stream.idle
    if forgotten is not None and forgotten < idle:
        note(
            (*checked.at, "forget_after"),
            f"a device would be forgotten after {forgotten}, and its windows wait for it as long as idle ({idle})",
            f'write at least "{idle}", or a shorter idle',
        )


def _longest(stream: Stream) -> int:
    """How far a window reaches at the least, as far as the file says."""
    match stream.window:
        case Tumbling() | Hopping() | Sliding():
            return int(stream.window.size)
        case Session():
            return int(stream.window.gap)
    return 0


def _emit_and_late(checked: _Checked) -> None:
    stream, note = checked.stream, checked.note
    if stream.emit == "max-delay" and stream.max_delay is None:
        note((*checked.at, "emit"), "max-delay needs to know how long", 'add max_delay = "5s"')
    elif stream.emit != "max-delay" and stream.max_delay is not None:
        note((*checked.at, "max_delay"), f'emit = "{stream.emit}" has no use for it', 'write emit = "max-delay"')
    elif stream.max_delay is not None and stream.max_delay <= 0:
        note((*checked.at, "max_delay"), "a delay has no length", 'write one such as "5s", or emit = "at-once"')
    if stream.late == "heal" and isinstance(stream.window, State | Count | Event):
        kind = type(stream.window).__name__.lower()
        note(
            (*checked.at, "late"),
            f"one late reading can move the bounds of every {kind} window after it, so none can be healed alone",
            'write "dead-letter" or "drop", and a grace as long as readings are out of order',
        )
