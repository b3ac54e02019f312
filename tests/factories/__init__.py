"""Builders of small synthetic DICOM files for the tests of every room.

Each writer makes real files with all attributes that their class asks for (type 1 and 2), so
that objects derived from them can be held to dciodvfy, and returns the paths in frame order.
Values go in as physical ones (HU, SUV) and are stored the way scanners store them. Anything may
be overridden by ``attributes={"Keyword": value}``; the value ``REMOVE`` takes an attribute out.
"""

from __future__ import annotations

from tests.factories.datasets import (
    REMOVE,
    SOP_CLASSES,
    StudyIdentity,
    base_dataset,
    code,
    new_uid,
    override,
    save,
    set_pixels,
    strip_meta,
    truncate,
    write_text_report,
)
from tests.factories.images import (
    ImageKind,
    write_image,
)
from tests.factories.multi_frame import (
    CINES,
    ENHANCED,
    write_cine,
    write_enhanced,
    write_reconstruction,
    write_slide,
)
from tests.factories.stacks import (
    AXIAL,
    CORONAL,
    EIGHT_ORIENTATIONS,
    OBLIQUE,
    PET_DELAY_S,
    PET_DOSE_BQ,
    PET_HALF_LIFE_S,
    PET_WEIGHT_KG,
    SAGITTAL,
    ball,
    plane_positions,
    write_ct_series,
    write_localizer,
    write_mr_series,
    write_pet_series,
    write_two_phase_ct,
)
from tests.factories.videos import VIDEOS, write_video

__all__ = [
    "AXIAL",
    "CINES",
    "CORONAL",
    "EIGHT_ORIENTATIONS",
    "ENHANCED",
    "OBLIQUE",
    "PET_DELAY_S",
    "PET_DOSE_BQ",
    "PET_HALF_LIFE_S",
    "PET_WEIGHT_KG",
    "REMOVE",
    "SAGITTAL",
    "SOP_CLASSES",
    "VIDEOS",
    "ImageKind",
    "StudyIdentity",
    "ball",
    "base_dataset",
    "code",
    "new_uid",
    "override",
    "plane_positions",
    "save",
    "set_pixels",
    "strip_meta",
    "truncate",
    "write_cine",
    "write_ct_series",
    "write_enhanced",
    "write_image",
    "write_localizer",
    "write_mr_series",
    "write_pet_series",
    "write_reconstruction",
    "write_slide",
    "write_text_report",
    "write_two_phase_ct",
    "write_video",
]
