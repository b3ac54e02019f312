"""Pixel values of a source in the units that its class promises.

CT in Hounsfield units, PET in SUVbw, MR and grayscale images in their own units, colour as RGB.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.pixels.processing import (
    apply_color_lut,
    apply_modality_lut,
    apply_voi,
    convert_color_space,
)

from dicom_node.objects.calibration import number, numbers
from dicom_node.objects.decoding import PixelError, StoredPixels
from dicom_node.objects.frame_decoding import stored_frames
from dicom_node.objects.frame_room import room_for
from dicom_node.objects.headers import PARSE_ERRORS, quiet_pydicom
from dicom_node.objects.series import Source
from dicom_node.objects.storage_classes import CT_CLASSES, PET_CLASSES, VOLUME_CLASSES
from dicom_node.objects.suv import suv_factor

__all__ = ["PixelError", "PixelValues", "Unit", "read_pixels"]

Unit = Literal["HU", "SUVbw", "arbitrary", "rgb"]

# float32 holds values up to 3.4e38; a product beyond this is no measurement.
_LARGEST_VALUE: Final = 1e30


@dataclass(frozen=True, eq=False)
class PixelValues:
    """The pixels of a source, frame by frame in its order.

    Attributes
    ----------
    values
        float32 (frames, rows, columns), or uint8 (frames, rows, columns, 3) for colour.
    unit
        ``"HU"``, ``"SUVbw"`` (g/ml), ``"arbitrary"``, or ``"rgb"``.
    description
        How stored values became these, in words and numbers.
    window
        First VOI window of a grayscale image or volume, (lower, upper) in ``unit``; None where
        the header has none. Not applied to ``values``.
    """

    values: NDArray[Any]
    unit: Unit
    description: str
    window: tuple[float, float] | None = None


def read_pixels(source: Source, scratch: Path | None = None) -> PixelValues:
    """Decode all frames of a source, one by one, and bring them to their physical unit.

    Parameters
    ----------
    source
        What to read.
    scratch
        Folder for values that do not fit into memory.

    Raises
    ------
    PixelError
        Naming the attribute or the transfer syntax, and why.
    RetriableError
        The operating system could not read a file, or has no room for the values.
    """
    frames = stored_frames(source)
    first = next(frames)
    if first.photometric.startswith("MONOCHROME"):
        return _read_grayscale(source, first, frames, scratch)
    if source.sop_class_uid in {*VOLUME_CLASSES, *CT_CLASSES, *PET_CLASSES}:
        raise PixelError(
            f"Photometric Interpretation (0028,0004) of this {source.modality} series is "
            f"{first.photometric}: colours have no values in physical units."
        )
    values = room_for((*source.shape, 3), np.uint8, scratch)
    for index, stored in enumerate(chain((first,), frames)):
        colours = _to_rgb(stored, source.frame_header(index), source.headers[0])
        _require_shape(colours.shape[:2], source, index)
        values[index] = colours
    return PixelValues(values, "rgb", f"{first.photometric} as 8-bit RGB")


def _require_shape(shape: tuple[int, ...], source: Source, frame: int) -> None:
    if shape != source.shape[1:]:
        header = source.headers[0 if source.frame_numbers else frame]
        raise PixelError(
            f"The pixel data of instance {header.SOPInstanceUID} decode to "
            f"{shape}, Rows and Columns (0028,0010) promise {source.shape[1:]}."
        )


def _read_grayscale(
    source: Source, first: StoredPixels, rest: Iterator[StoredPixels], scratch: Path | None
) -> PixelValues:
    """Return rescaled values; unit by modality."""
    unit, factor, description = _unit(source)
    values = room_for(source.shape, np.float32, scratch)
    for frame, stored in enumerate(chain((first,), rest)):
        _require_shape(stored.values.shape, source, frame)
        _rescale(stored.values, source.frame_header(frame), factor, out=values[frame])
    header = source.frame_header(0)
    window = _window(header, factor)
    turn = _turning_point(header, first.values)
    if window is None and header.get("VOILUTSequence") and unit == "arbitrary":
        turn = _apply_voi_lut(values, source)
        description += "; VOI LUT Sequence (0028,3010) applied"
    if source.kind == "image" and first.photometric == "MONOCHROME1":
        np.subtract(np.float32(turn), values, out=values)
        window = (turn - window[1], turn - window[0]) if window else None
        description += "; MONOCHROME1 inverted, so that large is bright"
    if window:
        description += f"; window {window[0]:g} to {window[1]:g}"
    return PixelValues(values, unit, description, window)


def _apply_voi_lut(values: NDArray[np.float32], source: Source) -> float:
    """Look values up in the first VOI LUT (PS3.3 C.11.2); returns its largest output."""
    largest = 0.0
    for frame in range(len(values)):
        header = source.frame_header(frame)
        try:
            with quiet_pydicom():
                looked_up = apply_voi(np.rint(values[frame]).astype(np.int32), header)
            bits = int(header.VOILUTSequence[0].LUTDescriptor[2])
        except PARSE_ERRORS as error:
            raise PixelError(
                f"VOI LUT Sequence (0028,3010) of instance {source.headers[0].SOPInstanceUID} "
                f"cannot be applied: {error}."
            ) from error
        values[frame] = looked_up
        largest = max(largest, 2.0**bits - 1.0)
    return largest


def _unit(source: Source) -> tuple[Unit, float, str]:
    """Return unit, factor on rescaled values, and the description."""
    headers = [source.frame_header(index) for index in range(source.shape[0])]
    header = headers[0]
    if source.sop_class_uid in PET_CLASSES:
        factor, description = suv_factor(headers)
        return "SUVbw", factor, description
    how = _rescale_description(header)
    if source.sop_class_uid not in CT_CLASSES:
        return "arbitrary", 1.0, how
    rescale_type = str(header.get("RescaleType") or "HU").strip().upper()
    if rescale_type != "HU":
        return "arbitrary", 1.0, f"{how}; Rescale Type (0028,1054) is {rescale_type}, not HU"
    if number(header, "RescaleSlope") is None or number(header, "RescaleIntercept") is None:
        missing = "Rescale Slope (0028,1053) or Rescale Intercept (0028,1052) is absent"
        return "arbitrary", 1.0, f"stored values: {missing}, so these are not HU"
    return "HU", 1.0, how


def _rescale_description(header: Dataset) -> str:
    if "ModalityLUTSequence" in header:
        return "Modality LUT Sequence (0028,3000) applied"
    slope, intercept = number(header, "RescaleSlope"), number(header, "RescaleIntercept")
    if slope is None and intercept is None:
        return "stored values"
    return f"stored value x {1.0 if slope is None else slope:g} {intercept or 0.0:+g}"


def _rescale(
    stored: NDArray[Any], header: Dataset, factor: float, *, out: NDArray[np.float32]
) -> None:
    """Apply the modality transformation of one slice (PS3.3 C.11.1) and the factor."""
    if header.get("ModalityLUTSequence"):
        try:
            with quiet_pydicom():
                out[...] = apply_modality_lut(stored, header)
        except PARSE_ERRORS as error:
            raise PixelError(
                f"Modality LUT Sequence (0028,3000) of instance {header.SOPInstanceUID} cannot be "
                f"applied: {error}."
            ) from error
        return
    slope, intercept = _slope_intercept(header)
    scale, shift = slope * factor, intercept * factor
    # Up to 24 bits float32 is exact; larger stored values go the long way.
    working = stored if stored.dtype.itemsize <= 2 else stored.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        np.multiply(working, scale, out=out, casting="unsafe", dtype=_working_type(stored))
        if shift:
            out += np.float32(shift)
    limit = float(np.iinfo(stored.dtype).max) if stored.dtype.kind in "iu" else _LARGEST_VALUE
    if abs(scale) * limit + abs(shift) > _LARGEST_VALUE and not np.isfinite(out).all():
        raise PixelError(
            f"Rescale Slope (0028,1053) of instance {header.SOPInstanceUID} is {slope:g}: the "
            "values leave the range of numbers."
        )


def _working_type(stored: NDArray[Any]) -> type[np.float32] | type[np.float64]:
    return np.float32 if stored.dtype.itemsize <= 2 else np.float64


def _slope_intercept(header: Dataset) -> tuple[float, float]:
    slope = number(header, "RescaleSlope")
    intercept = number(header, "RescaleIntercept")
    if slope == 0.0 or (slope is None and numbers(header, "RescaleSlope")):
        raise PixelError(
            f"Rescale Slope (0028,1053) of instance {header.SOPInstanceUID} is "
            f"{header.RescaleSlope}: every pixel would have the same value."
        )
    return (1.0 if slope is None else slope), (intercept or 0.0)


def _turning_point(header: Dataset, stored: NDArray[Any]) -> float:
    """Return darkest plus brightest rescaled value: subtracting from it inverts an image."""
    bits = int(number(header, "BitsStored") or stored.dtype.itemsize * 8)
    signed = number(header, "PixelRepresentation") == 1
    # Lowest plus highest value that the stored bits can hold.
    ends = -1.0 if signed else 2.0**bits - 1.0
    if header.get("ModalityLUTSequence"):
        return float(2 ** int(header.ModalityLUTSequence[0].LUTDescriptor[2]) - 1)
    slope, intercept = _slope_intercept(header)
    return slope * ends + 2.0 * intercept


def _window(header: Dataset, factor: float) -> tuple[float, float] | None:
    """Return the first window (PS3.3 C.11.2.1.2) as (lower, upper), or None."""
    centre, width = numbers(header, "WindowCenter"), numbers(header, "WindowWidth")
    if not centre or not width or not np.isfinite([centre[0], width[0]]).all() or width[0] <= 0:
        return None
    lower, upper = centre[0] - width[0] / 2.0, centre[0] + width[0] / 2.0
    return lower * factor, upper * factor


def _to_rgb(stored: StoredPixels, frame: Dataset, header: Dataset) -> NDArray[np.uint8]:
    """Return an 8-bit RGB image (rows, columns, 3) of a palette or colour image."""
    values, bits = stored.values, int(number(frame, "BitsStored") or 8)
    if stored.photometric == "PALETTE COLOR":
        values, bits = _apply_palette(values, header)
    elif stored.photometric != "RGB":
        values = _from_ybr(stored, header)
    if values.ndim != 3 or values.shape[2] != 3:
        raise PixelError(
            f"Photometric Interpretation (0028,0004) {stored.photometric} of instance "
            f"{header.SOPInstanceUID} does not fit Samples per Pixel (0028,0002)."
        )
    if bits > 8:
        values = np.right_shift(values, bits - 8)
    return np.asarray(values.clip(0, 255), dtype=np.uint8)


def _apply_palette(values: NDArray[Any], header: Dataset) -> tuple[NDArray[Any], int]:
    """Look colours up in the palette (PS3.3 C.7.6.3.1.5); returns colours and their bits."""
    try:
        with quiet_pydicom():
            colours = apply_color_lut(values, header)
    except PARSE_ERRORS as error:
        raise PixelError(
            f"The palette of instance {header.SOPInstanceUID} (Red Palette Color Lookup Table "
            f"Descriptor (0028,1101) ...) cannot be applied: {error}."
        ) from error
    # Some writers keep 8-bit colours in 16-bit entries.
    return colours, 16 if colours.dtype.itemsize > 1 and colours.max() > 255 else 8


def _from_ybr(stored: StoredPixels, header: Dataset) -> NDArray[Any]:
    """Convert YBR that came uncompressed (PS3.3 C.7.6.3.1.2)."""
    if stored.photometric not in ("YBR_FULL", "YBR_FULL_422") or stored.values.dtype != np.uint8:
        raise PixelError(
            f"Photometric Interpretation (0028,0004) of instance {header.SOPInstanceUID} is "
            f"{stored.photometric} with {header.BitsAllocated} bits: such colours cannot be read."
        )
    return np.asarray(convert_color_space(stored.values, stored.photometric, "RGB"))
