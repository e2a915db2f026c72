"""Logs on stderr, one line a record in logfmt, quiet in normal running.

    ts=2026-11-21T18:00:00.000Z level=warning service=sinks msg="the store is away" topic=meters rows=20

A value stands in quotes where it has to, escaped as in JSON. A traceback is a value too (``error``), so a line is a
record and a record is a line, whatever was logged.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime

from headrace.redaction import redacted

_STANDARD = set(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_PLAIN = re.compile(r"[^\s\"=\\\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_NO_NAME = re.compile(r"[\s\"=\\\x00-\x1f\x7f-\x9f]")
_UNSEEN = re.compile(r"[\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""What JSON leaves as it is, though it ends a line for some readers, or cannot be written at all."""


class Logfmt(logging.Formatter):
    """One line a record; what was passed as ``extra`` follows the message as key=value. No password is in it."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        told: dict[str, object] = {
            "ts": moment.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "service": self._service,
            "msg": record.getMessage(),
        }
        for given, value in record.__dict__.items():
            if given not in _STANDARD:
                name = _NO_NAME.sub("_", given) or "_"
                while name in told:
                    name += "_"
                told[name] = value
        if record.exc_info:
            told["error"] = self.formatException(record.exc_info)
        return " ".join(f"{name}={written(value)}" for name, value in told.items())


def written(value: object) -> str:
    """A value as logfmt has it: as it is if it is one plain word, else in quotes; None is empty, and "" is not.

    What holds other values (a list, a mapping) is written as JSON.
    """
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str():
            text = value
        case list() | tuple() | dict():
            text = json.dumps(value, default=str, ensure_ascii=False)
        case _:
            text = str(value)
    # Before it is quoted: what finds passwords looks for them as they are.
    text = redacted(text)
    if _PLAIN.fullmatch(text) and not _UNSEEN.search(text):
        return text
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(text, ensure_ascii=False))


class _Once(logging.Filter):
    """Let the same message of a library pass once in ten seconds: an outage is one line, not a flood."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        key = f"{record.name}{record.msg}"[:60]
        if record.created - self._last.get(key, float("-inf")) < 10:
            return False
        self._last[key] = record.created
        return True


def _not_said_elsewhere(record: logging.LogRecord) -> bool:
    """That an application fails, whoever runs it says, and why."""
    return not record.getMessage().startswith("Application is stopping due to failure")


def configure(service: str, level: str) -> None:
    """Send this process's logs, from ``level`` on, to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Logfmt(service))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("headrace").setLevel(level.upper())
    library = logging.getLogger("quixstreams")
    library.setLevel(level.upper())
    logging.getLogger("quixstreams.app").addFilter(_not_said_elsewhere)
    for name in ("quixstreams.kafka.consumer", "quixstreams.kafka.producer"):
        logging.getLogger(name).addFilter(_Once())
