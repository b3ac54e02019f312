"""Values and keys of VR DT: moments of any precision, with an offset from UTC, and ranges of them.

PS3.5 Table 6.2-1 and PS3.4 C.2.2.2.1.4 and C.2.2.2.5.3. Years 0001 to 9999.
"""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Final

_FORM: Final = re.compile(
    r"(\d{4})(?:(0[1-9]|1[0-2])(?:(0[1-9]|[12]\d|3[01])(?:([01]\d|2[0-3])(?:([0-5]\d)"
    r"(?:([0-5]\d|60)(?:\.(\d{1,6}))?)?)?)?)?)?"
    # A plus sign that stands in an address as it is comes through as a space.
    r"(?:([+ -])(\d\d)([0-5]\d))?",
    re.ASCII,
)
_OFFSET: Final = re.compile(r"([+ -])(\d\d)([0-5]\d)", re.ASCII)
_EARLIEST_OFFSET: Final = timedelta(hours=-12)
_LATEST_OFFSET: Final = timedelta(hours=14)


@dataclass(frozen=True, slots=True)
class Moment:
    """A value of VR DT: all that it may mean by its precision, from the first to the last."""

    first: datetime
    last: datetime


@dataclass(frozen=True, slots=True)
class Moments:
    """What a key of VR DT asks for; a bound that is None is open."""

    low: datetime | None
    high: datetime | None

    def has(self, moment: Moment) -> bool:
        """Whether a value is meant; of one without all components, its first moment counts."""
        return (self.low is None or moment.first >= self.low) and (
            self.high is None or moment.first <= self.high
        )


def zone_of(offset: str) -> tzinfo | None:
    """Return the zone that a Timezone Offset From UTC (0008,0201) names; None where it is none."""
    found = _OFFSET.fullmatch(offset.strip("\0"))
    return None if found is None else _zone(*found.groups())


def moment_of(text: str, zone: tzinfo | None = None) -> Moment | None:
    """Read a value; None where it is no date-time.

    Parameters
    ----------
    text : str
        Hostile text.
    zone : tzinfo, optional
        What a value without an offset counts in; without one, in the zone of this computer.
    """
    found = _FORM.fullmatch(text.strip("\0").rstrip())
    if found is None:
        return None
    *components, sign, hours, minutes = found.groups()
    if sign is not None:
        zone = _zone(sign, hours, minutes)
        if zone is None:
            return None
    year, month, day, hour, minute, second, fraction = components
    try:
        first = datetime(
            int(year), int(month or 1), int(day or 1), int(hour or 0), int(minute or 0),
            # The leap second has no moment of its own here.
            min(int(second or 0), 59), int((fraction or "").ljust(6, "0")),
        )  # fmt: skip
        last_month = int(month or 12)
        last = datetime(
            first.year, last_month, int(day or monthrange(first.year, last_month)[1]),
            int(hour or 23), int(minute or 59), min(int(second or 59), 59),
            int((fraction or "").ljust(6, "9")),
        )  # fmt: skip
    except ValueError:
        return None
    return Moment(_in(first, zone), _in(last, zone))


def moments_of(text: str, zone: tzinfo | None = None) -> Moments | None:
    """Read what a key asks for: a moment, or a range with one bound or two; None where it is none.

    A hyphen both begins a negative offset and stands between the bounds of a range. Where it could
    be either, ``20240601-0500`` is a moment with an offset, and ``2024-2025`` a range: no offset is
    beyond -1200.

    Parameters
    ----------
    text, zone
        As for `moment_of`.
    """
    whole = moment_of(text, zone)
    if whole is not None:
        return Moments(whole.first, whole.last)
    for hyphen in (place for place, letter in enumerate(text) if letter == "-"):
        before, after = text[:hyphen].strip(), text[hyphen + 1 :].strip()
        low, high = moment_of(before, zone), moment_of(after, zone)
        if (before and low is None) or (after and high is None) or not (before or after):
            continue
        if low is None or high is None or low.first <= high.last:
            return Moments(low.first if low else None, high.last if high else None)
    return None


def _zone(sign: str, hours: str, minutes: str) -> tzinfo | None:
    offset = timedelta(hours=int(hours), minutes=int(minutes))
    offset = -offset if sign == "-" else offset
    return timezone(offset) if _EARLIEST_OFFSET <= offset <= _LATEST_OFFSET else None


def _in(naive: datetime, zone: tzinfo | None) -> datetime:
    if zone is not None:
        return naive.replace(tzinfo=zone)
    try:
        return naive.astimezone()
    except (OverflowError, ValueError, OSError):
        # Beyond the years for which this computer knows its zone.
        return naive.replace(tzinfo=UTC)
