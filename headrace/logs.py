"""Structured logs on stderr, quiet in normal running: time, level, service, message, key=value."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

_STANDARD = set(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class Logfmt(logging.Formatter):
    """One line a record; what was passed as ``extra`` follows the message as key=value."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        extra = "".join(f" {k}={json.dumps(v, default=str)}" for k, v in record.__dict__.items() if k not in _STANDARD)
        line = f"{moment} {record.levelname.lower()} {self._service}: {record.getMessage()}{extra}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


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
