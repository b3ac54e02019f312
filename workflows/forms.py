"""Which form of an object goes to a job's destinations, by what they take.

A job has one object of each kind, because one SOP Instance UID means one object wherever it lies.
So a form is chosen for all destinations together; those never probed are taken to take all.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from pydicom.uid import UID, Comprehensive3DSRStorage, EnhancedSRStorage, SegmentationStorage

from dicom_node.objects.segmentation import (
    LABEL_MAP_SEGMENTATION_STORAGE,
    Encoding,
    choose_encoding,
)
from dicom_node.objects.series import Source
from inference.findings import Interpretation
from workflows.destination_settings import DestinationSettings

Accepted = Mapping[str, Mapping[str, Collection[str]]]
"""Destination -> SOP class -> transfer syntaxes."""

_REPORT: Final = "measurement_report"


def refusing(
    destinations: Sequence[DestinationSettings], kind: str, sop_class: str, accepted: Accepted
) -> list[str]:
    """Return the destinations that are to get a kind of result, and do not take this class."""
    return [
        entry.name
        for entry in destinations
        if kind in entry.objects
        and entry.name in accepted
        and not accepted[entry.name].get(sop_class)
    ]


def segmentation_form(
    destinations: Sequence[DestinationSettings],
    source: Source,
    interpretation: Interpretation,
    accepted: Accepted,
) -> tuple[Encoding, str]:
    """Choose how the segmentation is encoded, and say why.

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
    label_map = refusing(
        destinations, "segmentation", str(LABEL_MAP_SEGMENTATION_STORAGE), accepted
    )
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
