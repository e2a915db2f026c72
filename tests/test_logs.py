"""Logs: every record is one line of logfmt that can be read back, and shows no password."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import logs
from headrace.logs import Logfmt
from headrace.redaction import MASK, remember

NAMES = {"ts", "level", "service", "msg"}
PAIR = re.compile(r'([^\s="\\]+)=("(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9a-f]{4})*"|[^\s"=\\]*)(?: |$)')


def parsed(line: str) -> dict[str, str]:
    """The names and values of a line, by the grammar alone: pairs with a space between, nothing else."""
    found: dict[str, str] = {}
    at = 0
    while at < len(line):
        pair = PAIR.match(line, at)
        assert pair is not None, f"no logfmt at {at}: {line[at:]!r}"
        name, value = pair.groups()
        assert name not in found, f"{name} stands twice"
        found[name] = json.loads(value) if value.startswith('"') else value
        at = pair.end()
    return found


def line_of(message: str, *arguments: Any, error: BaseException | None = None, **extra: Any) -> str:
    record = logging.LogRecord(
        "headrace.test", logging.WARNING, __file__, 1, message, arguments, error and (type(error), error, None)
    )
    record.created = 1_795_204_810.25
    record.__dict__.update(extra)
    return Logfmt("sinks").format(record)


VALUES: dict[str, tuple[Any, str, str]] = {
    "word": ("meters", "meters", "meters"),
    "empty": ("", '""', ""),
    "none": (None, "", ""),
    "space": ("two words", '"two words"', "two words"),
    "quotes": ('say "no"', r'"say \"no\""', 'say "no"'),
    "backslash": ("C:\\data", r'"C:\\data"', "C:\\data"),
    "equals": ("a=b", '"a=b"', "a=b"),
    "newline": ("one\ntwo\r\n", r'"one\ntwo\r\n"', "one\ntwo\r\n"),
    "tab": ("a\tb", r'"a\tb"', "a\tb"),
    "control": ("\x00\x1b[31m\x7f\x85", r'"\u0000\u001b[31m\u007f\u0085"', "\x00\x1b[31m\x7f\x85"),
    "unicode": ("Zürich→東京", "Zürich→東京", "Zürich→東京"),
    "unicode-space": ("Zürich 東京\u00a0", '"Zürich 東京\u00a0"', "Zürich 東京\u00a0"),
    "line-separator": ("a\u2028b", r'"a\u2028b"', "a\u2028b"),
    "half-surrogate": ("\ud800", r'"\ud800"', "\ud800"),
    "number": (20, "20", "20"),
    "fraction": (0.5, "0.5", "0.5"),
    "truth": (True, "true", "true"),
    "list": (["a", "b c"], r'"[\"a\", \"b c\"]"', '["a", "b c"]'),
    "mapping": ({"ü": 1}, r'"{\"ü\": 1}"', '{"ü": 1}'),
    "error": (ValueError("no = sign"), '"no = sign"', "no = sign"),
}


@pytest.mark.parametrize("kind", VALUES)
def test_value_is_written_and_read_back(kind: str) -> None:
    value, written, read = VALUES[kind]
    line = line_of("it is so", value=value, after="end")
    assert line.partition(" value=")[2].removesuffix(" after=end") == written
    assert parsed(line) == {**parsed(line_of("it is so")), "value": read, "after": "end"}


def test_line_says_when_how_serious_who_and_what() -> None:
    line = line_of("%d rows of %s", 20, "meters", rows=20)
    found = parsed(line)
    assert found.keys() == {*NAMES, "rows"}
    assert (found["level"], found["service"], found["msg"]) == ("warning", "sinks", "20 rows of meters")
    assert line.startswith("ts=2026-11-20T20:00:10.250Z level=warning service=sinks msg=")


def test_names_are_plain_and_none_stands_twice() -> None:
    found = parsed(line_of("it", **{"level": "mine", "max.message.bytes": 1, 'a b="c"\n': 2, "a_b__c__": 3, "": 4}))
    assert {name for name in found if name not in NAMES} == {
        "level_",
        "max.message.bytes",
        "a_b__c__",
        "a_b__c___",
        "_",
    }
    assert (found["level"], found["level_"]) == ("warning", "mine")


def test_traceback_is_a_value() -> None:
    try:
        raise ValueError('it says "no"\nand more')
    except ValueError as error:
        record = logging.LogRecord("x", logging.ERROR, __file__, 1, "failed", (), sys.exc_info())
        assert error.args
    line = Logfmt("viewer").format(record)
    assert "\n" not in line
    traceback = parsed(line)["error"]
    assert traceback.startswith("Traceback (most recent call last):\n")
    assert traceback.endswith('ValueError: it says "no"\nand more')


@given(
    st.text(),
    st.dictionaries(st.text(max_size=8), st.text() | st.none() | st.integers() | st.lists(st.text()), max_size=4),
)
def test_whatever_is_logged_is_one_line_that_can_be_read(message: str, extra: dict[str, Any]) -> None:
    record = logging.makeLogRecord({"msg": message, "levelname": "INFO"})
    known = set(record.__dict__)
    record.__dict__.update({f"x{name}": value for name, value in extra.items() if f"x{name}" not in known})
    line = Logfmt("sinks").format(record)
    assert len(line.splitlines()) == 1
    line.encode()
    assert parsed(line).keys() >= NAMES


@pytest.mark.parametrize(
    "secret", ["correct horse", 'qu"ote-tail', "back\\slash-tail", "new\nline-tail", "Ünq=tail-é", "pl-tail"]
)
def test_no_line_shows_a_password(secret: str) -> None:
    url = f"taosws://root:{secret}@127.0.0.1:6041/line"
    remember(url)
    for line in (
        line_of(f"cannot reach {url}"),
        line_of("away", store=url, stores=[url, {"at": url}]),
        line_of("away", reason=f"{secret} was refused"),
        line_of("failed", error=ValueError(f"no answer from {url}")),
    ):
        assert MASK in line
        for piece in (secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]):
            assert piece not in line
        assert "root" not in line or parsed(line)


def test_logs_of_a_process_are_such_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    root, headrace = logging.getLogger(), logging.getLogger("headrace")
    before = (root.handlers[:], root.level, headrace.level)
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    try:
        logs.configure("processors", "info")
        logging.getLogger("headrace.x").info("a = %s", '"b"', extra={"where": "Zürich"})
        logging.getLogger("headrace.x").debug("not said")
    finally:
        root.handlers[:], headrace.level = before[0], before[2]
        root.setLevel(before[1])
    [line] = stream.getvalue().splitlines()
    assert parsed(line) == {
        "ts": parsed(line)["ts"],
        "level": "info",
        "service": "processors",
        "msg": 'a = "b"',
        "where": "Zürich",
    }
