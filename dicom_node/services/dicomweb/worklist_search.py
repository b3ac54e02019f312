"""Which workitems a search finds (PS3.18 11.9 and 8.3.4)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any, Final

from pydicom.datadict import dictionary_VR, tag_for_keyword

from dicom_node.errors import FinalError
from dicom_node.services.date_times import Moments, moment_of, moments_of, zone_of
from dicom_node.services.dicomweb.worklist import INPUT, STUDY, items_of
from dicom_node.services.key_values import problem_of
from dicom_node.services.query import Exact, Matching, Range, matching_of

_MOST_STARS: Final = 4
_TIME_ZONE: Final = "00080201"
_TAG: Final = re.compile(r"[0-9A-Fa-f]{8}")
# Matched as QIDO-RS and C-FIND do: as lists, or as ranges. Of all else the text is looked at.
_MATCHED: Final = frozenset({"DA", "TM", "UI"})


@dataclass(frozen=True, slots=True)
class Condition:
    """What a workitem must say to be found.

    Attributes
    ----------
    path : sequence of str
        Tags, from the outermost sequence on.
    asks : Matching, Moments or str
        For which value; a text may have wildcards.
    """

    path: Sequence[str]
    asks: Matching | Moments | str


def conditions_of(asked: Iterable[tuple[str, str]]) -> list[Condition]:
    """Understand what is looked for.

    Parameters
    ----------
    asked
        Attribute, by keywords or tags with dots between the levels, and a value; an empty value, or
        a lone star, is no condition. Timezone Offset From UTC (0008,0201) is none, but what the
        date-times among the values count in that have no offset (PS3.4 C.2.2.2). Hostile text.

    Raises
    ------
    FinalError
        There is no such attribute, or it cannot have such a value.
    """
    given = [(name, _path(name), value) for name, value in asked if value.strip(" *")]
    zone = None
    for name, path, value in given:
        if path == [_TIME_ZONE]:
            zone = zone_of(value)
            if zone is None:
                raise FinalError(f"{name[:80]} must be an offset from UTC, as +0200")
    return [
        Condition(path, _asked_for(name, path[-1], value, zone))
        for name, path, value in given
        if path != [_TIME_ZONE]
    ]


def fits(dataset: Mapping[str, Any], conditions: Iterable[Condition]) -> bool:
    """Whether a workitem, as `worklist.answer_of` gives it, meets all conditions."""
    zone = zone_of(next(_found(dataset, [_TIME_ZONE]), ""))
    return all(
        any(_is_asked_for(text, one.asks, zone) for text in _found(dataset, one.path))
        for one in conditions
    )


def _asked_for(name: str, tag: str, value: str, zone: tzinfo | None) -> Matching | Moments | str:
    try:
        vr = dictionary_VR(int(tag, 16))
    except KeyError:
        # A private attribute, or a newer one than the dictionary's: its text is looked at.
        vr = ""
    if vr == "DT":
        moments = moments_of(value, zone)
        if moments is None:
            raise FinalError(
                f"{name[:80]} must be a date-time, YYYYMMDDHHMMSS with an offset such as +0200, or "
                "a range of two"
            )
        return moments
    if vr not in _MATCHED:
        if value.count("*") > _MOST_STARS:
            # More would cost time without end.
            raise FinalError(f"a value has at most {_MOST_STARS} wildcards")
        return value
    values = re.split(r"[,\\]", value) if vr == "UI" else [value]
    if problem := problem_of(vr, values):
        raise FinalError(f"{name[:80]} {problem}")
    return matching_of(vr, values) or value


def _path(name: str) -> list[str]:
    tags = []
    for part in name.split(".")[:8]:
        tag = int(part, 16) if _TAG.fullmatch(part) else tag_for_keyword(part)
        if tag is None:
            raise FinalError(f"{part[:40]!r} is no attribute of DICOM")
        tags.append(f"{tag:08X}")
    # The study that a workitem is about stands in a sequence.
    return [INPUT, STUDY] if tags == [STUDY] else tags


def _found(dataset: Mapping[str, Any], path: Sequence[str]) -> Iterator[str]:
    tag, *below = path
    if below:
        for item in items_of(dataset, tag):
            yield from _found(item, below)
        return
    element = dataset.get(tag)
    for value in (element.get("Value") if isinstance(element, dict) else None) or ():
        yield str(value.get("Alphabetic", "")) if isinstance(value, dict) else str(value)


def _is_asked_for(text: str, asks: Matching | Moments | str, zone: tzinfo | None) -> bool:
    if isinstance(asks, str):
        return _like(text, asks)
    if isinstance(asks, Moments):
        moment = moment_of(text, zone)
        return moment is not None and asks.has(moment)
    if isinstance(asks, Range):
        is_early = bool(asks.low) and text < asks.low
        # A bound may be shorter than a time: until ten is until 10:59:59.
        return (
            bool(text) and not is_early and (not asks.high or text[: len(asks.high)] <= asks.high)
        )
    return isinstance(asks, Exact) and text in asks.values


def _like(text: str, pattern: str) -> bool:
    if not any(wild in pattern for wild in "*?"):
        return text == pattern
    parts = (".*" if c == "*" else "." if c == "?" else re.escape(c) for c in pattern)
    return re.fullmatch("".join(parts), text, re.DOTALL) is not None
