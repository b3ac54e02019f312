"""Masks that others drew: DICOM Segmentation and RT Structure Set on the grid of a source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import highdicom
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from dicom_node.errors import FinalError
from dicom_node.objects.geometry import Geometry
from dicom_node.objects.headers import PARSE_ERRORS, quiet_pydicom
from dicom_node.objects.series import Source

Mask = NDArray[np.bool_]
SEGMENTATION_CLASSES: Final = frozenset(
    {"1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"}
)
STRUCTURE_SET_CLASS: Final = "1.2.840.10008.5.1.4.1.1.481.3"
_OFF_PLANE_MM: Final = 0.5
"""A contour farther from every slice than this was drawn on another series."""


class AnnotationError(FinalError):
    """A segmentation or structure set that cannot be put on a source; the text says why."""


def read_annotations(paths: Sequence[Path]) -> list[Dataset]:
    """Read the segmentations and structure sets among files; all else is left out."""
    found: list[Dataset] = []
    for path in paths:
        try:
            with quiet_pydicom():
                header = dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID"])
                kind = str(header.get("SOPClassUID", ""))
                if kind in SEGMENTATION_CLASSES or kind == STRUCTURE_SET_CLASS:
                    found.append(dcmread(path))
        except (InvalidDicomError, OSError):
            continue
    return found


def masks_of(annotation: Dataset, source: Source) -> dict[str, Mask]:
    """Return the masks of an annotation by their label, on the grid of a source.

    Parameters
    ----------
    annotation
        Segmentation (PS3.3 A.51) or RT Structure Set (PS3.3 A.19).
    source
        The images that it may have been drawn on.

    Returns
    -------
    dict
        Label to a boolean array (frames, rows, columns); empty when it refers to other images.

    Raises
    ------
    AnnotationError
        When it refers to these images but cannot be put on them.
    """
    if str(annotation.SOPClassUID) == STRUCTURE_SET_CLASS:
        return _contours(annotation, source)
    return _segments(annotation, source)


def _segments(annotation: Dataset, source: Source) -> dict[str, Mask]:
    if not _refers_to(annotation, source):
        return {}
    try:
        with quiet_pydicom():
            segmentation = highdicom.seg.Segmentation.from_dataset(annotation)
            pixels = segmentation.get_pixels_by_source_instance(
                list(source.sop_instance_uids),
                assert_missing_frames_are_empty=True,
                rescale_fractional=True,
            )
            labels = [
                str(segmentation.get_segment_description(number).segment_label)
                for number in segmentation.segment_numbers
            ]
    except (*PARSE_ERRORS, RuntimeError) as error:
        raise AnnotationError(
            f"the segmentation {annotation.SOPInstanceUID} cannot be put on its images: {error}"
        ) from error
    return {label: pixels[..., place] > 0.5 for place, label in enumerate(labels)}


def _refers_to(annotation: Dataset, source: Source) -> bool:
    wanted = set(source.sop_instance_uids)
    series = [
        item
        for item in annotation.get("ReferencedSeriesSequence") or []
        if any(
            str(instance.get("ReferencedSOPInstanceUID", "")) in wanted
            for instance in item.get("ReferencedInstanceSequence") or []
        )
    ]
    return bool(series)


def _contours(annotation: Dataset, source: Source) -> dict[str, Mask]:
    geometry = source.geometry
    if geometry is None:
        return {}
    names = {
        int(item.ROINumber): str(item.get("ROIName", "")) or f"ROI {item.ROINumber}"
        for item in annotation.get("StructureSetROISequence") or []
    }
    # Some writers name the right series, and in each contour an instance that is not in it.
    whole = source.series_instance_uid in _referenced_series(annotation)
    wanted = set(source.sop_instance_uids)
    masks: dict[str, Mask] = {}
    for item in annotation.get("ROIContourSequence") or []:
        contours = [
            contour
            for contour in item.get("ContourSequence") or []
            if whole or _drawn_on(contour, wanted)
        ]
        if contours:
            name = names.get(int(item.ReferencedROINumber), f"ROI {item.ReferencedROINumber}")
            masks[name] = rasterise(contours, geometry)
    return masks


def _referenced_series(annotation: Dataset) -> set[str]:
    """Series that a structure set says it was drawn on (PS3.3 C.8.8.5)."""
    return {
        str(series.get("SeriesInstanceUID", ""))
        for frame in annotation.get("ReferencedFrameOfReferenceSequence") or []
        for study in frame.get("RTReferencedStudySequence") or []
        for series in study.get("RTReferencedSeriesSequence") or []
    }


def _drawn_on(contour: Dataset, wanted: set[str]) -> bool:
    images = contour.get("ContourImageSequence") or []
    return any(str(image.get("ReferencedSOPInstanceUID", "")) in wanted for image in images)


def rasterise(contours: Sequence[Dataset], geometry: Geometry) -> Mask:
    """Fill closed planar contours: a pixel is inside where its centre is.

    Contours of one slice combine by exclusive or, so that an inner one cuts a hole
    (PS3.3 C.8.8.6).

    Raises
    ------
    AnnotationError
        When a contour lies between or beside the slices.
    """
    mask = np.zeros((geometry.frames, geometry.rows, geometry.columns), np.bool_)
    distances = geometry.distances()
    for contour in contours:
        points = np.asarray(contour.ContourData, np.float64).reshape(-1, 3)
        away = np.abs(distances - float(points[0] @ geometry.normal))
        frame = int(away.argmin())
        if away[frame] > _OFF_PLANE_MM:
            raise AnnotationError(
                f"a contour lies {away[frame]:.2f} mm from the nearest slice of the series"
            )
        corners = np.array([geometry.patient_to_pixel(point.tolist())[1:] for point in points])
        mask[frame] ^= _filled(corners, geometry.rows, geometry.columns)
    return mask


def _filled(corners: NDArray[np.float64], rows: int, columns: int) -> Mask:
    """Even-odd rule on pixel centres; corners are (row, column)."""
    inside = np.zeros((rows, columns), np.bool_)
    column = np.arange(columns)
    after = np.roll(corners, -1, axis=0)
    for row in range(rows):
        crosses = (corners[:, 0] <= row) != (after[:, 0] <= row)
        if not crosses.any():
            continue
        first, second = corners[crosses], after[crosses]
        part = (row - first[:, 0]) / (second[:, 0] - first[:, 0])
        place = first[:, 1] + part * (second[:, 1] - first[:, 1])
        inside[row] = (place[:, None] > column[None]).sum(axis=0) % 2 == 1
    return inside
