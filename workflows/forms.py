"""Which form of an object goes to a job's destinations, by what they take.

A job has one object of each kind, because one SOP Instance UID means one object wherever it lies.
So a form is chosen for all destinations together; those never probed are taken to take all.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    EncapsulatedPDFStorage,
    EnhancedSRStorage,
    KeyObjectSelectionDocumentStorage,
    RLELossless,
    RTStructureSetStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from dicom_node.objects.segmentation_encoding import (
    LABEL_MAP_SEGMENTATION_STORAGE,
    Encoding,
    choose_encoding,
)
from dicom_node.objects.series import Source
from inference.findings import Interpretation
from workflows.destination_settings import DestinationSettings, ResultKind

Accepted = Mapping[str, Mapping[str, Collection[str]]]
"""Destination -> SOP class -> transfer syntaxes."""

_REPORT: Final = "measurement_report"
_LABEL_MAP: Final = str(LABEL_MAP_SEGMENTATION_STORAGE)
_ONE_FORM: Final[Mapping[ResultKind, UID]] = {
    "grounded_report": EnhancedSRStorage,
    "structure_set": RTStructureSetStorage,
    "secondary_capture": SecondaryCaptureImageStorage,
    "report_document": EncapsulatedPDFStorage,
    "key_objects": KeyObjectSelectionDocumentStorage,
}


@dataclass(frozen=True, slots=True)
class SegmentationForm:
    """How a segmentation is written.

    Attributes
    ----------
    encoding
        BINARY, LABELMAP or FRACTIONAL.
    compressed
        Whether the pixels of a label map are RLE Lossless. The other two are never compressed: few
        readers take compressed bits, and a smaller file helps nobody who cannot open it.
    why
        A sentence for the job's log.
    """

    encoding: Encoding
    compressed: bool
    why: str


def refusing(
    destinations: Sequence[DestinationSettings],
    kind: str,
    sop_class: str,
    accepted: Accepted,
    transfer_syntax: str | None = None,
) -> list[str]:
    """Return the destinations that are to get a kind of result, and do not take this class.

    With a transfer syntax: those that take the class, but not in this one.
    """
    return [
        entry.name
        for entry in destinations
        if kind in entry.objects
        and entry.name in accepted
        # Of a class that nobody asked about nothing is known.
        and sop_class in accepted[entry.name]
        and _refused(accepted[entry.name][sop_class], transfer_syntax)
    ]


def _refused(taken: Collection[str], transfer_syntax: str | None) -> bool:
    if transfer_syntax is None:
        return not taken
    return bool(taken) and transfer_syntax not in taken


def segmentation_form(
    destinations: Sequence[DestinationSettings],
    source: Source,
    interpretation: Interpretation,
    accepted: Accepted,
) -> SegmentationForm:
    """Choose how the segmentation is encoded and whether it is compressed, and say why.

    A label map is RLE, unless a destination takes label maps and no RLE.
    """
    encoding, why = _encoding(destinations, source, interpretation, accepted)
    form = SegmentationForm(encoding, False, f"{why} Not compressed.")
    if encoding != "labelmap":
        return form
    plain = refusing(destinations, "segmentation", _LABEL_MAP, accepted, str(RLELossless))
    if plain:
        where = ", ".join(plain)
        words = f"{why} Not compressed: {where} takes no RLE for label maps, as its probe found."
        return replace(form, why=words)
    return replace(form, compressed=True, why=f"{why} Compressed by RLE.")


def _encoding(
    destinations: Sequence[DestinationSettings],
    source: Source,
    interpretation: Interpretation,
    accepted: Accepted,
) -> tuple[Encoding, str]:
    """Choose the type of the segmentation.

    Where destinations differ, LABELMAP wins: a viewer that cannot read it shows nothing, whereas
    a viewer that garbles BINARY frames shows a wrong mask and does not say so. FRACTIONAL is
    written only where all ask for it: the findings have probabilities then.
    """
    choices = [
        choose_encoding(
            entry.seg_encoding, source, interpretation, garbles_unaligned=entry.garbles_unaligned
        )
        for entry in destinations
    ]
    if not choices:
        return choose_encoding("auto", source, interpretation)
    chosen = next((choice for choice in choices if choice[0] == "labelmap"), choices[0])
    label_map = refusing(destinations, "segmentation", _LABEL_MAP, accepted)
    plain = refusing(destinations, "segmentation", str(SegmentationStorage), accepted)
    if chosen[0] == "labelmap" and label_map and not plain:
        where = ", ".join(label_map)
        if any(entry.garbles_unaligned for entry in destinations):
            # Refused is better than shown wrongly.
            return "labelmap", f"{chosen[1]} {where} takes no label map, as its probe found."
        return "binary", f"BINARY: {where} takes no label map, as its probe found."
    if chosen[0] == "binary" and plain and not label_map:
        other = choose_encoding("labelmap", source, interpretation)
        if other[0] == "labelmap":
            where = ", ".join(plain)
            return "labelmap", f"LABELMAP: {where} takes nothing else, as its probe found."
    return chosen


def report_class(
    destinations: Sequence[DestinationSettings], accepted: Accepted
) -> tuple[UID, str]:
    """Choose the class of the measurement report, and say why where it is not the usual one.

    Its coordinates are those of images, which Enhanced SR holds as well as Comprehensive 3D SR.
    """
    usual = refusing(destinations, _REPORT, str(Comprehensive3DSRStorage), accepted)
    other = refusing(destinations, _REPORT, str(EnhancedSRStorage), accepted)
    if usual and not other:
        where = ", ".join(usual)
        return EnhancedSRStorage, (
            f"Measurements in Enhanced SR: {where} takes no Comprehensive 3D SR, by its probe."
        )
    return Comprehensive3DSRStorage, ""


def consequences(
    destination: DestinationSettings, accepted: Mapping[str, Collection[str]]
) -> list[str]:
    """Say in sentences what follows from a probe for what a destination is to get.

    Where a job has several destinations, the others have their say as well.

    Parameters
    ----------
    destination
        Its settings.
    accepted
        SOP class -> transfer syntaxes that it takes.
    """
    said = []
    if "segmentation" in destination.objects:
        said.append(_of_segmentations(destination, accepted))
    if _REPORT in destination.objects:
        chosen, why = report_class([destination], {destination.name: accepted})
        usual = "Measurements go out in Comprehensive 3D SR."
        said.append((why or usual) if accepted.get(str(chosen)) else "Measurements: not taken.")
    said += [
        f"{kind.replace('_', ' ').capitalize()}: not taken ({sop_class.name})."
        for kind, sop_class in _ONE_FORM.items()
        if kind in destination.objects and not accepted.get(str(sop_class))
    ]
    return said


def _of_segmentations(
    destination: DestinationSettings, accepted: Mapping[str, Collection[str]]
) -> str:
    label_map = accepted.get(_LABEL_MAP, ())
    rle = (
        "compressed by RLE" if str(RLELossless) in label_map else "not compressed (it takes no RLE)"
    )
    if not accepted.get(str(SegmentationStorage)):
        if not label_map:
            return "Segmentations: not taken, neither BINARY nor as label map."
        return f"Segmentations go out as LABELMAP, {rle}: it takes nothing else."
    if not label_map:
        return "Segmentations go out BINARY, not compressed: it takes no label map."
    if destination.seg_encoding == "labelmap":
        return f"Segmentations go out as LABELMAP, {rle}."
    if destination.garbles_unaligned:
        return (
            "Segmentations go out BINARY, not compressed, or as LABELMAP where its viewer would "
            f"garble them, {rle}."
        )
    return f"Segmentations go out {destination.seg_encoding.upper()}, not compressed.".replace(
        "AUTO", "BINARY"
    )
