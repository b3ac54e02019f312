"""Rules for measurement groups (IHE AIR checks 29 to 34), and what viewers need of them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from pydicom.dataset import Dataset

from dicom_node.objects.calibration import numbers
from dicom_node.objects.conformance_rules import (
    MEASUREMENT_REPORTS,
    Rule,
    Subject,
    content_items,
    evidence_of,
    first_code,
    first_scheme,
    named,
    text_of,
)
from dicom_node.objects.segmentation_bits import frame_bits

QUALITATIVE_EVALUATIONS = "C0034375"
IMAGING_MEASUREMENTS, MEASUREMENT_GROUP = "126010", "125007"
TRACKING_IDENTIFIER, TRACKING_UID = "112039", "112040"
REFERENCED_SEGMENT, IMAGE_REGION, VOLUME_SURFACE = "121191", "111030", "121231"
SOURCE_SERIES, SOURCE_IMAGE = "121232", "121233"
MEASUREMENT_SOURCES = frozenset({"121112", "260753009", "121233", "121232"})
FINDING, FINDING_SITE, NO_ABNORMALITY = "121071", "363698007", "111286"
ALGORITHM_NAME, ALGORITHM_VERSION = "111001", "111003"
CERTAINTY, VOLUME = "111012", "118565006"
ANSWERS = frozenset({"52101004", "272519000", "373068000", "111286"})  # CID 240
# CID 7460 to 7462, CID 85, HU, counts and percent: in UCUM.
UNITS = frozenset(
    {
        "mm", "cm", "um", "mm2", "cm2", "um2", "mm3", "cm3", "um3", "dm3", "[hnsf'U]", "1", "%",
        "g/ml", "g/ml{SUVbw}", "g/ml{SUVlbm}", "g/ml{SUVibw}", "cm2/ml", "cm2/ml{SUVbsa}", "Bq/ml",
        "{pixels}", "{counts}", "{ratio}", "{0:1}", "{SUVbw}g/ml", "{SUVlbm}g/ml", "g",
    }
)  # fmt: skip
# UCUM allows millilitres, CID 7462 does not: this node writes cm3.
UNITS_OF_OTHERS = UNITS | {"ml", "mL"}
CUBIC_CENTIMETRES = {"ml": 1.0, "mL": 1.0, "mm3": 1e-3, "cm3": 1.0, "dm3": 1e3, "um3": 1e-12}
VOLUME_TOLERANCE = 0.01
MOST_DIGITS = 7


def groups(dataset: Dataset) -> list[Dataset]:
    """Return the measurement groups of a report."""
    return [
        group
        for container in named(dataset, IMAGING_MEASUREMENTS)
        for group in named(container, MEASUREMENT_GROUP)
    ]


def _tracking_uid(group: Dataset) -> str:
    return next((str(item.UID) for item in named(group, TRACKING_UID)), "")


def _segment(group: Dataset, subject: Subject) -> tuple[Dataset, Dataset] | None:
    """Return the segmentation and the segment that a group refers to, when both are there."""
    for item in named(group, REFERENCED_SEGMENT):
        reference = item.ReferencedSOPSequence[0]
        segmentation = subject.segmentations.get(str(reference.ReferencedSOPInstanceUID))
        for segment in [] if segmentation is None else segmentation.SegmentSequence:
            if segment.SegmentNumber == reference.get("ReferencedSegmentNumber"):
                assert segmentation is not None  # noqa: S101 - the loop is empty without one
                return segmentation, segment
    return None


def group_for_each(subject: Subject) -> Iterator[str]:
    """Hold that there are groups, and one for each segment of the segmentation."""
    found = groups(subject.dataset)
    if not found and not named(subject.dataset, QUALITATIVE_EVALUATIONS):
        yield "Imaging Measurements holds no measurement group"
    said: dict[str, set[int]] = defaultdict(set)
    for group in found:
        for item in named(group, REFERENCED_SEGMENT):
            reference = item.ReferencedSOPSequence[0]
            said[str(reference.ReferencedSOPInstanceUID)].add(
                int(reference.get("ReferencedSegmentNumber") or 0)
            )
    for uid, segmentation in subject.segmentations.items():
        if uid not in evidence_of(subject.dataset):
            continue
        for segment in segmentation.SegmentSequence:
            if int(segment.SegmentNumber) not in {0, *said[uid]}:
                yield f"segment {segment.SegmentNumber} has no measurement group"


def described_groups(subject: Subject) -> Iterator[str]:
    """Hold that each group says what it is of, where, and by which algorithm."""
    for number, group in enumerate(groups(subject.dataset), start=1):
        for code, words in (
            (TRACKING_IDENTIFIER, "Tracking Identifier"),
            (TRACKING_UID, "Tracking Unique Identifier"),
            (FINDING, "Finding"),
            (ALGORITHM_NAME, "Algorithm Name"),
            (ALGORITHM_VERSION, "Algorithm Version"),
        ):
            if not named(group, code):
                yield f"measurement group {number}: {words} is missing"
        for item in named(group, FINDING):
            if not first_code(item, "ConceptCodeSequence"):
                yield f"measurement group {number}: the finding is not coded"
        found = _segment(group, subject)
        if found is None:
            continue
        segment = found[1]
        if text_of(segment, "TrackingUID") != _tracking_uid(group):
            yield f"segment {segment.SegmentNumber} has another Tracking UID than its group"
        region = first_code(segment, "AnatomicRegionSequence")
        sites = {first_code(item, "ConceptCodeSequence") for item in named(group, FINDING_SITE)}
        if region and region not in sites:
            yield f"measurement group {number}: the segment's anatomic region is not its site"


def region_of_each(subject: Subject) -> Iterator[str]:
    """Hold that a group of a region says which, and on which images."""
    for number, group in enumerate(groups(subject.dataset), start=1):
        segments = named(group, REFERENCED_SEGMENT)
        if segments:
            if not named(group, SOURCE_SERIES) and not named(group, SOURCE_IMAGE):
                yield f"measurement group {number}: the source of its segment is missing"
            reference = segments[0].ReferencedSOPSequence[0]
            uid = str(reference.ReferencedSOPInstanceUID)
            if "ReferencedSegmentNumber" not in reference:
                yield f"measurement group {number} refers to a segmentation, but to no segment"
            elif uid in subject.segmentations and _segment(group, subject) is None:
                yield (
                    f"measurement group {number} refers to segment "
                    f"{reference.ReferencedSegmentNumber}, which the segmentation does not have"
                )
            continue
        regions = named(group, IMAGE_REGION) + named(group, VOLUME_SURFACE)
        sources = [
            item
            for item in group.get("ContentSequence") or []
            if first_code(item, "ConceptNameCodeSequence") in MEASUREMENT_SOURCES
        ]
        if not regions and not sources:
            yield f"measurement group {number} refers to no segment, region or image"


def sensible_measurements(subject: Subject) -> Iterator[str]:
    """Hold units to UCUM, precision to what can be known, and volumes to the mask."""
    for item in content_items(subject.dataset):
        for value in item.get("MeasuredValueSequence") or []:
            unit = first_code(value, "MeasurementUnitsCodeSequence")
            scheme = first_scheme(value, "MeasurementUnitsCodeSequence")
            known = UNITS if subject.ours else UNITS_OF_OTHERS
            if scheme != "UCUM" or unit not in known:
                yield f"the unit {unit} ({scheme}) is none of those that displays know"
            number = text_of(value, "NumericValue")
            digits = number.upper().split("E")[0].lstrip("+-0.").replace(".", "")
            if len(digits) > MOST_DIGITS:
                yield f"a value has {len(digits)} digits, far more than can be measured"
    for group in groups(subject.dataset):
        found = _segment(group, subject)
        for item in named(group, VOLUME) if found is not None else ():
            assert found is not None  # noqa: S101 - the loop is empty without one
            value = item.MeasuredValueSequence[0]
            factor = CUBIC_CENTIMETRES.get(first_code(value, "MeasurementUnitsCodeSequence"))
            volume = volume_of_segment(*found, subject)
            if factor is None or volume is None:
                continue
            said = float(value.NumericValue) * factor
            if not math.isclose(said, volume, rel_tol=VOLUME_TOLERANCE, abs_tol=1e-9):
                yield f"the volume {said:.4g} cm3 is not that of the mask, {volume:.4g} cm3"


def volume_of_segment(segmentation: Dataset, segment: Dataset, subject: Subject) -> float | None:
    """Return a segment's volume in cm3, counted from the pixels of its frames.

    Each frame stands for half the way to each of its neighbours among the source images (the end
    ones for their only neighbour's half twice); without the sources, for Spacing Between Slices.
    ``None`` where the object does not say (no place in space, compressed, slices missing).
    """
    if segmentation.get("SegmentationType") != "BINARY":
        return None
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    measures = shared.get("PixelMeasuresSequence") or [Dataset()]
    spacing = measures[0].get("PixelSpacing")
    if not spacing or not segmentation.get("FrameOfReferenceUID"):
        return None
    depths = _depths(subject)
    between = measures[0].get("SpacingBetweenSlices")
    total = 0.0
    for index, frame in enumerate(segmentation.PerFrameFunctionalGroupsSequence):
        number = frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        if number != segment.SegmentNumber:
            continue
        image = frame.DerivationImageSequence[0].SourceImageSequence[0]
        depth = depths.get(str(image.ReferencedSOPInstanceUID), between)
        if depth is None:
            return None
        total += int(frame_bits(segmentation, index).sum()) * float(depth)
    return total * float(spacing[0]) * float(spacing[1]) / 1000.0


def _depths(subject: Subject) -> dict[str, float]:
    """Return what each source slice stands for, in mm; empty where that is not regular."""
    places = []
    for uid, source in subject.sources.items():
        position = numbers(source, "ImagePositionPatient")
        cosines = numbers(source, "ImageOrientationPatient")
        if len(position) != 3 or len(cosines) != 6:
            return {}
        normal = np.cross(cosines[:3], cosines[3:])
        places.append((float(np.array(position) @ normal), uid))
    places.sort()
    gaps = np.diff([place for place, _ in places])
    if len(gaps) == 0 or gaps.min() <= 0 or gaps.max() > 1.5 * float(np.median(gaps)):
        return {}
    depths = np.concatenate([gaps[:1], (gaps[:-1] + gaps[1:]) / 2, gaps[-1:]])
    return {uid: float(depth) for (_, uid), depth in zip(places, depths, strict=True)}


def declared_answers(subject: Subject) -> Iterator[str]:
    """Hold that evaluations are coded, words stand under a concept, and confidence is a share."""
    for number, group in enumerate(groups(subject.dataset), start=1):
        for item in group.get("ContentSequence") or []:
            name = f"measurement group {number}"
            kind = item.get("ValueType")
            if kind in ("TEXT", "CODE") and not first_code(item, "ConceptNameCodeSequence"):
                yield f"{name}: an evaluation has no concept name"
            if kind == "CODE" and not first_code(item, "ConceptCodeSequence"):
                yield f"{name}: an evaluation is not coded"
            if first_code(item, "ConceptNameCodeSequence") != CERTAINTY:
                continue
            value = item.MeasuredValueSequence[0]
            most = {"%": 100.0, "{0:1}": 1.0}.get(first_code(value, "MeasurementUnitsCodeSequence"))
            if most is None or not 0.0 <= float(value.NumericValue) <= most:
                yield f"{name}: the certainty is no percentage and no share of 1"


def negative_in_codes(subject: Subject) -> Iterator[str]:
    """Hold that a report without regions says in codes what was looked for, and where."""
    found = groups(subject.dataset)
    with_region = any(
        named(group, code)
        for group in found
        for code in (REFERENCED_SEGMENT, IMAGE_REGION, VOLUME_SURFACE)
    )
    measured = any(
        item.get("ValueType") == "NUM" for group in found for item in content_items(group)
    )
    if with_region or measured:
        return
    for number, group in enumerate(found, start=1):
        answers = {
            first_code(item, "ConceptCodeSequence")
            for item in group.get("ContentSequence") or []
            if item.get("ValueType") == "CODE"
        }
        if not answers & ANSWERS:
            yield f"measurement group {number} does not say in a code whether it is there"
        if not any(item.get("ValueType") == "IMAGE" for item in content_items(group)):
            yield f"measurement group {number} does not say on which images it was looked for"


def _lines(group: Dataset) -> list[Dataset]:
    """Return the SCOORD items that are the only child of a NUM: the ones OHIF draws."""
    found = []
    for item in group.get("ContentSequence") or []:
        children = item.get("ContentSequence") or []
        if item.get("ValueType") == "NUM" and len(children) == 1:
            found += [child for child in children if child.get("ValueType") == "SCOORD"]
    return found


def coordinates_for_each(subject: Subject) -> Iterator[str]:
    """Hold that each tracking UID has a line, unless nothing was found at all."""
    lines: dict[str, int] = defaultdict(int)
    segments = 0
    for group in groups(subject.dataset):
        lines[_tracking_uid(group)] += len(_lines(group))
        segments += len(named(group, REFERENCED_SEGMENT))
    if segments == 0:
        return
    for count in lines.values():
        if count == 0:
            yield "a tracking UID has no NUM with coordinates: OHIF shows nothing of the report"


def coordinates_inside(subject: Subject) -> Iterator[str]:
    """Hold that the coordinates lie on the image that they are selected from."""
    for item in content_items(subject.dataset):
        if item.get("ValueType") != "SCOORD":
            continue
        if first_code(item, "ConceptNameCodeSequence") == IMAGE_REGION:
            yield "an image region (TID 1410): OHIF offers to edit it, and Slicer leaves the SEG"
        selected = [
            child
            for child in item.get("ContentSequence") or []
            if child.get("RelationshipType") == "SELECTED FROM"
        ]
        if len(selected) != 1:
            yield "coordinates are not SELECTED FROM one image"
            continue
        uid = str(selected[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
        source = subject.sources.get(uid)
        if source is None:
            continue
        numbers = [float(value) for value in item.GraphicData]
        columns, rows = numbers[0::2], numbers[1::2]
        if not (0 <= min(columns) and max(columns) <= int(source.Columns)):
            yield "coordinates lie beside the image"
        if not (0 <= min(rows) and max(rows) <= int(source.Rows)):
            yield "coordinates lie above or below the image"


RULES: tuple[Rule, ...] = (
    Rule(
        "AIR-29",
        "Each finding has a measurement group; a report of none has Qualitative Evaluations.",
        "PS3.16 TID 1500, TID 1410, TID 1411, TID 1501",
        MEASUREMENT_REPORTS,
        group_for_each,
    ),
    Rule(
        "AIR-30",
        "Each group has its tracking identity, a coded finding, its site and its algorithm.",
        "PS3.16 TID 4108, TID 4019; IHE AIR",
        MEASUREMENT_REPORTS,
        described_groups,
    ),
    Rule(
        "AIR-31",
        "Each group refers to its segment with source, to its region, or to its image.",
        "PS3.16 TID 1411; PS3.3 C.18.4",
        MEASUREMENT_REPORTS,
        region_of_each,
    ),
    Rule(
        "AIR-32",
        "Units are UCUM, precision is sane, the volume is the mask's to 1 %.",
        "PS3.16 CID 7460 to 7462, CID 85; TID 300",
        MEASUREMENT_REPORTS,
        sensible_measurements,
    ),
    Rule(
        "AIR-33",
        "Evaluations are coded, words stand under a concept, a certainty is a share.",
        "IHE AIR: qualitative findings; PS3.16 TID 1501",
        MEASUREMENT_REPORTS,
        declared_answers,
    ),
    Rule(
        "AIR-34",
        "A negative result says in codes what was looked for, and on which images.",
        "IHE AIR; PS3.16 TID 1501, CID 240",
        MEASUREMENT_REPORTS,
        negative_in_codes,
    ),
    Rule(
        "viewer.coordinates",
        "Each tracking UID has at least one NUM with coordinates.",
        "OHIF shows nothing of a report in which one has none",
        MEASUREMENT_REPORTS,
        coordinates_for_each,
        foreign="warning",
    ),
    Rule(
        "viewer.coordinates-inside",
        "Coordinates are SELECTED FROM one image and lie on it.",
        "PS3.3 C.18.6; OHIF; Slicer",
        MEASUREMENT_REPORTS,
        coordinates_inside,
        foreign="warning",
    ),
)
