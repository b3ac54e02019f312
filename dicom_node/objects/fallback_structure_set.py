"""The findings as an RT Structure Set (PS3.3 A.19), for radiotherapy planning systems.

Only of volumes with a frame of reference: contours are points in the patient's space. Outlines run
along the sides of pixels, so that a planning system that fills them gets the mask again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import RTStructureSetStorage

from dicom_node.objects.contours import Points, keyholed, rings
from dicom_node.objects.encoding import new_object
from dicom_node.objects.geometry import Geometry
from dicom_node.objects.identifiers import ResultIdentifiers
from dicom_node.objects.provenance import (
    LONG_STRING,
    SHORT_STRING,
    AlgorithmIdentity,
    NodeIdentity,
    complete_header,
    marker,
    single_line,
)
from dicom_node.objects.references import FrameReference, frame_references
from dicom_node.objects.segmentation_frames import decimal, plane_of
from dicom_node.objects.segments import Segment
from dicom_node.objects.series import Source
from inference.findings import Interpretation

KIND: Final = "structure_set"
# Retired as a study component, and what every structure set still names (PS3.3 C.8.8.5).
_DETACHED_STUDY: Final = "1.2.840.10008.3.1.2.3.1"


def build_structure_set(
    source: Source,
    segments: Sequence[Segment],
    interpretation: Interpretation,
    identifiers: ResultIdentifiers,
    node: NodeIdentity,
) -> Dataset | None:
    """Build the structure set of a job.

    Returns
    -------
    Dataset or None
        ``None`` where nothing was found, or the source has no place in the patient's space.
    """
    geometry, plane = source.geometry, plane_of(source)
    if not segments or geometry is None or plane.frame_of_reference_uid is None:
        return None
    algorithm = AlgorithmIdentity.of(interpretation, node)
    references = frame_references(source)
    dataset = new_object(RTStructureSetStorage, "RTSTRUCT")
    dataset.OperatorsName = ""
    complete_header(
        dataset,
        source.headers[0],
        kind=KIND,
        pair=identifiers.further(KIND),
        identifiers=identifiers,
        node=node,
        algorithm=algorithm,
    )
    dataset.StructureSetLabel = single_line(f"AI {algorithm.name}", SHORT_STRING)
    dataset.StructureSetDescription = marker(node)
    dataset.StructureSetDate, dataset.StructureSetTime = dataset.ContentDate, dataset.ContentTime
    del dataset.ContentDate, dataset.ContentTime  # they are not in this IOD
    dataset.ApprovalStatus = "UNAPPROVED"
    uid = plane.frame_of_reference_uid
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = uid, ""
    dataset.ReferencedFrameOfReferenceSequence = DicomSequence([_frame_of_reference(source, uid)])
    dataset.StructureSetROISequence = DicomSequence([_region(one, uid) for one in segments])
    dataset.ROIContourSequence = DicomSequence(
        [_contours(one, geometry, references) for one in segments]
    )
    dataset.RTROIObservationsSequence = DicomSequence([_observation(one) for one in segments])
    return dataset


def _frame_of_reference(source: Source, uid: str) -> Dataset:
    series = Dataset()
    series.SeriesInstanceUID = source.headers[0].SeriesInstanceUID
    images = []
    for header in source.headers:
        image = Dataset()
        image.ReferencedSOPClassUID = header.SOPClassUID
        image.ReferencedSOPInstanceUID = header.SOPInstanceUID
        images.append(image)
    series.ContourImageSequence = DicomSequence(images)
    study = Dataset()
    study.ReferencedSOPClassUID = _DETACHED_STUDY
    study.ReferencedSOPInstanceUID = source.headers[0].StudyInstanceUID
    study.RTReferencedSeriesSequence = DicomSequence([series])
    item = Dataset()
    item.FrameOfReferenceUID = uid
    item.RTReferencedStudySequence = DicomSequence([study])
    return item


def _region(segment: Segment, uid: str) -> Dataset:
    item = Dataset()
    item.ROINumber = segment.number
    item.ReferencedFrameOfReferenceUID = uid
    item.ROIName = single_line(segment.finding.target, LONG_STRING) or f"F{segment.index + 1}"
    item.ROIDescription = single_line(segment.finding.text, 1024)
    item.ROIGenerationAlgorithm = "AUTOMATIC"
    return item


def _contours(
    segment: Segment, geometry: Geometry, references: Sequence[FrameReference]
) -> Dataset:
    item = Dataset()
    item.ROIDisplayColor = list(segment.term.colour)
    item.ReferencedROINumber = segment.number
    contours: list[Dataset] = []
    for frame in np.flatnonzero(segment.mask.any(axis=(1, 2))).tolist():
        for outline in keyholed(rings(segment.mask[frame])):
            contour = Dataset()
            contour.ContourImageSequence = DicomSequence([references[frame].item()])
            contour.ContourGeometricType = "CLOSED_PLANAR"
            points = _in_patient(outline, geometry, frame)
            contour.NumberOfContourPoints = len(points)
            contour.ContourData = [decimal(value) for value in points.ravel()]
            contour.ContourNumber = len(contours) + 1
            contours.append(contour)
    item.ContourSequence = DicomSequence(contours)
    return item


def _in_patient(outline: Points, geometry: Geometry, frame: int) -> Points:
    """Return corners (column, row) of pixels as points in mm (PS3.3 C.7.6.2.1.1)."""
    row_spacing, column_spacing = geometry.spacing
    along_row = np.array(geometry.orientation[:3]) * column_spacing
    along_column = np.array(geometry.orientation[3:]) * row_spacing
    # Corners count from the corner of the first pixel, positions from its middle.
    places: Points = (
        geometry.positions[frame]
        + (outline[:, :1] - 0.5) * along_row
        + (outline[:, 1:] - 0.5) * along_column
    )
    return places


def _observation(segment: Segment) -> Dataset:
    item = Dataset()
    item.ObservationNumber = item.ReferencedROINumber = segment.number
    item.ROIObservationLabel = single_line(segment.finding.target, SHORT_STRING)
    item.RTROIInterpretedType = ""
    item.ROIInterpreter = ""
    term = segment.term
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = term.type.value, term.type.scheme
    code.CodeMeaning = term.type.meaning
    item.RTROIIdentificationCodeSequence = DicomSequence([code])
    return item
