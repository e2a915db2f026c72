"""From declarations, of the pipeline file or of flags, to sources that can be run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from headrace.duration import Duration
from headrace.errors import Mistake, PipelineError, SettingsError
from headrace.pipeline.check_producers import producer_mistakes
from headrace.pipeline.model import Curve, Faults, Pipeline, Replay, ReplayTime, Simulate, Topic
from headrace.pipeline.nearest import nearest_name
from producers.place import PlaceFile
from producers.portion import Source
from producers.recordings import Recording
from producers.replay import Replaying
from producers.simulate import Simulation

Producer = Simulate | Replay


def chosen(pipeline: Pipeline, names: Sequence[str], file: Path) -> dict[str, Producer]:
    """The named producers of the pipeline file, or all. Raises SettingsError for a name it does not have."""
    for name in names:
        if name not in pipeline.producers:
            fix = nearest_name(name, pipeline.producers)
            raise SettingsError(f"{file} declares no producer {name!r}", hint=fix)
    if not pipeline.producers:
        raise SettingsError(f"{file} declares no producer", hint="declare one as [producers.NAME], or use `simulate`")
    made = {name: pipeline.producers[name] for name in names or pipeline.producers}
    mistakes = [
        Mistake(f"{file} producers.{name}.{'.'.join(map(str, path))}", problem, fix)
        for name, declared in made.items()
        for path, problem, fix in producer_mistakes(declared, pipeline.topics[declared.topic])
    ]
    if mistakes:
        raise PipelineError(str(file), mistakes)
    return made


def from_flags(kind: str, flags: Mapping[str, Any], pipeline: Pipeline, file: Path) -> tuple[str, Producer]:
    """The name and the declaration that flags make, over the declaration of that kind for the topic if there is one.

    Raises SettingsError for a value that cannot be used.
    """
    given = {key: value for key, value in flags.items() if value is not None}
    wanted_topic: str = given["topic"]
    if wanted_topic not in pipeline.topics:
        raise SettingsError(
            f"{file} declares no topic {wanted_topic!r}", hint=nearest_name(wanted_topic, pipeline.topics)
        )
    wanted: type[Producer] = Simulate if kind == "simulate" else Replay
    there = {n: p for n, p in pipeline.producers.items() if isinstance(p, wanted) and p.topic == wanted_topic}
    name = next(iter(there), f"{kind}-{wanted_topic}")
    values: dict[str, Any] = {}
    if name in there:
        values = {field: getattr(there[name], field) for field in there[name].__struct_fields__}
    values |= {field: _converted(field, given[field], wanted) for field in wanted.__struct_fields__ if field in given}
    topic = pipeline.topics[wanted_topic]
    if wanted is Simulate:
        values["curves"] = _curves(given.get("curve", []), values.get("curves", {}), topic)
        if "fault" in given:
            values["faults"] = _replaced(values.get("faults", Faults()), given["fault"], "--fault")
        declared: Producer = Simulate(**values)
    else:
        declared = _replay_of(values, given, topic)
    for path, problem, fix in producer_mistakes(declared, topic):
        raise SettingsError(f"--{'.'.join(map(str, path))}: {problem}", hint=fix)
    return name, declared


def source(
    name: str, declared: Producer, topic: Topic, *, folder: Path, data: Path, now_us: int, restart: bool
) -> Source:
    """The source of a declaration. ``folder`` is where relative recordings begin, ``data`` where places are kept.

    Raises SourceError for a recording that cannot be used, DataFolderError for a place that cannot be kept.
    """
    if isinstance(declared, Simulate):
        return Simulation(name, declared, topic, now_us=now_us)
    path = folder / declared.file
    places = PlaceFile(data / "producers", name, path, declared)
    if restart:
        places.forget()
    return Replaying(name, declared, topic, Recording(path, declared, topic), places, now_us=now_us)


def _replay_of(values: dict[str, Any], given: dict[str, Any], topic: Topic) -> Replay:
    if "file" in given:
        # A file named by a flag is meant from where the command is run.
        values["file"] = str(Path(given["file"]).absolute())
    for word, field in (("field", "fields"), ("constant", "constants")):
        pairs = dict(_pair(text, f"--{word}") for text in given.get(word, []))
        for name in pairs:
            if name not in topic.fields and name not in topic.tags:
                fix = nearest_name(name, [*topic.fields, *topic.tags])
                raise SettingsError(f"--{word}: the topic has no field {name!r}", hint=fix)
        if word == "constant":
            pairs = {name: _constant(text, name, topic) for name, text in pairs.items()}
        values[field] = {**values.get(field, {}), **pairs}
    parts = {"columns": "time_columns", "format": "time_format", "zone": "time_zone"}
    time = {part: given[flag] for part, flag in parts.items() if flag in given}
    if "time" in values:
        values["time"] = msgspec.structs.replace(values["time"], **time)
    elif "columns" in time:
        values["time"] = ReplayTime(**time)
    else:
        raise SettingsError("--time-columns is missing", hint="name the recording's column that holds the time")
    if "file" not in values:
        raise SettingsError("--file is missing", hint="name the recording, as --file recording.csv")
    return Replay(**values)


def _constant(text: str, name: str, topic: Topic) -> Any:
    kind = {**topic.fields, **topic.tags}[name].type
    wanted: type = {"float": float, "int": int, "bool": bool}.get(kind, str)
    try:
        return msgspec.convert(text, wanted, strict=False)
    except msgspec.ValidationError:
        raise SettingsError(f"--constant: {text!r} is no {kind}", hint=f"write {name}=VALUE") from None


def _curves(texts: Sequence[str], there: dict[str, Curve], topic: Topic) -> dict[str, Curve]:
    curves = dict(there)
    for text in texts:
        name, colon, rest = text.partition(":")
        if not colon or not rest:
            raise SettingsError(f"--curve is {text!r}", hint="write it as voltage:base=230,swing=5")
        if name not in topic.fields and name not in topic.tags:
            fix = nearest_name(name, [*topic.fields, *topic.tags])
            raise SettingsError(f"--curve: the topic has no field {name!r}", hint=fix)
        curves[name] = _replaced(curves.get(name, Curve()), rest, "--curve")
    return curves


def _replaced(there: Any, text: str, flag: str) -> Any:
    """A copy of a Curve or Faults with what ``a=1,b=2`` says; choices are written as x|y|z."""
    values: dict[str, Any] = {}
    for part in text.split(","):
        name, value = _pair(part, flag)
        if name not in there.__struct_fields__:
            raise SettingsError(f"{flag}: there is no {name!r}", hint=nearest_name(name, there.__struct_fields__))
        given = [_choice(word) for word in value.split("|")] if name == "choices" else value
        values[name] = _converted(name, given, type(there), flag=flag)
    return msgspec.structs.replace(there, **values)


def _choice(word: str) -> Any:
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(word, word)


def _pair(text: str, flag: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise SettingsError(f"{flag} is {text!r}", hint=f"write it as {flag} NAME=VALUE")
    return name, value


def _converted(field: str, value: Any, kind: type, *, flag: str | None = None) -> Any:
    hint = get_type_hints(kind, include_extras=True)[field]
    try:
        return msgspec.convert(value, hint, strict=False, dec_hook=_duration)
    except msgspec.ValidationError as error:
        problem = str(error).partition(" - at `")[0]
        raise SettingsError(f"{flag or '--' + field} is {value!r}: {problem}", hint="see --help") from None


def _duration(_kind: type, value: Any) -> Duration:
    return Duration.parse(value)
