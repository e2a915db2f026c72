"""From the text of a pipeline file to its types, collecting every mistake on the way.

msgspec stops at the first mistake, so tables are walked here and msgspec converts one value at a time.
"""

from __future__ import annotations

import re
import tomllib
import types
import typing
from pathlib import Path
from typing import Annotated, Any, Union

import msgspec

from headrace.duration import HINT, Duration
from headrace.errors import Mistake, PipelineError, SettingsError
from headrace.pipeline.check import check
from headrace.pipeline.model import Field, Pipeline
from headrace.pipeline.nearest import nearest_name

Path_ = tuple[str | int, ...]
_ABSENT = object()


class Mistakes:
    """The mistakes found so far, each with the line of the file that it stands on."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.lines = _lines(text)
        self.found: list[tuple[int, Mistake]] = []

    def add(self, path: Path_, problem: str, fix: str) -> None:
        """Note a mistake at ``path`` (keys and list places from the top of the file)."""
        line = next((self.lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self.lines), 1)
        dotted = ".".join(str(part) for part in path) or "the file"
        self.found.append((line, Mistake(f"{self.file}:{line} {dotted}", problem, fix)))

    def raise_any(self) -> None:
        """Raise PipelineError if there are mistakes."""
        if self.found:
            ordered = sorted(self.found, key=lambda found: found[0])
            raise PipelineError(self.file, [mistake for _, mistake in ordered])


def load(path: Path) -> Pipeline:
    """The pipeline declared in a file.

    Raises PipelineError with every mistake in it, or SettingsError when the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(
            f"the pipeline file {path} cannot be read: {error.strerror}",
            hint="name it with --pipeline or HEADRACE_PIPELINE",
        ) from None
    except UnicodeDecodeError:
        raise SettingsError(f"the pipeline file {path} is not UTF-8 text", hint="save it as UTF-8") from None
    return parse(text, str(path))


def parse(text: str, file: str = "pipeline.toml") -> Pipeline:
    """The pipeline that ``text`` (TOML) declares; ``file`` is what mistakes call it."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"line (\d+)", str(error))
        where = f"{file}:{place.group(1)}" if place else file
        raise PipelineError(file, [Mistake(where, f"this is no TOML: {error}", "correct the syntax")]) from None
    mistakes = Mistakes(file, text)
    pipeline, unreadable = _sound(data, mistakes)
    if pipeline is not None:
        check(pipeline, unreadable, mistakes.add)
    mistakes.raise_any()
    return typing.cast(Pipeline, pipeline)


def _sound(data: dict[str, Any], mistakes: Mistakes) -> tuple[Pipeline | None, set[Path_]]:
    """The pipeline without the entries that cannot be read, and where those stand.

    What is left is checked as well, so that one wrong word does not hide the mistakes elsewhere.
    """
    data = dict(data)
    unreadable: set[Path_] = set()
    for part in ("topics", "streams", "producers"):
        entries = data.get(part)
        if not isinstance(entries, dict):
            continue
        kind = typing.get_type_hints(Pipeline, include_extras=True)[part]
        for name, entry in entries.items():
            if _value({name: entry}, kind, (part,), Mistakes("", "")) is _ABSENT:
                _value({name: entry}, kind, (part,), mistakes)
                unreadable.add((part, name))
        data[part] = {name: entry for name, entry in entries.items() if (part, name) not in unreadable}
    if isinstance(data.get("panels"), list):
        kind = typing.get_args(typing.get_args(typing.get_type_hints(Pipeline, include_extras=True)["panels"])[0])[0]
        sound = []
        for place, entry in enumerate(data["panels"]):
            if _value(entry, kind, ("panels", place), mistakes) is _ABSENT:
                unreadable.add(("panels", place))
            else:
                sound.append(entry)
        data["panels"] = sound
    pipeline = _table(data, Pipeline, (), mistakes)
    return (pipeline if isinstance(pipeline, Pipeline) else None), unreadable


def _value(value: Any, kind: Any, path: Path_, mistakes: Mistakes) -> Any:
    """``value`` as ``kind``, or _ABSENT after noting what is wrong with it."""
    while typing.get_origin(kind) is Annotated and not _is_leaf(kind):
        kind = typing.get_args(kind)[0]
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        if kind is Field and isinstance(value, str):
            value = {"type": value}
        return _table(value, kind, path, mistakes)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType) and (tagged := [a for a in arguments if _is_struct(a)]):
        return _tagged(value, tagged, path, mistakes)
    if origin is dict:
        if not isinstance(value, dict):
            mistakes.add(path, f"this is {_spoken(value)}, not a table", f"write [{'.'.join(map(str, path))}]")
            return _ABSENT
        made = {key: _value(item, arguments[1], (*path, key), mistakes) for key, item in value.items()}
        return _ABSENT if _ABSENT in made.values() else made
    if origin is list:
        if not isinstance(value, list):
            mistakes.add(path, f"this is {_spoken(value)}, not a list", "write it as [..., ...]")
            return _ABSENT
        items = [_value(item, arguments[0], (*path, n), mistakes) for n, item in enumerate(value)]
        return _ABSENT if any(item is _ABSENT for item in items) else items
    return _leaf(value, kind, path, mistakes)


def _leaf(value: Any, kind: Any, path: Path_, mistakes: Mistakes) -> Any:
    try:
        return msgspec.convert(value, kind, dec_hook=_hook)
    except msgspec.ValidationError as error:
        problem = str(error).partition(" - at `")[0]
        choices = _choices(kind)
        if isinstance(value, str) and choices:
            mistakes.add(path, f"{value!r} is not known here", nearest_name(value, choices))
        elif ": write " in problem:
            said, _, fix = problem.partition(": ")
            mistakes.add(path, said, fix)
        elif _needs(kind, Duration):
            mistakes.add(path, f"this is {_spoken(value)}, not a duration", HINT)
        else:
            mistakes.add(path, f"this is {_spoken(value)}", f"write what fits: {problem[0].lower()}{problem[1:]}")
        return _ABSENT


def _table(value: Any, kind: type[msgspec.Struct], path: Path_, mistakes: Mistakes) -> Any:
    if not isinstance(value, dict):
        mistakes.add(path, f"this is {_spoken(value)}, not a table", f"write [{'.'.join(map(str, path))}]")
        return _ABSENT
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    tag = kind.__struct_config__.tag_field
    for key in value:
        if key not in fields and key != tag:
            mistakes.add((*path, key), "there is no such key", nearest_name(key, [*fields, *([tag] if tag else [])]))
    made: dict[str, Any] = {}
    whole = True
    for key, field in fields.items():
        if key in value:
            item = _value(value[key], field.type, (*path, key), mistakes)
            whole = whole and item is not _ABSENT
            made[field.name] = item
        elif field.required:
            mistakes.add(path, f"{key} is missing", f"add {key} = {_example(field.type)}")
            whole = False
    return kind(**made) if whole else _ABSENT


def _tagged(value: Any, kinds: list[Any], path: Path_, mistakes: Mistakes) -> Any:
    if not isinstance(value, dict):
        mistakes.add(path, f"this is {_spoken(value)}, not a table", f"write [{'.'.join(map(str, path))}]")
        return _ABSENT
    by_tag = {kind.__struct_config__.tag: kind for kind in kinds}
    field = kinds[0].__struct_config__.tag_field
    tag = value.get(field)
    if not isinstance(tag, str) or tag not in by_tag:
        if tag is None:
            mistakes.add(path, f"{field} is missing", f"add {field} = one of {', '.join(by_tag)}")
        else:
            mistakes.add((*path, field), f"{tag!r} is not known here", nearest_name(str(tag), by_tag))
        return _ABSENT
    return _table(value, by_tag[tag], path, mistakes)


def _hook(kind: type, value: Any) -> Any:
    if kind is Duration and isinstance(value, str):
        return Duration.parse(value)
    raise ValueError(f"{value!r} is no {kind.__name__.lower()}: {HINT}")


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _is_leaf(kind: Any) -> bool:
    """Whether an Annotated type is one that msgspec converts whole (its constraints live in the annotation)."""
    inner = typing.get_args(kind)[0]
    while typing.get_origin(inner) is Annotated:
        inner = typing.get_args(inner)[0]
    if typing.get_origin(inner) in (dict, list) or _is_struct(inner):
        return False
    return not any(_is_struct(argument) for argument in typing.get_args(inner))


def _needs(kind: Any, wanted: type) -> bool:
    return kind is wanted or any(_needs(argument, wanted) for argument in typing.get_args(kind))


def _choices(kind: Any) -> list[str]:
    if typing.get_origin(kind) is typing.Literal:
        return [str(choice) for choice in typing.get_args(kind)]
    return [choice for argument in typing.get_args(kind) for choice in _choices(argument)]


def _spoken(value: Any) -> str:
    names = {
        str: "a text",
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        dict: "a table",
        list: "a list",
    }
    name = names.get(type(value), f"a {type(value).__name__}")
    return name if isinstance(value, dict | list) else f"{name} ({value!r})"


def _example(kind: Any) -> str:
    while typing.get_origin(kind) is Annotated:
        kind = typing.get_args(kind)[0]
    if choices := _choices(kind):
        return f'"{choices[0]}"'
    if _needs(kind, Duration):
        return '"10s"'
    if typing.get_origin(kind) is list:
        return "[...]"
    return "{ ... }" if typing.get_origin(kind) is dict or _is_struct(kind) else '"..."'


def _lines(text: str) -> dict[Path_, int]:
    """The line that each table and key begins on, as far as a look at the text can tell."""
    lines: dict[Path_, int] = {}
    counts: dict[Path_, int] = {}
    table: Path_ = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\[\s*([^\]]+?)\s*\]\]", line):
            name = _split(header.group(1))
            counts[name] = counts.get(name, -1) + 1
            table = (*name, counts[name])
        elif header := re.match(r"\s*\[\s*([^\]]+?)\s*\]\s*(?:#.*)?$", line):
            table = _split(header.group(1))
        elif key := re.match(r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"))*)\s*=""", line):
            path = (*table, *_split(key.group(1)))
            lines.setdefault(path, number)
            for inner in re.finditer(r"""[{,]\s*([\w-]+)\s*=""", line[key.end() :]):
                lines.setdefault((*path, inner.group(1)), number)
            continue
        else:
            continue
        for length in range(1, len(table) + 1):
            lines.setdefault(table[:length], number)
    return lines


def _split(dotted: str) -> Path_:
    return tuple(part.strip("\"'") for part in re.findall(r"""[\w-]+|"[^"]*"|'[^']*'""", dotted))
