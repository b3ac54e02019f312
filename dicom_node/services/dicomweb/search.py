"""QIDO-RS: search for studies, series and instances (PS3.18 10.6)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydicom import DataElement
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataset import Dataset

from dicom_node.errors import FinalError
from dicom_node.services.identifiers import answer_of, asked_for
from dicom_node.services.query import UNIQUE_KEYS, Catalog, Level

_LEVELS: Final = tuple(Level)
_TAG: Final = re.compile(r"[0-9A-Fa-f]{8}")
MOST_AT_ONCE: Final = 5000
_MOST_PARAMETERS: Final = 200
_OWN: Final = frozenset({"includefield", "limit", "offset", "fuzzymatching", "accept"})
_ALL: Final = "all"

# What an answer holds without being asked, of its own level and those above it that the address
# does not name (PS3.18 Tables 10.6.3-3 to 10.6.3-5).
ALWAYS_RETURNED: Final[Mapping[Level, tuple[str, ...]]] = {
    Level.STUDY: (
        "StudyDate",
        "StudyTime",
        "AccessionNumber",
        "InstanceAvailability",
        "ModalitiesInStudy",
        "ReferringPhysicianName",
        "PatientName",
        "PatientID",
        "PatientBirthDate",
        "PatientSex",
        "StudyInstanceUID",
        "StudyID",
        "NumberOfStudyRelatedSeries",
        "NumberOfStudyRelatedInstances",
    ),
    Level.SERIES: (
        "Modality",
        "SeriesDescription",
        "SeriesInstanceUID",
        "SeriesNumber",
        "NumberOfSeriesRelatedInstances",
        "SeriesDate",
        "SeriesTime",
    ),
    Level.IMAGE: (
        "SOPClassUID",
        "SOPInstanceUID",
        "InstanceAvailability",
        "InstanceNumber",
        "Rows",
        "Columns",
        "NumberOfFrames",
    ),
}


@dataclass(frozen=True, slots=True)
class Search:
    """A search, understood.

    Attributes
    ----------
    level
        Of what is looked for.
    identifier
        Matching and return keys, as those of a C-FIND.
    offset, limit
        Which of the answers.
    notes
        What could not be heeded.
    """

    level: Level
    identifier: Dataset
    offset: int
    limit: int
    notes: tuple[str, ...]


def understand(
    level: Level, above: Mapping[str, str], parameters: Iterable[tuple[str, str]], catalog: Catalog
) -> Search:
    """Read the query parameters of a search (PS3.18 8.3.4).

    Parameters
    ----------
    level
        From the address, as is
    above
        Keyword to UID.
    parameters
        Name and value, in their order, doubles included. Hostile text.
    catalog
        Knows the attributes.

    Raises
    ------
    FinalError
        A parameter is not what the standard lets it be.
    """
    identifier = Dataset()
    identifier.QueryRetrieveLevel = str(level)
    for keyword in _returned(level, above):
        _ask(identifier, keyword, "")
    notes: list[str] = []
    numbers = {"offset": 0, "limit": MOST_AT_ONCE}
    for count, (name, value) in enumerate(parameters):
        if count >= _MOST_PARAMETERS:
            raise FinalError(f"a search has at most {_MOST_PARAMETERS} parameters")
        if name in numbers:
            numbers[name] = _number(name, value)
        elif name == "fuzzymatching":
            if value.lower() == "true":
                notes.append("fuzzymatching is not supported; names match without case and accents")
        elif name == "includefield":
            for field in re.split(r"[,\\]", value):
                _include(identifier, field.strip(), level, catalog)
        elif name not in _OWN:
            keyword = _keyword(name)
            if value.strip(" *"):
                _ask(identifier, keyword, value)
                if keyword not in catalog.matched_keywords():
                    notes.append(f"{keyword} is not matched")
            else:
                _include(identifier, keyword, level, catalog)
    for keyword, uid in above.items():
        _ask(identifier, keyword, uid)
    limit = min(numbers["limit"] or MOST_AT_ONCE, MOST_AT_ONCE)
    return Search(level, identifier, numbers["offset"], limit, tuple(notes))


def answers(
    search: Search, catalog: Catalog, ae_title: str, base_url: str
) -> Iterator[dict[str, Any]]:
    """Yield what was found, each as DICOM JSON (PS3.18 F.2).

    Raises
    ------
    DicomNodeError
        As `Catalog.find`.
    """
    asked = asked_for(search.identifier, _LEVELS, catalog)
    levels = _LEVELS[1 : search.level.depth + 1]
    wanted = asked.wanted | {UNIQUE_KEYS[level] for level in levels}
    for match in catalog.find(asked.query, wanted, start=search.offset, size=search.limit):
        answer = answer_of(asked, match, ae_title)
        del answer.QueryRetrieveLevel
        answer.RetrieveURL = address(base_url, match.attributes, search.level)
        yield answer.to_json_dict(suppress_invalid_tags=True)


def address(base_url: str, attributes: Mapping[str, str], level: Level) -> str:
    """Return where something can be retrieved."""
    url = f"{base_url}/studies/{attributes.get('StudyInstanceUID', '')}"
    if level.depth >= Level.SERIES.depth:
        url += f"/series/{attributes.get('SeriesInstanceUID', '')}"
    if level.depth >= Level.IMAGE.depth:
        url += f"/instances/{attributes.get('SOPInstanceUID', '')}"
    return url


def _returned(level: Level, above: Mapping[str, str]) -> Iterator[str]:
    for one in _LEVELS[1 : level.depth + 1]:
        if one is level or UNIQUE_KEYS[one] not in above:
            yield from ALWAYS_RETURNED[one]
        yield UNIQUE_KEYS[one]


def _number(name: str, value: str) -> int:
    if not (value.isascii() and value.isdecimal() and len(value) < 10):
        raise FinalError(f"{name} must be a whole number, not {value[:20]!r}")
    return int(value)


def _keyword(name: str) -> str:
    """Return the keyword of an attribute that is named by keyword or tag (PS3.18 8.3.4.1)."""
    keyword = keyword_for_tag(int(name, 16)) if _TAG.fullmatch(name) else name
    if not keyword or tag_for_keyword(keyword) is None:
        raise FinalError(
            f"{name[:40]!r} is no attribute that this node knows: write a DICOM keyword or a tag "
            "of eight hexadecimal digits"
        )
    return keyword


def _include(identifier: Dataset, field: str, level: Level, catalog: Catalog) -> None:
    if field == _ALL:
        for keyword in catalog.matched_keywords():
            at = catalog.level_of(keyword)
            if at is not None and at.depth <= level.depth:
                _ask(identifier, keyword, "", keep=True)
    elif field:
        _ask(identifier, _keyword(field), "", keep=True)


def _ask(identifier: Dataset, keyword: str, value: str, *, keep: bool = False) -> None:
    """Set a key; a UID may be a list, between commas or backslashes."""
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise FinalError(f"{keyword[:40]!r} is no attribute of DICOM")
    if keep and tag in identifier:
        return
    vr = dictionary_VR(tag).split(" ")[0]
    if vr == "SQ":
        identifier.add(DataElement(tag, "SQ", []))
        return
    parts: Any = value
    if vr == "UI" and re.search(r"[,\\]", value):
        parts = [part for part in re.split(r"[,\\]", value) if part]
    elif "\\" in value:
        parts = value.split("\\")
    element = DataElement(tag, vr, parts, already_converted=True, validation_mode=IGNORE)
    identifier.add(element)
