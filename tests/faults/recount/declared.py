"""What the pipeline file declares, as far as the recount needs it: read by itself, in its own words."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

_UNITS = {"us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}


def microseconds(text: str) -> int:
    """A duration such as ``1m30s``."""
    return sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)(us|ms|s|m|h|d)", text))


@dataclass(frozen=True)
class Topic:
    """A raw topic: ``key_in_message`` when the message's key alone names the device."""

    name: str
    key: str
    key_in_message: bool
    time: str
    iso: bool
    skew_us: int
    max_bytes: int
    tag: str
    partitions: int


@dataclass(frozen=True)
class Stream:
    """A stream: ``by_tag`` when its groups are those of the topic's tag, and not its devices."""

    name: str
    topic: str
    kind: str
    size_us: int
    step_us: int
    gap_us: int
    longest_us: int
    grace_us: int
    by_tag: bool
    speaks_early: bool
    letters: bool

    @property
    def key(self) -> str:
        """What its table calls a group."""
        return "group" if self.by_tag else ""


@dataclass(frozen=True)
class Declared:
    """The whole line: its name, topics and streams."""

    name: str
    topics: dict[str, Topic]
    streams: dict[str, Stream]


def declared(path: Path) -> Declared:
    """Read the pipeline file."""
    with path.open("rb") as file:
        said = tomllib.load(file)
    topics = {
        name: Topic(
            name=name,
            key=topic["key"],
            key_in_message=topic.get("key_in", "value") == "message",
            time=topic["time"]["field"],
            iso=topic["time"]["format"] == "iso8601",
            skew_us=microseconds(topic["max_future_skew"]),
            max_bytes=topic.get("max_bytes", 1_000_000),
            tag=next(iter(topic["tags"])),
            partitions=topic["partitions"],
        )
        for name, topic in said["topics"].items()
    }
    streams = {}
    for name, stream in said["streams"].items():
        window = stream["window"]
        size = microseconds(window.get("size", "0s"))
        streams[name] = Stream(
            name=name,
            topic=stream["from"],
            kind=window["kind"],
            size_us=size,
            step_us=microseconds(window["step"]) if "step" in window else size,
            gap_us=microseconds(window.get("gap", "0s")),
            longest_us=microseconds(window.get("longest", "0s")),
            grace_us=microseconds(stream["grace"]),
            by_tag="by" in stream,
            speaks_early=stream.get("emit", "close") != "close",
            letters=stream.get("late") == "dead-letter",
        )
    return Declared(said["name"], topics, streams)
