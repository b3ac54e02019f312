"""What both reports begin with: language, observer, procedure, and the images that were looked at.

PS3.16 TID 1204 (language), TID 1001 to 1004 (observer), CID 100 (procedure), TID 1600 (image
library).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from highdicom.sr import (
    CodeContentItem,
    CodedConcept,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    DateContentItem,
    DeviceObserverIdentifyingAttributes,
    ImageContentItem,
    LanguageOfContentItemAndDescendants,
    NumContentItem,
    ObservationContext,
    ObserverContext,
    RelationshipTypeValues,
    TextContentItem,
    UIDRefContentItem,
)
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence

from dicom_node.objects.provenance import LONG_STRING, AlgorithmIdentity, NodeIdentity, single_line
from dicom_node.objects.references import FrameReference
from dicom_node.objects.segmentation_frames import plane_of
from dicom_node.objects.series import Source

ENGLISH = CodedConcept(
    value="en-US", scheme_designator="RFC5646", meaning="English (United States)"
)
PIXELS = CodedConcept(value="{pixels}", scheme_designator="UCUM", meaning="pixels")
MILLIMETRE = CodedConcept(value="mm", scheme_designator="UCUM", meaning="millimeter")

LINE_LIMIT = 80
_JOINT = "\x1f"  # in place of a space that is no place for a break; never in a paragraph

# CID 29, for the classes that this node reads.
MODALITIES: Mapping[str, str] = MappingProxyType(
    {
        "CT": "Computed Tomography",
        "MR": "Magnetic Resonance",
        "PT": "Positron emission tomography",
        "NM": "Nuclear Medicine",
        "CR": "Computed Radiography",
        "DX": "Digital Radiography",
        "MG": "Mammography",
        "US": "Ultrasound",
        "XA": "X-Ray Angiography",
        "RF": "Radiofluoroscopy",
        "ES": "Endoscopy",
        "GM": "General Microscopy",
        "SM": "Slide Microscopy",
        "XC": "External-camera Photography",
        "DMS": "Dermoscopy",
        "OP": "Ophthalmic Photography",
        "OPT": "Ophthalmic Tomography",
        "IO": "Intra-oral Radiography",
        "IVOCT": "Intravascular Optical Coherence Tomography",
        "RTIMAGE": "RT Image",
        "OT": "Other",
    }
)

# CID 100: the imaging procedure, not the algorithm.
PROCEDURES: Mapping[str, tuple[str, str, str]] = MappingProxyType(
    {
        "CT": ("25045-6", "LN", "CT unspecified body region"),
        "MR": ("25056-3", "LN", "MRI unspecified body region"),
        "PT": ("44136-0", "LN", "PET unspecified body region"),
        "NM": ("49118-3", "LN", "NM unspecified body region"),
        "CR": ("43468-8", "LN", "XR unspecified body region"),
        "DX": ("43468-8", "LN", "XR unspecified body region"),
    }
)
# A site's own scheme would need Coding Scheme Identification, and nobody else reads it.
STANDARD_SCHEMES = frozenset({"DCM", "SCT", "SRT", "LN", "RADLEX", "C4", "I10P"})
IMAGING_PROCEDURE = ("363679005", "SCT", "Imaging procedure")


def code(value: str, scheme: str, meaning: str) -> CodedConcept:
    """Return a coded concept."""
    return CodedConcept(value=value, scheme_designator=scheme, meaning=meaning)


def dicom_code(value: str, meaning: str) -> CodedConcept:
    """Return a concept of DICOM's own vocabulary (PS3.16 annex D)."""
    return code(value, "DCM", meaning)


def language() -> LanguageOfContentItemAndDescendants:
    """Return the language of the generated text."""
    return LanguageOfContentItemAndDescendants(ENGLISH)


def observation_context(algorithm: AlgorithmIdentity, node: NodeIdentity) -> ObservationContext:
    """Return the device observer (TID 1004): the algorithm, on this node.

    The values equal those of Contributing Equipment and of the algorithm identification (IHE AIR
    table 6.5.3.1-1).
    """
    device = DeviceObserverIdentifyingAttributes(
        uid=algorithm.device_uid,
        name=algorithm.name,
        manufacturer_name=algorithm.manufacturer,
        model_name=algorithm.name,
        serial_number=single_line(node.serial_number, LONG_STRING) or None,
        physical_location=single_line(node.station_name, LONG_STRING) or None,
    )
    return ObservationContext(
        observer_device_context=ObserverContext(
            observer_type=dicom_code("121007", "Device"),
            observer_identifying_attributes=device,
        )
    )


def procedures_reported(source: Source) -> list[CodedConcept]:
    """Return the procedure codes of the source, or the broad procedure of its modality."""
    found = []
    for item in source.headers[0].get("ProcedureCodeSequence") or []:
        value, scheme = item.get("CodeValue"), item.get("CodingSchemeDesignator")
        meaning = item.get("CodeMeaning")
        if value and meaning and scheme in STANDARD_SCHEMES:
            found.append(code(str(value), str(scheme), single_line(str(meaning), LONG_STRING)))
    return found or [code(*PROCEDURES.get(source.modality, IMAGING_PROCEDURE))]


def procedure_items(source: Source) -> list[ContentItem]:
    """Return the items Procedure Reported."""
    return [
        CodeContentItem(
            name=dicom_code("121058", "Procedure reported"),
            value=procedure,
            relationship_type=RelationshipTypeValues.HAS_CONCEPT_MOD,
        )
        for procedure in procedures_reported(source)
    ]


def image_library(source: Source, references: Sequence[FrameReference]) -> ContainerContentItem:
    """Return the image library (TID 1600): what all images share once, then each image.

    highdicom's own writes the descriptors for each image, and fails for sources without them.
    """
    group = ContainerContentItem(
        name=dicom_code("126200", "Image Library Group"),
        is_content_continuous=False,
        relationship_type=RelationshipTypeValues.CONTAINS,
    )
    group.ContentSequence = ContentSequence(_library_descriptors(source))
    for reference in _instances(references):
        group.ContentSequence.append(
            ImageContentItem(
                name=code("260753009", "SCT", "Source"),
                referenced_sop_class_uid=reference.sop_class_uid,
                referenced_sop_instance_uid=reference.sop_instance_uid,
                relationship_type=RelationshipTypeValues.CONTAINS,
            )
        )
    library = ContainerContentItem(
        name=dicom_code("111028", "Image Library"),
        is_content_continuous=False,
        relationship_type=RelationshipTypeValues.CONTAINS,
    )
    library.ContentSequence = ContentSequence([group])
    return library


def _instances(references: Sequence[FrameReference]) -> list[FrameReference]:
    """Return one reference for each instance, in order."""
    return list({reference.sop_instance_uid: reference for reference in references}.values())


def _library_descriptors(source: Source) -> list[ContentItem]:
    """Return the descriptors (TID 1602) that all images of the source share."""
    header = source.headers[0]
    context = RelationshipTypeValues.HAS_ACQ_CONTEXT
    items: list[ContentItem] = []
    if source.modality in MODALITIES:
        items.append(
            CodeContentItem(
                name=dicom_code("121139", "Modality"),
                value=dicom_code(source.modality, MODALITIES[source.modality]),
                relationship_type=context,
            )
        )
    if _is_date(str(header.get("StudyDate") or "")):
        items.append(
            DateContentItem(
                name=dicom_code("111060", "Study Date"),
                value=str(header.StudyDate),
                relationship_type=context,
            )
        )
    frame_of_reference = plane_of(source).frame_of_reference_uid
    if frame_of_reference is not None:
        items.append(
            UIDRefContentItem(
                name=dicom_code("112227", "Frame of Reference UID"),
                value=frame_of_reference,
                relationship_type=context,
            )
        )
    sizes: list[tuple[str, str, float, CodedConcept]] = [
        ("110910", "Pixel Data Rows", int(header.Rows), PIXELS),
        ("110911", "Pixel Data Columns", int(header.Columns), PIXELS),
    ]
    if source.calibration is not None:
        rows, columns = source.calibration
        # Headers carry more digits than any calibration has.
        for value, meaning, spacing in (
            ("111026", "Horizontal Pixel Spacing", columns),
            ("111066", "Vertical Pixel Spacing", rows),
        ):
            sizes.append((value, meaning, float(f"{spacing:.6g}"), MILLIMETRE))
    for value, meaning, number, unit in sizes:
        items.append(
            NumContentItem(
                name=dicom_code(value, meaning),
                value=number,
                unit=unit,
                relationship_type=context,
            )
        )
    return items


def _is_date(text: str) -> bool:
    return re.fullmatch(r"\d{8}", text) is not None


def text_item(
    name: CodedConcept, text: str, relationship: RelationshipTypeValues
) -> TextContentItem:
    """Return a TEXT item; the text loses control characters that its representation forbids."""
    return TextContentItem(name=name, value=paragraph(text), relationship_type=relationship)


def paragraph(text: str) -> str:
    """Return text as Unlimited Text takes it: no control characters, no space at the end."""
    text = text.replace("\r\n", "\n")
    kept = "".join(c if c == "\n" or not _is_control(c) else " " for c in text)
    return kept.replace("\n", "\r\n").strip() or "-"


def wrapped(text: str) -> str:
    """Break a paragraph into lines of at most 80 characters where words allow it.

    OHIF 3.13 shows the text of a Finding (121071, DCM) as it is and cuts off what does not fit
    into the window: without lines, a reader misses the end. What stands in square brackets is not
    broken, nor a note in parentheses but after a comma: a number stays beside its name and unit.
    """
    whole = re.sub(r"\[[^\[\]]*\]", lambda found: found[0].replace(" ", _JOINT), paragraph(text))
    whole = re.sub(r"\([^()]*\)", lambda found: re.sub("(?<!,) ", _JOINT, found[0]), whole)
    return "\n".join(_lines(whole)).replace(_JOINT, " ")


def _lines(text: str) -> Iterator[str]:
    for line in text.split("\r\n"):
        start = 0
        while len(line) - start > LINE_LIMIT:
            # The last space that leaves the line within the limit, else the first one after it.
            end = line.rfind(" ", start + 1, start + LINE_LIMIT + 1)
            end = line.find(" ", start + LINE_LIMIT) if end < 0 else end
            if end < 0:
                break
            yield line[start:end]
            start = end + 1
        yield line[start:]


def _is_control(character: str) -> bool:
    return ord(character) < 32 or 127 <= ord(character) < 160


def author_observer(algorithm: AlgorithmIdentity, node: NodeIdentity) -> DicomSequence:
    """Return Author Observer Sequence: the device (PS3.3 C.17.2); FHIR mappers read it."""
    item = Dataset()
    item.ObserverType = "DEV"
    item.DeviceUID = algorithm.device_uid
    item.Manufacturer = algorithm.manufacturer
    item.ManufacturerModelName = algorithm.name
    item.StationName = single_line(node.station_name, 16)
    item.InstitutionName = single_line(node.institution_name, LONG_STRING)
    item.InstitutionCodeSequence = DicomSequence()
    return DicomSequence([item])
