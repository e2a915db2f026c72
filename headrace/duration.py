"""Lengths of time as people write them: ``"500ms"``, ``"10s"``, ``"1m30s"``, ``"7d"``.

>>> Duration.parse("1m30s")
Duration('1m30s')
>>> int(Duration.parse("10s"))  # microseconds
10000000
"""

from __future__ import annotations

import re

_UNITS_US = {"us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
_PART = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|m|h|d)")
_LONGEST_US = 36_500 * _UNITS_US["d"]
HINT = 'write a number and a unit (us, ms, s, m, h, d), as "500ms", "10s" or "1m30s"'


class Duration(int):
    """A length of time: an int of microseconds that prints as it is written."""

    @classmethod
    def parse(cls, text: str) -> Duration:
        """The duration that ``text`` says. Raises ValueError, saying what to write."""
        parts = _PART.findall(text)
        if not parts or "".join(number + unit for number, unit in parts) != text.replace(" ", ""):
            raise ValueError(f"{text!r} is no duration: {HINT}")
        length_us = sum(float(number) * _UNITS_US[unit] for number, unit in parts)
        if length_us > _LONGEST_US:
            raise ValueError(f"{text!r} is no duration that can be reckoned with: write 36500d at the most")
        return cls(round(length_us))

    @property
    def seconds(self) -> float:
        """The length in seconds."""
        return int(self) / 1_000_000

    @property
    def ms(self) -> int:
        """The length in whole milliseconds, rounded down."""
        return int(self) // 1_000

    def __str__(self) -> str:
        rest, parts = int(self), []
        for unit in ("d", "h", "m", "s", "ms", "us"):
            count, rest = divmod(rest, _UNITS_US[unit])
            if count:
                parts.append(f"{count}{unit}")
        return "".join(parts) or "0s"

    def __repr__(self) -> str:
        return f"Duration({str(self)!r})"
