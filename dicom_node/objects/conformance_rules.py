"""What a rule of the gate is, and what it sees."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from dicom_node.objects.provenance import COPIED_KEYWORDS

Severity = Literal["error", "warning"]


class Kind(enum.StrEnum):
    """The kinds of result object."""

    SEGMENTATION = "segmentation"
    MEASUREMENT_REPORT = "measurement report"
    GROUNDED_REPORT = "grounded report"


ALL_KINDS = frozenset(Kind)
REPORTS = frozenset({Kind.MEASUREMENT_REPORT, Kind.GROUNDED_REPORT})
SEGMENTATIONS = frozenset({Kind.SEGMENTATION})
MEASUREMENT_REPORTS = frozenset({Kind.MEASUREMENT_REPORT})
GROUNDED_REPORTS = frozenset({Kind.GROUNDED_REPORT})

_SOP_CLASSES: Mapping[str, Kind] = {
    "1.2.840.10008.5.1.4.1.1.66.4": Kind.SEGMENTATION,
    "1.2.840.10008.5.1.4.1.1.66.7": Kind.SEGMENTATION,
}
_TITLES: Mapping[str, Kind] = {
    "126000": Kind.MEASUREMENT_REPORT,
    "18748-4": Kind.GROUNDED_REPORT,
}


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
        Id of the rule that was broken, e.g. ``"segmentation.shared-groups"``.
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


@dataclass(frozen=True, slots=True)
class Subject:
    """One object under examination, with all that belongs to it.

    Attributes
    ----------
    dataset, kind
        The object; `kind` is ``None`` where the title of a report is none of ours.
    objects
        All objects that go out together, this one among them.
    sources
        Headers of the source images by SOP Instance UID.
    """

    dataset: Dataset
    kind: Kind | None
    objects: tuple[Dataset, ...]
    sources: Mapping[str, Dataset]

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
        Yields a sentence for each place where it does not hold.
    """

    id: str
    text: str
    source: str
    kinds: frozenset[Kind]
    check: Check
    severity: Severity = "error"


def kind_of(dataset: Dataset) -> Kind | None:
    """Return what an object is, by SOP class and, for reports, by its title."""
    kind = _SOP_CLASSES.get(str(dataset.get("SOPClassUID", "")))
    if kind is not None:
        return kind
    return _TITLES.get(first_code(dataset, "ConceptNameCodeSequence"))


def first_code(dataset: Dataset, keyword: str) -> str:
    """Return the code value of the first item of a code sequence, or an empty string."""
    items = dataset.get(keyword) or []
    if not items:
        return ""
    return str(items[0].get("CodeValue") or items[0].get("LongCodeValue") or "")


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
