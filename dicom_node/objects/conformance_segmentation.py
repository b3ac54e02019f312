"""Rules for segmentations as images (IHE AIR checks 15, 20 to 24), and what viewers need.

What their segments say of themselves: `conformance_segments`.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator

from pydicom.dataset import Dataset

from dicom_node.objects.calibration import numbers
from dicom_node.objects.conformance_rules import (
    SEGMENTATIONS,
    Need,
    Rule,
    Subject,
    first_code,
    text_of,
)
from dicom_node.objects.conformance_segments import is_binary, segments_in
from dicom_node.objects.references import is_multi_frame
from dicom_node.objects.segmentation_bits import frame_bits

POSITION_TOLERANCE_MM = 1e-3
SEGMENTATION_STORAGE = "1.2.840.10008.5.1.4.1.1.66.4"
LABEL_MAP_STORAGE = "1.2.840.10008.5.1.4.1.1.66.7"
UNCOMPRESSED = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1"})
DEFLATED = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.8.1"})
JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"
CODE_STRING = re.compile(r"[A-Z0-9 _]{1,16}")
SOURCE_IMAGE, SEGMENTATION = "121322", "113076"


def _frames(dataset: Dataset) -> list[Dataset]:
    return list(dataset.get("PerFrameFunctionalGroupsSequence") or [])


def _shared(dataset: Dataset) -> Dataset:
    items = dataset.get("SharedFunctionalGroupsSequence") or []
    return items[0] if items else Dataset()


def _group(dataset: Dataset, frame: Dataset, keyword: str) -> Dataset | None:
    """Return the functional group of a frame: its own, or the shared one (PS3.3 C.7.6.16)."""
    items = frame.get(keyword) or _shared(dataset).get(keyword) or []
    return items[0] if items else None


def _syntax(dataset: Dataset) -> str:
    meta = getattr(dataset, "file_meta", None)
    return str(meta.get("TransferSyntaxUID", "")) if meta is not None else ""


def known_type(subject: Subject) -> Iterator[str]:
    """Hold that class, type and its conditional attributes go together."""
    dataset = subject.dataset
    kind = dataset.get("SegmentationType")
    label_map = dataset.SOPClassUID == LABEL_MAP_STORAGE
    if kind not in ("BINARY", "FRACTIONAL", "LABELMAP"):
        yield f"Segmentation Type is {kind}"
    elif (kind == "LABELMAP") != label_map:
        yield f"Segmentation Type {kind} does not go with the class {dataset.SOPClassUID}"
    if kind == "FRACTIONAL":
        if dataset.get("SegmentationFractionalType") not in ("PROBABILITY", "OCCUPANCY"):
            yield "Segmentation Fractional Type is neither PROBABILITY nor OCCUPANCY"
        if not dataset.get("MaximumFractionalValue"):
            yield "Maximum Fractional Value is missing"


def readable_syntax(subject: Subject) -> Iterator[str]:
    """Hold compression to what the type allows, and the lossy flag to the source's."""
    dataset, syntax = subject.dataset, _syntax(subject.dataset)
    flag = text_of(dataset, "LossyImageCompression")
    if any(source.get("LossyImageCompression") == "01" for source in subject.sources.values()):
        if flag != "01":
            yield "the source was compressed with loss, Lossy Image Compression does not say so"
    if dataset.get("BurnedInAnnotation", "NO") != "NO":
        yield "Burned In Annotation is not NO"
    if not syntax or syntax in UNCOMPRESSED | DEFLATED:
        return
    if is_binary(dataset) and syntax != JPEG_2000_LOSSLESS:
        yield f"the transfer syntax {syntax} is not for single bits"
    elif is_binary(dataset):
        yield "single bits in JPEG 2000: dcmqi and OHIF cannot read them"


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
    if "ImageOrientationSlide" in dataset:
        return
    orientation = shared.get("PlaneOrientationSequence") or []
    if not orientation or len(orientation[0].get("ImageOrientationPatient") or []) != 6:
        yield "Plane Orientation is missing: OHIF never loads the object"


def placed_as_source(subject: Subject) -> Iterator[str]:
    """Hold frame of reference, matrix and positions to those of the source."""
    dataset, frames = subject.dataset, _frames(subject.dataset)
    keyword = "PlanePositionSequence"
    if "PlanePositionSlideSequence" in (frames[0] if frames else Dataset()):
        keyword = "PlanePositionSlideSequence"
    with_position = sum(_group(dataset, frame, keyword) is not None for frame in frames)
    tiled = dataset.get("DimensionOrganizationType") == "TILED_FULL"
    if dataset.get("FrameOfReferenceUID"):
        if with_position != len(frames) and not tiled:
            yield "a frame lacks its Plane Position, but there is a Frame of Reference"
    elif with_position:
        yield "there are Plane Positions, but no Frame of Reference"
    elif "PatientOrientation" not in dataset:
        yield "Patient Orientation is absent, and no frame of reference says how the patient lies"
    yield from _as_source(subject)


def _as_source(subject: Subject) -> Iterator[str]:
    dataset, source = subject.dataset, subject.source
    if source is None:
        return
    frame_of_reference = dataset.get("FrameOfReferenceUID")
    if frame_of_reference and frame_of_reference != source.get("FrameOfReferenceUID"):
        yield "Frame of Reference UID differs from the source's"
    for number, frame in enumerate(_frames(dataset), start=1):
        position = _group(dataset, frame, "PlanePositionSequence")
        for image in _source_images(frame):
            header = subject.sources.get(str(image.get("ReferencedSOPInstanceUID")))
            expected = () if header is None else numbers(header, "ImagePositionPatient")
            if position is None or len(expected) != 3:
                continue
            said = map(float, position.ImagePositionPatient)
            if math.dist(said, expected) > POSITION_TOLERANCE_MM:
                yield f"frame {number} does not lie where its source lies"


def same_grid(subject: Subject) -> Iterator[str]:
    """Compare the matrix with the source."""
    source = subject.source
    if source is None:
        return
    for keyword in ("Rows", "Columns"):
        if subject.dataset.get(keyword) != source.get(keyword):
            yield f"{keyword} differs from the source's"


def _source_images(frame: Dataset) -> list[Dataset]:
    return [
        image
        for derivation in frame.get("DerivationImageSequence") or []
        for image in derivation.get("SourceImageSequence") or []
    ]


def derived_from_sources(subject: Subject) -> Iterator[str]:
    """Hold that the object lists its sources, and each frame names its own among them."""
    dataset = subject.dataset
    series = dataset.get("ReferencedSeriesSequence") or []
    listed = {
        str(item.ReferencedSOPInstanceUID)
        for entry in series
        for item in entry.get("ReferencedInstanceSequence") or []
    }
    if not listed:
        yield "Referenced Series Sequence is missing: OHIF drops the object"
    for number, frame in enumerate(_frames(dataset), start=1):
        images = _source_images(frame) or _source_images(_shared(dataset))
        if not images and not _is_tiled(dataset):
            yield f"frame {number} names no source image"
        for image in images:
            if first_code(image, "PurposeOfReferenceCodeSequence") != SOURCE_IMAGE:
                yield f"frame {number}: the purpose of its reference is not Source image"
            uid = str(image.ReferencedSOPInstanceUID)
            if listed and uid not in listed:
                yield f"frame {number}: its source is not in Referenced Series Sequence"
            source = subject.sources.get(uid)
            if source is not None:
                yield from _names_source(number, image, source)
            elif subject.sources and subject.ours:
                yield f"frame {number} names a source image that is not there"


def _is_tiled(dataset: Dataset) -> bool:
    """Whether frames are placed on a slide, which needs no reference for each."""
    return "TotalPixelMatrixColumns" in dataset


def _names_source(number: int, image: Dataset, source: Dataset) -> Iterator[str]:
    if image.ReferencedSOPClassUID != source.SOPClassUID:
        yield f"frame {number}: the SOP class of its source is wrong"
    if ("ReferencedFrameNumber" in image) != is_multi_frame(source):
        yield f"frame {number}: Referenced Frame Number is for multi-frame sources, and only those"


def one_source_each(subject: Subject) -> Iterator[str]:
    """Hold that each frame has one source frame: Weasis lays it over just that."""
    for number, frame in enumerate(_frames(subject.dataset), start=1):
        count = len(_source_images(frame))
        if count != 1 and not _is_tiled(subject.dataset):
            yield f"frame {number} names {count} source images, not one"


def honest_content(subject: Subject) -> Iterator[str]:
    """Hold label, creator, overlap and colours to what the object is."""
    dataset = subject.dataset
    if CODE_STRING.fullmatch(text_of(dataset, "ContentLabel")) is None:
        yield "Content Label is not 1 to 16 capital letters, digits, spaces or underscores"
    automatic = all(
        item.get("SegmentAlgorithmType") == "AUTOMATIC" for _, item in segments_in(dataset)
    )
    if automatic and text_of(dataset, "ContentCreatorName"):
        yield "Content Creator's Name names a person, but an algorithm made all segments"
    for name, item in segments_in(dataset):
        if len(item.get("RecommendedDisplayCIELabValue") or []) != 3:
            yield f"{name}: RecommendedDisplayCIELabValue is missing"
    said = dataset.get("SegmentsOverlap")
    if (
        said in ("YES", "NO")
        and is_binary(dataset)
        and len(dataset.get("SegmentSequence") or []) > 1
    ):
        if _overlap(dataset) != (said == "YES"):
            yield f"Segments Overlap is {said}, and the frames say otherwise"


def _overlap(dataset: Dataset) -> bool:
    """Return whether two frames of one place have a pixel in common."""
    places: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for index, frame in enumerate(_frames(dataset)):
        position = _group(dataset, frame, "PlanePositionSequence")
        place = [str(position.ImagePositionPatient)] if position is not None else []
        for image in _source_images(frame):
            place += [text_of(image, "ReferencedSOPInstanceUID")]
            place += [text_of(image, "ReferencedFrameNumber")]
        places[tuple(place)].append(index)
    for indices in places.values():
        seen = None
        for index in indices if len(indices) > 1 else ():
            bits = frame_bits(dataset, index)
            if seen is None:
                seen = bits.copy()
            elif bool((seen & bits).any()):
                return True
            else:
                seen |= bits
    return False


def nothing_empty(subject: Subject) -> Iterator[str]:
    """Hold that every segment and every frame shows something."""
    dataset = subject.dataset
    numbers = {int(item.SegmentNumber) for _, item in segments_in(dataset)}
    if not numbers:
        yield "there is no segment: an empty result is said in the report, by no SEG"
    if not is_binary(dataset):
        return
    used = set()
    for frame in _frames(dataset):
        identification = _group(dataset, frame, "SegmentIdentificationSequence")
        if identification is not None:
            used.add(int(identification.ReferencedSegmentNumber))
    for number in sorted(numbers - used):
        yield f"segment {number} has no frame"
    for number in sorted(used - numbers):
        yield f"a frame is of segment {number}, which is not described"
    if _syntax(dataset) in UNCOMPRESSED | {""} and _pixels_fit(dataset):
        for index in range(int(dataset.get("NumberOfFrames") or 0)):
            if not frame_bits(dataset, index).any():
                yield f"frame {index + 1} is empty"


def _pixels_fit(dataset: Dataset) -> bool:
    pixels = int(dataset.Rows) * int(dataset.Columns) * int(dataset.get("NumberOfFrames") or 0)
    return len(dataset.get("PixelData", b"")) >= (pixels + 7) // 8


def whole_pixels(subject: Subject) -> Iterator[str]:
    """Hold the number of frames, of descriptions and of bits together."""
    dataset = subject.dataset
    count = int(dataset.get("NumberOfFrames") or 0)
    if len(_frames(dataset)) != count:
        yield f"Number of Frames is {count}, but {len(_frames(dataset))} are described"
        return
    if not is_binary(dataset) or _syntax(dataset) not in UNCOMPRESSED | {""}:
        return
    size = (int(dataset.Rows) * int(dataset.Columns) * count + 7) // 8
    data = dataset.get("PixelData", b"")
    if len(data) != size + size % 2:
        yield f"Pixel Data has {len(data)} bytes; {count} frames need {size + size % 2}"


def readable_type(subject: Subject) -> Iterator[str]:
    """Warn of what viewers do not show, or show wrongly."""
    dataset = subject.dataset
    if dataset.get("SegmentationType") == "FRACTIONAL":
        yield "FRACTIONAL: OHIF does not show it, and Weasis only the newest versions"
    if not is_binary(dataset):
        return
    pixels, frames = int(dataset.Rows) * int(dataset.Columns), int(dataset.NumberOfFrames)
    if pixels % 8 or pixels // 8 * frames % 2:
        yield (
            f"{dataset.Rows} x {dataset.Columns} in {frames} frames: OHIF 3.13 "
            "garbles such an object; a label map is right there"
        )


RULES: tuple[Rule, ...] = (
    Rule(
        "AIR-15",
        "Class, Segmentation Type and the attributes of the type go together.",
        "PS3.3 A.51, C.8.20.2",
        SEGMENTATIONS,
        known_type,
    ),
    Rule(
        "AIR-20",
        "Frame of Reference and positions are the source's, or neither is there.",
        "PS3.3 A.51.5, C.7.6.1, C.7.6.16.2.3",
        SEGMENTATIONS,
        placed_as_source,
    ),
    Rule(
        "AIR-21",
        "The sources are listed, and each frame names its own among them.",
        "PS3.3 C.7.6.16.2.6, C.12.2; OHIF and Weasis rely on it",
        SEGMENTATIONS,
        derived_from_sources,
    ),
    Rule(
        "AIR-22",
        "Content Label, creator, overlap and colours are stated and true.",
        "PS3.3 C.8.20.2, 10.9.1",
        SEGMENTATIONS,
        honest_content,
    ),
    Rule(
        "AIR-23",
        "No empty segment and no empty frame; where nothing is found there is no SEG.",
        "PS3.3 C.8.20.4; IHE AIR",
        SEGMENTATIONS,
        nothing_empty,
    ),
    Rule(
        "AIR-24",
        "Compression is one the type allows, and a lossy source stays known.",
        "PS3.3 C.7.6.1.1.5; PS3.5 8.2, A.4",
        SEGMENTATIONS,
        readable_syntax,
    ),
    Rule(
        "segmentation.pixels",
        "Pixel Data fits the frames.",
        "PS3.5 8.1.1",
        SEGMENTATIONS,
        whole_pixels,
    ),
    Rule(
        "viewer.shared-groups",
        "Pixel Measures and Plane Orientation stand in the shared functional groups.",
        "OHIF 3.12 and 3.13: a black page or nothing without them",
        SEGMENTATIONS,
        filled_shared_groups,
        foreign="warning",
    ),
    Rule(
        "viewer.grid",
        "Rows and columns are the source's.",
        "Weasis and OHIF do not resample",
        SEGMENTATIONS,
        same_grid,
        foreign="warning",
        needs=Need.SOURCES,
    ),
    Rule(
        "viewer.one-source",
        "Each frame names exactly one source frame.",
        "Weasis",
        SEGMENTATIONS,
        one_source_each,
        foreign="warning",
    ),
    Rule(
        "viewer.type",
        "Viewers show this type, and its bit stream ends on whole byte pairs.",
        "OHIF 3.13 (dcmjs) garbles others",
        SEGMENTATIONS,
        readable_type,
        "warning",
        "warning",
    ),
)
