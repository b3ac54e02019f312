"""The two structured reports of a job: measurements for machines, sentences for people.

The measurement report is TID 1500 in Comprehensive 3D SR, as IHE AI Results asks; the grounded
report is TID 2000 in Enhanced SR, which every PACS shows. Both are complete, unverified and
preliminary: no person has seen them (PS3.3 C.17.2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    EnhancedSRStorage,
)

from dicom_node.errors import FinalError
from dicom_node.objects import report_not_applicable
from dicom_node.objects.encoding import new_object
from dicom_node.objects.identifiers import ObjectIdentifiers, ResultIdentifiers
from dicom_node.objects.measurements import Measurements
from dicom_node.objects.provenance import (
    LONG_STRING,
    AlgorithmIdentity,
    NodeIdentity,
    complete_header,
    copied,
    single_line,
)
from dicom_node.objects.report_context import author_observer
from dicom_node.objects.report_measurements import measurement_tree
from dicom_node.objects.report_narrative import grounded_tree
from dicom_node.objects.segments import Segment, segments_of
from dicom_node.objects.series import Source
from dicom_node.objects.terminology import Codes
from inference.findings import Interpretation


class ReportError(FinalError):
    """What the report should speak of is not there: no measurements, no SEG, no findings."""


def build_measurement_report(
    source: Source,
    interpretation: Interpretation,
    measurements: Mapping[int, Measurements],
    segmentation: Dataset | None,
    identifiers: ResultIdentifiers,
    node: NodeIdentity,
    *,
    codes: Codes = Codes.ALL,
    sop_class: UID = Comprehensive3DSRStorage,
) -> Dataset:
    """Build the measurement report (TID 1500, Comprehensive 3D SR).

    Parameters
    ----------
    source, interpretation
        What was looked at, and what was found.
    measurements
        By index of the finding, from 0; one for each finding with a mask.
    segmentation
        The SEG of the same findings; ``None`` when nothing was found.
    identifiers
        Drawn once for the job.
    sop_class
        Enhanced SR for an archive that takes no Comprehensive 3D SR.

    Raises
    ------
    ReportError
        When there are no findings at all, or a finding with a mask lacks its measurements or SEG.
    """
    segments = _checked(interpretation, segmentation, codes)
    for segment in segments:
        measured = measurements.get(segment.index)
        if measured is None or measured.long_axis is None:
            raise ReportError(
                f"finding {segment.index + 1} has a mask but no long axis: a viewer would show "
                "nothing of a report in which one finding has no line"
            )
    tree = measurement_tree(
        source, interpretation, segments, measurements, segmentation, identifiers, node, codes
    )
    return _document(
        tree,
        source,
        sop_class=sop_class,
        kind="measurement_report",
        pair=identifiers.measurement_report,
        segmentation=segmentation,
        interpretation=interpretation,
        identifiers=identifiers,
        node=node,
    )


def build_grounded_report(
    source: Source,
    interpretation: Interpretation,
    measurements: Mapping[int, Measurements],
    segmentation: Dataset | None,
    identifiers: ResultIdentifiers,
    node: NodeIdentity,
) -> Dataset:
    """Build the grounded report (TID 2000, Enhanced SR): each sentence tied to its mask and image.

    Parameters and errors are those of `build_measurement_report`; a finding without measurements
    keeps its sentence.
    """
    segments = _checked(interpretation, segmentation, Codes.ALL)
    tree = grounded_tree(source, interpretation, segments, measurements, segmentation, node)
    return _document(
        tree,
        source,
        sop_class=EnhancedSRStorage,
        kind="grounded_report",
        pair=identifiers.grounded_report,
        segmentation=segmentation,
        interpretation=interpretation,
        identifiers=identifiers,
        node=node,
    )


def build_not_applicable_reports(
    source: Source,
    targets: Sequence[str],
    reason: str,
    interpretation: Interpretation,
    identifiers: ResultIdentifiers,
    node: NodeIdentity,
    *,
    codes: Codes = Codes.ALL,
) -> tuple[Dataset, Dataset]:
    """Build both reports of a source that was not interpreted.

    Parameters
    ----------
    source
        What was not interpreted.
    targets
        What was to be looked for; may be empty.
    reason
        A sentence, or the end of one after "Not interpreted:".
    interpretation
        Names the model; its findings are not used.

    Returns
    -------
    tuple of Dataset
        The measurement report and the text report.
    """
    algorithm = AlgorithmIdentity.of(interpretation, node)
    measurements = report_not_applicable.measurement_tree(
        source, targets, reason, algorithm, node, codes
    )
    narrative = report_not_applicable.narrative_tree(source, reason, algorithm, node)
    documents = [
        _document(
            tree,
            source,
            sop_class=sop_class,
            kind=kind,
            pair=pair,
            segmentation=None,
            interpretation=interpretation,
            identifiers=identifiers,
            node=node,
        )
        for tree, sop_class, kind, pair in (
            (
                measurements,
                Comprehensive3DSRStorage,
                "measurement_report",
                identifiers.measurement_report,
            ),
            (narrative, EnhancedSRStorage, "grounded_report", identifiers.grounded_report),
        )
    ]
    for document in documents:
        document.CompletionFlag = "PARTIAL"
        document.CompletionFlagDescription = single_line(
            report_not_applicable.sentence_of(reason), LONG_STRING
        )
    return documents[0], documents[1]


def _checked(
    interpretation: Interpretation, segmentation: Dataset | None, codes: Codes
) -> Sequence[Segment]:
    if not interpretation.findings:
        raise ReportError("there is nothing to report: no target was asked for")
    segments = segments_of(interpretation, codes)
    if segments and segmentation is None:
        raise ReportError("the findings have masks but no SEG: build it first")
    if segmentation is not None and len(segmentation.SegmentSequence) != len(segments):
        raise ReportError(
            f"the SEG has {len(segmentation.SegmentSequence)} segments, the findings have "
            f"{len(segments)} masks: they are not of the same job"
        )
    return segments


def _document(
    tree: Dataset,
    source: Source,
    *,
    sop_class: UID,
    kind: str,
    pair: ObjectIdentifiers,
    segmentation: Dataset | None,
    interpretation: Interpretation,
    identifiers: ResultIdentifiers,
    node: NodeIdentity,
) -> Dataset:
    """Return the document around a tree (PS3.3 C.17.1 to C.17.3)."""
    algorithm = AlgorithmIdentity.of(interpretation, node)
    dataset = new_object(sop_class, "SR")
    for element in tree:
        if element.keyword != "RelationshipType":
            dataset.add(element)
    dataset.CompletionFlag = "COMPLETE"
    dataset.VerificationFlag = "UNVERIFIED"
    dataset.PreliminaryFlag = "PRELIMINARY"
    dataset.ReferencedPerformedProcedureStepSequence = DicomSequence()
    dataset.PerformedProcedureCodeSequence = DicomSequence()
    predecessors = _predecessors(source.headers[0], identifiers, kind)
    if predecessors:
        dataset.PredecessorDocumentsSequence = predecessors
    dataset.AuthorObserverSequence = author_observer(algorithm, node)
    requests = _referenced_requests(source.headers[0])
    if requests:
        dataset.ReferencedRequestSequence = DicomSequence(requests)
    evidence = _evidence(dataset, source, segmentation)
    if evidence:
        dataset.CurrentRequestedProcedureEvidenceSequence = evidence
    complete_header(
        dataset,
        source.headers[0],
        kind=kind,
        pair=pair,
        identifiers=identifiers,
        node=node,
        algorithm=algorithm,
    )
    return dataset


def _predecessors(header: Dataset, identifiers: ResultIdentifiers, kind: str) -> DicomSequence:
    """Return Predecessor Documents Sequence: what this document replaces (PS3.3 C.17.2)."""
    series = []
    for one in identifiers.predecessors:
        if one.kind != kind:
            continue
        item, entry = Dataset(), Dataset()
        item.ReferencedSOPClassUID = one.sop_class_uid
        item.ReferencedSOPInstanceUID = one.instance_uid
        entry.SeriesInstanceUID = one.series_uid
        entry.ReferencedSOPSequence = DicomSequence([item])
        series.append(entry)
    if not series:
        return DicomSequence()
    study = Dataset()
    study.StudyInstanceUID = header.StudyInstanceUID
    study.ReferencedSeriesSequence = DicomSequence(series)
    return DicomSequence([study])


def referenced_instances(dataset: Dataset) -> dict[str, str]:
    """Return the SOP Instance UIDs that a content tree refers to, each with its SOP class."""
    found: dict[str, str] = {}
    for item in dataset.get("ContentSequence") or []:
        for reference in item.get("ReferencedSOPSequence") or []:
            found[str(reference.ReferencedSOPInstanceUID)] = str(reference.ReferencedSOPClassUID)
        found.update(referenced_instances(item))
    return found


def _evidence(dataset: Dataset, source: Source, segmentation: Dataset | None) -> DicomSequence:
    """Return Current Requested Procedure Evidence: what the tree refers to, no more and no less."""
    used = referenced_instances(dataset)
    series = []
    by_series: list[tuple[str, list[Dataset]]] = [
        (str(source.headers[0].SeriesInstanceUID), list(source.headers))
    ]
    if segmentation is not None:
        by_series.append((str(segmentation.SeriesInstanceUID), [segmentation]))
    for uid, instances in by_series:
        items = []
        for instance in instances:
            if str(instance.SOPInstanceUID) in used:
                item = Dataset()
                item.ReferencedSOPClassUID = instance.SOPClassUID
                item.ReferencedSOPInstanceUID = instance.SOPInstanceUID
                items.append(item)
        if items:
            entry = Dataset()
            entry.SeriesInstanceUID = uid
            entry.ReferencedSOPSequence = DicomSequence(items)
            series.append(entry)
    if not series:
        return DicomSequence()
    study = Dataset()
    study.StudyInstanceUID = source.headers[0].StudyInstanceUID
    study.ReferencedSeriesSequence = DicomSequence(series)
    return DicomSequence([study])


def _referenced_requests(header: Dataset) -> list[Dataset]:
    """Return the requests that the source answers (PS3.3 table C.17-2), type 2 ones empty."""
    requests = []
    for attributes in header.get("RequestAttributesSequence") or []:
        item = Dataset()
        item.StudyInstanceUID = header.StudyInstanceUID
        item.ReferencedStudySequence = DicomSequence()
        for keyword in (
            "AccessionNumber",
            "PlacerOrderNumberImagingServiceRequest",
            "FillerOrderNumberImagingServiceRequest",
            "RequestedProcedureID",
            "RequestedProcedureDescription",
        ):
            setattr(item, keyword, "")
            for holder in (header, attributes):
                if holder.get(keyword):
                    item.add(copied(holder[keyword]))
        item.RequestedProcedureCodeSequence = DicomSequence()
        for holder in (attributes, header):
            if holder.get("RequestedProcedureCodeSequence"):
                item.add(copied(holder["RequestedProcedureCodeSequence"]))
                break
        if attributes.get("IssuerOfAccessionNumberSequence"):
            item.add(copied(attributes["IssuerOfAccessionNumberSequence"]))
        requests.append(item)
    return requests
