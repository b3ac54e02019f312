"""Which storage classes are images to interpret, and what the others are (PS3.4 B.5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pydicom import config
from pydicom.uid import UID

_STORAGE: Final = "1.2.840.10008.5.1.4.1.1."

# Single-frame slices that belong together by their series: (SOP class, Modality).
VOLUME_CLASSES: Final[Mapping[str, str]] = {
    _STORAGE + "2": "CT",
    _STORAGE + "4": "MR",
    _STORAGE + "128": "PT",
}

# Images that stand alone, with the Modality to assume where the attribute is absent.
IMAGE_CLASSES: Final[Mapping[str, str]] = {
    _STORAGE + "1": "CR",
    _STORAGE + "1.1": "DX",
    _STORAGE + "1.1.1": "DX",
    _STORAGE + "1.2": "MG",
    _STORAGE + "1.2.1": "MG",
    _STORAGE + "1.3": "IO",
    _STORAGE + "1.3.1": "IO",
    _STORAGE + "6": "US",  # retired in 1993, still sent
    _STORAGE + "6.1": "US",
    _STORAGE + "7": "OT",
    _STORAGE + "77.1.1": "ES",
    _STORAGE + "77.1.2": "GM",
    _STORAGE + "77.1.3": "SM",
    _STORAGE + "77.1.4": "XC",
    _STORAGE + "77.1.7": "DMS",
}

# Classes whose frames stand alone, one after the other: cines, screen captures, videos. Their
# images are multi-frame by class, also where there is only one frame.
CINE_CLASSES: Final[Mapping[str, str]] = {
    _STORAGE + "3": "US",  # retired in 1993
    _STORAGE + "3.1": "US",
    _STORAGE + "5": "NM",  # retired in 1993
    _STORAGE + "20": "NM",
    _STORAGE + "7.1": "OT",
    _STORAGE + "7.2": "OT",
    _STORAGE + "7.3": "OT",
    _STORAGE + "7.4": "OT",
    _STORAGE + "12.1": "XA",
    _STORAGE + "12.1.1": "XA",
    _STORAGE + "12.2": "RF",
    _STORAGE + "12.2.1": "RF",
    _STORAGE + "12.3": "XA",  # biplane, retired
    _STORAGE + "14.1": "IVOCT",
    _STORAGE + "14.2": "IVOCT",
    _STORAGE + "77.1.1.1": "ES",
    _STORAGE + "77.1.2.1": "GM",
    _STORAGE + "77.1.4.1": "XC",
    _STORAGE + "77.1.5.1": "OP",
    _STORAGE + "77.1.5.2": "OP",
    _STORAGE + "77.1.5.5": "OP",
    _STORAGE + "77.1.5.6": "OP",
    _STORAGE + "481.1": "RTIMAGE",
}

# Multi-frame images whose functional groups place every frame in the patient.
ENHANCED_CLASSES: Final[Mapping[str, str]] = {
    _STORAGE + "2.1": "CT",
    _STORAGE + "2.2": "CT",
    _STORAGE + "4.1": "MR",
    _STORAGE + "4.3": "MR",
    _STORAGE + "4.4": "MR",
    _STORAGE + "128.1": "PT",
    _STORAGE + "130": "PT",
    _STORAGE + "6.2": "US",
    _STORAGE + "13.1.1": "XA",
    _STORAGE + "13.1.2": "CT",
    _STORAGE + "13.1.3": "MG",
    _STORAGE + "77.1.5.4": "OPT",
}

# Tiles of a whole slide.
SLIDE_CLASSES: Final[Mapping[str, str]] = {_STORAGE + "77.1.6": "SM"}

# CT and PET images, of whatever form: their values may be in HU and SUV.
CT_CLASSES: Final = frozenset(_STORAGE + suffix for suffix in ("2", "2.1", "2.2"))
PET_CLASSES: Final = frozenset(_STORAGE + suffix for suffix in ("128", "128.1", "130"))

# Objects with pixels that are results or maps, not images to interpret.
RESULT_CLASSES: Final[Mapping[str, str]] = {
    _STORAGE + "4.2": "an MR spectroscopy object",
    _STORAGE + "66.4": "a segmentation (SEG)",
    _STORAGE + "66.7": "a label map segmentation (SEG)",
    _STORAGE + "66.8": "a height map segmentation",
    _STORAGE + "30": "a parametric map",
    _STORAGE + "481.2": "a radiotherapy dose (RTDOSE)",
}


def modality_of_class(sop_class_uid: str) -> str | None:
    """Return the Modality of an image class that is read; None for every other class."""
    for classes in (VOLUME_CLASSES, IMAGE_CLASSES, CINE_CLASSES, ENHANCED_CLASSES, SLIDE_CLASSES):
        if sop_class_uid in classes:
            return classes[sop_class_uid]
    return None


def is_multi_frame_class(sop_class_uid: str) -> bool:
    """Whether references to images of a class name the frame (PS3.3 table 10-3)."""
    return (
        sop_class_uid in CINE_CLASSES
        or sop_class_uid in ENHANCED_CLASSES
        or sop_class_uid in SLIDE_CLASSES
    )


def why_not_read(sop_class_uid: str) -> str | None:
    """Return why objects of a class are set aside, as the end of a sentence; None: they are read.

    The sentence begins with "This object is".
    """
    if modality_of_class(sop_class_uid) is not None:
        return None
    if sop_class_uid in RESULT_CLASSES:
        return f"{RESULT_CLASSES[sop_class_uid]}: no image to interpret"
    name = UID(sop_class_uid, config.IGNORE).name
    if name == sop_class_uid:
        return f"of the unknown storage class {sop_class_uid!r}: nothing is known of its pixels"
    if name.endswith("Image Storage") or "Image Storage -" in name:
        return f"of the class {name}, which this node does not interpret"
    return f"of the class {name}: it holds no image to interpret"
