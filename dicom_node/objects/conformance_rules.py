"""What a rule of the gate is, and what it sees.

A rule of the IHE AI Results checklist has an id from ``AIR-01`` to ``AIR-43``; the others are named
for their reason: ``viewer.`` (a viewer shows the object wrongly or not at all), ``header.`` and
``report.`` (what this node promises of its own objects).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from dicom_node.objects.provenance import COPIED_KEYWORDS

Severity = Literal["error", "warning"]


class Kind(enum.StrEnum):
    """The kinds of result object."""

    SEGMENTATION = "segmentation"
    MEASUREMENT_REPORT = "measurement report"
    TEXT_REPORT = "text report"
    KEY_OBJECTS = "key object selection"
    SECONDARY_CAPTURE = "secondary capture"
    DOCUMENT = "encapsulated document"
    STRUCTURE_SET = "structure set"


ALL_KINDS = frozenset(Kind)
# What IHE AI Results speaks of; the other kinds may be sent in addition (1.3, section 4.1).
AIR_KINDS = frozenset({Kind.SEGMENTATION, Kind.MEASUREMENT_REPORT, Kind.KEY_OBJECTS})
REPORTS = frozenset({Kind.MEASUREMENT_REPORT, Kind.TEXT_REPORT})
DOCUMENTS = frozenset({*REPORTS, Kind.KEY_OBJECTS})
SEGMENTATIONS = frozenset({Kind.SEGMENTATION})
MEASUREMENT_REPORTS = frozenset({Kind.MEASUREMENT_REPORT})
TEXT_REPORTS = frozenset({Kind.TEXT_REPORT})
KEY_OBJECTS = frozenset({Kind.KEY_OBJECTS})

MODALITIES: Mapping[Kind, frozenset[str]] = {
    Kind.SEGMENTATION: frozenset({"SEG"}),
    Kind.MEASUREMENT_REPORT: frozenset({"SR"}),
    Kind.TEXT_REPORT: frozenset({"SR"}),
    Kind.KEY_OBJECTS: frozenset({"KO"}),
    Kind.DOCUMENT: frozenset({"DOC", "OT"}),
    Kind.STRUCTURE_SET: frozenset({"RTSTRUCT"}),
}

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_SOP_CLASSES: Mapping[str, Kind] = {
    f"{_STORAGE}66.4": Kind.SEGMENTATION,
    f"{_STORAGE}66.7": Kind.SEGMENTATION,
    f"{_STORAGE}88.59": Kind.KEY_OBJECTS,
    f"{_STORAGE}7": Kind.SECONDARY_CAPTURE,
    f"{_STORAGE}104.1": Kind.DOCUMENT,
    f"{_STORAGE}481.3": Kind.STRUCTURE_SET,
}
REPORT_CLASSES = frozenset(f"{_STORAGE}88.{suffix}" for suffix in ("11", "22", "33", "34", "35"))
# CID 7021 and the template: what makes a report one of measurements.
MEASUREMENT_TITLES = frozenset({"126000", "126001", "126002", "126003", "126010"})
MEASUREMENT_TEMPLATE = "1500"

INHERITED_KEYWORDS = frozenset(
    {
        *COPIED_KEYWORDS,
        "BodyPartExamined",
        "FrameOfReferenceUID",
        "Laterality",
        "LossyImageCompressionMethod",
        "LossyImageCompressionRatio",
        "PatientOrientation",
        "PositionReferenceIndicator",
        "ReferencedRequestSequence",
    }
)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with an object.

    Attributes
    ----------
    rule
        Id of the rule that was broken, e.g. ``"AIR-05"``.
    severity
        An object with an error is never sent.
    text
        What is wrong and where, without patient data.
    object
        SOP Instance UID of the object, or the name of its file.
    """

    rule: str
    severity: Severity
    text: str
    object: str


class Need(enum.StrEnum):
    """What a rule needs beside the object; without it the rule says nothing."""

    SOURCES = "the source images"
    STATUSES = "what the archive answered to C-STORE"
    RETURNED = "the object as the archive gives it back"
    LISTED = "what a query for the object answers"
    COMMITMENTS = "the answers to storage commitment"


@dataclass(frozen=True, slots=True)
class Delivery:
    """How objects fared on their way, as far as it is known; keys are SOP Instance UIDs.

    Attributes
    ----------
    statuses
        Status of the C-STORE response.
    proofs
        What proved that the archive has the object, e.g. ``"find"``.
    returned
        The object as it was retrieved.
    listed
        What queries at the image or series level answered for the object, one for each archive.
    commitments
        By Transaction UID: whether each instance of the request was committed to; ``None`` while no
        N-EVENT-REPORT came.
    unasked
        Objects that nobody was to be asked about, by what the question would have told.
    """

    statuses: Mapping[str, int] | None = None
    proofs: Mapping[str, str] = field(default_factory=dict)
    returned: Mapping[str, Dataset] | None = None
    listed: Mapping[str, Sequence[Dataset]] | None = None
    commitments: Mapping[str, Mapping[str, bool | None]] | None = None
    unasked: Mapping[Need, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Subject:
    """One object under examination, with all that belongs to it.

    Attributes
    ----------
    dataset, kind
        The object.
    objects
        All objects that go out together, this one among them.
    sources
        Headers of the source images by SOP Instance UID.
    ours
        Whether this node wrote it: then it is held to what the node promises of itself.
    predecessors
        SOP Instance UIDs of the reports that these results replace.
    delivery
        How the objects fared on their way.
    """

    dataset: Dataset
    kind: Kind
    objects: tuple[Dataset, ...]
    sources: Mapping[str, Dataset]
    ours: bool = True
    predecessors: frozenset[str] = frozenset()
    delivery: Delivery = field(default_factory=Delivery)

    @property
    def uid(self) -> str:
        """SOP Instance UID of the object."""
        return str(self.dataset.get("SOPInstanceUID", ""))

    @property
    def source(self) -> Dataset | None:
        """One source image, for what all of them share."""
        return next(iter(self.sources.values()), None)

    @property
    def segmentations(self) -> dict[str, Dataset]:
        """The segmentations among the objects, by SOP Instance UID."""
        return {
            str(other.SOPInstanceUID): other
            for other in self.objects
            if kind_of(other) is Kind.SEGMENTATION
        }

    def has(self, need: Need) -> bool:
        """Return whether something that rules need is known."""
        known: Mapping[Need, object] = {
            Need.SOURCES: self.sources or None,
            Need.STATUSES: self.delivery.statuses,
            Need.RETURNED: self.delivery.returned,
            Need.LISTED: self.delivery.listed,
            Need.COMMITMENTS: self.delivery.commitments,
        }
        unasked = self.delivery.unasked.get(need, frozenset())
        return known[need] is not None and self.uid not in unasked


Check = Callable[[Subject], Iterable[str]]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of the gate.

    Attributes
    ----------
    id
        Stable name; never reused for another rule.
    text
        What must hold.
    source
        Where the rule comes from: a part of the standard, IHE AIR, or a viewer that fails.
    kinds
        The objects that it is for.
    check
        Yields a sentence for each place where it does not hold; ``None`` where an outside program
        checks it (`conformance_tools`).
    severity
        What a fault is in an object of this node.
    foreign
        What a fault is in an object of somebody else; ``None`` where only this node's own are held
        to the rule.
    foreign_kinds
        The kinds of object of somebody else that are held to the rule: what a person wrote need not
        name an algorithm.
    needs
        What must be known beside the object.
    """

    id: str
    text: str
    source: str
    kinds: frozenset[Kind]
    check: Check | None
    severity: Severity = "error"
    foreign: Severity | None = "error"
    foreign_kinds: frozenset[Kind] = AIR_KINDS
    needs: Need | None = None

    def severity_for(self, subject: Subject) -> Severity | None:
        """Return what a fault is in this object; ``None`` where it is not held to the rule."""
        if subject.kind not in self.kinds:
            return None
        if subject.ours:
            return self.severity
        return self.foreign if subject.kind in self.foreign_kinds else None


def kind_of(dataset: Dataset) -> Kind | None:
    """Return what an object is, by SOP class and, for reports, by title and template."""
    sop_class = str(dataset.get("SOPClassUID", ""))
    if sop_class not in REPORT_CLASSES:
        return _SOP_CLASSES.get(sop_class)
    templates = dataset.get("ContentTemplateSequence") or []
    template = str(templates[0].get("TemplateIdentifier", "")) if templates else ""
    title = first_code(dataset, "ConceptNameCodeSequence")
    if template == MEASUREMENT_TEMPLATE or title in MEASUREMENT_TITLES:
        return Kind.MEASUREMENT_REPORT
    return Kind.TEXT_REPORT


def first_code(dataset: Dataset, keyword: str) -> str:
    """Return the code value of the first item of a code sequence, or an empty string."""
    items = dataset.get(keyword) or []
    if not items:
        return ""
    return str(items[0].get("CodeValue") or items[0].get("LongCodeValue") or "")


def first_scheme(dataset: Dataset, keyword: str) -> str:
    """Return the coding scheme of the first item of a code sequence, or an empty string."""
    items = dataset.get(keyword) or []
    return str(items[0].get("CodingSchemeDesignator") or "") if items else ""


def is_inherited(path: str) -> bool:
    """Whether an attribute, by its path, is copied from the source as it is there.

    Its faults are the source's. It is not repaired, because archives match on exact values, so they
    are told as warnings: an object is not held back for them.
    """
    return path.split("/")[0].split("[")[0].split("(")[0] in INHERITED_KEYWORDS


def elements(dataset: Dataset, path: str = "") -> Iterator[tuple[str, DataElement]]:
    """Yield each element at any depth, with its path in words; not the pixel data."""
    for element in dataset:
        if element.tag.group == 0x7FE0:
            continue
        name = f"{path}{element.keyword or element.tag}"
        yield name, element
        if element.VR == "SQ":
            for number, item in enumerate(element.value, start=1):
                yield from elements(item, f"{name}[{number}]/")


def text_of(dataset: Dataset, keyword: str) -> str:
    """Return an attribute as text, an empty string where it is absent or empty."""
    if keyword not in dataset:
        return ""
    element = dataset[keyword]
    if element.VR == "SQ":
        return "; ".join(
            f"{path}={inner.value}"
            for item in element.value
            for path, inner in elements(item)
            if inner.VR != "SQ" and not inner.tag.is_private
        )
    if element.VM > 1:
        return "\\".join(str(value) for value in element.value)
    return str(element.value if element.value is not None else "")


def content_items(dataset: Dataset) -> Iterator[Dataset]:
    """Yield each content item below a container, the tree in order."""
    for item in dataset.get("ContentSequence") or []:
        yield item
        yield from content_items(item)


def named(dataset: Dataset, code_value: str) -> list[Dataset]:
    """Return the direct children that have a concept name with this code."""
    return [
        item
        for item in dataset.get("ContentSequence") or []
        if first_code(item, "ConceptNameCodeSequence") == code_value
    ]


def references(dataset: Dataset) -> Iterator[tuple[Dataset, Dataset]]:
    """Yield each object reference of a content tree with its content item."""
    for item in content_items(dataset):
        for reference in item.get("ReferencedSOPSequence") or []:
            yield item, reference


def evidence_of(dataset: Dataset) -> set[str]:
    """Return the SOP Instance UIDs that a document lists as its evidence."""
    return {
        str(item.ReferencedSOPInstanceUID)
        for study in dataset.get("CurrentRequestedProcedureEvidenceSequence") or []
        for series in study.get("ReferencedSeriesSequence") or []
        for item in series.get("ReferencedSOPSequence") or []
    }
