"""The nearest right name to a misspelt one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest_name(name: str, names: Iterable[str]) -> str:
    """What to write instead of ``name``: the nearest right name, or all of them.

    >>> nearest_name("curent", ["current", "voltage"])
    'write current'
    """
    known = sorted(names)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"write {close[0]}"
    return f"write one of {', '.join(known)}" if known else "there is none to name yet"
