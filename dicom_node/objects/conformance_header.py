"""Rules for every object: identity, text, UIDs, equipment, provenance."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from pydicom.dataset import Dataset

from dicom_node.objects.conformance_rules import (
    ALL_KINDS,
    MEASUREMENT_REPORTS,
    SEGMENTATIONS,
    Kind,
    Rule,
    Subject,
    content_items,
    elements,
    first_code,
    is_inherited,
)
from dicom_node.objects.provenance import COPIED_KEYWORDS, REQUIRED_KEYWORDS

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
UID_PATTERN = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+")
PROCESSING_EQUIPMENT = "109102"
CONTRIBUTION_KEYWORDS = ("Manufacturer", "ManufacturerModelName", "SoftwareVersions", "DeviceUID")


def text_of(dataset: Dataset, keyword: str) -> str:
    """Return an attribute as text, an empty string where it is absent or empty."""
    if keyword not in dataset:
        return ""
    element = dataset[keyword]
    if element.VR == "SQ":
        return "; ".join(
            f"{path}={inner.value}"
            for item in element.value
            for path, inner in elements(item)
            if inner.VR != "SQ" and not inner.tag.is_private
        )
    if element.VM > 1:
        return "\\".join(str(value) for value in element.value)
    return str(element.value if element.value is not None else "")


def same_patient_and_study(subject: Subject) -> Iterator[str]:
    """Compare patient and study with the source."""
    source = subject.source
    if source is None:
        return
    for keyword in COPIED_KEYWORDS:
        if text_of(subject.dataset, keyword) != text_of(source, keyword):
            yield f"{keyword} differs from the source's"
    for keyword in REQUIRED_KEYWORDS:
        if keyword not in subject.dataset:
            yield f"{keyword} is absent; it must be there, empty where it is unknown"


def new_series_and_instance(subject: Subject) -> Iterator[str]:
    """Hold that no UID of the source or of another object is used again."""
    dataset = subject.dataset
    taken = {str(source.SeriesInstanceUID) for source in subject.sources.values()}
    if str(dataset.SeriesInstanceUID) in taken:
        yield "the object lies in the series of its source"
    if str(dataset.SOPInstanceUID) in subject.sources:
        yield "the object has the SOP Instance UID of a source"
    others = [other for other in subject.objects if other is not dataset]
    for keyword in ("SeriesInstanceUID", "SOPInstanceUID"):
        if any(other.get(keyword) == dataset.get(keyword) for other in others):
            yield f"another object has the same {keyword}"


def no_private(subject: Subject) -> Iterator[str]:
    """Look for private attributes at any depth."""
    for path, element in elements(subject.dataset):
        if element.tag.is_private:
            yield f"{path} is private"


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


def written_in_utf8(subject: Subject) -> Iterator[str]:
    """Hold that the character set can hold every text."""
    if text_of(subject.dataset, "SpecificCharacterSet") != "ISO_IR 192":
        yield "Specific Character Set is not ISO_IR 192"
    for path, element in elements(subject.dataset):
        if element.VR in ("LO", "PN", "SH", "ST", "LT", "UC", "UT"):
            try:
                str(element.value).encode("utf-8")
            except UnicodeEncodeError:
                yield f"{path} holds characters that UTF-8 cannot write"


def valid_uids(subject: Subject) -> Iterator[str]:
    """Hold each UID that is ours to PS3.5 section 9."""
    given = source_uids(subject.sources)
    for path, element in elements(subject.dataset):
        if element.VR != "UI" or not element.value:
            continue
        for uid in element.value if element.VM > 1 else [element.value]:
            if uid in given:
                continue
            if len(uid) > 64 or UID_PATTERN.fullmatch(str(uid)) is None:
                yield f"{path} is not a valid UID"


def source_uids(sources: Mapping[str, Dataset]) -> frozenset[str]:
    """Return the UIDs that the sources brought along."""
    keywords = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
    return frozenset(
        str(source.get(keyword))
        for source in sources.values()
        for keyword in keywords
        if source.get(keyword)
    )


def names_the_node(subject: Subject) -> Iterator[str]:
    """Hold that General Equipment is complete."""
    for keyword in (
        "Manufacturer",
        "ManufacturerModelName",
        "DeviceSerialNumber",
        "SoftwareVersions",
    ):
        if not text_of(subject.dataset, keyword):
            yield f"{keyword} is empty"


def algorithms(dataset: Dataset) -> list[Dataset]:
    """Return the items of Contributing Equipment that name an algorithm."""
    return [
        item
        for item in dataset.get("ContributingEquipmentSequence") or []
        if first_code(item, "PurposeOfReferenceCodeSequence") == PROCESSING_EQUIPMENT
    ]


def names_the_algorithm(subject: Subject) -> Iterator[str]:
    """Hold that Contributing Equipment names the algorithm in full."""
    items = algorithms(subject.dataset)
    if not items:
        yield "Contributing Equipment has no item (109102, DCM, Processing Equipment)"
    for item in items:
        for keyword in CONTRIBUTION_KEYWORDS:
            if not text_of(item, keyword):
                yield f"Contributing Equipment: {keyword} is empty"


def algorithm_equal_in_segments(subject: Subject) -> Iterator[str]:
    """Compare each segment's algorithm with Contributing Equipment."""
    known = {
        tuple(text_of(item, keyword) for keyword in CONTRIBUTION_KEYWORDS[:3])
        for item in algorithms(subject.dataset)
    }
    for segment in subject.dataset.get("SegmentSequence") or []:
        for item in segment.get("SegmentationAlgorithmIdentificationSequence") or []:
            named = tuple(
                text_of(item, keyword)
                for keyword in ("AlgorithmSource", "AlgorithmName", "AlgorithmVersion")
            )
            if named not in known:
                yield (
                    f"segment {segment.SegmentNumber}: the algorithm is not the one of "
                    "Contributing Equipment"
                )


# Concept of the content tree -> attribute of Contributing Equipment.
_EQUAL_CONCEPTS: Mapping[str, str] = {
    "121014": "Manufacturer",
    "122405": "Manufacturer",
    "121015": "ManufacturerModelName",
    "111001": "ManufacturerModelName",
    "111003": "SoftwareVersions",
    "121012": "DeviceUID",
}


def algorithm_equal_in_tree(subject: Subject) -> Iterator[str]:
    """Compare observer and algorithm in the tree with Contributing Equipment."""
    items = algorithms(subject.dataset)
    for content in content_items(subject.dataset):
        code = first_code(content, "ConceptNameCodeSequence")
        keyword = _EQUAL_CONCEPTS.get(code)
        if keyword is None:
            continue
        said = text_of(content, "UID") or text_of(content, "TextValue")
        if said not in {text_of(item, keyword) for item in items}:
            yield f"({code}, DCM) is not the {keyword} of Contributing Equipment"


def has_series_and_times(subject: Subject) -> Iterator[str]:
    """Hold that the series can be matched and the object placed in time."""
    dataset = subject.dataset
    modality = "SEG" if subject.kind is Kind.SEGMENTATION else "SR"
    if dataset.get("Modality") != modality:
        yield f"Modality is not {modality}"
    for keyword in (
        "SeriesNumber",
        "SeriesDescription",
        "ContentDate",
        "ContentTime",
        "InstanceCreationDate",
        "InstanceCreationTime",
    ):
        if not text_of(dataset, keyword):
            yield f"{keyword} is empty"


RULES: tuple[Rule, ...] = (
    Rule(
        "header.identity",
        "Patient and study attributes equal the source's; type 2 ones are there, if only empty.",
        "PS3.3 C.7.1.1, C.7.2.1; IHE AIR check 1",
        ALL_KINDS,
        same_patient_and_study,
    ),
    Rule(
        "header.own-series",
        "Each object has a series and an instance of its own, never those of the source.",
        "PS3.3 C.7.3.1; OHIF shows the last SEG of a series only; IHE AIR check 2",
        ALL_KINDS,
        new_series_and_instance,
    ),
    Rule(
        "header.series",
        "Modality, Series Number, Series Description and the times are there.",
        "IHE AIR checks 2, 3, 4, 9",
        ALL_KINDS,
        has_series_and_times,
    ),
    Rule(
        "header.private", "No private attributes.", "conformance statement", ALL_KINDS, no_private
    ),
    Rule(
        "header.lengths",
        "No value is longer than its representation allows.",
        "PS3.5 table 6.2-1",
        ALL_KINDS,
        within_lengths,
    ),
    Rule(
        "header.inherited-lengths",
        "No value that was copied from the source is longer than its representation allows.",
        "PS3.5 table 6.2-1",
        ALL_KINDS,
        source_within_lengths,
        "warning",
    ),
    Rule(
        "header.character-set",
        "The text is in UTF-8, and says so.",
        "PS3.3 C.12.1.1.2; IHE AIR check 10",
        ALL_KINDS,
        written_in_utf8,
    ),
    Rule(
        "header.uids", "Every UID is valid.", "PS3.5 9.1; IHE AIR check 11", ALL_KINDS, valid_uids
    ),
    Rule(
        "header.equipment",
        "General Equipment names the node in full.",
        "PS3.3 C.7.5.2; IHE AIR checks 8, 16",
        ALL_KINDS,
        names_the_node,
    ),
    Rule(
        "header.contribution",
        "Contributing Equipment names the algorithm, with its Device UID.",
        "IHE AIR 6.5.3.1, checks 5, 6",
        ALL_KINDS,
        names_the_algorithm,
    ),
    Rule(
        "segmentation.algorithm-equal",
        "Each segment's algorithm is the one of Contributing Equipment.",
        "IHE AIR table 6.5.3.1-1, check 7",
        SEGMENTATIONS,
        algorithm_equal_in_segments,
    ),
    Rule(
        "report.algorithm-equal",
        "Observer and algorithm of the tree are those of Contributing Equipment.",
        "IHE AIR table 6.5.3.1-1, check 7",
        MEASUREMENT_REPORTS,
        algorithm_equal_in_tree,
    ),
)
