"""Rules for what the segments of a segmentation say of themselves (IHE AIR checks 17 to 19)."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.dataset import Dataset

from dicom_node.objects.conformance_rules import (
    SEGMENTATIONS,
    Rule,
    Subject,
    first_code,
    first_scheme,
    text_of,
)

# CID 7150; 123037004 stands in widely used tables and means Body structure.
CATEGORIES = frozenset(
    {
        "91723000",
        "49755003",
        "85756007",
        "260787004",
        "105590001",
        "246464006",
        "91720002",
        "309825002",
    }
)
# "Organ" and "Anatomical structure" as a type say nothing.
NAMELESS_TYPES = frozenset({"113343008", "91723000", "49755003"})


def is_binary(dataset: Dataset) -> bool:
    """Whether a segmentation has one bit for each pixel."""
    return bool(dataset.get("SegmentationType") == "BINARY")


def segments_in(dataset: Dataset) -> Iterator[tuple[str, Dataset]]:
    """Give what describes each segment, with its name for sentences."""
    for item in dataset.get("SegmentSequence") or []:
        yield f"segment {item.get('SegmentNumber')}", item


def numbered_segments(subject: Subject) -> Iterator[str]:
    """Hold that the segments are numbered 1..k, and each says in codes what it is."""
    numbers = [int(item.SegmentNumber) for _, item in segments_in(subject.dataset)]
    own = [number for number in numbers if number or is_binary(subject.dataset)]
    if own != list(range(1, len(own) + 1)):
        yield f"the segments are numbered {numbers}, not 1 to {len(numbers)}"
    for name, item in segments_in(subject.dataset):
        if not text_of(item, "SegmentLabel"):
            yield f"{name}: SegmentLabel is missing"
        if first_code(item, "SegmentedPropertyCategoryCodeSequence") not in CATEGORIES:
            yield f"{name}: the property category is not in CID 7150"
        kind = first_code(item, "SegmentedPropertyTypeCodeSequence")
        if not kind:
            yield f"{name}: the property type is missing"
        elif kind in NAMELESS_TYPES:
            yield f"{name}: the property type names no structure and no kind of finding"
        if first_scheme(item, "SegmentedPropertyTypeCodeSequence") in ("SRT", "99SDM", "SNM3"):
            yield f"{name}: its type is coded in the retired SNOMED-RT, not in SCT"


def no_background(subject: Subject) -> Iterator[str]:
    """Look for an item that stands for the background."""
    if any(item.get("SegmentNumber") == 0 for _, item in segments_in(subject.dataset)):
        yield "there is an item for the background: viewers shift names and colours by one"


def names_algorithm_of_segments(subject: Subject) -> Iterator[str]:
    """Hold that an automatic segment says by which algorithm, in full."""
    for name, item in segments_in(subject.dataset):
        kind = item.get("SegmentAlgorithmType")
        if subject.ours and kind != "AUTOMATIC":
            yield f"{name}: Segment Algorithm Type is not AUTOMATIC"
        if kind in ("AUTOMATIC", "SEMIAUTOMATIC") and not item.get("SegmentAlgorithmName"):
            yield f"{name}: SegmentAlgorithmName is missing"
        identifications = item.get("SegmentationAlgorithmIdentificationSequence") or []
        if kind == "AUTOMATIC" and not identifications:
            yield f"{name}: SegmentationAlgorithmIdentificationSequence is missing"
        for identification in identifications:
            keywords = ["AlgorithmName", "AlgorithmVersion"]
            keywords += ["AlgorithmSource"] if subject.ours else []
            for keyword in keywords:
                if not text_of(identification, keyword):
                    yield f"{name}: {keyword} is empty"
            if not first_code(identification, "AlgorithmFamilyCodeSequence"):
                yield f"{name}: the family of the algorithm is missing"


def tracked_segments(subject: Subject) -> Iterator[str]:
    """Hold that each segment can be told from all others, everywhere."""
    tracked: set[str] = set()
    for name, item in segments_in(subject.dataset):
        for keyword in ("TrackingID", "TrackingUID"):
            if not item.get(keyword):
                yield f"{name}: {keyword} is missing"
        uid = text_of(item, "TrackingUID")
        if uid and uid in tracked:
            yield f"{name}: another segment has the same Tracking UID"
        tracked.add(uid)


RULES: tuple[Rule, ...] = (
    Rule(
        "AIR-17",
        "Segments are numbered from 1, and say in SCT codes what they are.",
        "PS3.3 C.8.20.4; PS3.16 CID 7150, 7151",
        SEGMENTATIONS,
        numbered_segments,
    ),
    Rule(
        "AIR-18",
        "An automatic segment names its algorithm: name, version, family, source.",
        "PS3.3 C.8.20.4, 10.16",
        SEGMENTATIONS,
        names_algorithm_of_segments,
    ),
    Rule(
        "AIR-19",
        "Each segment has Tracking ID and Tracking UID, and no two have the same.",
        "IHE AIR: tracking identifiers; PS3.3 C.8.20.4",
        SEGMENTATIONS,
        tracked_segments,
    ),
    Rule(
        "viewer.background",
        "No segment is the background.",
        "OHIF shifts names and colours by one",
        SEGMENTATIONS,
        no_background,
        foreign="warning",
    ),
)
