"""Rules on who made an object: the node and the algorithm (IHE AIR checks 5 to 8, and 16)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydicom.dataset import Dataset

from dicom_node.objects.conformance_rules import (
    ALL_KINDS,
    DOCUMENTS,
    SEGMENTATIONS,
    Kind,
    Rule,
    Subject,
    content_items,
    first_code,
    first_scheme,
    text_of,
)
from dicom_node.objects.provenance import device_uid_of, weights_digest

PROCESSING_EQUIPMENT = "109102"
CONTRIBUTION_KEYWORDS = ("Manufacturer", "ManufacturerModelName", "SoftwareVersions", "DeviceUID")
EQUIPMENT_KEYWORDS = (
    "Manufacturer",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "SoftwareVersions",
)


def algorithms(dataset: Dataset) -> list[Dataset]:
    """Return the items of Contributing Equipment that name an algorithm."""
    return [
        item
        for item in dataset.get("ContributingEquipmentSequence") or []
        if first_code(item, "PurposeOfReferenceCodeSequence") == PROCESSING_EQUIPMENT
    ]


def names_the_algorithm(subject: Subject) -> Iterator[str]:
    """Hold that Contributing Equipment names the algorithm in full."""
    for item in subject.dataset.get("ContributingEquipmentSequence") or []:
        if first_scheme(item, "PurposeOfReferenceCodeSequence") == "99IHE":
            yield "Contributing Equipment has the provisional code of AIR 1.1 (99IHE)"
    items = algorithms(subject.dataset)
    if not items:
        yield "Contributing Equipment has no item (109102, DCM, Processing Equipment)"
    for item in items:
        for keyword in CONTRIBUTION_KEYWORDS:
            if not text_of(item, keyword):
                yield f"Contributing Equipment: {keyword} is empty"


def device_changes_with_model(subject: Subject) -> Iterator[str]:
    """Hold that the Device UID stands for these weights and no others."""
    uids: dict[str, tuple[str, str]] = {}
    for other in subject.objects:
        for item in algorithms(other):
            named = (text_of(item, "ManufacturerModelName"), text_of(item, "SoftwareVersions"))
            uid = text_of(item, "DeviceUID")
            if uid and uids.setdefault(uid, named) != named:
                yield "two models, or two versions of one, have the same Device UID"
    if not subject.ours:
        return
    digests = set(filter(None, map(weights_digest, _parameters(subject.dataset))))
    whole = subject.dataset.get("CompletionFlag", "COMPLETE") == "COMPLETE"
    if not digests and whole and subject.kind in (Kind.SEGMENTATION, Kind.MEASUREMENT_REPORT):
        yield "no algorithm parameter gives the digest of the weights"
    said = {text_of(item, "DeviceUID") for item in algorithms(subject.dataset)}
    for digest in digests:
        if device_uid_of(digest) not in said:
            yield "the Device UID is not the one of these weights"


def _parameters(dataset: Dataset) -> Iterator[str]:
    for segment in dataset.get("SegmentSequence") or []:
        for item in segment.get("SegmentationAlgorithmIdentificationSequence") or []:
            yield text_of(item, "AlgorithmParameters")
    for content in content_items(dataset):
        if first_code(content, "ConceptNameCodeSequence") == "111002":
            yield text_of(content, "TextValue")


def algorithm_equal(subject: Subject) -> Iterator[str]:
    """Compare every place that names the algorithm with Contributing Equipment."""
    items = algorithms(subject.dataset)
    if not items:
        return  # that is another rule's fault
    if subject.kind is Kind.SEGMENTATION:
        yield from _equal_in_segments(subject.dataset, items)
    else:
        yield from _equal_in_tree(subject.dataset, items)


def _equal_in_segments(dataset: Dataset, items: list[Dataset]) -> Iterator[str]:
    known = {tuple(text_of(item, key) for key in CONTRIBUTION_KEYWORDS[:3]) for item in items}
    for segment in dataset.get("SegmentSequence") or []:
        for item in segment.get("SegmentationAlgorithmIdentificationSequence") or []:
            named = tuple(
                text_of(item, keyword)
                for keyword in ("AlgorithmSource", "AlgorithmName", "AlgorithmVersion")
            )
            if named not in known:
                yield (
                    f"segment {segment.get('SegmentNumber')}: the algorithm is not the one of "
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


def _equal_in_tree(dataset: Dataset, items: list[Dataset]) -> Iterator[str]:
    for content in content_items(dataset):
        code = first_code(content, "ConceptNameCodeSequence")
        keyword = _EQUAL_CONCEPTS.get(code)
        if keyword is None:
            continue
        said = text_of(content, "UID") or text_of(content, "TextValue")
        if said not in {text_of(item, keyword) for item in items}:
            yield f"({code}, DCM) is not the {keyword} of Contributing Equipment"


def names_the_node(subject: Subject) -> Iterator[str]:
    """Hold that General Equipment names who packed the object, not the model."""
    dataset = subject.dataset
    for keyword in ("Manufacturer", "ManufacturerModelName"):
        if not text_of(dataset, keyword):
            yield f"{keyword} is empty"
    packed = (text_of(dataset, "Manufacturer"), text_of(dataset, "ManufacturerModelName"))
    for item in algorithms(dataset):
        if packed == (text_of(item, "Manufacturer"), text_of(item, "ManufacturerModelName")):
            yield "General Equipment names the algorithm, not the device that packed its result"


def complete_equipment(subject: Subject) -> Iterator[str]:
    """Hold Enhanced General Equipment: all four type 1."""
    for keyword in EQUIPMENT_KEYWORDS:
        if not text_of(subject.dataset, keyword):
            yield f"{keyword} is empty"


RULES: tuple[Rule, ...] = (
    Rule(
        "AIR-05",
        "Contributing Equipment names each algorithm, with its Device UID, as (109102, DCM).",
        "IHE AIR 1.3 section 6.5.3.1",
        ALL_KINDS,
        names_the_algorithm,
    ),
    Rule(
        "AIR-06",
        "The Device UID changes whenever the model changes.",
        "IHE AIR 1.1; here it comes from the digest of the weights",
        ALL_KINDS,
        device_changes_with_model,
    ),
    Rule(
        "AIR-07",
        "Observer, algorithm identification and Contributing Equipment have equal values.",
        "IHE AIR 1.3 table 6.5.3.1-1",
        SEGMENTATIONS | DOCUMENTS,
        algorithm_equal,
    ),
    Rule(
        "AIR-08",
        "General Equipment names the device that packs the result, not the model.",
        "IHE AIR 1.3 closed issue 26; PS3.3 C.7.5.1",
        ALL_KINDS,
        names_the_node,
    ),
    Rule(
        "AIR-16",
        "Manufacturer, model, serial number and software versions are not empty.",
        "PS3.3 C.7.5.2",
        SEGMENTATIONS,
        complete_equipment,
    ),
    Rule(
        "header.equipment",
        "The node names itself in full in every object.",
        "conformance statement",
        ALL_KINDS - SEGMENTATIONS,
        complete_equipment,
        foreign=None,
    ),
)
