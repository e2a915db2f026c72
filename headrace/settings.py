"""What a deployment changes: addresses and folders, from flags or the environment.

A flag wins over its environment variable, which wins over the default. Every service takes those of the line, and what
serves a page (the viewer, the demo) those of the page as well.

| flag          | environment          | default                                            |
| ------------- | -------------------- | -------------------------------------------------- |
| --pipeline    | HEADRACE_PIPELINE    | pipeline.toml                                      |
| --broker      | HEADRACE_BROKER      | 127.0.0.1:9092                                     |
| --store       | HEADRACE_STORE       | sqlite:///.headrace/store.db                       |
| --data        | HEADRACE_DATA        | .headrace                                          |
| --instance    | HEADRACE_INSTANCE    | 1 (unique for each process of the same service)    |
| --guarantee   | HEADRACE_GUARANTEE   | at-least-once (or exactly-once)                    |
| --log         | HEADRACE_LOG         | warning (debug, info, warning, error)              |
| --host        | HEADRACE_HOST        | 127.0.0.1 (page)                                   |
| --port        | HEADRACE_PORT        | 8081 (page)                                        |
| --public      | HEADRACE_PUBLIC      | off: a --host beyond loopback is refused (page)    |
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from headrace.errors import DataFolderError, SettingsError
from headrace.exhaustion import exhausted
from headrace.redaction import remember

Guarantee = Literal["at-least-once", "exactly-once"]
GUARANTEES: tuple[Guarantee, ...] = get_args(Guarantee)
_BROKER = re.compile(r"(\[[0-9A-Fa-f:.%\w]+\]|[^\s/@:,\[\]]+):\d{1,5}")
LOG_LEVELS = ("debug", "info", "warning", "error")
SWITCH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


@dataclass(frozen=True)
class Settings:
    """Where a service finds the pipeline file, the broker, the store and its folder."""

    pipeline: Path = Path("pipeline.toml")
    broker: str = "127.0.0.1:9092"
    store: str = "sqlite:///.headrace/store.db"
    data: Path = Path(".headrace")
    instance: str = "1"
    guarantee: Guarantee = "at-least-once"
    host: str = "127.0.0.1"
    port: int = 8081
    public: bool = False
    log: str = "warning"

    def __post_init__(self) -> None:
        remember(self.broker)
        remember(self.store)
        if self.guarantee not in GUARANTEES:
            raise SettingsError(f"--guarantee is {self.guarantee!r}", hint=f"write one of {', '.join(GUARANTEES)}")
        if self.log not in LOG_LEVELS:
            raise SettingsError(f"--log is {self.log!r}", hint=f"write one of {', '.join(LOG_LEVELS)}")
        if not 0 <= self.port <= 65535:
            raise SettingsError(f"--port is {self.port}", hint="write a port between 0 and 65535 (0: any free one)")
        if not all(map(_BROKER.fullmatch, self.broker.split(","))):
            hint = "write host:port, as 127.0.0.1:9092 (several with commas between; no scheme, user or password)"
            raise SettingsError(f"--broker is {self.broker!r}", hint=hint)

    def environment(self) -> dict[str, str]:
        """The environment variables that give another process these settings."""
        return {f"HEADRACE_{name.upper()}": str(getattr(self, name)) for name in self.__dataclass_fields__}


def from_flags(flags: Mapping[str, str | None], environ: Mapping[str, str] = os.environ) -> Settings:
    """Settings from what flags say, else the environment, else the defaults.

    Raises SettingsError when a value cannot be used.
    """
    values: dict[str, object] = {}
    for name in Settings.__dataclass_fields__:
        text = flags.get(name)
        if text is None:
            text = environ.get(f"HEADRACE_{name.upper()}") or None
        if text is None:
            continue
        if name in ("pipeline", "data"):
            values[name] = Path(text)
        elif name == "port":
            try:
                values[name] = int(text)
            except ValueError:
                raise SettingsError(f"--port is {text!r}", hint="write a whole number") from None
        elif name == "public":
            if text.lower() not in SWITCH:
                raise SettingsError(f"HEADRACE_PUBLIC is {text!r}", hint="write 1 or 0")
            values[name] = SWITCH[text.lower()]
        else:
            values[name] = text
    return Settings(**values)  # type: ignore[arg-type]


def writable_folder(path: Path) -> Path:
    """The folder, made if need be. Raises DataFolderError when it cannot be written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path
    except OSError as error:
        raise exhausted(error) or DataFolderError(
            f"the data folder {path} cannot be written: {error.strerror}",
            hint="choose another with --data, or give yourself the right to write there",
        ) from None
