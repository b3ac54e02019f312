"""Identifiers of queries and their answers (PS3.4 C.4.1.1.3, C.4.1.3.2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from pydicom import DataElement, dcmread
from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import UID
from pynetdicom.dsutils import decode

from dicom_node.errors import FinalError
from dicom_node.services.key_values import problem_of
from dicom_node.services.query import (
    UNIQUE_KEYS,
    Catalog,
    Level,
    Match,
    Matching,
    Query,
    Range,
    matching_of,
)

# Not keys: they say how the identifier is to be read, or are the answer's own.
_NO_KEYS: Final = frozenset(
    {"QueryRetrieveLevel", "SpecificCharacterSet", "TimezoneOffsetFromUTC", "RetrieveAETitle",
     "InstanceAvailability", "QueryRetrieveView"}
)  # fmt: skip

# Return keys that are read from a file when they are asked for, by the level they belong to; at
# IMAGE level any attribute is.
FROM_FILE: Final[Mapping[Level, frozenset[str]]] = {
    Level.PATIENT: frozenset(
        {"IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence", "OtherPatientIDsSequence",
         "OtherPatientNames", "PatientBirthTime", "EthnicGroup", "PatientComments",
         "PatientSpeciesDescription", "ResponsiblePerson"}
    ),
    Level.STUDY: frozenset(
        {"PatientAge", "PatientSize", "PatientWeight", "Occupation", "AdditionalPatientHistory",
         "AdmissionID", "AdmittingDiagnosesDescription", "IssuerOfAccessionNumberSequence",
         "NameOfPhysiciansReadingStudy", "PhysiciansOfRecord", "ProcedureCodeSequence",
         "ReasonForPerformedProcedureCodeSequence", "ReferencedStudySequence",
         "ReferringPhysicianIdentificationSequence", "RequestingService"}
    ),
    Level.SERIES: frozenset(
        {"AnatomicRegionSequence", "DeviceSerialNumber", "DeviceUID", "FrameOfReferenceUID",
         "InstitutionAddress", "InstitutionalDepartmentName", "OperatorsName", "PatientPosition",
         "PerformedProcedureStepDescription", "PerformedProcedureStepID",
         "PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime",
         "PerformedProtocolCodeSequence", "PerformingPhysicianName",
         "ReferencedPerformedProcedureStepSequence", "RequestAttributesSequence",
         "SeriesDescriptionCodeSequence", "SoftwareVersions"}
    ),
}  # fmt: skip
_LARGEST_VALUE: Final = 1 << 16
_READ_ERRORS: Final = (
    InvalidDicomError, OSError, ValueError, KeyError, AttributeError, TypeError, EOFError,
    NotImplementedError,
)  # fmt: skip


def read_identifier(encoded: BytesIO | None, syntax: UID) -> Dataset:
    """Return a request's identifier. Its values are decoded when they are looked at.

    Raises
    ------
    FinalError
        The request has none.
    """
    if encoded is None:
        raise FinalError("the request has no identifier")
    return decode(encoded, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated)


@dataclass(frozen=True, slots=True)
class Asked:
    """A C-FIND identifier, understood.

    Attributes
    ----------
    query : Query
        What is looked for.
    identifier : Dataset
        As it came: its elements are the return keys.
    wanted : frozenset of str
        Keywords that the catalog answers at this level.
    from_file : frozenset of str
        Keywords that are read from a file.
    is_complete : bool
        Whether all keys are supported, for matching too: pending is FF00 then, else FF01.
    """

    query: Query
    identifier: Dataset
    wanted: frozenset[str]
    from_file: frozenset[str]
    is_complete: bool


def level_of_identifier(identifier: Dataset, levels: tuple[Level, ...]) -> Level:
    """Return the level that is asked for.

    Raises
    ------
    FinalError
        There is none, or the information model has no such level.
    """
    said = str(identifier.get("QueryRetrieveLevel", "") or "").strip()
    if said not in levels:
        names = ", ".join(levels)
        raise FinalError(f"Query/Retrieve Level {said[:20]!r} is none of {names}")
    return Level(said)


def asked_for(
    identifier: Dataset, levels: tuple[Level, ...], catalog: Catalog, *, combined: bool = False
) -> Asked:
    """Understand the identifier of a C-FIND.

    Parameters
    ----------
    identifier : Dataset
        From the peer. Hostile.
    levels : tuple of Level
        Of the information model.
    catalog : Catalog
        What can be asked.
    combined : bool
        Whether combined date-time matching was negotiated.

    Raises
    ------
    FinalError
        It does not fit the information model, or asks for a value that there cannot be.
    """
    level = level_of_identifier(identifier, levels)
    matched = catalog.matched_keywords()
    matching: dict[str, Matching] = {}
    wanted: set[str] = set()
    from_file: set[str] = set()
    is_complete = True
    for element in _keys(identifier):
        keyword = element.keyword
        at = catalog.level_of(keyword)
        if at is not None and at.depth <= level.depth:
            wanted.add(keyword)
        elif at is None and _is_from_file(keyword, level):
            from_file.add(keyword)
        else:
            is_complete = False
        asks = _matching(element)
        if asks is not None and keyword in matched:
            if problem := problem_of(_vr(element), _values(element)):
                raise FinalError(f"{keyword} {problem}")
            matching[keyword] = asks
        elif asks is not None:
            is_complete = False
    wanted.update(key for one, key in UNIQUE_KEYS.items() if one in levels[: level.depth + 1])
    wanted.update(UNIQUE_KEYS[one] for one in levels if one.depth <= level.depth)
    moment = _moment(matching) if combined else None
    return Asked(
        Query(level, matching, moment), identifier, frozenset(wanted), frozenset(from_file),
        is_complete,
    )  # fmt: skip


def retrieve_query(identifier: Dataset, levels: tuple[Level, ...]) -> Query:
    """Understand the identifier of a C-MOVE or C-GET: unique keys alone (C.4.2.2.1, C.4.3.2.1).

    Raises
    ------
    FinalError
        The unique key of its level is missing, or is no UID.
    """
    level = level_of_identifier(identifier, levels)
    matching: dict[str, Matching] = {}
    for one in levels:
        element = identifier.get(UNIQUE_KEYS[one])
        values = () if element is None or one.depth > level.depth else _values(element)
        given = tuple(value for value in (text.strip(" \0") for text in values) if value)
        if one is not Level.PATIENT and (problem := problem_of("UI", given, may_be_any=False)):
            raise FinalError(f"{UNIQUE_KEYS[one]} {problem}")
        if given:
            # Without wildcards, also where a patient's identifier has a star in it.
            matching[UNIQUE_KEYS[one]] = matching_of("UI", given) or Range("", "")
    if UNIQUE_KEYS[level] not in matching:
        raise FinalError(f"the identifier has no {UNIQUE_KEYS[level]}, the key of its level")
    return Query(Level.IMAGE, matching)


def answer_of(asked: Asked, match: Match, ae_title: str) -> Dataset:
    """Build the identifier of a pending response.

    Parameters
    ----------
    asked : Asked
        The question.
    match : Match
        What was found.
    ae_title : str
        Ours: from here it can be retrieved.
    """
    answer = Dataset()
    answer.QueryRetrieveLevel = str(asked.query.level)
    answer.RetrieveAETitle = ae_title
    if "InstanceAvailability" in asked.identifier:
        answer.InstanceAvailability = "ONLINE"
    for keyword in asked.wanted:
        _set_text(answer, keyword, match.attributes.get(keyword, ""))
    if asked.from_file and match.path is not None:
        _add_from_file(answer, asked, match.path)
    _set_character_set(answer, asked.identifier)
    return answer


def _keys(identifier: Dataset) -> Iterator[DataElement]:
    for tag in identifier.keys():
        keyword = keyword_for_tag(tag)
        # Private keys, group lengths and unknown tags are neither matched nor returned.
        if keyword and keyword not in _NO_KEYS and tag.element != 0:
            yield identifier[tag]


def _is_from_file(keyword: str, level: Level) -> bool:
    if level is Level.IMAGE:
        return True
    return any(keyword in FROM_FILE[one] for one in FROM_FILE if one.depth <= level.depth)


def _matching(element: DataElement) -> Matching | None:
    if element.VR == "SQ":
        given = [one for item in element.value for one in item if _matching(one) is not None]
        return None if not given else Range("", "")
    return matching_of(_vr(element), _values(element))


def _vr(element: DataElement) -> str:
    """Return what the standard says: a peer's explicit VR may be wrong, or UN."""
    try:
        return dictionary_VR(element.tag)
    except KeyError:
        return str(element.VR)


def _values(element: Any) -> tuple[str, ...]:
    value = element.value if isinstance(element, DataElement) else element
    if value is None:
        return ()
    if isinstance(value, bytes):
        return tuple(value.decode("ascii", "replace").split("\\"))
    if isinstance(value, MultiValue | list | tuple):
        return tuple(str(one) for one in value)
    return (str(value),)


def _moment(matching: dict[str, Matching]) -> Range | None:
    """Take date and time of the study together, where both are ranges."""
    date, time = matching.get("StudyDate"), matching.get("StudyTime")
    if not isinstance(date, Range) or not isinstance(time, Range):
        return None
    del matching["StudyTime"]
    low = date.low + time.low if date.low else ""
    high = date.high + time.high if date.high else ""
    return Range(low, high)


def _set_text(answer: Dataset, keyword: str, text: str) -> None:
    tag = tag_for_keyword(keyword)
    if tag is None:
        return
    vr = dictionary_VR(tag)
    value: Any = text
    if vr in ("US", "IS"):
        number = text_of_number(vr, text)
        value = None if not number else int(number) if vr == "US" else number
    elif "\\" in text:
        value = text.split("\\")
    answer[tag] = DataElement(tag, vr, value, already_converted=vr not in ("PN",))


def text_of_number(vr: str, text: str) -> str:
    """Return the text of a value of VR US or IS; empty where it is none."""
    if vr == "US":
        return text if text.isdecimal() and int(text) < 1 << 16 else ""
    return text if _is_integer(text) else ""


def _is_integer(text: str) -> bool:
    return text.removeprefix("-").isdecimal() and len(text) <= 12


def _add_from_file(answer: Dataset, asked: Asked, path: Path) -> None:
    """Add the return keys that the catalog lacks; a file that cannot be read has none."""
    tags = [tag for keyword in asked.from_file if (tag := tag_for_keyword(keyword)) is not None]
    try:
        header = dcmread(
            path, stop_before_pixels=True, specific_tags=list(tags), defer_size=_LARGEST_VALUE
        )
        header.decode()
        for tag in tags:
            if tag in header:
                answer[tag] = _returned(asked.identifier[tag], header[tag])
    except _READ_ERRORS:
        return


def _returned(key: DataElement, element: DataElement) -> DataElement:
    """Return an element as far as it is asked for: of a sequence the nested return keys."""
    if element.VR != "SQ" or key.VR != "SQ" or not key.value or not len(key.value[0]):
        return element
    wanted = key.value[0]
    items = []
    for stored in element.value:
        item = Dataset()
        for nested in wanted:
            if nested.tag in stored:
                item[nested.tag] = _returned(nested, stored[nested.tag])
        items.append(item)
    return DataElement(element.tag, "SQ", DicomSequence(items))


def _set_character_set(answer: Dataset, identifier: Dataset) -> None:
    name = character_set_for(list(_texts(answer)), identifier)
    if name:
        answer.SpecificCharacterSet = name


def character_set_for(texts: Sequence[str], identifier: Dataset) -> str:
    """Return the character set of an answer: that of the question where it holds all texts.

    Unicode where it does not, and empty where they are ASCII.
    """
    if all(text.isascii() for text in texts):
        return ""
    said = identifier.get("SpecificCharacterSet")
    names = [str(one) for one in _values(said)] if said else []
    if len(names) == 1 and all(_fits(text, names[0]) for text in texts):
        return names[0]
    return "ISO_IR 192"


def _fits(text: str, character_set: str) -> bool:
    """Say whether a character set holds a text, without switching to another one within it."""
    encoding = python_encoding.get(character_set)
    if encoding is None or encoding.startswith("iso2022"):
        return False
    try:
        encoded = text.encode(encoding)
        # Python has a superset of JIS X 0201, with two bytes for what that lacks, and the yen sign
        # where DICOM has the backslash.
        is_superset = encoding == "shift_jis"
        return not is_superset or (len(encoded) == len(text) and encoded.decode(encoding) == text)
    except UnicodeError:
        return False


def _texts(answer: Dataset) -> Iterator[str]:
    for element in answer:
        if element.VR == "SQ":
            for item in element.value:
                yield from _texts(item)
        elif element.VR not in ("OB", "OW", "UN"):
            yield from _values(element)
