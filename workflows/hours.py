"""Hours of the day in which a rule's jobs begin: work that can wait leaves the day to the rest."""

from __future__ import annotations

import re
from datetime import datetime, time, timedelta
from typing import Annotated, Final
from zoneinfo import ZoneInfo

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

_HOURS: Final = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)\s*-\s*([01]?\d|2[0-3]):([0-5]\d)")


def _check(text: str) -> str:
    match = _HOURS.fullmatch(text.strip())
    if match is None or _bounds(text)[0] == _bounds(text)[1]:
        mend = 'write them as "20:00-06:00", in quotes'
        raise PydanticCustomError("hours", "are no hours of the day", {"mend": mend})
    return text


Hours = Annotated[str, AfterValidator(_check)]
"""As ``20:00-06:00``; over midnight, if the end comes before the beginning."""


def opens_at(hours: str, now: datetime, zone: str | None) -> datetime | None:
    """Return when the hours begin next; None while they last.

    Parameters
    ----------
    hours
        As `Hours`.
    now
        Aware time.
    zone
        Name of the time zone in which they are meant; None: that of the system.
    """
    begin, end = _bounds(hours)
    local = now.astimezone(None if zone is None else ZoneInfo(zone))
    clock = local.time()
    inside = begin <= clock < end if begin < end else clock >= begin or clock < end
    if inside:
        return None
    opening = local.replace(hour=begin.hour, minute=begin.minute, second=0, microsecond=0)
    if opening <= local:
        # By the calendar and not by 24 hours: a day may have 23 or 25.
        opening = (opening.replace(tzinfo=None) + timedelta(days=1)).replace(tzinfo=opening.tzinfo)
    return opening.astimezone(now.tzinfo)


def _bounds(hours: str) -> tuple[time, time]:
    match = _HOURS.fullmatch(hours.strip())
    if match is None:
        raise ValueError(f"{hours!r} are no hours of the day")
    first, second, third, fourth = (int(part) for part in match.groups())
    return time(first, second), time(third, fourth)
