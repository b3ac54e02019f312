"""What poor viewers get beside SEG and SR: the forms, and building them.

Each destination names the forms that it is sent. They repeat the result for people and old systems;
IHE AI Results lets them go out in addition, never instead.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from pydicom.dataset import Dataset

from dicom_node.objects.fallback_capture import build_captures
from dicom_node.objects.fallback_key_objects import build_key_objects
from dicom_node.objects.fallback_structure_set import build_structure_set
from dicom_node.objects.identifiers import ResultIdentifiers
from dicom_node.objects.measurements import Measurements
from dicom_node.objects.pixels import PixelValues
from dicom_node.objects.provenance import NodeIdentity
from dicom_node.objects.segments import segments_of
from dicom_node.objects.series import Source
from dicom_node.objects.terminology import Codes
from inference.findings import Interpretation

Form = Literal["structure_set", "secondary_capture", "report_document", "key_objects"]
# In the order of sending: what refers to others comes last.
FORMS: Final[tuple[Form, ...]] = (
    "structure_set",
    "secondary_capture",
    "report_document",
    "key_objects",
)


@dataclass(frozen=True, slots=True)
class Material:
    """All that the forms are made of.

    Attributes
    ----------
    measurements
        By index of the finding.
    """

    source: Source
    pixels: PixelValues
    interpretation: Interpretation
    measurements: Mapping[int, Measurements]
    identifiers: ResultIdentifiers
    node: NodeIdentity
    codes: Codes = Codes.ALL


def build_fallbacks(
    forms: Collection[Form], material: Material
) -> Iterator[tuple[Form, list[Dataset]]]:
    """Yield each form that is asked for with its objects, in the order of sending.

    A form that says nothing of this result (contours where nothing was found, a structure set
    without a place in the patient's space) has none.
    """
    given = material
    segments = segments_of(given.interpretation, given.codes)
    common = (given.interpretation, given.identifiers, given.node)
    for form in FORMS:
        if form not in forms:
            continue
        if form == "structure_set":
            yield form, _some(build_structure_set(given.source, segments, *common))
        elif form == "secondary_capture":
            yield form, build_captures(given.source, given.pixels, segments, *common)
        elif form == "key_objects":
            yield form, _some(build_key_objects(given.source, segments, *common))
        else:
            # The library of the page is only loaded where a page is asked for.
            from dicom_node.objects.fallback_document import build_document

            document = build_document(
                given.source,
                given.pixels,
                segments,
                given.interpretation,
                given.measurements,
                given.identifiers,
                given.node,
            )
            yield form, [document]


def _some(dataset: Dataset | None) -> list[Dataset]:
    return [] if dataset is None else [dataset]
