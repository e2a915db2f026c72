"""Names in TDengine: safe for every topic and device, and never the same for two of them.

TDengine knows at most 192 bytes and no dot; a subtable's name that holds a hyphen can be cut at it without a
word (stmt2). So a device's name is a tag, and its subtable is named by what is readable of it and a digest.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b

PROGRESS = "_headrace_progress"

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,119}")
_DIGESTED = re.compile(r".*_[0-9a-f]{32}")
_UNREADABLE = re.compile(r"[^a-z0-9]+")


def supertable(topic: str) -> str:
    """The supertable of a topic or stream: its own name where TDengine can hold it.

    >>> supertable("raw-temperature")
    'raw-temperature'
    >>> supertable("site.meters")
    'site_meters_a7b6c5873a05d5d3de82a6892f53e61f'
    """
    if _PLAIN.fullmatch(topic) and not _DIGESTED.fullmatch(topic):
        return topic
    return _digested(topic, topic)


def subtable(topic: str, device: str) -> str:
    """The subtable of a device in a topic's supertable.

    >>> subtable("meters", "Hall 1/meter.7")
    'd_hall_1_meter_7_46fd5af054f6cb61b8417161b2af2859'
    """
    return "d_" + _digested(device, f"{topic}\0{device}")


def progress_subtable(topic: str, partition: int) -> str:
    """The subtable that holds the counts of a partition."""
    return "p_" + _digested(f"{topic}_{partition}", f"{topic}\0{partition}")


def subscription(database: str, topic: str, columns: Sequence[str]) -> str:
    """The TMQ topic over a supertable's columns; another one when the columns are others."""
    return _digested(f"{database}_{topic}", "\0".join([database, topic, *columns]))


def quoted(name: str) -> str:
    """A name as it may stand in a statement."""
    return "`" + name.replace("`", "``") + "`"


def literal(text: str) -> str:
    """A text as it may stand in a statement; see :func:`storable` for what it may hold."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def storable(text: str) -> str:
    """The text as a tag can hold it: a statement ends at a NUL character, so there is a replacement in its place."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def _digested(readable: str, whole: str) -> str:
    start = _UNREADABLE.sub("_", readable.lower())[:60].strip("_")
    digest = blake2b(whole.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"{start}_{digest}" if start else f"x_{digest}"
