"""Rules for structured reports: references, tracking, coordinates, words."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

from pydicom.dataset import Dataset

from dicom_node.objects.conformance_rules import (
    GROUNDED_REPORTS,
    MEASUREMENT_REPORTS,
    REPORTS,
    Kind,
    Rule,
    Subject,
    content_items,
    first_code,
    named,
)
from dicom_node.objects.references import is_multi_frame

# The codes of what the trees are made of (PS3.16).
IMAGING_MEASUREMENTS, MEASUREMENT_GROUP = "126010", "125007"
TRACKING_UID, REFERENCED_SEGMENT, IMAGE_REGION = "112040", "121191", "111030"
OBSERVER_TYPE, DEVICE, PROCEDURE_REPORTED, LANGUAGE = "121005", "121007", "121058", "121049"
FINDING, FINDINGS, IMPRESSIONS, IMAGE_LIBRARY = "121071", "59776-5", "19005-8", "111028"
# CID 7460 to 7462, CID 85, HU, counts and percent.
UNITS = frozenset({"mm", "mm2", "cm3", "[hnsf'U]", "g/ml{SUVbw}", "{pixels}", "%"})


def _references(dataset: Dataset) -> Iterator[tuple[Dataset, Dataset]]:
    """Yield each image reference of the tree with its content item."""
    for item in content_items(dataset):
        for reference in item.get("ReferencedSOPSequence") or []:
            yield item, reference


def _groups(dataset: Dataset) -> list[Dataset]:
    return [
        group
        for container in named(dataset, IMAGING_MEASUREMENTS)
        for group in named(container, MEASUREMENT_GROUP)
    ]


def _tracking_uid(group: Dataset) -> str:
    return next((str(item.UID) for item in named(group, TRACKING_UID)), "")


def _coordinates(group: Dataset) -> list[Dataset]:
    """Return the SCOORD items that are the only child of a NUM: the ones OHIF draws."""
    found = []
    for item in group.get("ContentSequence") or []:
        children = item.get("ContentSequence") or []
        if item.get("ValueType") == "NUM" and len(children) == 1:
            found += [child for child in children if child.get("ValueType") == "SCOORD"]
    return found


def right_form(subject: Subject) -> Iterator[str]:
    """Hold that class and template go together."""
    expected = {
        Kind.MEASUREMENT_REPORT: ("1.2.840.10008.5.1.4.1.1.88.34", "1500"),
        Kind.GROUNDED_REPORT: ("1.2.840.10008.5.1.4.1.1.88.22", "2000"),
    }
    if subject.kind not in expected:
        return
    sop_class, template = expected[subject.kind]
    if subject.dataset.SOPClassUID != sop_class:
        yield f"the SOP class is {subject.dataset.SOPClassUID}, not {sop_class}"
    templates = subject.dataset.get("ContentTemplateSequence") or []
    if not templates or templates[0].get("TemplateIdentifier") != template:
        yield f"the root does not say that it follows template {template}"


def honest_flags(subject: Subject) -> Iterator[str]:
    """Hold that the document says that no person has seen it."""
    for keyword, value in (
        ("CompletionFlag", "COMPLETE"),
        ("VerificationFlag", "UNVERIFIED"),
        ("PreliminaryFlag", "PRELIMINARY"),
    ):
        if subject.dataset.get(keyword) != value:
            yield f"{keyword} is not {value}"
    if "VerifyingObserverSequence" in subject.dataset:
        yield "a verifying observer is named"
    for keyword in ("ReferencedPerformedProcedureStepSequence", "PerformedProcedureCodeSequence"):
        if keyword not in subject.dataset:
            yield f"{keyword} is absent; it must be there, if only empty"


def stated_context(subject: Subject) -> Iterator[str]:
    """Hold that language, observer and procedure are stated."""
    observers = named(subject.dataset, OBSERVER_TYPE)
    if [first_code(item, "ConceptCodeSequence") for item in observers] != [DEVICE]:
        yield "the observer is not one device"
    for code, words in ((PROCEDURE_REPORTED, "Procedure reported"), (LANGUAGE, "the language")):
        if not named(subject.dataset, code):
            yield f"{words} is missing"


def resolved_references(subject: Subject) -> Iterator[str]:
    """Hold that everything the tree points at is there, and is listed as evidence."""
    used: dict[str, str] = {}
    for _, reference in _references(subject.dataset):
        uid = str(reference.ReferencedSOPInstanceUID)
        used[uid] = str(reference.ReferencedSOPClassUID)
    known = dict.fromkeys(subject.sources, "")
    for uid, source in subject.sources.items():
        known[uid] = str(source.SOPClassUID)
    for uid, segmentation in subject.segmentations.items():
        known[uid] = str(segmentation.SOPClassUID)
    if subject.sources:
        for uid, sop_class in used.items():
            if uid not in known:
                yield "the tree refers to an object that is neither a source nor sent with it"
            elif known[uid] != sop_class:
                yield f"the tree gives {sop_class} as the class of an object of {known[uid]}"
    evidence = {
        str(item.ReferencedSOPInstanceUID)
        for study in subject.dataset.get("CurrentRequestedProcedureEvidenceSequence") or []
        for series in study.get("ReferencedSeriesSequence") or []
        for item in series.get("ReferencedSOPSequence") or []
    }
    if set(used) - evidence:
        yield f"{len(set(used) - evidence)} referenced objects are not listed as evidence"
    if evidence - set(used):
        yield f"{len(evidence - set(used))} objects of the evidence are not in the tree"


def existing_segments(subject: Subject) -> Iterator[str]:
    """Hold that each referenced segment exists in its segmentation."""
    segmentations = subject.segmentations
    for _, reference in _references(subject.dataset):
        number = reference.get("ReferencedSegmentNumber")
        segmentation = segmentations.get(str(reference.ReferencedSOPInstanceUID))
        if segmentation is None:
            continue
        numbers = {int(item.SegmentNumber) for item in segmentation.SegmentSequence}
        if number is None or int(number) not in numbers:
            yield f"the tree refers to segment {number}, which the segmentation does not have"


def existing_frames(subject: Subject) -> Iterator[str]:
    """Hold that multi-frame sources, and only those, are referred to by frame."""
    for item, reference in _references(subject.dataset):
        source = subject.sources.get(str(reference.ReferencedSOPInstanceUID))
        if source is None:
            continue
        number = reference.get("ReferencedFrameNumber")
        frames = int(source.get("NumberOfFrames") or 1)
        if number is not None and not is_multi_frame(source):
            yield "a frame number is given for a single-frame image"
        elif number is not None and int(number) > frames:
            yield f"frame {number} is referred to, the image has {frames}"
        elif number is None and frames > 1 and item.get("RelationshipType") == "SELECTED FROM":
            yield "coordinates on a multi-frame image do not say on which frame"


def tracked_segments(subject: Subject) -> Iterator[str]:
    """Compare the tracking identity of each group with its segment's."""
    for group in _groups(subject.dataset):
        uid = _tracking_uid(group)
        if not uid:
            yield "a measurement group has no Tracking Unique Identifier: OHIF skips it"
        for item in named(group, REFERENCED_SEGMENT):
            reference = item.ReferencedSOPSequence[0]
            segmentation = subject.segmentations.get(str(reference.ReferencedSOPInstanceUID))
            if segmentation is None:
                continue
            for segment in segmentation.SegmentSequence:
                if segment.SegmentNumber == reference.get("ReferencedSegmentNumber"):
                    if segment.get("TrackingUID") != uid:
                        yield f"segment {segment.SegmentNumber} has another Tracking UID"


def coordinates_for_each(subject: Subject) -> Iterator[str]:
    """Hold that each tracking UID has a line, unless nothing was found at all."""
    lines: dict[str, int] = defaultdict(int)
    segments = 0
    for group in _groups(subject.dataset):
        lines[_tracking_uid(group)] += len(_coordinates(group))
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


def known_units(subject: Subject) -> Iterator[str]:
    """Hold that measurements are in units that displays know."""
    for item in content_items(subject.dataset):
        for value in item.get("MeasuredValueSequence") or []:
            unit = first_code(value, "MeasurementUnitsCodeSequence")
            if unit not in UNITS:
                yield f"the unit {unit} is none of those that displays know"


def filled_sequences(subject: Subject) -> Iterator[str]:
    """Look for empty content sequences."""
    for item in content_items(subject.dataset):
        if "ContentSequence" in item and not item.ContentSequence:
            yield "an item has an empty Content Sequence (type 1C)"


def has_library(subject: Subject) -> Iterator[str]:
    """Hold that the images that were looked at are listed."""
    if not named(subject.dataset, IMAGE_LIBRARY):
        yield "the Image Library is missing"


def grounded_in_words(subject: Subject) -> Iterator[str]:
    """Hold that each sentence with references names segment and image in words too."""
    for section in named(subject.dataset, FINDINGS):
        for item in named(section, FINDING):
            numbers = [
                int(reference.ReferencedSegmentNumber)
                for child in item.get("ContentSequence") or []
                for reference in child.get("ReferencedSOPSequence") or []
                if reference.get("ReferencedSegmentNumber") is not None
            ]
            words = re.findall(r"\[F\d+: segment (\d+), image \d+\]", str(item.TextValue))
            if [str(number) for number in numbers] != words:
                yield "a sentence does not name the segment and image that it is inferred from"


def names_its_origin(subject: Subject) -> Iterator[str]:
    """Hold that the impression says that it was generated."""
    texts = [
        str(item.get("TextValue", ""))
        for section in named(subject.dataset, IMPRESSIONS)
        for item in section.get("ContentSequence") or []
    ]
    if not any("AI-generated" in text for text in texts):
        yield "the impression does not say that it is AI-generated"


RULES: tuple[Rule, ...] = (
    Rule(
        "report.form",
        "TID 1500 in Comprehensive 3D SR, TID 2000 in Enhanced SR.",
        "IHE AIR check 25; PS3.16 TID 2000",
        REPORTS,
        right_form,
    ),
    Rule(
        "report.flags",
        "Complete, unverified, preliminary; the procedure sequences are there.",
        "PS3.3 C.17.2; IHE AIR check 36",
        REPORTS,
        honest_flags,
    ),
    Rule(
        "report.context",
        "Language, one device observer and the imaging procedure are stated.",
        "PS3.16 TID 1500, TID 2000; IHE AIR checks 26, 27",
        REPORTS,
        stated_context,
    ),
    Rule(
        "report.references",
        "What the tree refers to exists and is the evidence, no more and no less.",
        "PS3.3 C.17.2.3; IHE AIR checks 35, 38",
        REPORTS,
        resolved_references,
    ),
    Rule(
        "report.segments",
        "Each referenced segment exists.",
        "PS3.3 C.18.4",
        REPORTS,
        existing_segments,
    ),
    Rule(
        "report.frames",
        "Frame numbers stand where the source is multi-frame, and only there.",
        "PS3.3 table 10-3; OHIF jumps to the frame",
        REPORTS,
        existing_frames,
    ),
    Rule(
        "report.content",
        "No empty Content Sequence.",
        "PS3.3 C.17.3: type 1C",
        REPORTS,
        filled_sequences,
    ),
    Rule(
        "report.tracking",
        "Each group has the Tracking UID of its segment.",
        "PS3.16 TID 4108; IHE AIR checks 19, 30",
        MEASUREMENT_REPORTS,
        tracked_segments,
    ),
    Rule(
        "report.coordinates",
        "Each tracking UID has at least one NUM with coordinates.",
        "OHIF shows nothing of a report in which one has none",
        MEASUREMENT_REPORTS,
        coordinates_for_each,
    ),
    Rule(
        "report.coordinates-inside",
        "Coordinates are SELECTED FROM one image and lie on it.",
        "PS3.3 C.18.6; OHIF; Slicer",
        MEASUREMENT_REPORTS,
        coordinates_inside,
    ),
    Rule(
        "report.units",
        "Units are those of CID 7460, 7461, 7462, 85, or counts.",
        "PS3.16; IHE AIR check 32",
        MEASUREMENT_REPORTS,
        known_units,
    ),
    Rule(
        "report.library",
        "The analysed images are listed.",
        "PS3.16 TID 1600; IHE AIR check 28",
        MEASUREMENT_REPORTS,
        has_library,
    ),
    Rule(
        "report.grounding",
        "A sentence names in words the segment and image that it is inferred from.",
        "OHIF hides the references",
        GROUNDED_REPORTS,
        grounded_in_words,
    ),
    Rule(
        "report.origin",
        "The impression says that it is AI-generated.",
        "readers must see it where they read",
        GROUNDED_REPORTS,
        names_its_origin,
    ),
)
