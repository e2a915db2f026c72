"""The files that a page is made of: Perspective's, from the installed wheel, and ours."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from headrace.errors import SettingsError

PAGE = Path(__file__).parent / "page"
VERSION = version("perspective-python")


def _installed() -> Path:
    """Where Perspective is, without importing it: the engine lives in another process."""
    found = find_spec("perspective")
    if found is None or found.origin is None:
        raise SettingsError("perspective-python is not installed", hint="install headrace again: it depends on it")
    return Path(found.origin).parent


STATIC = _installed() / "widget" / "static"
PERSPECTIVE = ("perspective-anywidget.js", "perspective-anywidget.css")
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


@dataclass(frozen=True)
class Asset:
    """A file, read once."""

    content: bytes
    type: str

    @cached_property
    def gzipped(self) -> bytes:
        """The file, compressed (some tenths of a second for the largest; kept)."""
        return gzip.compress(self.content, compresslevel=6, mtime=0)

    @cached_property
    def tag(self) -> str:
        """What changes when the file does."""
        return hashlib.sha256(self.content).hexdigest()[:16]


def perspective_asset(name: str) -> Asset:
    """A file of the installed Perspective. Raises SettingsError when the wheel does not carry it."""
    return _asset(STATIC / name, hint="install perspective-python in the version that the lock names")


def page_asset(name: str, **values: str) -> Asset:
    """A file of our page, with ``{{name}}`` replaced by each of ``values``."""
    asset = _asset(PAGE / name, hint="install headrace again: its page is not complete")
    text = asset.content.decode()
    for key, value in values.items():
        text = text.replace("{{" + key + "}}", value)
    return Asset(text.encode(), asset.type)


def _asset(path: Path, *, hint: str) -> Asset:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"a file of the page is missing: {path.name} ({error.strerror})", hint=hint) from None
    return Asset(content, f"{TYPES[path.suffix]}; charset=utf-8")
