"""Reading a Segmentation back: which masks it holds, of which frames, in which colours.

PS3.3 A.51 (BINARY) and A.90 (LABELMAP). What is read is the object, not what the model held in
memory: a page that shows these masks shows what every other viewer gets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from highdicom.color import CIELabColor
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.pixels.utils import iter_pixels

from dicom_node.errors import FinalError, RetriableError
from dicom_node.objects.headers import PARSE_ERRORS
from dicom_node.objects.segmentation_bits import frame_bits

__all__ = [
    "Colour",
    "FrameMask",
    "SegmentRead",
    "SegmentationRead",
    "UnreadableSegmentationError",
    "read_segmentation",
]

Colour = tuple[int, int, int]

_WITHOUT_COLOUR: Final[Colour] = (0, 200, 180)


class UnreadableSegmentationError(FinalError):
    """The object cannot be read as a Segmentation; the sentence says why."""


class SegmentRead(NamedTuple):
    """One item of Segment Sequence (0062,0002).

    Attributes
    ----------
    number, label
        Segment Number and Segment Label.
    colour
        Recommended Display CIELab Value (0062,000D) as 8-bit sRGB; teal where it is missing.
    tracking_uid
        Tracking UID (0062,0021), empty where there is none.
    """

    number: int
    label: str
    colour: Colour
    tracking_uid: str


class FrameMask(NamedTuple):
    """Where one segment lies on one source frame.

    Attributes
    ----------
    segment
        Segment Number.
    sop_instance_uid, frame_number
        The source image, and the frame in it from 1 (1 for single-frame images too).
    mask
        Boolean (rows, columns) on the grid of that frame.
    """

    segment: int
    sop_instance_uid: str
    frame_number: int
    mask: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class SegmentationRead:
    """A Segmentation whose header was read; masks are unpacked when asked for.

    Attributes
    ----------
    rows, columns
        Size of every mask.
    segments
        By their numbers, the background of a label map left out.
    """

    rows: int
    columns: int
    segments: tuple[SegmentRead, ...]
    _dataset: Dataset

    def masks(self) -> Iterator[FrameMask]:
        """Give every mask with at least one pixel, in the order of the object's frames."""
        if self._dataset.SegmentationType == "BINARY":
            yield from self._binary_masks()
        elif self._dataset.SegmentationType == "FRACTIONAL":
            yield from self._fractional_masks()
        else:
            yield from self._label_masks()

    def _binary_masks(self) -> Iterator[FrameMask]:
        for index, groups in enumerate(self._dataset.PerFrameFunctionalGroupsSequence):
            mask = frame_bits(self._dataset, index)
            if mask.any():
                segment = int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
                yield FrameMask(segment, *_source_frame(groups), mask)

    def _fractional_masks(self) -> Iterator[FrameMask]:
        """Give where the value is at least half of the largest that is possible."""
        groups_of_frames = self._dataset.PerFrameFunctionalGroupsSequence
        largest = int(self._dataset.MaximumFractionalValue)
        for groups, values in zip(groups_of_frames, iter_pixels(self._dataset), strict=True):
            mask = values.astype(np.uint16) * 2 >= largest
            if mask.any():
                segment = int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
                yield FrameMask(segment, *_source_frame(groups), mask)

    def _label_masks(self) -> Iterator[FrameMask]:
        groups_of_frames = self._dataset.PerFrameFunctionalGroupsSequence
        for groups, labels in zip(groups_of_frames, iter_pixels(self._dataset), strict=True):
            uid, frame_number = _source_frame(groups)
            for segment in np.unique(labels[labels > 0]):
                yield FrameMask(int(segment), uid, frame_number, labels == segment)


def read_segmentation(segmentation: Path | Dataset) -> SegmentationRead:
    """Read a BINARY, FRACTIONAL or LABELMAP Segmentation.

    Parameters
    ----------
    segmentation
        The object or its file.

    Raises
    ------
    UnreadableSegmentationError
        It is of another kind, or damaged.
    RetriableError
        The operating system could not read the file.
    """
    try:
        dataset = dcmread(segmentation) if isinstance(segmentation, Path) else segmentation
        kind = str(dataset.SegmentationType)
        if kind not in ("BINARY", "FRACTIONAL", "LABELMAP"):
            raise UnreadableSegmentationError(f"segmentations of the type {kind} are not shown")
        size = int(dataset.Rows), int(dataset.Columns)
        _check_length(dataset, kind, size)
        segments = tuple(
            _segment(item) for item in dataset.SegmentSequence if int(item.SegmentNumber) > 0
        )
    except OSError as error:
        raise RetriableError(f"{segmentation} could not be read: {error}") from error
    except PARSE_ERRORS as error:
        raise UnreadableSegmentationError(f"the segmentation is damaged: {error}") from error
    return SegmentationRead(*size, segments, dataset)


def _check_length(dataset: Dataset, kind: str, size: tuple[int, int]) -> None:
    frames = len(dataset.PerFrameFunctionalGroupsSequence)
    if kind == "BINARY" and len(dataset.PixelData) * 8 < frames * size[0] * size[1]:
        raise UnreadableSegmentationError("the segmentation's Pixel Data (7FE0,0010) is cut off")


def _segment(item: Dataset) -> SegmentRead:
    return SegmentRead(
        int(item.SegmentNumber),
        str(item.get("SegmentLabel", "")),
        _colour(item),
        str(item.get("TrackingUID", "")),
    )


def _colour(item: Dataset) -> Colour:
    value = item.get("RecommendedDisplayCIELabValue")
    if value is None:
        return _WITHOUT_COLOUR
    red, green, blue = CIELabColor.from_dicom_value(tuple(int(part) for part in value)).to_rgb()
    return int(red), int(green), int(blue)


def _source_frame(groups: Dataset) -> tuple[str, int]:
    """Return the image and the frame in it that a mask was made of (PS3.3 C.7.6.16.2.6)."""
    image = groups.DerivationImageSequence[0].SourceImageSequence[0]
    numbers = image.get("ReferencedFrameNumber")
    if numbers in (None, ""):
        return str(image.ReferencedSOPInstanceUID), 1
    first = numbers if isinstance(numbers, int) else next(iter(numbers))
    return str(image.ReferencedSOPInstanceUID), int(first)
