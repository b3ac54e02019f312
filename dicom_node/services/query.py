"""Queries in the terms of DICOM: levels, and what a key's value asks for (PS3.4 C.2.2.2).

For C-FIND, C-MOVE, C-GET and QIDO-RS alike. What answers them is handed in as a `Catalog`.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

EMPTY_VALUE: Final = '""'
"""Asks for attributes that are there without a value (Empty Value Matching, C.2.2.2.7)."""
_TEXTS_WITH_WILDCARDS: Final = frozenset(
    {"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"}
)
_NUMBERS: Final = frozenset({"IS", "DS"})
_RANGES: Final = frozenset({"DA", "TM"})


class Level(enum.StrEnum):
    """The levels of the Query/Retrieve information models (C.6.1.1, C.6.2.1), from the top."""

    PATIENT = "PATIENT"
    STUDY = "STUDY"
    SERIES = "SERIES"
    IMAGE = "IMAGE"

    @property
    def depth(self) -> int:
        """0 for patients, 3 for images."""
        return list(Level).index(self)


UNIQUE_KEYS: Final[Mapping[Level, str]] = {
    Level.PATIENT: "PatientID",
    Level.STUDY: "StudyInstanceUID",
    Level.SERIES: "SeriesInstanceUID",
    Level.IMAGE: "SOPInstanceUID",
}


@dataclass(frozen=True, slots=True)
class Exact:
    """The value is one of these (single value, list of UID, and multiple value matching)."""

    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wildcard:
    """The value matches one of these patterns with ``*`` and ``?``."""

    patterns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """The date or time lies between these, both included; an empty one is no bound."""

    low: str
    high: str


Matching = Exact | Wildcard | Range


def matching_of(vr: str, values: Sequence[str]) -> Matching | None:
    """Return what a key's value asks for; None for universal matching.

    Parameters
    ----------
    vr : str
        Value representation of the key.
    values : sequence of str
        Its values; several ask for any of them.
    """
    given = tuple(value.strip(" \0") for value in values)
    given = tuple(value for value in given if value)
    # A lone star is a wildcard for texts alone, but is written for dates and numbers, too.
    if not given or set(given) == {"*"}:
        return None
    if given == (EMPTY_VALUE,):
        return Exact(("",))
    if vr in _RANGES:
        bare = tuple(value.replace(":" if vr == "TM" else ".", "") for value in given)
        if len(bare) == 1 and "-" in bare[0]:
            low, _, high = bare[0].partition("-")
            return Range(low.strip(), high.strip())
        return Exact(bare)
    if vr in _NUMBERS:
        return Exact(tuple(dict.fromkeys(form for value in given for form in _forms(value))))
    if vr in _TEXTS_WITH_WILDCARDS and any("*" in value or "?" in value for value in given):
        return Wildcard(given)
    return Exact(given)


def matching_kinds(vr: str) -> tuple[str, ...]:
    """Return how keys of a value representation are matched (C.2.2.2), as `matching_of` does it."""
    found = ["list of UID" if vr == "UI" else "single value"]
    if isinstance(matching_of(vr, ["1*"]), Wildcard):
        found.append("wildcard")
    if isinstance(matching_of(vr, ["1-2"]), Range):
        found.append("range")
    return tuple(found)


def _forms(value: str) -> tuple[str, ...]:
    """Return how else the same whole number is written."""
    try:
        return value, str(int(value))
    except ValueError:
        return (value,)


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for.

    Attributes
    ----------
    level : Level
        Of what is found.
    matching : mapping of str to Matching
        By keyword; keys of levels above and below are allowed (relational queries, C.4.1.2.2).
        Those that the catalog does not know are no condition.
    moment : Range or None
        Study Date and Study Time as one moment, ``YYYYMMDD`` followed by the time (combined
        date-time matching, C.2.2.2.5.4).
    """

    level: Level
    matching: Mapping[str, Matching] = field(default_factory=dict)
    moment: Range | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """One thing that was found.

    Attributes
    ----------
    attributes : mapping of str to str
        Keyword to text, multiple values between backslashes.
    path : Path or None
        Of the instance, or of one instance of it.
    is_result : bool
        Whether the node made it.
    """

    attributes: Mapping[str, str]
    path: Path | None
    is_result: bool = False


class Catalog(Protocol):
    """Knows what the node holds."""

    def matched_keywords(self) -> frozenset[str]:
        """Return the keywords that conditions can be set on."""

    def level_of(self, keyword: str) -> Level | None:
        """Return the level of an attribute that the catalog answers, or None."""

    def find(
        self, query: Query, wanted: Collection[str], *, start: int = 0, size: int | None = None
    ) -> Iterator[Match]:
        """Yield what matches, in a fixed order, from number ``start`` on, at most ``size``.

        Raises
        ------
        RetriableError
            The answer cannot be given now.
        FinalError
            The query is more than can be answered.
        """

    def count(self, query: Query) -> int:
        """Return how many match; raises as `find`."""
