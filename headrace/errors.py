"""Every error that Headrace raises on purpose, in one tree.

HeadraceError                 what happened, and a hint: what to do about it
├── PipelineError             the pipeline file holds mistakes; carries all of them
├── ExpressionError           a `where` or computed field that cannot be understood; carries the position
├── SettingsError             a flag or environment variable that cannot be used
├── BrokerError               the broker is absent, refuses, or does not fit the pipeline
│   └── BrokerBuildError      the embedded broker could not be built
├── StoreError                the store is absent, refuses, or does not fit the pipeline
│   ├── StoreUnavailable      the store is absent for now: waiting and retrying is right
│   ├── WriteConflict         the store has counted into the middle of a write: its progress must be read again
│   └── WriterReplaced        another process writes these messages by now
├── StateError                a processor's state does not fit the stream as it is declared now
├── PortTaken                 a port that a service wants is in use
├── DataFolderError           the data folder cannot be written, or its disk is full
├── FileHandlesError          the process may not open as many files as it needs
└── SourceError               a recording or endpoint that a producer reads is unusable

The command line prints ``message`` and ``hint`` on one line each and exits with 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headrace.redaction import redacted


class HeadraceError(Exception):
    """What happened (``message``) and what to do about it (``hint``); neither shows a password."""

    def __init__(self, message: str, *, hint: str) -> None:
        message, hint = redacted(message), redacted(hint)
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


@dataclass(frozen=True)
class Mistake:
    """One mistake in a pipeline file: where it stands, what it is, what to write instead."""

    place: str
    problem: str
    fix: str

    def __str__(self) -> str:
        return f"{self.place}: {self.problem}; {self.fix}"


class PipelineError(HeadraceError):
    """The pipeline file holds mistakes; ``mistakes`` has all of them, in the file's order."""

    def __init__(self, path: str, mistakes: Sequence[Mistake]) -> None:
        count = len(mistakes)
        listed = "\n".join(f"  {mistake}" for mistake in mistakes)
        super().__init__(
            f"{path}: {count} mistake{'s' if count != 1 else ''}\n{listed}",
            hint="correct the file and run `headrace check` again",
        )
        self.path = path
        self.mistakes = tuple(mistakes)


class ExpressionError(HeadraceError):
    """An expression that cannot be understood; ``position`` is the 0-based character it points at."""

    def __init__(self, message: str, *, text: str, position: int, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.text = text
        self.position = position

    def pointer(self) -> str:
        """The expression and, below the line in question, a caret at the character."""
        end = self.text.find("\n", self.position)
        end = len(self.text) if end < 0 else end
        start = self.text.rfind("\n", 0, self.position) + 1
        # Tabs stay tabs, so that the caret stands right however wide they are shown.
        indent = "".join("\t" if character == "\t" else " " for character in self.text[start : self.position])
        return f"{self.text[:end]}\n{indent}^{self.text[end:]}"


class SettingsError(HeadraceError):
    """A flag or an environment variable has a value that cannot be used."""


class BrokerError(HeadraceError):
    """The broker is absent, refuses, or does not fit the pipeline file."""


class BrokerBuildError(BrokerError):
    """The embedded broker could not be built."""


class StoreError(HeadraceError):
    """The store refuses, or does not fit the pipeline file."""


class StoreUnavailable(StoreError):
    """The store is absent for now; waiting and trying again is right."""


class WriteConflict(StoreError):
    """The store has counted some of a write's messages already; its progress must be read again before writing."""


class WriterReplaced(StoreError):
    """Another process writes these messages by now: what was not written yet must not be."""


class StateError(HeadraceError):
    """A processor's state does not fit the stream as it is declared now."""


class PortTaken(HeadraceError):
    """A port that a service wants is in use."""

    def __init__(self, port: int, *, flag: str, what: str) -> None:
        super().__init__(
            f"port {port}, wanted for {what}, is in use",
            hint=f"stop what listens there, or choose another port with {flag}",
        )
        self.port = port


class DataFolderError(HeadraceError):
    """The data folder cannot be made or written, or its disk is full."""


class FileHandlesError(HeadraceError):
    """The process may not open as many files as it needs."""


class SourceError(HeadraceError):
    """A recording that a producer reads is absent or unusable."""
