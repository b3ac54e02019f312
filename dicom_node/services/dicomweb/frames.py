"""Frames, as they are stored, decoded, or rendered for the eye (PS3.18 10.4.1.1.6, 10.4.1.1.4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.pixels.utils import iter_pixels

from dicom_node.errors import FinalError
from dicom_node.objects.calibration import numbers
from dicom_node.objects.headers import PARSE_ERRORS, UnreadableError, quiet_pydicom, read_header
from dicom_node.services.dicomweb.files import EXPLICIT, NotAcceptableError, transfer_syntax_of
from dicom_node.services.dicomweb.multipart import MediaType
from dicom_node.services.dicomweb.negotiation import OCTETS

# PS3.18 Table 8.7.3-5.
FRAME_TYPES: Final[Mapping[str, tuple[str, ...]]] = {
    "image/jpeg": tuple(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70)),
    "image/jls": ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"),
    "image/jp2": ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"),
    "image/jphc": tuple(f"1.2.840.10008.1.2.4.{n}" for n in (201, 202, 203)),
    "image/jxl": tuple(f"1.2.840.10008.1.2.4.{n}" for n in (110, 111, 112)),
    "image/dicom-rle": ("1.2.840.10008.1.2.5",),
}
_MOST_PIXELS: Final = 1 << 26
_QUALITY: Final = 90


class NoPixelsError(FinalError):
    """The object has no such frame, or none at all."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Frames in one form.

    Attributes
    ----------
    media_type
        Content-Type of each, with the transfer syntax.
    frames
        Their bytes, read while they are taken.
    """

    media_type: str
    frames: Iterator[bytes]


@dataclass(frozen=True, slots=True)
class View:
    """How a frame is rendered (PS3.18 8.3.5).

    Attributes
    ----------
    window
        Centre and width; None: as the object says.
    size
        Columns and rows to fit into; None: as they are.
    quality
        Of JPEG, 1 to 100.
    """

    window: tuple[float, float] | None = None
    size: tuple[int, int] | None = None
    quality: int = _QUALITY


def number_of_frames(path: Path) -> int:
    """Return how many frames a file has.

    Raises
    ------
    NoPixelsError
        It has no pixel data, or is no DICOM.
    """
    try:
        header = read_header(path)
    except UnreadableError as error:
        raise NoPixelsError(f"the object cannot be read: {error}") from error
    if header.pixels is None:
        raise NoPixelsError("the object has no pixel data")
    return max(1, int(header.dataset.get("NumberOfFrames") or 1))


def encoded_frames(path: Path, wanted: Sequence[int], taken: Sequence[MediaType]) -> Encoded:
    """Return frames in the best form that the client takes.

    Parameters
    ----------
    path
        The file.
    wanted
        Numbers of frames, from 1 on.
    taken
        Types of parts that the client takes, the best liked first.

    Raises
    ------
    NoPixelsError
        There is no such frame.
    NotAcceptableError
        The client takes no form that they can be had in.
    """
    count = number_of_frames(path)
    if any(not 1 <= number <= count for number in wanted):
        raise NoPixelsError(f"the object has frames 1 to {count}")
    stored = transfer_syntax_of(path)
    as_stored = next((name for name, some in FRAME_TYPES.items() if stored in some), "")
    for entry in taken:
        syntax = entry.parameters.get("transfer-syntax", "")
        if as_stored and entry.name in (as_stored, "image/*") and syntax in ("", "*", stored):
            return Encoded(f"{as_stored}; transfer-syntax={stored}", _stored(path, wanted, count))
        if entry.name in (OCTETS, "*/*") and syntax in ("", "*", EXPLICIT):
            return Encoded(f"{OCTETS}; transfer-syntax={EXPLICIT}", _decoded(path, wanted))
    raise NotAcceptableError(
        f"frames can be had as {OCTETS}" + (f" or as {as_stored}" if as_stored else "")
    )


def _stored(path: Path, wanted: Sequence[int], count: int) -> Iterator[bytes]:
    dataset = dcmread(path)
    for number in wanted:
        yield get_frame(dataset.PixelData, number - 1, number_of_frames=count)


def _decoded(path: Path, wanted: Sequence[int]) -> Iterator[bytes]:
    with quiet_pydicom():
        bits = int(dcmread(path, stop_before_pixels=True).get("BitsAllocated") or 0)
        for values in _arrays(path, wanted, raw=True):
            if bits == 1:
                yield np.packbits(values.reshape(-1) != 0, bitorder="little").tobytes()
            else:
                yield values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()


def _arrays(path: Path, wanted: Sequence[int], *, raw: bool) -> Iterator[NDArray[Any]]:
    try:
        yield from iter_pixels(path, indices=[number - 1 for number in wanted], raw=raw)
    except (*PARSE_ERRORS, RuntimeError) as error:
        raise NoPixelsError(f"the pixel data cannot be decoded ({type(error).__name__})") from error


def rendered(path: Path, number: int, form: str, view: View) -> bytes:
    """Draw a frame.

    Parameters
    ----------
    path
        The file.
    number
        From 1 on.
    form
        ``image/jpeg`` or ``image/png``.
    view
        How.

    Raises
    ------
    NoPixelsError
        There is no such frame, or it cannot be decoded.
    """
    count = number_of_frames(path)
    if not 1 <= number <= count:
        raise NoPixelsError(f"the object has frames 1 to {count}")
    with quiet_pydicom():
        header = dcmread(path, stop_before_pixels=True)
        if int(header.get("Rows") or 0) * int(header.get("Columns") or 0) > _MOST_PIXELS:
            raise NoPixelsError("the frame is too large to be rendered")
        values = next(_arrays(path, [number], raw=False))
        try:
            image = Image.fromarray(_grey_or_colour(values, header, view))
        except (*PARSE_ERRORS, RuntimeError) as error:
            sentence = f"the frame cannot be rendered ({type(error).__name__})"
            raise NoPixelsError(sentence) from error
    if view.size is not None:
        image.thumbnail(view.size)
    out = BytesIO()
    if form == "image/png":
        image.save(out, "PNG")
    else:
        image.save(out, "JPEG", quality=view.quality)
    return out.getvalue()


def _grey_or_colour(values: NDArray[Any], header: Dataset, view: View) -> NDArray[np.uint8]:
    if values.ndim == 3:
        shift = max(0, int(header.get("BitsStored") or 8) - 8)
        colour: NDArray[np.uint8] = (values >> shift).astype(np.uint8)
        return colour
    scaled = np.asarray(apply_modality_lut(values, header), dtype=np.float64)
    window = view.window or _own_window(header)
    if window is not None:
        centre, width = window
        low, high = centre - width / 2, centre + width / 2
    else:
        if "VOILUTSequence" in header:
            scaled = np.asarray(apply_voi_lut(apply_modality_lut(values, header), header), float)
        low, high = float(scaled.min()), float(scaled.max())
    grey = np.clip((scaled - low) / max(high - low, 1e-9) * 255, 0, 255).astype(np.uint8)
    inverted = str(header.get("PhotometricInterpretation", "")).strip() == "MONOCHROME1"
    return 255 - grey if inverted else grey


def _own_window(header: Dataset) -> tuple[float, float] | None:
    """Return the first window of the object (PS3.3 C.11.2.1.2), None without one."""
    centre, width = numbers(header, "WindowCenter"), numbers(header, "WindowWidth")
    return (centre[0], width[0]) if centre and width and width[0] > 0 else None
