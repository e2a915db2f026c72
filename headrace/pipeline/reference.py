"""The pipeline file's reference, docs/pipeline.md, made from the types: ``python -m headrace.pipeline.reference``."""

from __future__ import annotations

import inspect
import json
import sys
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec
from msgspec import NODEFAULT, Meta
from msgspec.structs import FieldInfo, fields

from headrace.duration import Duration
from headrace.pipeline.model import Pipeline

INTRODUCTION = """\
# The pipeline file

<!-- Made from headrace/pipeline/model.py by `make docs`: change it there. -->

One TOML file says what comes in, what is made of it, and what is shown. All services read the same file. What a
deployment changes (addresses, folders, ports) is not in it but in [flags and variables](deployment.md).
`headrace check` reports all mistakes of a file at once, each with its line and what to write instead, and no service
starts on a file that has one:

```python
>>> from headrace.errors import PipelineError
>>> from headrace.pipeline import parse
>>> try:
...     parse('''
... [topics.meters]
... fields = { current = "float" }
... partitons = 4
...
... [streams.meters_10s]
... from = "meter"
... window = { kind = "tumbling", size = "10 seconds" }
... ''')
... except PipelineError as error:
...     print(error.message)
pipeline.toml: 2 mistakes
  pipeline.toml:4 topics.meters.partitons: there is no such key; write partitions
  pipeline.toml:8 streams.meters_10s.window.size: '10 seconds' is no duration; write a number and a unit \
(us, ms, s, m, h, d), as "500ms", "10s" or "1m30s"

```

The least that makes a line is a topic, a stream and a producer; the page then shows what suits them:

```python
>>> pipeline = parse('''
... [topics.meters]
... fields = { current = { type = "float", unit = "A" }, voltage = "int" }
...
... [streams.meters_10s]
... from = "meters"
... window = { kind = "tumbling", size = "10s" }
... aggregates = { current = ["max", "mean"] }
... grace = "2s"
...
... [producers.meters]
... kind = "simulate"
... topic = "meters"
... ''')
>>> pipeline.streams["meters_10s"].grace
Duration('2s')
>>> from headrace.pipeline import stream_topic
>>> list(stream_topic(pipeline, "meters_10s").fields)
['end', 'count', 'current_max', 'current_mean', 'revision', 'final']

```

A stream's results are readings of a kind: they are in a topic, have a supertable, and can be shown on a panel. A result
has the device and its tags (or the `group` and the values of `by`), `start` and `end` of the window, the `count` of its
readings, each aggregate as `FIELD_AGGREGATE`, its `revision`, and whether it is `final`.

Names in capitals below are yours to choose. A **duration** is a text of numbers and units: `"500ms"`, `"10s"`,
`"1m30s"`, `"7d"`. Keys without a default must be there. What streams do is shown in [Windows](windows.md); `where`,
computed fields and the conditions of events are written in the [expression language](expressions.md). What producers do
is told in [Producers](producers.md), what panels show in [The viewer](viewer.md), and what the words mean in
[Concepts](concepts.md).
"""

_PLAIN: dict[Any, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    Duration: "duration",
}


def reference() -> str:
    """The whole document, in Markdown."""
    return "\n".join([INTRODUCTION, *_sections()])


def _sections() -> Iterator[str]:
    """A section for each kind of table, in the order of the file."""
    places: dict[type[msgspec.Struct], list[str]] = {}
    _place(Pipeline, "", places)
    for kind, paths in places.items():
        tag = kind.__struct_config__.tag
        heading = ", ".join(f"`{path}`" for path in paths if path) or "The top of the file"
        yield f"## {heading}" + (f' with `kind = "{tag}"`' if tag else "") + "\n"
        yield (inspect.getdoc(kind) or "").replace("``", "`") + "\n"
        yield "| key | what is written | default | meaning |\n| --- | --- | --- | --- |"
        if tag is not None:
            yield f'| `{kind.__struct_config__.tag_field}` | `"{tag}"` | | which kind it is |'
        for found in fields(kind):
            meaning = "; ".join(_descriptions(found.type)).replace("|", "\\|")
            cells = (f"`{found.encode_name}`", _written(found.type), _default(found), meaning)
            yield "".join(f"| {cell} ".replace("  ", " ") for cell in cells) + "|"
        yield ""


def _place(kind: type[msgspec.Struct], path: str, places: dict[type[msgspec.Struct], list[str]]) -> None:
    """Note where a table stands, as a heading names it, and those within it."""
    places.setdefault(kind, []).append(path)
    outer = path.strip("[]")
    for found in fields(kind):
        for inner, many in _tables(found.type):
            below = f"{outer}.{found.encode_name}" if outer else found.encode_name
            if many == "dict":
                below += ".FIELD" if outer else ".NAME"
            _place(inner, f"[[{below}]]" if many == "list" else f"[{below}]", places)


def _tables(kind: Any, many: str = "") -> Iterator[tuple[type[msgspec.Struct], str]]:
    """The tables in a key's type, each with what holds it: ``dict``, ``list``, or nothing."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        yield kind, many
        return
    origin = typing.get_origin(kind)
    for argument in typing.get_args(kind):
        yield from _tables(argument, {dict: "dict", list: "list"}.get(origin, many))


def _descriptions(kind: Any) -> Iterator[str]:
    if typing.get_origin(kind) is Annotated:
        inner, *notes = typing.get_args(kind)
        yield from (note.description for note in notes if isinstance(note, Meta) and note.description)
        yield from _descriptions(inner)


def _written(kind: Any) -> str:
    """What a user writes for a type."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        bounds = " ".join(text for note in arguments[1:] if isinstance(note, Meta) for text in _bounds(note))
        return f"{_written(arguments[0])} {bounds}".strip()
    if origin is Literal:
        return _any_of([f'`"{choice}"`' for choice in arguments])
    if origin in (typing.Union, types.UnionType):
        written = [_written(argument) for argument in arguments if argument is not type(None)]
        return _any_of(list(dict.fromkeys(written)))
    if origin is list:
        return "list of tables" if list(_tables(arguments[0])) else f"list of {_written(arguments[0])}"
    if origin is dict:
        return "tables by name" if list(_tables(arguments[1])) else f"by name: {_written(arguments[1])}"
    return _PLAIN.get(kind, "table")


def _any_of(written: list[str]) -> str:
    return ", ".join(written[:-1]) + " or " + written[-1] if len(written) > 1 else "".join(written)


def _bounds(note: Meta) -> Iterator[str]:
    for sign, bound in (("above", note.gt), ("from", note.ge), ("below", note.lt), ("to", note.le)):
        if bound is not None:
            yield f"{sign} {bound:,}"
    if note.min_length == 1 == note.max_length:
        yield "of one character"


def _default(found: FieldInfo) -> str:
    if found.required:
        return ""
    value = found.default if found.default is not NODEFAULT else found.default_factory()
    if value is None or isinstance(value, msgspec.Struct) or value in ({}, []):
        return "none" if value is None else "empty" if value in ({}, []) else "its defaults"
    return f"`{json.dumps(str(value) if isinstance(value, Duration) else value)}`"


if __name__ == "__main__":
    sys.stdout.write(reference())
