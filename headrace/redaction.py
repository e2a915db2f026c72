"""Passwords never leave a process: not in errors, logs, tracebacks or reports.

Two things find them. The settings that may hold one are remembered as they are read, so that their password is
known wherever it appears again; and whatever looks like ``user:password@`` or ``?token=`` is taken for a login,
known or not, since a URL that cannot be understood is the one that is shown in an error.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO, cast
from urllib.parse import quote, unquote

MASK = "***"
PLACEHOLDER = "PASSWORD"
"""What our own hints write where a password goes."""

SHORTEST = 4
"""A shorter password is masked inside URLs alone: it would be found in half of all words."""

_WORD = re.compile(r"[^\s\"'<>]+")
_LOGIN = re.compile(r"[A-Za-z][\w+.-]{0,32}:/+[^:@/]*:|(?:^|(?<=[=,({/:@\[]))[^:@/=,(]+:(?!/)")
_IN_QUERY = re.compile(r"([?&](?:token|password|passwd|pwd|secret)=)([^\s&\"'<>]+)", re.IGNORECASE)

_known: set[str] = set()
_known_anywhere: re.Pattern[str] | None = None


def remember(setting: str) -> None:
    """Know the password in a setting (a URL, or what was meant to be one), to mask it wherever it appears."""
    if setting.startswith("sqlite://"):
        return
    global _known_anywhere  # noqa: PLW0603 - one set for the process, as its output is one
    for password in _passwords(setting):
        for written in (password, unquote(password)):
            forms = {written, quote(written, safe=""), repr(written)[1:-1], json.dumps(written)[1:-1]}
            _known.update(form for form in forms if len(form) >= SHORTEST and form != PLACEHOLDER)
    if _known:
        longest_first = sorted(_known, key=len, reverse=True)
        _known_anywhere = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)")


def _passwords(setting: str) -> set[str]:
    """What may be a password in a setting, whole and in the pieces that a parser of URLs would cut it into."""
    found = {value for _, value in _IN_QUERY.findall(setting)}
    login, at, _ = setting.rpartition("@")
    if at:
        _, scheme, after = login.partition("://")
        found.add(after.partition(":")[2] if scheme else login.rpartition(":")[2])
    return found | {piece for whole in found for piece in re.split(r"[/?#@\s]", whole)}


def redacted(text: str) -> str:
    """The text with every password in it masked."""
    if _known_anywhere is not None:
        text = _known_anywhere.sub(MASK, text)
    if "@" in text:
        text = _WORD.sub(_without_login, text)
    return _IN_QUERY.sub(rf"\1{MASK}", text) if "=" in text else text


def _without_login(word: re.Match[str]) -> str:
    """A word without the password of the login that it may hold: all up to its last @."""
    before, at, after = word[0].rpartition("@")
    login = _LOGIN.search(before) if at else None
    if login is None or before[login.end() :] == PLACEHOLDER:
        return word[0]
    return f"{before[: login.end()]}{MASK}@{after}"


def redacted_values(value: Any) -> Any:
    """What goes into JSON, with every password in its texts masked."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, Mapping):
        return {name: redacted_values(inner) for name, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [redacted_values(inner) for inner in value]
    return value


class RedactedStream:
    """A text stream that masks what is written; all else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write the text, masked; how long it was."""
        self._stream.write(redacted(text))
        return len(text)

    def writelines(self, lines: Sequence[str]) -> None:
        """Write the lines, masked."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def redact_stderr() -> None:
    """From here on nothing that Python prints to stderr shows a password: messages, logs, tracebacks, usage."""
    if not isinstance(sys.stderr, RedactedStream):
        sys.stderr = cast(TextIO, RedactedStream(sys.stderr))
