"""Millimetres per pixel: only where the header really promises them (PS3.3 10.7).

A spacing at the detector is no spacing in the patient: projection images are measured in mm only
where someone corrected or calibrated them.
"""

from __future__ import annotations

import math
from typing import Final

from pydicom import Dataset

Spacing = tuple[float, float]

# Outside these bounds a spacing in mm is a mistake, not a measurement.
SMALLEST_MM: Final = 1e-5
LARGEST_MM: Final = 50.0
_LARGEST_THICKNESS_MM: Final = 500.0

_PROJECTION: Final = frozenset({"CR", "DX", "MG", "IO", "PX", "RG", "RF", "XA"})
_CENTIMETRES: Final = 3  # Physical Units X Direction, PS3.3 C.8.5.5.1.5
_TWO_DIMENSIONAL: Final = 1  # Region Spatial Format


def numbers(dataset: Dataset, keyword: str) -> tuple[float, ...]:
    """Return an attribute's values as floats; empty when absent, empty or not numbers."""
    value = dataset.get(keyword)
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        # In a VR that has one value alone, as some archives write what they do not know (UT, LT).
        values = value.split("\\")
    else:
        values = value if not isinstance(value, bytes) and hasattr(value, "__iter__") else [value]
    try:
        return tuple(float(v) for v in values)
    except (TypeError, ValueError):
        return ()


def number(dataset: Dataset, keyword: str) -> float | None:
    """Return an attribute's single finite value, or None."""
    values = numbers(dataset, keyword)
    return values[0] if len(values) == 1 and math.isfinite(values[0]) else None


def pixel_spacing(dataset: Dataset) -> tuple[Spacing | None, str | None]:
    """Return Pixel Spacing in mm (rows, columns), or None and a sentence that says why."""
    name = "Pixel Spacing (0028,0030)"
    values = numbers(dataset, "PixelSpacing")
    if not values:
        return None, f"{name} is absent: no measurement in millimetres."
    text = "\\".join(f"{v:g}" for v in values)
    if len(values) != 2:
        return None, f"{name} is {text}, not two values: no measurement in millimetres."
    if not all(SMALLEST_MM <= v <= LARGEST_MM for v in values):
        return None, f"{name} is {text} mm, which cannot be: no measurement in millimetres."
    return (values[0], values[1]), None


def slice_thickness(dataset: Dataset) -> float | None:
    """Return Slice Thickness (0018,0050) in mm, or None when absent or absurd."""
    value = number(dataset, "SliceThickness")
    return value if value is not None and SMALLEST_MM <= value <= _LARGEST_THICKNESS_MM else None


def image_calibration(dataset: Dataset, modality: str) -> tuple[Spacing | None, str | None]:
    """Return mm per pixel (rows, columns) of a single image, or None and the reason.

    Projection radiography counts only with a calibrated Pixel Spacing (PS3.3 10.7.1.2),
    ultrasound with one scale for all its two-dimensional regions (C.8.5.5), other images with
    Pixel Spacing as it stands.
    """
    if modality == "US" and dataset.get("SequenceOfUltrasoundRegions"):
        return _ultrasound_scale(dataset)
    spacing, reason = pixel_spacing(dataset)
    if spacing is None or modality not in _PROJECTION:
        return spacing, reason
    detector = numbers(dataset, "ImagerPixelSpacing")
    corrected = bool(detector) and not _same(detector, spacing)
    if dataset.get("PixelSpacingCalibrationType") in ("GEOMETRY", "FIDUCIAL") or corrected:
        return spacing, None
    return None, (
        "Pixel Spacing (0028,0030) is that of the detector (no Pixel Spacing Calibration Type): "
        "no measurement in millimetres."
    )


def _same(first: tuple[float, ...], second: Spacing) -> bool:
    return len(first) == 2 and all(
        math.isclose(a, b, rel_tol=1e-6) for a, b in zip(first, second, strict=True)
    )


def _ultrasound_scale(dataset: Dataset) -> tuple[Spacing | None, str | None]:
    """Return the one scale of all two-dimensional regions, in mm (rows, columns)."""
    name = "Sequence of Ultrasound Regions (0018,6011)"
    scales = set()
    for region in dataset.SequenceOfUltrasoundRegions:
        units = (region.get("PhysicalUnitsXDirection"), region.get("PhysicalUnitsYDirection"))
        if region.get("RegionSpatialFormat") != _TWO_DIMENSIONAL or units != (_CENTIMETRES,) * 2:
            continue
        x, y = number(region, "PhysicalDeltaX"), number(region, "PhysicalDeltaY")
        if x is None or y is None:
            continue
        scales.add((round(abs(y) * 10.0, 9), round(abs(x) * 10.0, 9)))
    if not scales:
        return None, f"{name} has no region in centimetres: no measurement in millimetres."
    if len(scales) > 1:
        return None, f"{name} has regions of different scale: no measurement in millimetres."
    scale = scales.pop()
    if not all(SMALLEST_MM <= v <= LARGEST_MM for v in scale):
        return None, f"{name} gives {scale[0]:g} mm per pixel, which cannot be: no millimetres."
    return scale, None
