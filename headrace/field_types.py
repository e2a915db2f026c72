"""The types that a field of a reading can have."""

from __future__ import annotations

from typing import Literal

FieldType = Literal["float", "int", "bool", "text", "time"]
"""``int``: 64 bits; ``time``: µs since the epoch inside, ISO 8601 text with a zone in messages."""
