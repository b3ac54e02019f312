"""Key Object Selections: the slices that show the findings best, and notes that reject results.

PS3.3 A.35.4, PS3.16 TID 2010. A rejection note (IHE IOCM) lists what an archive shall no longer
show; it is written only when a person asks for it.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Final

from highdicom.sr import (
    CodedConcept,
    CompositeContentItem,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    ImageContentItem,
    ObservationContext,
    RelationshipTypeValues,
    TextContentItem,
)
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import KeyObjectSelectionDocumentStorage

from dicom_node.objects.encoding import new_object
from dicom_node.objects.identifiers import ObjectIdentifiers, ResultIdentifiers
from dicom_node.objects.provenance import (
    AlgorithmIdentity,
    NodeIdentity,
    complete_header,
    marker,
)
from dicom_node.objects.references import FrameReference, frame_references
from dicom_node.objects.report_context import dicom_code, observation_context, paragraph
from dicom_node.objects.segments import Segment
from dicom_node.objects.series import Source
from inference.findings import Interpretation

KIND: Final = "key_objects"
REJECTION_KIND: Final = "rejection_note"
OF_INTEREST: Final = dicom_code("113000", "Of Interest")
DESCRIPTION: Final = dicom_code("113012", "Key Object Description")
_CONTAINS: Final = RelationshipTypeValues.CONTAINS


class Rejection(enum.StrEnum):
    """Why results are withdrawn (PS3.16 CID 7011, IHE IOCM)."""

    QUALITY = "quality"
    PATIENT_SAFETY = "safety"
    RETENTION = "retention"

    @property
    def code(self) -> CodedConcept:
        """The title that tells an archive the reason."""
        return {
            Rejection.QUALITY: dicom_code("113001", "Rejected for Quality Reasons"),
            Rejection.PATIENT_SAFETY: dicom_code("113037", "Rejected for Patient Safety Reasons"),
            Rejection.RETENTION: dicom_code("113039", "Data Retention Policy Expired"),
        }[self]


def build_key_objects(
    source: Source,
    segments: Sequence[Segment],
    interpretation: Interpretation,
    identifiers: ResultIdentifiers,
    node: NodeIdentity,
) -> Dataset | None:
    """Build the selection of the key slices of all findings; ``None`` where nothing was found."""
    if not segments:
        return None
    references = frame_references(source)
    keys: dict[tuple[str, int | None], FrameReference] = {}
    for segment in segments:
        reference = references[segment.finding.key_frame or 0]
        keys[reference.sop_instance_uid, reference.frame_number] = reference
    names = ", ".join(
        f"F{segment.index + 1} {segment.finding.target} (image "
        f"{references[segment.finding.key_frame or 0].image_number})"
        for segment in segments
    )
    algorithm = AlgorithmIdentity.of(interpretation, node)
    items: list[ContentItem] = [
        ImageContentItem(
            name=dicom_code("113000", "Of Interest"),
            referenced_sop_class_uid=key.sop_class_uid,
            referenced_sop_instance_uid=key.sop_instance_uid,
            referenced_frame_numbers=key.frame_numbers,
            relationship_type=_CONTAINS,
        )
        for key in keys.values()
    ]
    evidence = {
        str(source.headers[0].SeriesInstanceUID): list(
            dict.fromkeys((key.sop_class_uid, key.sop_instance_uid) for key in keys.values())
        )
    }
    dataset = _document(
        OF_INTEREST, f"Key slices: {names}. {marker(node)}", items, evidence, source.headers[0],
        observation_context(algorithm, node),
    )  # fmt: skip
    complete_header(
        dataset,
        source.headers[0],
        kind=KIND,
        pair=identifiers.further(KIND),
        identifiers=identifiers,
        node=node,
        algorithm=algorithm,
    )
    return dataset


def build_rejection_note(
    rejected: Sequence[Dataset],
    rejection: Rejection,
    words: str,
    pair: ObjectIdentifiers,
    identifiers: ResultIdentifiers,
    algorithm: AlgorithmIdentity,
    node: NodeIdentity,
) -> Dataset:
    """Build the note that withdraws results.

    Parameters
    ----------
    rejected
        The results, as they were sent: all of one study, at least one.
    rejection, words
        Why, as the code that an archive acts on and in words for people.
    pair
        Series and instance of the note, drawn once for it.
    """
    first = rejected[0]
    evidence: dict[str, list[tuple[str, str]]] = {}
    items: list[ContentItem] = []
    for one in rejected:
        evidence.setdefault(str(one.SeriesInstanceUID), []).append(
            (str(one.SOPClassUID), str(one.SOPInstanceUID))
        )
        item_class = ImageContentItem if "Rows" in one else CompositeContentItem
        items.append(
            item_class(
                name=rejection.code,
                referenced_sop_class_uid=one.SOPClassUID,
                referenced_sop_instance_uid=one.SOPInstanceUID,
                relationship_type=_CONTAINS,
            )
        )
    dataset = _document(
        rejection.code,
        f"Withdrawn by the operator of the node that wrote them: {words}",
        items,
        evidence,
        first,
        observation_context(algorithm, node),
    )
    complete_header(
        dataset,
        first,
        kind=REJECTION_KIND,
        pair=pair,
        identifiers=identifiers,
        node=node,
        algorithm=algorithm,
    )
    return dataset


def _document(
    title: CodedConcept,
    words: str,
    items: Sequence[ContentItem],
    evidence: dict[str, list[tuple[str, str]]],
    header: Dataset,
    observers: ObservationContext,
) -> Dataset:
    """Return Key Object Document Series and Key Object Document (PS3.3 C.17.6)."""
    dataset = new_object(KeyObjectSelectionDocumentStorage, "KO")
    dataset.ReferencedPerformedProcedureStepSequence = DicomSequence()
    root = ContainerContentItem(name=title, template_id="2010", is_content_continuous=False)
    description = TextContentItem(
        name=DESCRIPTION, value=paragraph(words), relationship_type=_CONTAINS
    )
    root.ContentSequence = ContentSequence([*observers, description, *items], is_root=False)
    for element in root:
        if element.keyword != "RelationshipType":
            dataset.add(element)
    # Of images and composites, the template names neither: the title says what they are.
    for item in dataset.ContentSequence:
        if item.ValueType in ("IMAGE", "COMPOSITE"):
            del item.ConceptNameCodeSequence
    study = Dataset()
    study.StudyInstanceUID = header.StudyInstanceUID
    study.ReferencedSeriesSequence = DicomSequence(
        [_series(uid, instances) for uid, instances in evidence.items()]
    )
    dataset.CurrentRequestedProcedureEvidenceSequence = DicomSequence([study])
    return dataset


def _series(uid: str, instances: Sequence[tuple[str, str]]) -> Dataset:
    series = Dataset()
    series.SeriesInstanceUID = uid
    items = []
    for sop_class, instance in instances:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, instance
        items.append(item)
    series.ReferencedSOPSequence = DicomSequence(items)
    return series
