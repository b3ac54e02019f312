"""Rules for every object: identity, text, UIDs, equipment, provenance (IHE AIR checks 1 to 12)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from pydicom.dataset import Dataset

from dicom_node.objects.conformance_rules import (
    ALL_KINDS,
    MODALITIES,
    Kind,
    Need,
    Rule,
    Subject,
    elements,
    is_inherited,
    text_of,
)
from dicom_node.objects.identifiers import UUID_ROOT
from dicom_node.objects.provenance import (
    COPIED_KEYWORDS,
    RESEARCH_MARKER,
    RESEARCH_USE,
    SERIES_NUMBERS,
)

# PS3.5 table 6.2-1, in characters; a name's limit holds for each component group.
LENGTHS: Mapping[str, int] = {
    "AE": 16,
    "CS": 16,
    "DS": 16,
    "IS": 12,
    "LO": 64,
    "PN": 64,
    "SH": 16,
    "ST": 1024,
    "LT": 10240,
    "UI": 64,
}
TEXTS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
UID_PATTERN = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+")

# What IHE AIR wants equal to the source; the node copies more (COPIED_KEYWORDS).
IDENTITY = (
    "StudyInstanceUID",
    "PatientID",
    "IssuerOfPatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)
_TYPE_2 = tuple(keyword for keyword in IDENTITY if keyword != "IssuerOfPatientID")

# Paths, addresses and machines of the maker have no business in an object.
_LOCAL = re.compile(
    r"(?:^|[\s\"'(<=])(?:/(?:home|tmp|var|usr|opt|mnt|root|srv|Users)/\w|[A-Za-z]:\\\w|file://|"
    r"localhost\b|(?:10|192\.168|172\.(?:1[6-9]|2\d|3[01]))(?:\.\d{1,3}){2,3}\b)"
)
_VERSIONS = frozenset({"SoftwareVersions", "AlgorithmVersion"})
_TIMEZONE = re.compile(r"[+-](?:0\d|1[0-4])[0-5]\d")
_LATIN1_READ_AS_UTF8 = re.compile("[ÃÂ][\u0080-\u00bf]|\ufffd")


def same_patient_and_study(subject: Subject) -> Iterator[str]:
    """Compare patient and study with the source."""
    source = subject.source
    if source is None:
        return
    for keyword in IDENTITY:
        if text_of(subject.dataset, keyword) != text_of(source, keyword):
            yield f"{keyword} differs from the source's"
    for keyword in _TYPE_2:
        if keyword not in subject.dataset:
            yield f"{keyword} is absent; it must be there, empty where it is unknown"


def copied_in_full(subject: Subject) -> Iterator[str]:
    """Compare all else that the node copies."""
    source = subject.source
    if source is None:
        return
    for keyword in COPIED_KEYWORDS:
        if keyword not in IDENTITY and text_of(subject.dataset, keyword) != text_of(
            source, keyword
        ):
            yield f"{keyword} differs from the source's"


def new_series_and_instance(subject: Subject) -> Iterator[str]:
    """Hold that no series and no UID of the source or of another object is used again."""
    dataset = subject.dataset
    modality = str(dataset.get("Modality", ""))
    expected = MODALITIES.get(subject.kind)
    if expected is not None and modality not in expected:
        yield f"Modality is {modality or 'empty'}, not {' or '.join(sorted(expected))}"
    taken = {str(source.get("SeriesInstanceUID")) for source in subject.sources.values()}
    if str(dataset.get("SeriesInstanceUID")) in taken:
        yield "the object lies in the series of its source"
    if subject.uid in subject.sources:
        yield "the object has the SOP Instance UID of a source"
    for other in subject.objects:
        if other is dataset:
            continue
        if other.get("SOPInstanceUID") == dataset.get("SOPInstanceUID"):
            yield "another object has the same SOPInstanceUID"
        one_series = other.get("SeriesInstanceUID") == dataset.get("SeriesInstanceUID")
        # The captures of a job are one series; a second SEG or SR in a series is never shown.
        if one_series and (
            other.get("SOPClassUID") != dataset.get("SOPClassUID")
            or (subject.ours and subject.kind is not Kind.SECONDARY_CAPTURE)
        ):
            yield "another object lies in the same series"


def stable_series_number(subject: Subject) -> Iterator[str]:
    """Hold that hanging protocols can match the series by its number."""
    number = text_of(subject.dataset, "SeriesNumber")
    if not number:
        yield "SeriesNumber is empty"
    elif subject.ours and int(number) not in SERIES_NUMBERS.values():
        yield f"SeriesNumber is {number}, none of the numbers that the node gives"


def described_series(subject: Subject) -> Iterator[str]:
    """Hold that people see in the list of series what this is."""
    description = text_of(subject.dataset, "SeriesDescription")
    if not description:
        yield "SeriesDescription is empty"
    elif len(description) > LENGTHS["LO"]:
        yield f"SeriesDescription has {len(description)} characters; 64 fit"
    elif subject.ours and "(AI" not in description:
        yield "SeriesDescription does not say that this comes from an AI"


def says_research_use(subject: Subject) -> Iterator[str]:
    """Hold the marker in the list of series and beside the algorithm together."""
    marked = RESEARCH_MARKER in text_of(subject.dataset, "SeriesDescription")
    said = any(
        text_of(item, "ContributionDescription").startswith(RESEARCH_USE)
        for item in subject.dataset.get("ContributingEquipmentSequence") or []
    )
    if marked != said:
        where = "SeriesDescription" if said else "ContributingEquipmentSequence"
        yield f"{where} does not say that this is for research only"


def placed_in_time(subject: Subject) -> Iterator[str]:
    """Hold that the result can be ordered among the other times of the study."""
    dataset = subject.dataset
    parts = ["InstanceCreation"]
    parts += ["StructureSet"] if subject.kind is Kind.STRUCTURE_SET else ["Content"]
    for keyword in [f"{part}{end}" for part in parts for end in ("Date", "Time")]:
        if not text_of(dataset, keyword):
            yield f"{keyword} is empty"
    zone = text_of(dataset, "TimezoneOffsetFromUTC").strip()
    source = subject.source
    if zone and _TIMEZONE.fullmatch(zone) is None:
        yield "TimezoneOffsetFromUTC is no offset"
    elif not zone and source is not None and text_of(source, "TimezoneOffsetFromUTC"):
        yield "TimezoneOffsetFromUTC is absent, but the source has one"
    content, created = (
        text_of(dataset, f"{part}Date") + text_of(dataset, f"{part}Time").split(".")[0]
        for part in ("Content", "InstanceCreation")
    )
    if len(content) == len(created) == 14 and content > created:
        yield "the content is younger than the instance that holds it"


def readable_text(subject: Subject) -> Iterator[str]:
    """Hold that the character set can hold every text, and that none was misread."""
    dataset = subject.dataset
    charset = text_of(dataset, "SpecificCharacterSet")
    if subject.ours and charset != "ISO_IR 192":
        yield "Specific Character Set is not ISO_IR 192"
    for path, element in elements(dataset):
        if element.VR not in TEXTS:
            continue
        text = str(element.value)
        if not charset and not text.isascii():
            yield f"{path} is not ASCII, and there is no Specific Character Set"
        if not is_inherited(path) and _LATIN1_READ_AS_UTF8.search(text):
            yield f"{path} was read in another character set than it was written in"
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            yield f"{path} holds characters that UTF-8 cannot write"


def valid_uids(subject: Subject) -> Iterator[str]:
    """Hold each UID that is the object's own to PS3.5 section 9."""
    given = source_uids(subject.sources)
    for path, element in elements(subject.dataset):
        if element.VR != "UI" or not element.value:
            continue
        for uid in element.value if element.VM > 1 else [element.value]:
            if uid in given or is_inherited(path):
                continue
            if len(uid) > 64 or UID_PATTERN.fullmatch(str(uid)) is None:
                yield f"{path} is not a valid UID"
    if subject.ours:
        for keyword in ("SeriesInstanceUID", "SOPInstanceUID"):
            if not text_of(subject.dataset, keyword).startswith(UUID_ROOT):
                yield f"{keyword} is not under the node's root {UUID_ROOT}"


def source_uids(sources: Mapping[str, Dataset]) -> frozenset[str]:
    """Return the UIDs that the sources brought along."""
    keywords = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
    return frozenset(
        str(source.get(keyword))
        for source in sources.values()
        for keyword in keywords
        if source.get(keyword)
    )


def nothing_of_the_maker(subject: Subject) -> Iterator[str]:
    """Look for private attributes, paths and hosts, and for patient data the source has not."""
    for path, element in elements(subject.dataset):
        if element.tag.is_private:
            yield f"{path} is private"
        elif element.VR in TEXTS and not is_inherited(path) and element.keyword not in _VERSIONS:
            if _LOCAL.search(str(element.value)):
                yield f"{path} holds a path or address of the machine it was made on"
    source = subject.source
    if source is None:
        return
    for element in subject.dataset.group_dataset(0x0010):
        if element.value and element.tag not in source:
            yield f"{element.keyword or element.tag} is not in the source"


def within_lengths(subject: Subject) -> Iterator[str]:
    """Hold each value that is ours to the length of its representation."""
    yield from _too_long(subject, inherited=False)


def source_within_lengths(subject: Subject) -> Iterator[str]:
    """Look at the lengths of what the source gave."""
    yield from _too_long(subject, inherited=True)


def _too_long(subject: Subject, *, inherited: bool) -> Iterator[str]:
    for path, element in elements(subject.dataset):
        if is_inherited(path) is not inherited:
            continue
        limit = LENGTHS.get(element.VR)
        if limit is None or element.value is None:
            continue
        values = element.value if element.VM > 1 else [element.value]
        for value in values:
            text = _written(value)
            parts = text.split("=") if element.VR == "PN" else [text]
            if max(len(part) for part in parts) > limit:
                yield f"{path} has {len(text)} characters; {element.VR} takes {limit}"


def _written(value: object) -> str:
    original = getattr(value, "original_string", None)
    return str(original if isinstance(original, str) else value)


RULES: tuple[Rule, ...] = (
    Rule(
        "AIR-01",
        "Patient and study attributes equal the source's; type 2 ones are there, if only empty.",
        "IHE AIR 1.3; PS3.3 C.7.1.1, C.7.2.1",
        ALL_KINDS,
        same_patient_and_study,
        needs=Need.SOURCES,
        foreign_kinds=ALL_KINDS,
    ),
    Rule(
        "header.copied",
        "All else of patient and study that the node copies is as in the source.",
        "PS3.3 C.7.1.1, C.7.1.3, C.7.2.2; archives match on exact values",
        ALL_KINDS,
        copied_in_full,
        foreign=None,
        needs=Need.SOURCES,
    ),
    Rule(
        "AIR-02",
        "A series of its own with the modality of its kind, never the series of the source.",
        "PS3.3 C.7.3.1; OHIF shows the last SEG of a series only",
        ALL_KINDS,
        new_series_and_instance,
        foreign_kinds=ALL_KINDS,
    ),
    Rule(
        "AIR-03",
        "Series Number is there, and the same for each kind of object.",
        "PS3.3 C.7.3.1; hanging protocols",
        ALL_KINDS,
        stable_series_number,
        foreign_kinds=ALL_KINDS,
    ),
    Rule(
        "AIR-04",
        "Series Description names what made the object, in at most 64 characters.",
        "PS3.3 C.7.3.1; IHE AIR",
        ALL_KINDS,
        described_series,
        foreign_kinds=ALL_KINDS,
    ),
    Rule(
        "header.research",
        "An object for research says so in its series and beside its algorithm.",
        "intended use of the model card",
        ALL_KINDS,
        says_research_use,
        foreign=None,
    ),
    Rule(
        "AIR-09",
        "Content and creation times are there, with the source's offset from UTC.",
        "IHE AIR 1.1; PS3.3 C.12.1.1",
        ALL_KINDS,
        placed_in_time,
    ),
    Rule(
        "AIR-10",
        "Specific Character Set fits the text, and no text was misread.",
        "PS3.3 C.12.1.1.2",
        ALL_KINDS,
        readable_text,
        foreign_kinds=ALL_KINDS,
    ),
    Rule(
        "AIR-11",
        "Every UID is valid; those of the node lie under its root.",
        "PS3.5 9.1",
        ALL_KINDS,
        valid_uids,
        foreign_kinds=ALL_KINDS,
    ),
    Rule(
        "AIR-12",
        "No private attributes, no paths or hosts, no patient data beyond the source's.",
        "IHE AIR; PS3.5 7.8",
        ALL_KINDS,
        nothing_of_the_maker,
        foreign="warning",
        foreign_kinds=ALL_KINDS,
    ),
    Rule(
        "header.lengths",
        "No value is longer than its representation allows.",
        "PS3.5 table 6.2-1",
        ALL_KINDS,
        within_lengths,
        foreign_kinds=ALL_KINDS,
    ),
    Rule(
        "header.inherited-lengths",
        "No value that was copied from the source is longer than its representation allows.",
        "PS3.5 table 6.2-1",
        ALL_KINDS,
        source_within_lengths,
        "warning",
        "warning",
        foreign_kinds=ALL_KINDS,
    ),
)

__all__ = ["IDENTITY", "LENGTHS", "RULES", "source_uids"]
