"""Rules for what goes out beside SEG and SR: captures, pages, structure sets."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from pydicom.dataset import Dataset

from dicom_node.objects.calibration import numbers
from dicom_node.objects.conformance_rules import Kind, Need, Rule, Subject, text_of

PLANE_TOLERANCE_MM = 1e-2
CAPTURES = frozenset({Kind.SECONDARY_CAPTURE})
DOCUMENTS = frozenset({Kind.DOCUMENT})
STRUCTURE_SETS = frozenset({Kind.STRUCTURE_SET})


def names_its_source(subject: Subject) -> Iterator[str]:
    """Hold that a capture is a plain colour image that says what it was made of."""
    dataset = subject.dataset
    if dataset.get("PhotometricInterpretation") != "RGB" or dataset.get("BitsAllocated") != 8:
        yield "the capture is no 8-bit RGB image"
    if "DERIVED" not in (dataset.get("ImageType") or []):
        yield "Image Type does not say DERIVED"
    images = dataset.get("SourceImageSequence") or []
    if len(images) != 1:
        yield f"the capture names {len(images)} source images, not one"
    for image in images if subject.sources else ():
        if text_of(image, "ReferencedSOPInstanceUID") not in subject.sources:
            yield "the capture names a source image that is not there"


def whole_page(subject: Subject) -> Iterator[str]:
    """Hold that the document is the PDF that its header promises."""
    dataset = subject.dataset
    data = bytes(dataset.get("EncapsulatedDocument") or b"")
    if not data.startswith(b"%PDF-") or b"%%EOF" not in data[-1024:]:
        yield "the document is no whole PDF"
    if dataset.get("MIMETypeOfEncapsulatedDocument") != "application/pdf":
        yield "MIME Type of Encapsulated Document is not application/pdf"
    if dataset.get("BurnedInAnnotation") != "YES":
        yield "Burned In Annotation is not YES, but the page names the patient"


def sound_contours(subject: Subject) -> Iterator[str]:
    """Hold regions, contours and observations together, and contours to the planes of images."""
    dataset = subject.dataset
    regions = [int(item.ROINumber) for item in dataset.get("StructureSetROISequence") or []]
    drawn = [int(item.ReferencedROINumber) for item in dataset.get("ROIContourSequence") or []]
    observed = [
        int(item.ReferencedROINumber) for item in dataset.get("RTROIObservationsSequence") or []
    ]
    if not regions or drawn != regions or observed != regions:
        yield "regions, contours and observations are not of the same numbers"
    for region in dataset.get("ROIContourSequence") or []:
        for contour in region.get("ContourSequence") or []:
            yield from _sound(contour, subject)


def _sound(contour: Dataset, subject: Subject) -> Iterator[str]:
    values = [float(value) for value in contour.ContourData]
    if len(values) != 3 * int(contour.NumberOfContourPoints) or len(values) < 9:
        yield "a contour does not have the number of points that it says, or fewer than three"
        return
    image = contour.ContourImageSequence[0]
    source = subject.sources.get(str(image.ReferencedSOPInstanceUID))
    if source is None:
        if subject.sources:
            yield "a contour names a source image that is not there"
        return
    position = numbers(source, "ImagePositionPatient")
    cosines = numbers(source, "ImageOrientationPatient")
    if len(position) != 3 or len(cosines) != 6:
        return
    normal = np.cross(cosines[:3], cosines[3:])
    away = (np.array(values).reshape(-1, 3) - np.array(position)) @ normal
    if not math.isclose(float(np.abs(away).max()), 0.0, abs_tol=PLANE_TOLERANCE_MM):
        yield "a contour does not lie in the plane of its image"


RULES: tuple[Rule, ...] = (
    Rule(
        "capture.source",
        "A capture is a derived 8-bit colour image, and names the image that it was made of.",
        "PS3.3 A.8, C.7.6.1",
        CAPTURES,
        names_its_source,
    ),
    Rule(
        "document.page",
        "The encapsulated document is a whole PDF, and says that it names the patient.",
        "PS3.3 A.45.1, C.24.2",
        DOCUMENTS,
        whole_page,
    ),
    Rule(
        "structures.contours",
        "Each region has its contours, which lie in the planes of their images.",
        "PS3.3 C.8.8.5, C.8.8.6",
        STRUCTURE_SETS,
        sound_contours,
        needs=Need.SOURCES,
    ),
)
