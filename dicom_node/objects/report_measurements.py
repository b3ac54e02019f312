"""The tree of the measurement report: PS3.16 TID 1500 with TID 1411 and TID 1501 groups.

Each segment has two groups under one tracking UID: TID 1411 refers to the segment and holds what
was measured in it; TID 1501 holds the axes with their coordinates on the key slice (highdicom, as
the template, lets no coordinates into TID 1411). OHIF merges the two, and shows nothing at all of
a document in which one tracking UID has no coordinates: so every one has a line, in pixels where
the source has no calibration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    CodeContentItem,
    CodedConcept,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    CoordinatesForMeasurement,
    FindingSite,
    GraphicTypeValues,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    ReferencedSegment,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    SourceImageForRegion,
    SourceImageForSegmentation,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom.dataset import Dataset

from dicom_node.objects.identifiers import ResultIdentifiers, tracking_identifier
from dicom_node.objects.measurements import Axis, Measurements
from dicom_node.objects.provenance import (
    ARTIFICIAL_INTELLIGENCE,
    AlgorithmIdentity,
    NodeIdentity,
    single_line,
)
from dicom_node.objects.references import FrameReference, frame_references
from dicom_node.objects.report_context import (
    MILLIMETRE,
    PIXELS,
    code,
    dicom_code,
    image_library,
    language,
    observation_context,
    procedures_reported,
    text_item,
)
from dicom_node.objects.segments import Segment
from dicom_node.objects.series import Source
from dicom_node.objects.terminology import BILATERAL, LEFT, RIGHT, Codes, Term, describe
from inference.findings import Finding, Interpretation, Presence

PRESENCE = dicom_code("121052", "Presence of property")
# CID 240.
PRESENCE_VALUES: Mapping[Presence, CodedConcept] = {
    Presence.PRESENT: code("52101004", "SCT", "Present"),
    Presence.ABSENT: code("272519000", "SCT", "Absent"),
    Presence.UNCERTAIN: code("373068000", "SCT", "Undetermined"),
}
COMMENT = dicom_code("121106", "Comment")
QUALITATIVE_EVALUATIONS = code("C0034375", "UMLS", "Qualitative Evaluations")
CERTAINTY = dicom_code("111012", "Certainty of Finding")
PERCENT = code("%", "UCUM", "Percent")
VOLUME = code("118565006", "SCT", "Volume")
AREA = code("42798000", "SCT", "Area")
LONG_AXIS = code("103339001", "SCT", "Long Axis")
SHORT_AXIS = code("103340004", "SCT", "Short Axis")
MEAN = code("373098007", "SCT", "Mean")
STANDARD_DEVIATION = code("386136009", "SCT", "Standard Deviation")
MAXIMUM = code("56851009", "SCT", "Maximum")
MINIMUM = code("255605001", "SCT", "Minimum")
CUBIC_CENTIMETRE = code("cm3", "UCUM", "cubic centimeter")
SQUARE_MILLIMETRE = code("mm2", "UCUM", "square millimeter")
INTENSITIES: Mapping[str, tuple[CodedConcept, CodedConcept]] = {
    "HU": (
        dicom_code("112031", "Attenuation Coefficient"),
        code("[hnsf'U]", "UCUM", "Hounsfield unit"),
    ),
    "SUVbw": (
        dicom_code("126401", "SUVbw"),
        code("g/ml{SUVbw}", "UCUM", "Standardized Uptake Value body weight"),
    ),
}


Group = VolumetricROIMeasurementsAndQualitativeEvaluations | MeasurementsAndQualitativeEvaluations


def sensible(value: float) -> float:
    """Round to four significant digits: finer than any mask, coarser than any noise of floats."""
    return float(f"{value:.4g}")


def measurement_tree(
    source: Source,
    interpretation: Interpretation,
    segments: Sequence[Segment],
    measurements: Mapping[int, Measurements],
    segmentation: Dataset | None,
    identifiers: ResultIdentifiers,
    node: NodeIdentity,
    codes: Codes,
) -> Dataset:
    """Return the root container of the measurement report."""
    algorithm = AlgorithmIdentity.of(interpretation, node)
    references = frame_references(source)
    groups: list[Group] = []
    for segment in segments:
        assert segmentation is not None  # noqa: S101 - the caller has checked it
        measured = measurements[segment.index]
        groups.append(
            _segment_group(segment, measured, segmentation, references, identifiers, algorithm)
        )
        groups.append(_axes_group(segment, measured, references, identifiers, algorithm))
    without_mask = [
        (index, finding)
        for index, finding in enumerate(interpretation.findings)
        if finding.mask is None
    ]
    if not segments:
        groups = [
            _absence_group(index, finding, references, identifiers, algorithm, codes)
            for index, finding in without_mask
        ]
    report = MeasurementReport(
        observation_context=observation_context(algorithm, node),
        procedure_reported=procedures_reported(source),
        imaging_measurements=groups,
        title=dicom_code("126000", "Imaging Measurement Report"),
        language_of_content_item_and_descendants=language(),
    )
    root = report[0]
    root.ContinuityOfContent = "SEPARATE"
    children = list(root.ContentSequence)
    children.insert(len(children) - 1, image_library(source, references))
    if segments and without_mask:
        children.append(_qualitative_evaluations(without_mask, codes))
    root.ContentSequence = ContentSequence(children)
    return root


def _tracking(index: int, identifiers: ResultIdentifiers) -> TrackingIdentifier:
    return TrackingIdentifier(
        uid=identifiers.tracking_uid(index), identifier=tracking_identifier(index)
    )


def _algorithm(algorithm: AlgorithmIdentity, finding: Finding) -> AlgorithmIdentification:
    """Return TID 4019, with the values of Contributing Equipment."""
    return AlgorithmIdentification(
        name=algorithm.name,
        version=algorithm.version,
        parameters=[algorithm.parameters, f"prompt: {single_line(finding.prompt, 512) or '-'}"],
        family=ARTIFICIAL_INTELLIGENCE,
        manufacturer=algorithm.manufacturer,
    )


def finding_sites(term: Term) -> list[FindingSite]:
    """Return where the finding is: the region of a lesion, or the structure itself."""
    if term.region is not None:
        place, modifiers = term.region, term.region_modifiers
    elif term.is_anatomy:
        place, modifiers = term.type, term.type_modifiers
    else:
        return []
    sides = [modifier for modifier in modifiers if modifier in (LEFT, RIGHT, BILATERAL)]
    others = [modifier for modifier in modifiers if modifier not in (LEFT, RIGHT, BILATERAL)]
    return [
        FindingSite(
            anatomic_location=place.coded(),
            laterality=sides[0].coded() if sides else None,
            topographical_modifier=others[0].coded() if others else None,
        )
    ]


def _segment_group(
    segment: Segment,
    measured: Measurements,
    segmentation: Dataset,
    references: Sequence[FrameReference],
    identifiers: ResultIdentifiers,
    algorithm: AlgorithmIdentity,
) -> VolumetricROIMeasurementsAndQualitativeEvaluations:
    """Return the TID 1411 group of a segment."""
    term, finding = segment.term, segment.finding
    frames = np.flatnonzero(segment.mask.any(axis=(1, 2)))
    sources = [
        SourceImageForSegmentation(
            referenced_sop_class_uid=references[index].sop_class_uid,
            referenced_sop_instance_uid=references[index].sop_instance_uid,
            referenced_frame_numbers=references[index].frame_numbers,
        )
        for index in frames.tolist()
    ]
    return VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(segment.index, identifiers),
        referenced_segment=ReferencedSegment(
            sop_class_uid=segmentation.SOPClassUID,
            sop_instance_uid=segmentation.SOPInstanceUID,
            segment_number=segment.number,
            source_images=sources,
        ),
        finding_category=term.category.coded(),
        finding_type=term.type.coded(),
        finding_sites=finding_sites(term) or None,
        algorithm_id=_algorithm(algorithm, finding),
        measurements=_segment_measurements(finding, measured),
        qualitative_evaluations=[
            QualitativeEvaluation(PRESENCE, PRESENCE_VALUES[finding.presence])
        ],
    )


def _segment_measurements(finding: Finding, measured: Measurements) -> list[Measurement]:
    """Return what was measured over the whole segment."""
    items = []
    if measured.volume_cm3 is not None:
        items.append(
            Measurement(name=VOLUME, value=sensible(measured.volume_cm3), unit=CUBIC_CENTIMETRE)
        )
    if measured.unit is not None and measured.unit in INTENSITIES:
        name, unit = INTENSITIES[measured.unit]
        for value, derivation in (
            (measured.mean, MEAN),
            (measured.standard_deviation, STANDARD_DEVIATION),
            (measured.maximum, MAXIMUM),
            (measured.minimum, MINIMUM),
        ):
            if value is not None:
                items.append(
                    Measurement(name=name, value=sensible(value), unit=unit, derivation=derivation)
                )
    items.append(
        Measurement(name=CERTAINTY, value=round(finding.confidence * 100, 1), unit=PERCENT)
    )
    return items


def _axes_group(
    segment: Segment,
    measured: Measurements,
    references: Sequence[FrameReference],
    identifiers: ResultIdentifiers,
    algorithm: AlgorithmIdentity,
) -> MeasurementsAndQualitativeEvaluations:
    """Return the TID 1501 group with the axes on the key slice."""
    reference = references[measured.key_frame]
    items = [
        _axis_measurement(name, axis, reference)
        for name, axis in ((LONG_AXIS, measured.long_axis), (SHORT_AXIS, measured.short_axis))
        if axis is not None
    ]
    if measured.area_mm2 is not None:
        items.append(
            Measurement(name=AREA, value=sensible(measured.area_mm2), unit=SQUARE_MILLIMETRE)
        )
    else:
        items.append(Measurement(name=AREA, value=measured.area_px, unit=PIXELS))
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(segment.index, identifiers),
        finding_category=segment.term.category.coded(),
        finding_type=segment.term.type.coded(),
        finding_sites=finding_sites(segment.term) or None,
        algorithm_id=_algorithm(algorithm, segment.finding),
        measurements=items,
        source_images=[
            SourceImageForMeasurementGroup(
                referenced_sop_class_uid=reference.sop_class_uid,
                referenced_sop_instance_uid=reference.sop_instance_uid,
                referenced_frame_numbers=reference.frame_numbers,
            )
        ],
    )


def _axis_measurement(name: CodedConcept, axis: Axis, reference: FrameReference) -> Measurement:
    """Return an axis with its line on the key slice; in pixels where there are no millimetres."""
    length, unit = axis.length_mm, MILLIMETRE
    if length is None:
        length, unit = axis.length_px, PIXELS
    line = CoordinatesForMeasurement(
        graphic_type=GraphicTypeValues.POLYLINE,
        graphic_data=np.array([axis.start, axis.end], dtype=np.float64),
        # SourceImageForMeasurement would write INFERRED FROM where SELECTED FROM is asked for.
        source_image=SourceImageForRegion(
            referenced_sop_class_uid=reference.sop_class_uid,
            referenced_sop_instance_uid=reference.sop_instance_uid,
            referenced_frame_numbers=reference.frame_numbers,
        ),
    )
    return Measurement(name=name, value=sensible(length), unit=unit, referenced_coordinates=[line])


def _absence_group(
    index: int,
    finding: Finding,
    references: Sequence[FrameReference],
    identifiers: ResultIdentifiers,
    algorithm: AlgorithmIdentity,
    codes: Codes,
) -> MeasurementsAndQualitativeEvaluations:
    """Return the TID 1501 group that says what was looked for and not found (IHE AIR)."""
    term = describe(finding.target, codes)
    images = {reference.sop_instance_uid: reference for reference in references}
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(index, identifiers),
        finding_category=term.category.coded(),
        finding_type=term.type.coded(),
        finding_sites=finding_sites(term) or None,
        algorithm_id=_algorithm(algorithm, finding),
        qualitative_evaluations=[
            QualitativeEvaluation(PRESENCE, PRESENCE_VALUES[finding.presence])
        ],
        source_images=[
            SourceImageForMeasurementGroup(
                referenced_sop_class_uid=reference.sop_class_uid,
                referenced_sop_instance_uid=reference.sop_instance_uid,
            )
            for reference in images.values()
        ],
    )


def _qualitative_evaluations(
    findings: Sequence[tuple[int, Finding]], codes: Codes
) -> ContainerContentItem:
    """Return what was looked for and not found, beside groups with masks.

    A group of its own would need a tracking UID without coordinates, for which OHIF hides all.
    """
    contains = RelationshipTypeValues.CONTAINS
    container = ContainerContentItem(
        name=QUALITATIVE_EVALUATIONS, relationship_type=contains, is_content_continuous=False
    )
    items: list[ContentItem] = []
    for index, finding in findings:
        term = describe(finding.target, codes)
        items.append(
            CodeContentItem(
                name=term.type.coded(),
                value=PRESENCE_VALUES[finding.presence],
                relationship_type=contains,
            )
        )
        sentence = f"{tracking_identifier(index)}: {finding.text}"
        items.append(text_item(COMMENT, sentence, contains))
    container.ContentSequence = ContentSequence(items)
    return container
