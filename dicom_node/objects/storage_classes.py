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
    _STORAGE + "77.1.5.1": "OP",
    _STORAGE + "77.1.5.2": "OP",
    _STORAGE + "77.1.7": "DMS",
}

# Image classes that are read by a later version: the sentence says what they are.
NOT_YET_CLASSES: Final[Mapping[str, str]] = {
    _STORAGE + "2.1": "an enhanced CT image (multi-frame)",
    _STORAGE + "2.2": "a legacy converted enhanced CT image (multi-frame)",
    _STORAGE + "4.1": "an enhanced MR image (multi-frame)",
    _STORAGE + "4.2": "an MR spectroscopy object",
    _STORAGE + "4.3": "an enhanced MR colour image (multi-frame)",
    _STORAGE + "4.4": "a legacy converted enhanced MR image (multi-frame)",
    _STORAGE + "128.1": "a legacy converted enhanced PET image (multi-frame)",
    _STORAGE + "130": "an enhanced PET image (multi-frame)",
    _STORAGE + "3": "an ultrasound cine (multi-frame)",
    _STORAGE + "3.1": "an ultrasound cine (multi-frame)",
    _STORAGE + "6.2": "an enhanced ultrasound volume (multi-frame)",
    _STORAGE + "7.1": "a single-bit secondary capture (multi-frame)",
    _STORAGE + "7.2": "a grayscale secondary capture (multi-frame)",
    _STORAGE + "7.3": "a 16-bit grayscale secondary capture (multi-frame)",
    _STORAGE + "7.4": "a colour secondary capture (multi-frame)",
    _STORAGE + "12.1": "an X-ray angiography image",
    _STORAGE + "12.1.1": "an enhanced X-ray angiography image",
    _STORAGE + "12.2": "an X-ray fluoroscopy image",
    _STORAGE + "12.2.1": "an enhanced X-ray fluoroscopy image",
    _STORAGE + "12.3": "an X-ray biplane image",
    _STORAGE + "13.1.1": "an X-ray 3D angiographic volume",
    _STORAGE + "13.1.2": "an X-ray 3D craniofacial volume",
    _STORAGE + "13.1.3": "a breast tomosynthesis volume",
    _STORAGE + "14.1": "intravascular OCT",
    _STORAGE + "14.2": "intravascular OCT",
    _STORAGE + "20": "a nuclear medicine image",
    _STORAGE + "5": "a nuclear medicine image",
    _STORAGE + "77.1.1.1": "an endoscopy video",
    _STORAGE + "77.1.2.1": "a microscopy video",
    _STORAGE + "77.1.4.1": "a photographic video",
    _STORAGE + "77.1.5.4": "ophthalmic tomography (OCT, multi-frame)",
    _STORAGE + "77.1.5.5": "wide-field ophthalmic photography",
    _STORAGE + "77.1.5.6": "wide-field ophthalmic photography",
    _STORAGE + "77.1.6": "a whole-slide microscopy image (tiled)",
    _STORAGE + "481.1": "a radiotherapy portal image",
}

# Objects with pixels that are results or maps, not images to interpret.
RESULT_CLASSES: Final[Mapping[str, str]] = {
    _STORAGE + "66.4": "a segmentation (SEG)",
    _STORAGE + "66.7": "a label map segmentation (SEG)",
    _STORAGE + "66.8": "a height map segmentation",
    _STORAGE + "30": "a parametric map",
    _STORAGE + "481.2": "a radiotherapy dose (RTDOSE)",
}


def why_not_read(sop_class_uid: str) -> str | None:
    """Return why objects of a class are set aside, as the end of a sentence; None: they are read.

    The sentence begins with "This object is".
    """
    if sop_class_uid in VOLUME_CLASSES or sop_class_uid in IMAGE_CLASSES:
        return None
    if sop_class_uid in RESULT_CLASSES:
        return f"{RESULT_CLASSES[sop_class_uid]}: a result, not an image to interpret"
    if sop_class_uid in NOT_YET_CLASSES:
        return f"{NOT_YET_CLASSES[sop_class_uid]}, which this version does not interpret yet"
    name = UID(sop_class_uid, config.IGNORE).name
    if name == sop_class_uid:
        return f"of the unknown storage class {sop_class_uid!r}: nothing is known of its pixels"
    if name.endswith("Image Storage") or "Image Storage -" in name:
        return f"of the class {name}, which this version does not interpret yet"
    return f"of the class {name}: it holds no image to interpret"
