"""The recount of a whole run: raw rows, windows, results, dead letters, late letters, and both sides of the ledger."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from faults.recount.broker import Reader
from faults.recount.declared import Declared, Stream, Topic
from faults.recount.findings import Findings
from faults.recount.readings import Refused, readings
from faults.recount.stored import Tables
from faults.recount.windows import NEVER, Clock, Expected, Key, Window

RESULT = ("end", "count", "current_min", "current_max", "current_sum", "voltage_sum")

Letters = dict[tuple[int, int], tuple[str, str]]
"""Of each refused message (partition, offset) the reason and the digest of what it held."""


class Recount:
    """Reads everything back and compares. ``once``: each result must stand in its topic exactly once."""

    def __init__(self, address: str, declared: Declared, tables: Tables, *, once: bool) -> None:
        self._reader = Reader(address)
        self._declared = declared
        self._tables = tables
        self._once = once
        self.findings = Findings()
        self.expected = {name: Expected(stream) for name, stream in declared.streams.items()}
        self._messages: dict[tuple[str, int], Counter[str]] = {}
        """Of each raw topic and partition: messages, readings, rows, and refused by reason."""

    def close(self) -> None:
        """Close the clients."""
        self._reader.close()
        self._tables.close()

    @property
    def readings(self) -> int:
        """How many readings the raw topics hold."""
        return sum(counts["read"] for counts in self._messages.values())

    def raw_topics(self) -> None:
        """Read the raw topics, compare their rows and dead letters, and know which windows there must be."""
        for topic in self._declared.topics.values():
            letters: Letters = {}
            devices: set[str] = set()
            for partition in range(topic.partitions):
                rows = self._partition(topic, partition, letters)
                devices |= set(rows)
                self._compare_rows(topic, rows)
            self._compare_letters(topic, letters)
            for device in self._tables.devices(topic.name, topic.key) - devices:
                self.findings.mistake(f"rows of {topic.name}", f"{device} is in the store and in no message")

    def _partition(self, topic: Topic, partition: int, letters: Letters) -> dict[str, dict[int, tuple[Any, ...]]]:
        """The rows that one partition must leave, by device and time; its streams are told of each reading."""
        rows: dict[str, dict[int, tuple[Any, ...]]] = {}
        counts = self._messages[topic.name, partition] = Counter()
        streams = [
            self.expected[name].partition(partition)
            for name, stream in self._declared.streams.items()
            if stream.topic == topic.name
        ]
        clock, tags = Clock(), dict[str, str]()
        for message in self._reader.messages(topic.name, partition):
            counts["messages"] += 1
            value = message.value()
            if value is None:
                counts["tombstones"] += 1
                continue
            try:
                found = readings(topic, message.key(), value, message.timestamp()[1])
            except Refused as refused:
                counts[f"refused:{refused}"] += 1
                letters[partition, message.offset()] = str(refused), hashlib.sha256(value).hexdigest()
                continue
            for reading in found:
                device, ts = reading.device, reading.ts
                counts["read"] += 1
                of_device = rows.get(device)
                if of_device is None:
                    of_device = rows[device] = {}
                of_device[ts] = reading.current, reading.voltage
                if reading.tag is not None:
                    tags[device] = reading.tag
                tag = tags.get(device, "-")
                own, slowest = clock.progress.get(device, NEVER), clock.slowest
                for stream in streams:
                    stream.take(reading, own, slowest, tag)
                clock.move(device, ts)
        for stream in streams:
            stream.end(clock)
        counts["rows"] = sum(map(len, rows.values()))
        return rows

    def _compare_rows(self, topic: Topic, rows: dict[str, dict[int, tuple[Any, ...]]]) -> None:
        what = f"rows of {topic.name}"
        for device, must in rows.items():
            self.findings.compared[what] += len(must)
            seen = 0
            for ts, current, voltage in self._tables.rows(
                topic.name, (topic.time, "current", "voltage"), topic.key, device
            ):
                if ts not in must:
                    self.findings.mistake(what, f"{device} at {ts} is in the store and in no message")
                elif must[ts] != (current, voltage):
                    self.findings.mistake(what, f"{device} at {ts} is {(current, voltage)}, and not {must[ts]}")
                seen += ts in must
            if seen < len(must):
                self.findings.lose(what, f"{device} lacks {len(must) - seen} of {len(must)}", len(must) - seen)
            elif seen > len(must):
                self.findings.mistake(what, f"{device} has rows twice", seen - len(must))

    def _compare_letters(self, topic: Topic, letters: Letters) -> None:
        what = f"dead letters of {topic.name}"
        self.findings.compared[what] += len(letters)
        found: Counter[tuple[int, int]] = Counter()
        for message in self._reader.messages(f"{topic.name}.dlq", 0):
            headers = dict(message.headers() or ())
            where = int(headers["partition"]), int(headers["offset"])
            found[where] += 1
            if where not in letters:
                self.findings.mistake(what, f"offset {where} was accepted, and has a letter: {headers.get('reason')!r}")
                continue
            reason, digest = letters[where]
            if headers["reason"].decode() != reason:
                self.findings.mistake(what, f"offset {where} is {reason}, and its letter says {headers['reason']!r}")
            # One that is too large for its topic is carried by reference: without the bytes, with their digest.
            held = hashlib.sha256(message.value() or b"").hexdigest()
            if digest != headers.get("digest", held.encode()).decode().removeprefix("sha256:"):
                self.findings.mistake(what, f"the letter of offset {where} ({reason}) holds other bytes")
        for where in set(letters) - set(found):
            self.findings.lose(what, f"offset {where} ({letters[where][0]}) has no letter")
        self.findings.duplicates[what] += sum(n - 1 for n in found.values())

    def windows(self) -> None:
        """Compare each stream's table, its topic and its late readings with what they must be."""
        for name, expected in self.expected.items():
            over, still = expected.finish()
            self._compare_table(expected.stream, over, still)
            self._compare_results(expected.stream, over, still)
            if expected.stream.letters:
                self._compare_late(name, expected.letters)

    def _compare_table(self, stream: Stream, over: Mapping[Key, Window], still: set[Key]) -> None:
        what, key = f"windows of {stream.name}", self._key(stream)
        self.findings.compared[what] += len(over)
        missing = set(over)
        for group in self._tables.devices(stream.name, key) | {group for group, _ in over}:
            for start, *values in self._tables.rows(stream.name, ("start", *RESULT, "final"), key, group):
                said, final = tuple(values[:-1]), bool(values[-1])
                missing.discard((group, start))
                self._judge(what, stream, (group, start), said, over, still, final=final)
        for group, start in missing:
            self.findings.lose(what, f"{group} at {start}: {over[group, start].says()} is not in the store")

    def _judge(
        self,
        what: str,
        stream: Stream,
        key: Key,
        said: tuple[Any, ...],
        over: Mapping[Key, Window],
        still: set[Key],
        *,
        final: bool,
    ) -> None:
        if key in over and final:
            if said != over[key].says():
                self.findings.mistake(what, f"{key} says {said}, and not {over[key].says()}")
        elif final or not stream.speaks_early or key not in still:
            kind = "final" if final else "provisional"
            must = "provisional or not there" if key in still else "there and final" if key in over else "not there"
            self.findings.mistake(what, f"{key} is {kind}, and should be {must}: {said}")

    def _compare_results(self, stream: Stream, over: Mapping[Key, Window], still: set[Key]) -> None:
        """The topic: a final result says the same however often it stands there; and once, where that is promised."""
        what, key = f"results of {stream.name}", self._key(stream)
        said: Counter[Key] = Counter()
        partitions = self._declared.topics[stream.topic].partitions
        for partition in range(partitions):
            for message in self._reader.messages(stream.name, partition):
                for one in _results(json.loads(message.value()), key):
                    if not one["final"]:
                        continue
                    where = one[key], _us(one["start"])
                    said[where] += 1
                    values = (_us(one["end"]), *(one[name] for name in RESULT[1:]))
                    self._judge(what, stream, where, values, over, still, final=True)
        self.findings.compared[what] += len(said)
        for where in set(over) - set(said):
            self.findings.lose(what, f"{where} was never said")
        twice = sum(n - 1 for n in said.values())
        self.findings.duplicates[what] += twice
        if self._once and twice:
            example = next(where for where, n in said.items() if n > 1)
            self.findings.mistake(what, f"{example} stands there {said[example]} times", twice)

    def _compare_late(self, name: str, expected: Counter[tuple[str, int, float, str]]) -> None:
        what = f"late letters of {name}"
        self.findings.compared[what] += expected.total()
        found: Counter[tuple[str, int, float, str]] = Counter()
        topic = self._declared.topics[self._declared.streams[name].topic]
        for partition in range(topic.partitions):
            for message in self._reader.messages(f"{name}.late", partition):
                one, reason = json.loads(message.value()), dict(message.headers())["reason"].decode()
                written = one[topic.time]
                ts = _us(written) if isinstance(written, str) else round(written * 1_000)
                found[one[topic.key], ts, one["current"], reason] += 1
        for key, n in expected.items():
            if found[key] < n:
                self.findings.lose(what, f"{key} has no letter", n - found[key])
        extra = found - expected
        self.findings.duplicates[what] += extra.total()
        for key, n in extra.items():
            if self._once or key not in expected:
                self.findings.mistake(what, f"{key} has {n} letters too many", n)

    def ledger(self) -> None:
        """Compare what the stages say that they have counted."""
        self._sinks()
        self._processors()

    def _sinks(self) -> None:
        kept = self._tables.counts()
        for (topic, partition), counts in self._messages.items():
            said = kept.get((topic, partition), {})
            must = {name: n for name, n in counts.items() if name != "rows"}
            said = {**said, "again": said.pop("updated", 0) + said.pop("duplicate", 0)}
            must |= {"stored": counts["rows"], "again": counts["read"] - counts["rows"]}
            self._hold("ledger of sinks", f"{topic}[{partition}]", must, said)

    def _processors(self) -> None:
        entries: dict[tuple[str, str, int], dict[str, int]] = {}
        for name in self._reader.topics():
            if not name.endswith(".ledger"):
                continue
            for message in self._reader.messages(name, 0):
                one = json.loads(message.value())
                if one["stage"] == "processors":
                    entries[one["name"], one["topic"], one["partition"]] = one["counts"]
        for name, expected in self.expected.items():
            topic = expected.stream.topic
            for partition, counts in expected.counts.items():
                said = entries.get((name, topic, partition), {})
                must = {what: n for what, n in self._messages[topic, partition].items() if what != "rows"}
                must |= {what: counts[what] for what in ("late", "repeated", "corrected")}
                # What waits for its place in the order counts as windowed here.
                said = {**said, "windowed": said.get("windowed", 0) + said.get("waiting", 0)}
                must["windowed"] = counts["windowed"]
                self._hold("ledger of processors", f"{name} of {topic}[{partition}]", must, said)
        for (name, topic, partition), said in entries.items():
            if topic not in self._declared.topics and said.get("late"):
                # What was in time in its own partition is in time where partitions come together.
                late = said["late"]
                self.findings.mistake("ledger of processors", f"{name} of {topic}[{partition}]: {late} late", late)

    def _hold(self, what: str, who: str, must: Mapping[str, int], said: Mapping[str, int]) -> None:
        for name, n in must.items():
            self.findings.compared[what] += 1
            if said.get(name, 0) != n:
                self.findings.mistake(what, f"{who} says {said.get(name, 0)} {name}, and there are {n}")

    def _key(self, stream: Stream) -> str:
        return "group" if stream.by_tag else self._declared.topics[stream.topic].key


def _results(one: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """The results in a message: one, or columns of them."""
    if not isinstance(one["start"], list):
        return [one]
    names = [key, "start", *RESULT, "final"]
    return [dict(zip(names, values, strict=True)) for values in zip(*(one[name] for name in names), strict=True)]


def _us(text: str) -> int:
    """An ISO time in UTC as µs since the epoch."""
    at = datetime.fromisoformat(text)
    return round(at.replace(microsecond=0).timestamp()) * 1_000_000 + at.microsecond
