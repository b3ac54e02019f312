"""The functional groups of a SEG's frames: where they lie and what they come from.

PS3.3 C.7.6.16 (multi-frame functional groups), C.7.6.17 (dimensions), C.8.20.3.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from highdicom.sr import CodedConcept
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import format_number_as_ds

from dicom_node.objects.calibration import numbers, slice_thickness
from dicom_node.objects.geometry import unit_orientation
from dicom_node.objects.references import FrameReference
from dicom_node.objects.series import Source
from dicom_node.objects.slides import Tile, slide_orientation

NOMINAL_ORIENTATION = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
# Pixel Measures without Pixel Spacing is legal, but highdicom refuses to read it, and without Pixel
# Measures OHIF shows a black page: so an uncalibrated image gets a nominal spacing, as it gets a
# nominal orientation. Nothing is measured with it: the reports then speak of pixels.
NOMINAL_SPACING = (1.0, 1.0)
NOMINAL_THICKNESS = 1.0
STACK = "1"

SEGMENTATION = CodedConcept(value="113076", scheme_designator="DCM", meaning="Segmentation")
SOURCE_IMAGE = CodedConcept(
    value="121322",
    scheme_designator="DCM",
    meaning="Source image for image processing operation",
)


@dataclass(frozen=True, slots=True)
class SegmentFrame:
    """One frame of a SEG: its segment (``None`` in a label map) and its source frame, from 0."""

    segment: int | None
    source_frame: int


@dataclass(frozen=True, slots=True)
class Plane:
    """Where the frames of a source lie.

    Attributes
    ----------
    frame_of_reference_uid
        ``None`` when the source has no place in the patient's space.
    orientation
        Image Orientation (Patient); nominal without a place.
    positions
        Image Position (Patient) of each frame in mm; empty without a place.
    tiles
        Where each frame lies on a slide; the orientation is then that on the slide.
    """

    frame_of_reference_uid: str | None
    orientation: tuple[float, ...]
    positions: tuple[tuple[float, float, float], ...]
    tiles: tuple[Tile, ...] = ()


def plane_of(source: Source) -> Plane:
    """Return where a source's frames lie in the patient's space, or the nominal plane."""
    geometry = source.geometry
    header = source.headers[0]
    slide = str(header.get("FrameOfReferenceUID") or "") if source.tiles else ""
    if slide:
        return Plane(slide, slide_orientation(header), (), source.tiles)
    if geometry is None or not geometry.frame_of_reference_uid:
        return Plane(None, _orientation(header), ())
    positions = tuple((float(x), float(y), float(z)) for x, y, z in geometry.positions)
    return Plane(geometry.frame_of_reference_uid, tuple(geometry.orientation), positions)


def _orientation(header: Dataset) -> tuple[float, ...]:
    return unit_orientation(numbers(header, "ImageOrientationPatient")) or NOMINAL_ORIENTATION


def shared_groups(source: Source, plane: Plane) -> Dataset:
    """Return the shared functional groups: Pixel Measures and Plane Orientation, always both.

    On a slide the orientation stands outside the groups (PS3.3 C.8.12.4).
    """
    group = Dataset()
    group.PixelMeasuresSequence = DicomSequence([_pixel_measures(source)])
    if plane.tiles:
        return group
    orientation = Dataset()
    orientation.ImageOrientationPatient = [decimal(value) for value in plane.orientation]
    group.PlaneOrientationSequence = DicomSequence([orientation])
    return group


def decimal(value: float) -> str:
    """Return a number as a decimal string of at most 16 characters (PS3.5 6.2)."""
    return format_number_as_ds(float(value))


def _pixel_measures(source: Source) -> Dataset:
    """Return Pixel Measures (PS3.3 C.7.6.16.2.1) from the best calibration there is."""
    item = Dataset()
    header, geometry = source.headers[0], source.geometry
    spacing = source.calibration or _displayed_spacing(header) or NOMINAL_SPACING
    item.PixelSpacing = [decimal(value) for value in spacing]
    thickness = slice_thickness(source.frame_header(0))
    if source.tiles:
        thickness = thickness or _slide_thickness(header)
    between = None
    if geometry is not None and len(geometry.positions) > 1 and geometry.slice_spacing > 0:
        between = geometry.slice_spacing
    item.SliceThickness = decimal(thickness or between or NOMINAL_THICKNESS)
    if between is not None and geometry is not None and geometry.uniform:
        item.SpacingBetweenSlices = decimal(between)
    return item


def _slide_thickness(header: Dataset) -> float | None:
    for groups in header.get("SharedFunctionalGroupsSequence") or ():
        for item in groups.get("PixelMeasuresSequence") or ():
            return slice_thickness(item)
    return None


def _displayed_spacing(header: Dataset) -> tuple[float, float] | None:
    """Return (row, column) spacing for display where nothing promises millimetres."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        values = numbers(header, keyword)
        if len(values) == 2 and all(math.isfinite(value) and value > 0 for value in values):
            return values[0], values[1]
    return None


def dimension_organization(
    uid: str, *, segments: bool, plane: Plane, stacked: bool
) -> tuple[DicomSequence, DicomSequence]:
    """Return Dimension Organization Sequence and Dimension Index Sequence.

    Parameters
    ----------
    uid
        Dimension Organization UID.
    segments
        Whether the segment number is a dimension: not in a label map.
    stacked
        Whether frames without a place in space are told apart by their number in the stack.
    """
    organization = Dataset()
    organization.DimensionOrganizationUID = uid
    indices = []
    if segments:
        indices.append(
            _index(uid, "ReferencedSegmentNumber", "SegmentIdentificationSequence", "Segment")
        )
    if plane.tiles:
        for pointer, label in (
            ("RowPositionInTotalImagePixelMatrix", "Row Position"),
            ("ColumnPositionInTotalImagePixelMatrix", "Column Position"),
        ):
            indices.append(_index(uid, pointer, "PlanePositionSlideSequence", label))
    elif plane.frame_of_reference_uid is not None:
        indices.append(
            _index(uid, "ImagePositionPatient", "PlanePositionSequence", "Image Position Patient")
        )
    elif stacked:
        indices.append(_index(uid, "StackID", "FrameContentSequence", "Stack ID"))
        indices.append(
            _index(uid, "InStackPositionNumber", "FrameContentSequence", "In-Stack Position Number")
        )
    return DicomSequence([organization]), DicomSequence(indices)


def _index(uid: str, pointer: str, group: str, label: str) -> Dataset:
    item = Dataset()
    item.DimensionOrganizationUID = uid
    item.DimensionIndexPointer = Tag(pointer)
    item.FunctionalGroupPointer = Tag(group)
    item.DimensionDescriptionLabel = label
    return item


def per_frame_groups(
    frames: Sequence[SegmentFrame], references: Sequence[FrameReference], plane: Plane
) -> RawDataElement:
    """Return the per-frame functional groups, one item a frame, as they stand in the file.

    What frames share is encoded once: a segmentation of thousands of frames says the same few
    things again and again. Whoever looks at the attribute gets a sequence.

    Returns
    -------
    RawDataElement
        Per-Frame Functional Groups Sequence in Explicit VR Little Endian.
    """
    used = sorted({frame.source_frame for frame in frames})
    ranks = {index: rank for rank, index in enumerate(used, start=1)}
    tiles = plane.tiles
    down = _ranks(tiles[index].row for index in used) if tiles else {}
    along = _ranks(tiles[index].column for index in used) if tiles else {}
    stacked = (
        not plane.positions
        and not tiles
        and (len(references) > 1 or any(frame.segment is None for frame in frames))
    )
    parts: dict[int, tuple[bytes, bytes]] = {}
    places: dict[int, list[int]] = {}
    for index in used:
        place = Dataset()
        if plane.positions:
            place.PlanePositionSequence = DicomSequence([_position(plane, index)])
            places[index] = [ranks[index]]
        elif tiles:
            place.PlanePositionSlideSequence = DicomSequence([_tile(tiles[index])])
            places[index] = [down[tiles[index].row], along[tiles[index].column]]
        else:
            # dciodvfy holds the index to equal the position in the stack.
            places[index] = [1, index + 1] if stacked else []
        derivation = Dataset()
        derivation.DerivationImageSequence = DicomSequence([_derivation(references[index])])
        parts[index] = _encoded(derivation), _encoded(place)
    segments = {frame.segment: _encoded_segment(frame.segment) for frame in frames}
    items = []
    for frame in frames:
        index, number = frame.source_frame, frame.segment
        values = places[index] if number is None else [number, *places[index]]
        derived, placed = parts[index]
        # In the order of their tags.
        content = _encoded_content(index + 1 if stacked else None, values)
        items.append(_item(derived + content + placed + segments[number]))
    return _raw_sequence("PerFrameFunctionalGroupsSequence", b"".join(items))


def _raw_sequence(keyword: str, value: bytes) -> RawDataElement:
    return RawDataElement(
        BaseTag(Tag(keyword)), "SQ", len(value), value, 0, False, True, is_raw=True
    )


def _item(content: bytes) -> bytes:
    """Return an item of a sequence, with its length (PS3.5 7.5)."""
    return b"\xfe\xff\x00\xe0" + struct.pack("<I", len(content)) + content


def _encoded(dataset: Dataset) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, dataset)
    return buffer.getvalue()


def _encoded_segment(number: int | None) -> bytes:
    """Return Segment Identification; a label map has none."""
    if number is None:
        return b""
    identification, group = Dataset(), Dataset()
    identification.ReferencedSegmentNumber = number
    group.SegmentIdentificationSequence = DicomSequence([identification])
    return _encoded(group)


def _encoded_content(position: int | None, values: Sequence[int]) -> bytes:
    """Return Frame Content (PS3.3 C.7.6.16.2.2): place in the stack and dimension indices."""
    content = b""
    if position is not None:
        content += struct.pack("<HH2sH2s", 0x0020, 0x9056, b"SH", 2, STACK.encode().ljust(2))
        content += struct.pack("<HH2sHI", 0x0020, 0x9057, b"UL", 4, position)
    if values:
        content += struct.pack("<HH2sH", 0x0020, 0x9157, b"UL", 4 * len(values))
        content += struct.pack(f"<{len(values)}I", *values)
    item = _item(content)
    return struct.pack("<HH2sHI", 0x0020, 0x9111, b"SQ", 0, len(item)) + item


def _derivation(reference: FrameReference) -> Dataset:
    """Return the Derivation Image item (PS3.3 C.7.6.16.2.6) that names the source frame."""
    image = reference.item()
    image.PurposeOfReferenceCodeSequence = DicomSequence([SOURCE_IMAGE])
    image.SpatialLocationsPreserved = "YES"
    item = Dataset()
    item.DerivationCodeSequence = DicomSequence([SEGMENTATION])
    item.SourceImageSequence = DicomSequence([image])
    return item


def _ranks(values: Iterable[int]) -> dict[int, int]:
    return {value: rank for rank, value in enumerate(sorted(set(values)), start=1)}


def _tile(tile: Tile) -> Dataset:
    """Return the Plane Position (Slide) item (PS3.3 C.8.12.6.1)."""
    item = Dataset()
    item.ColumnPositionInTotalImagePixelMatrix = tile.column
    item.RowPositionInTotalImagePixelMatrix = tile.row
    item.XOffsetInSlideCoordinateSystem = decimal(tile.x)
    item.YOffsetInSlideCoordinateSystem = decimal(tile.y)
    item.ZOffsetInSlideCoordinateSystem = decimal(tile.z)
    return item


def _position(plane: Plane, index: int) -> Dataset:
    item = Dataset()
    item.ImagePositionPatient = [decimal(value) for value in plane.positions[index]]
    return item
