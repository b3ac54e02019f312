"""Rules for segmentations: what viewers need beside what the standard asks."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from pydicom.dataset import Dataset

from dicom_node.objects.conformance_rules import SEGMENTATIONS, Rule, Subject, first_code
from dicom_node.objects.references import is_multi_frame

POSITION_TOLERANCE_MM = 1e-3
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


def _binary(dataset: Dataset) -> bool:
    return bool(dataset.get("SegmentationType") == "BINARY")


def _frames(dataset: Dataset) -> list[Dataset]:
    return list(dataset.get("PerFrameFunctionalGroupsSequence") or [])


def _shared(dataset: Dataset) -> Dataset:
    items = dataset.get("SharedFunctionalGroupsSequence") or []
    return items[0] if items else Dataset()


def readable_type(subject: Subject) -> Iterator[str]:
    """Hold the type to those that every viewer reads."""
    dataset = subject.dataset
    if dataset.get("SegmentationType") not in ("BINARY", "LABELMAP"):
        yield f"Segmentation Type {dataset.get('SegmentationType')} fails in viewers"
    meta = getattr(dataset, "file_meta", None)
    syntax = str(meta.get("TransferSyntaxUID", "")) if meta is not None else ""
    if _binary(dataset) and syntax and syntax != "1.2.840.10008.1.2.1":
        yield f"a BINARY object in the transfer syntax {syntax} fails in viewers"


def filled_shared_groups(subject: Subject) -> Iterator[str]:
    """Look for Pixel Measures and Plane Orientation in the shared groups."""
    dataset = subject.dataset
    if len(dataset.get("SharedFunctionalGroupsSequence") or []) != 1:
        yield "Shared Functional Groups Sequence has not exactly one item"
        return
    shared = _shared(dataset)
    measures = shared.get("PixelMeasuresSequence") or []
    if not measures or len(measures[0]) == 0:
        yield "Pixel Measures is missing: OHIF shows a black page"
    orientation = shared.get("PlaneOrientationSequence") or []
    if not orientation or len(orientation[0].get("ImageOrientationPatient") or []) != 6:
        yield "Plane Orientation is missing: OHIF never loads the object"


def placed_or_nominal(subject: Subject) -> Iterator[str]:
    """Hold that either everything of a place in space is there, or nothing."""
    dataset = subject.dataset
    with_position = sum("PlanePositionSequence" in frame for frame in _frames(dataset))
    if dataset.get("FrameOfReferenceUID"):
        if with_position != len(_frames(dataset)):
            yield "a frame lacks its Plane Position, but there is a Frame of Reference"
        return
    if with_position:
        yield "there are Plane Positions, but no Frame of Reference"
    if "PatientOrientation" not in dataset:
        yield "Patient Orientation is absent, and no frame of reference says how the patient lies"


def same_grid(subject: Subject) -> Iterator[str]:
    """Compare matrix and frame of reference with the source."""
    source = subject.source
    if source is None:
        return
    for keyword in ("Rows", "Columns"):
        if subject.dataset.get(keyword) != source.get(keyword):
            yield f"{keyword} differs from the source's"
    frame_of_reference = subject.dataset.get("FrameOfReferenceUID")
    if frame_of_reference and frame_of_reference != source.get("FrameOfReferenceUID"):
        yield "Frame of Reference UID differs from the source's"


def derived_from_sources(subject: Subject) -> Iterator[str]:
    """Hold that each frame names its source frame, and lies where that lies."""
    listed = {
        str(item.ReferencedSOPInstanceUID)
        for series in subject.dataset.get("ReferencedSeriesSequence") or []
        for item in series.get("ReferencedInstanceSequence") or []
    }
    for number, frame in enumerate(_frames(subject.dataset), start=1):
        images = [
            image
            for derivation in frame.get("DerivationImageSequence") or []
            for image in derivation.get("SourceImageSequence") or []
        ]
        if len(images) != 1:
            yield f"frame {number} names {len(images)} source images, not one"
            continue
        uid = str(images[0].ReferencedSOPInstanceUID)
        if uid not in listed:
            yield f"frame {number}: its source is not in Referenced Series Sequence"
        if not subject.sources:
            continue
        source = subject.sources.get(uid)
        if source is None:
            yield f"frame {number} names a source image that is not there"
            continue
        yield from _against_source(number, frame, images[0], source)


def _against_source(number: int, frame: Dataset, image: Dataset, source: Dataset) -> Iterator[str]:
    if image.ReferencedSOPClassUID != source.SOPClassUID:
        yield f"frame {number}: the SOP class of its source is wrong"
    if ("ReferencedFrameNumber" in image) != is_multi_frame(source):
        yield f"frame {number}: Referenced Frame Number is for multi-frame sources, and only those"
    positions = frame.get("PlanePositionSequence") or []
    expected = source.get("ImagePositionPatient")
    if positions and expected is not None:
        said = positions[0].ImagePositionPatient
        if math.dist(map(float, said), map(float, expected)) > POSITION_TOLERANCE_MM:
            yield f"frame {number} does not lie where its source lies"


def numbered_segments(subject: Subject) -> Iterator[str]:
    """Hold that the segments are numbered 1..k and none is empty."""
    dataset = subject.dataset
    numbers = [int(item.SegmentNumber) for item in dataset.get("SegmentSequence") or []]
    if 0 in numbers:
        yield "there is an item for the background: viewers shift names and colours by one"
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"the segments are numbered {numbers}, not 1 to {len(numbers)}"
    if not numbers:
        yield "there is no segment"
    if _binary(dataset):
        used = {
            int(item.ReferencedSegmentNumber)
            for frame in _frames(dataset)
            for item in frame.get("SegmentIdentificationSequence") or []
        }
        for number in set(numbers) - used:
            yield f"segment {number} has no frame"
        for number in used - set(numbers):
            yield f"a frame is of segment {number}, which is not described"


def described_segments(subject: Subject) -> Iterator[str]:
    """Hold that each segment says what it is, who found it and how to show it."""
    tracked: set[str] = set()
    for item in subject.dataset.get("SegmentSequence") or []:
        name = f"segment {item.get('SegmentNumber')}"
        for keyword in (
            "SegmentLabel",
            "SegmentAlgorithmName",
            "SegmentationAlgorithmIdentificationSequence",
            "RecommendedDisplayCIELabValue",
            "TrackingID",
            "TrackingUID",
        ):
            if not item.get(keyword):
                yield f"{name}: {keyword} is missing"
        if item.get("SegmentAlgorithmType") != "AUTOMATIC":
            yield f"{name}: Segment Algorithm Type is not AUTOMATIC"
        if first_code(item, "SegmentedPropertyCategoryCodeSequence") not in CATEGORIES:
            yield f"{name}: the property category is not in CID 7150"
        if not first_code(item, "SegmentedPropertyTypeCodeSequence"):
            yield f"{name}: the property type is missing"
        uid = str(item.get("TrackingUID", ""))
        if uid in tracked:
            yield f"{name}: another segment has the same Tracking UID"
        tracked.add(uid)


def whole_pixels(subject: Subject) -> Iterator[str]:
    """Hold the number of frames and of bits together, and no frame empty."""
    dataset = subject.dataset
    count = int(dataset.get("NumberOfFrames") or 0)
    if len(_frames(dataset)) != count:
        yield f"Number of Frames is {count}, but {len(_frames(dataset))} are described"
        return
    if not _binary(dataset):
        return
    pixels = int(dataset.Rows) * int(dataset.Columns)
    size = (pixels * count + 7) // 8
    data = dataset.get("PixelData", b"")
    if len(data) != size + size % 2:
        yield f"Pixel Data has {len(data)} bytes; {count} frames need {size + size % 2}"
        return
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")[: pixels * count]
    for number in np.flatnonzero(~bits.reshape(count, pixels).any(axis=1)):
        yield f"frame {number + 1} is empty"


def aligned(subject: Subject) -> Iterator[str]:
    """Warn of a bit stream that OHIF 3.13 reads wrongly."""
    dataset = subject.dataset
    if not _binary(dataset):
        return
    pixels = int(dataset.Rows) * int(dataset.Columns)
    if pixels % 8 or pixels // 8 * int(dataset.NumberOfFrames) % 2:
        yield (
            f"{dataset.Rows} x {dataset.Columns} in {dataset.NumberOfFrames} frames: OHIF 3.13 "
            "garbles such an object; a label map is right there"
        )


RULES: tuple[Rule, ...] = (
    Rule(
        "segmentation.type",
        "BINARY uncompressed, or LABELMAP.",
        "OHIF shows other forms wrongly or not at all; IHE AIR checks 15, 24",
        SEGMENTATIONS,
        readable_type,
    ),
    Rule(
        "segmentation.shared-groups",
        "Pixel Measures and Plane Orientation stand in the shared functional groups.",
        "OHIF 3.12 and 3.13: a black page or nothing without them",
        SEGMENTATIONS,
        filled_shared_groups,
    ),
    Rule(
        "segmentation.place",
        "Frame of Reference with Plane Positions, or neither and Patient Orientation.",
        "PS3.3 A.51.5, C.7.6.1",
        SEGMENTATIONS,
        placed_or_nominal,
    ),
    Rule(
        "segmentation.grid",
        "Rows, columns and frame of reference are the source's.",
        "Weasis and OHIF do not resample; IHE AIR check 20",
        SEGMENTATIONS,
        same_grid,
    ),
    Rule(
        "segmentation.derivation",
        "Each frame names its one source frame and lies where that lies.",
        "PS3.3 C.7.6.16.2.6; Weasis; IHE AIR checks 20, 21",
        SEGMENTATIONS,
        derived_from_sources,
    ),
    Rule(
        "segmentation.numbers",
        "Segments are numbered from 1, none is empty, none is the background.",
        "PS3.3 C.8.20.4; OHIF shifts labels; IHE AIR checks 17, 23",
        SEGMENTATIONS,
        numbered_segments,
    ),
    Rule(
        "segmentation.description",
        "Each segment has label, category, type, algorithm, tracking identity and colour.",
        "PS3.3 C.8.20.4; IHE AIR checks 17, 18, 19, 22",
        SEGMENTATIONS,
        described_segments,
    ),
    Rule(
        "segmentation.pixels",
        "Pixel Data fits the frames, and no frame is empty.",
        "PS3.5 8.1.1",
        SEGMENTATIONS,
        whole_pixels,
    ),
    Rule(
        "segmentation.alignment",
        "The bit stream of a BINARY object ends on whole byte pairs.",
        "OHIF 3.13 (dcmjs) garbles others",
        SEGMENTATIONS,
        aligned,
        "warning",
    ),
)
