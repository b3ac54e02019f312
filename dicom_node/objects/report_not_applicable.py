"""The trees of a source that was not interpreted: both reports say so, and why.

A silent node leaves open whether a series was forgotten or could not be read. These documents are
valid ones of their own: TID 1500 with Qualitative Evaluations in place of measurements, TID 2000
with the reason as its finding. They are complete only in part (PS3.3 C.17.2: Completion Flag).
"""

from __future__ import annotations

from collections.abc import Sequence

from highdicom.sr import (
    CodeContentItem,
    CodedConcept,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    RelationshipTypeValues,
)
from pydicom.dataset import Dataset

from dicom_node.objects.provenance import AlgorithmIdentity, NodeIdentity, marker
from dicom_node.objects.references import frame_references
from dicom_node.objects.report_context import (
    dicom_code,
    image_library,
    language,
    observation_context,
    paragraph,
    procedure_items,
    text_item,
    wrapped,
)
from dicom_node.objects.report_measurements import COMMENT, QUALITATIVE_EVALUATIONS
from dicom_node.objects.report_narrative import (
    FINDING,
    FINDINGS,
    IMPRESSION,
    IMPRESSIONS,
    TITLE,
)
from dicom_node.objects.series import Source
from dicom_node.objects.terminology import Codes, describe

MEASUREMENT_TITLE = dicom_code("126000", "Imaging Measurement Report")
NOT_ATTEMPTED = dicom_code("114007", "Measurement not attempted")  # CID 42
_CONTAINS = RelationshipTypeValues.CONTAINS


def sentence_of(reason: str) -> str:
    """Return what both documents say."""
    return f"Not interpreted: {paragraph(reason).rstrip(' .')}."


def measurement_tree(
    source: Source,
    targets: Sequence[str],
    reason: str,
    algorithm: AlgorithmIdentity,
    node: NodeIdentity,
    codes: Codes,
) -> Dataset:
    """Return the root container of the measurement report (TID 1500)."""
    items: list[ContentItem] = [
        CodeContentItem(
            name=describe(target, codes).type.coded(),
            value=NOT_ATTEMPTED,
            relationship_type=_CONTAINS,
        )
        for target in targets
    ]
    items.append(text_item(COMMENT, sentence_of(reason), _CONTAINS))
    children = [
        image_library(source, frame_references(source)),
        _container(QUALITATIVE_EVALUATIONS, items),
    ]
    return _root(MEASUREMENT_TITLE, "1500", source, algorithm, node, children)


def narrative_tree(
    source: Source, reason: str, algorithm: AlgorithmIdentity, node: NodeIdentity
) -> Dataset:
    """Return the root container of the text report (TID 2000)."""
    origin = f"{algorithm.name} {algorithm.version} was not applied. {marker(node)}"
    children = [
        _container(FINDINGS, [text_item(FINDING, wrapped(sentence_of(reason)), _CONTAINS)]),
        _container(IMPRESSIONS, [text_item(IMPRESSION, origin, _CONTAINS)]),
    ]
    return _root(TITLE, "2000", source, algorithm, node, children)


def _container(name: CodedConcept, items: Sequence[ContentItem]) -> ContainerContentItem:
    container = ContainerContentItem(
        name=name, relationship_type=_CONTAINS, is_content_continuous=False
    )
    container.ContentSequence = ContentSequence(items)
    return container


def _root(
    title: CodedConcept,
    template: str,
    source: Source,
    algorithm: AlgorithmIdentity,
    node: NodeIdentity,
    children: Sequence[ContentItem],
) -> Dataset:
    root = ContainerContentItem(name=title, template_id=template, is_content_continuous=False)
    root.ContentSequence = ContentSequence(
        [
            *language(),
            *observation_context(algorithm, node),
            *procedure_items(source),
            *children,
        ],
        is_root=False,
    )
    return root
