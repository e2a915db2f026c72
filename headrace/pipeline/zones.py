"""Time zones in the pipeline file: which there are, and which windows can follow their days and hours."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from headrace.duration import Duration

HOUR = 3_600_000_000
DAY = 24 * HOUR
"""In µs."""

_QUARTER = HOUR // 4


def unknown_zone(zone: str) -> tuple[str, str] | None:
    """Why ``zone`` names no time zone, and what to write instead; None if it names one."""
    try:
        ZoneInfo(zone)
    except (KeyError, ValueError, OSError):
        return f"{zone!r} is no time zone", "write a name such as Europe/Paris or UTC"
    return None


def mistake(zone: str, size: int, step: int) -> tuple[str, str] | None:
    """Why windows of ``size`` every ``step`` (µs) cannot follow the clocks of ``zone``, and what to write instead.

    None if they can. Hours in a zone are the epoch's own wherever its offset from UTC is whole hours; they
    differ in zones at :30 and :45, and where clocks were ever shifted by less than an hour.

    >>> mistake("Europe/Paris", DAY, 6 * HOUR)
    >>> mistake("Europe/Paris", 15 * 60_000_000, 15 * 60_000_000)[1]
    'leave the zone out: 15m windows on the epoch begin at the same times in every zone of today'
    >>> mistake("Europe/Paris", 5 * HOUR, 5 * HOUR)
    ('steps of 5h do not divide a day', 'write 1h, 2h, 3h, 4h, 6h, 8h, 12h or whole days, or leave the zone out')
    >>> mistake("Europe/Paris", 8 * HOUR, 6 * HOUR)[1]
    'write a size such as 6h or 12h, or leave the zone out'
    >>> mistake("Europe/Lutetia", DAY, DAY)
    ("'Europe/Lutetia' is no time zone", 'write a name such as Europe/Paris or UTC')
    """
    unknown = unknown_zone(zone)
    if unknown is not None:
        return unknown
    if step <= 0 or size < step:
        return f"windows of {Duration(size)} every {Duration(step)} are none", "write a step above 0, at most the size"
    if step < HOUR:
        problem = f"steps of {Duration(step)} are shorter than an hour, and in a zone windows follow its days and hours"
        if _QUARTER % step == 0:
            return problem, (
                f"leave the zone out: {Duration(step)} windows on the epoch begin at the same times"
                " in every zone of today"
            )
        return problem, "write 1h, or leave the zone out"
    if step % DAY and (step % HOUR or DAY % step):
        return (
            f"steps of {Duration(step)} do not divide a day",
            "write 1h, 2h, 3h, 4h, 6h, 8h, 12h or whole days, or leave the zone out",
        )
    if size % step:
        least = size // step * step
        return (
            f"in the zone {zone}, a size of {Duration(size)} is no multiple of its step of {Duration(step)}",
            f"write a size such as {Duration(least)} or {Duration(least + step)}, or leave the zone out",
        )
    return None
