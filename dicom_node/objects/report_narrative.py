"""The tree of the grounded report: PS3.16 TID 2000, each sentence inferred from its mask.

A sentence is a TEXT item INFERRED FROM an image reference to its segment and one to its key slice
(TID 2002 with TID 2001). OHIF hides such references, so the sentence also names both in words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from highdicom.sr import (
    CodedConcept,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    ImageContentItem,
    RelationshipTypeValues,
    TextContentItem,
)
from pydicom.dataset import Dataset

from dicom_node.objects.identifiers import tracking_identifier
from dicom_node.objects.measurements import Measurements
from dicom_node.objects.provenance import RESEARCH_USE, AlgorithmIdentity, NodeIdentity
from dicom_node.objects.references import FrameReference, frame_references
from dicom_node.objects.report_context import (
    code,
    dicom_code,
    language,
    observation_context,
    paragraph,
    procedure_items,
    text_item,
    wrapped,
)
from dicom_node.objects.report_measurements import sensible
from dicom_node.objects.segments import Segment
from dicom_node.objects.series import Source
from inference.findings import Finding, Interpretation, Presence

TITLE = code("18748-4", "LN", "Diagnostic Imaging Report")
FINDINGS = code("59776-5", "LN", "Findings")
IMPRESSIONS = code("19005-8", "LN", "Impressions")
FINDING = dicom_code("121071", "Finding")
IMPRESSION = dicom_code("121073", "Impression")
ILLUSTRATION_OF_ROI = dicom_code("121200", "Illustration of ROI")
BEST_ILLUSTRATION = dicom_code("121080", "Best illustration of finding")

# Old displays cut longer paragraphs.
DISPLAY_LIMIT = 1000


def grounded_tree(
    source: Source,
    interpretation: Interpretation,
    segments: Sequence[Segment],
    measurements: Mapping[int, Measurements],
    segmentation: Dataset | None,
    node: NodeIdentity,
) -> Dataset:
    """Return the root container of the grounded report."""
    algorithm = AlgorithmIdentity.of(interpretation, node)
    references = frame_references(source)
    by_index = {segment.index: segment for segment in segments}
    sentences: list[ContentItem] = []
    for index, finding in enumerate(interpretation.findings):
        segment = by_index.get(index)
        if segment is None or segmentation is None:
            sentences.append(_text(FINDING, wrapped(ungrounded_sentence(finding))))
            continue
        key = references[finding.key_frame or 0]
        sentences.append(_grounded(finding, segment, measurements.get(index), segmentation, key))
    root = ContainerContentItem(name=TITLE, template_id="2000", is_content_continuous=False)
    root.ContentSequence = ContentSequence(
        [
            *language(),
            *observation_context(algorithm, node),
            *procedure_items(source),
            _section(FINDINGS, sentences),
            _section(IMPRESSIONS, [_text(IMPRESSION, impression(interpretation, algorithm, node))]),
        ],
        is_root=False,
    )
    return root


def sentence(
    finding: Finding, segment: int, index: int, key: FrameReference, measured: Measurements | None
) -> str:
    """Return a finding's sentence with its numbers, segment and image.

    ``"The tumor is present (volume 12.3 cm3, long axis 31.5 mm) [F1: segment 1, image 15]."``
    """
    words = _without_stop(finding.text)
    # A grounded report's sentence says where and how large already.
    if finding.task == "grounded_report":
        measured = None
    numbers = ", ".join(spoken(measured)) if measured is not None else ""
    note = f" ({numbers})" if numbers else ""
    place = f"[{tracking_identifier(index)}: segment {segment}, image {key.image_number}]"
    return f"{words}{note} {place}."


def ungrounded_sentence(finding: Finding) -> str:
    """Return the sentence of a finding without a mask: nothing grounds it."""
    return _without_stop(finding.text) + "."


def spoken(measured: Measurements) -> list[str]:
    """Return the measurements as words, e.g. ``"volume 12.3 cm3"``."""
    words = []
    if measured.volume_cm3 is not None:
        words.append(f"volume {sensible(measured.volume_cm3):g} cm3")
    for name, axis in (("long axis", measured.long_axis), ("short axis", measured.short_axis)):
        if axis is None:
            continue
        if axis.length_mm is not None:
            words.append(f"{name} {sensible(axis.length_mm):g} mm")
        else:
            words.append(f"{name} {sensible(axis.length_px):g} pixels")
    if measured.area_mm2 is not None and measured.volume_cm3 is None:
        words.append(f"area {sensible(measured.area_mm2):g} mm2")
    if measured.unit is not None and measured.mean is not None:
        words.append(f"mean {sensible(measured.mean):g} {measured.unit}")
    if measured.unit == "SUVbw" and measured.maximum is not None:
        words.append(f"maximum {sensible(measured.maximum):g} {measured.unit}")
    return words


def impression(
    interpretation: Interpretation, algorithm: AlgorithmIdentity, node: NodeIdentity
) -> str:
    """Return the closing sentence: what was found of what was asked, and where it comes from."""
    findings = interpretation.findings
    parts = []
    for presence, words in (
        (Presence.PRESENT, "Found"),
        (Presence.UNCERTAIN, "Uncertain"),
        (Presence.ABSENT, "Looked for and not found"),
    ):
        names = list(dict.fromkeys(f.target for f in findings if f.presence is presence))
        if names:
            parts.append(f"{words}: {_listed(names)}.")
    if not findings:
        parts.append("Nothing was looked for.")
    origin = f"AI-generated by {algorithm.name} {algorithm.version}, not verified by a person."
    if node.research_use:
        origin = f"Research use only. {origin}"
    return " ".join([*parts, origin])


def _listed(names: Sequence[str]) -> str:
    text = ", ".join(names)
    return text if len(text) <= DISPLAY_LIMIT // 4 else text[: DISPLAY_LIMIT // 4] + "…"


def _without_stop(text: str) -> str:
    return paragraph(text).rstrip(" .")


def _grounded(
    finding: Finding,
    segment: Segment,
    measured: Measurements | None,
    segmentation: Dataset,
    key: FrameReference,
) -> TextContentItem:
    words = sentence(finding, segment.number, segment.index, key, measured)
    item = _text(FINDING, wrapped(words))
    inferred = RelationshipTypeValues.INFERRED_FROM
    item.ContentSequence = ContentSequence(
        [
            ImageContentItem(
                name=ILLUSTRATION_OF_ROI,
                referenced_sop_class_uid=segmentation.SOPClassUID,
                referenced_sop_instance_uid=segmentation.SOPInstanceUID,
                referenced_segment_numbers=segment.number,
                relationship_type=inferred,
            ),
            ImageContentItem(
                name=BEST_ILLUSTRATION,
                referenced_sop_class_uid=key.sop_class_uid,
                referenced_sop_instance_uid=key.sop_instance_uid,
                referenced_frame_numbers=key.frame_numbers,
                relationship_type=inferred,
            ),
        ]
    )
    return item


def _section(name: CodedConcept, items: Sequence[ContentItem]) -> ContainerContentItem:
    section = ContainerContentItem(
        name=name,
        relationship_type=RelationshipTypeValues.CONTAINS,
        is_content_continuous=False,
    )
    section.ContentSequence = ContentSequence(items)
    return section


def _text(name: CodedConcept, words: str) -> TextContentItem:
    return text_item(name, words, RelationshipTypeValues.CONTAINS)


__all__ = ["RESEARCH_USE", "grounded_tree", "impression", "sentence", "spoken"]
