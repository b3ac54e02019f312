"""Whether a key's value can be asked for: dates, times, UIDs and numbers (PS3.5 Table 6.2-1).

Texts of any other kind are matched as they come. The standard names no leniency; what senders are
known to write all the same, and what can be understood, is taken: dates and times with points and
colons, a lone star for "any", bounds of a range that are no day of the calendar.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Final

from dicom_node.services.query import EMPTY_VALUE

_TIME: Final = re.compile(r"([01]\d|2[0-3])([0-5]\d(([0-5]\d|60)(\.\d{1,6})?)?)?", re.ASCII)
_UID: Final = re.compile(r"[0-9.]{1,64}")
_INTEGER: Final = re.compile(r"[+-]?\d{1,12}", re.ASCII)
_DECIMAL: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def _is_day(text: str) -> bool:
    if not _has_eight_digits(text):
        return False
    try:
        date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:
        return False
    return True


def _has_eight_digits(text: str) -> bool:
    return len(text) == 8 and text.isascii() and text.isdecimal()


def _is_date(value: str) -> bool:
    low, dash, high = value.replace(".", "").partition("-")
    if not dash:
        return _is_day(low)
    return _are_bounds(low, high, _has_eight_digits)


def _is_time(value: str) -> bool:
    low, dash, high = value.replace(":", "").partition("-")
    if not dash:
        return _TIME.fullmatch(low) is not None
    return _are_bounds(low, high, lambda text: _TIME.fullmatch(text) is not None)


def _are_bounds(low: str, high: str, fits: Callable[[str], bool]) -> bool:
    given = [text for text in (low.strip(), high.strip()) if text]
    return bool(given) and all(map(fits, given))


_FITS: Final[Mapping[str, tuple[Callable[[str], bool], str]]] = {
    "DA": (_is_date, "must be a date, YYYYMMDD, or a range of dates"),
    "TM": (_is_time, "must be a time, HHMMSS, or a range of times"),
    "UI": (lambda text: _UID.fullmatch(text) is not None, "must be UIDs: digits and points"),
    "IS": (lambda text: _INTEGER.fullmatch(text) is not None, "must be a whole number"),
    "US": (lambda text: text.isascii() and text.isdecimal(), "must be a whole number from 0 on"),
    "DS": (lambda text: _DECIMAL.fullmatch(text) is not None, "must be a number"),
}


def problem_of(vr: str, values: Sequence[str], *, may_be_any: bool = True) -> str:
    """Say what a key's values should be and are not; empty where nothing is wrong.

    The values are not quoted: a birth date belongs in no log.

    Parameters
    ----------
    vr : str
        Value representation of the key.
    values : sequence of str
        What it asks for. Hostile text.
    may_be_any : bool
        Whether a lone star or two quotation marks may stand for any value or for none.
    """
    if vr not in _FITS:
        return ""
    fits, words = _FITS[vr]
    given = [text for value in values if (text := value.strip(" \0"))]
    if (may_be_any and given in ([EMPTY_VALUE], ["*"])) or all(map(fits, given)):
        return ""
    return words
