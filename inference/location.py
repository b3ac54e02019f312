"""Where a mask lies and how large it is, in words that follow from geometry alone.

Left and right are never taken from a language model: they follow from the directions of the
patient's axes in the images. Without these only the picture's own sides are named, and called so.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from inference.findings import Mask
from inference.series import Series

_OFF_CENTRE: Final = 0.1
"""Part of the field by which a centre of gravity must be off its middle to be called a side."""
_PATIENT: Final = (("right", "left"), ("anterior", "posterior"), ("inferior", "superior"))
_PICTURE: Final = (("", ""), ("upper", "lower"), ("left", "right"))


def sides(mask: Mask, series: Series) -> tuple[str, ...]:
    """Name the sides of the imaged field on which a mask's centre of gravity lies.

    Returns
    -------
    tuple of str
        E.g. ``("left", "posterior")``, of the patient where ``series.axes`` are known, otherwise
        of the picture (``("upper", "left")``); empty in the middle.
    """
    offset, field = _offset(mask), np.array(mask.shape, float)
    if series.axes is None:
        part = offset / field
        names = _PICTURE
    else:
        # Extent of the field along each of the patient's axes, mm.
        extent = np.abs(series.axes.T) @ field
        moved = series.axes.T @ offset
        part = np.divide(moved, extent, out=np.zeros(3), where=extent > 0)
        names = _PATIENT
    found = [
        pair[int(value > 0)]
        for value, pair in zip(part, names, strict=True)
        if abs(value) > _OFF_CENTRE and pair[0]
    ]
    return tuple(found)


def side(mask: Mask, series: Series) -> str | None:
    """Name the patient's side, ``"left"`` or ``"right"``; ``None`` in the middle or unknown."""
    if series.axes is None:
        return None
    found = [name for name in sides(mask, series) if name in _PATIENT[0]]
    return found[0] if found else None


def where(mask: Mask, series: Series) -> str:
    """Say where a mask lies, e.g. ``"in the left posterior part of the imaged field"``."""
    names = sides(mask, series)
    whole = "imaged field" if series.axes is not None else "picture"
    if not names:
        return f"in the middle of the {whole}"
    return f"in the {' '.join(names)} part of the {whole}"


def how_large(mask: Mask, series: Series) -> str:
    """Say how large a mask is: volume or area, and the longest way through its box.

    In mm where the spacing is known; otherwise as a part of the picture.
    """
    count = int(mask.sum())
    spacing = series.spacing
    if spacing is None:
        shown = int(mask.any(axis=(1, 2)).sum())
        return f"{_percent(count / (shown * mask.shape[1] * mask.shape[2]))} of the picture"
    extent = [
        (int(np.flatnonzero(mask.any(axis=others))[[0, -1]] @ [-1, 1]) + 1) * mm
        for others, mm in zip(((1, 2), (0, 2), (0, 1)), spacing, strict=True)
    ]
    if series.kind == "volume" and mask.shape[0] > 1:
        cm3 = count * float(np.prod(spacing)) / 1000.0
        return f"volume {_number(cm3)} cm3, extent {' x '.join(_number(mm) for mm in extent)} mm"
    cm2 = count * spacing[1] * spacing[2] / 100.0
    size = " x ".join(_number(mm) for mm in extent[1:])
    return f"area {_number(cm2)} cm2, extent {size} mm"


def parts(mask: Mask, *, whole: bool) -> int:
    """Count connected parts, in the volume or, for pictures on their own, in all of them."""
    if not whole:
        return sum(parts(frame[None], whole=True) for frame in mask if frame.any())
    image = SimpleITK.GetImageFromArray(mask.astype(np.uint8))
    found = SimpleITK.ConnectedComponent(image, True)
    return int(SimpleITK.GetArrayViewFromImage(found).max())


def mean_value(series: Series, frame: int, pixels: NDArray[np.bool_]) -> str:
    """Say which values a region has: mean and range, with the unit of the card; "" for colour."""
    if series.images.ndim == 4:
        return ""
    values = series.images[frame][pixels].astype(np.float64)
    values = values[np.isfinite(values)]
    if not values.size:
        return ""
    unit = series.modality.intensity.unit
    low, high = np.percentile(values, (5, 95))
    mean = _number(float(values.mean()))
    return f"mean value {mean}{' ' + unit if unit else ''} ({_number(low)} to {_number(high)})"


def _offset(mask: Mask) -> NDArray[np.float64]:
    """Centre of gravity as an offset from the middle of the grid, in steps."""
    total = mask.sum()
    sums = (mask.sum(axis=(1, 2)), mask.sum(axis=(0, 2)), mask.sum(axis=(0, 1)))
    return np.array(
        [float((line * np.arange(line.size)).sum() / total) - (line.size - 1) / 2 for line in sums]
    )


def _number(value: float) -> str:
    """Three significant digits, without an exponent."""
    text = f"{value:.3g}"
    return f"{value:.0f}" if "e" in text else text


def _percent(part: float) -> str:
    return f"{100 * part:.2g} %" if part < 0.995 else "100 %"
