"""Stored pixel values of a file, decoded by the fastest plug-in installed (PS3.5 8)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
from numpy.typing import NDArray
from pydicom import Dataset, config, dcmread
from pydicom.encaps import encapsulate, generate_fragments, get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from dicom_node.errors import RetriableError
from dicom_node.objects.calibration import number
from dicom_node.objects.headers import PARSE_ERRORS, PixelElement, quiet_pydicom, read_header
from dicom_node.objects.stored_values import (
    PixelError,
    PixelLayout,
    name_of,
    read_bits,
    read_bytes,
    read_native,
)
from dicom_node.objects.video import VideoError, is_video, video_frames

__all__ = ["PixelError", "StoredPixels", "decode", "decode_frames"]

_SEQUENCE_END: Final = b"\xfe\xff\xdd\xe0\0\0\0\0"
_NATIVE: Final = frozenset({ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian})

# Retired progressive and hierarchical JPEG, which pydicom does not know.
_GDCM_ALONE: Final = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (52, 53, 54, 55, 56))

# Fastest first, measured per slice of a 512 x 512 CT: JPEG lossless 2.8 ms with gdcm against 8.7;
# JPEG-LS 3.7 ms with pyjpegls against 15.6; RLE 1.0 ms in pydicom against 12; JPEG 2000 alike.
_PLUGINS: Final[Mapping[UID, tuple[str, ...]]] = {
    JPEGBaseline8Bit: ("gdcm", "pillow", "pylibjpeg"),
    JPEGExtended12Bit: ("gdcm", "pylibjpeg", "pillow"),
    JPEGLossless: ("gdcm", "pylibjpeg"),
    JPEGLosslessSV1: ("gdcm", "pylibjpeg"),
    JPEGLSLossless: ("pyjpegls", "gdcm", "pylibjpeg"),
    JPEGLSNearLossless: ("pyjpegls", "gdcm", "pylibjpeg"),
    JPEG2000Lossless: ("pylibjpeg", "gdcm", "pillow"),
    JPEG2000: ("pylibjpeg", "gdcm", "pillow"),
    HTJ2KLossless: ("pylibjpeg",),
    HTJ2KLosslessRPCL: ("pylibjpeg",),
    HTJ2K: ("pylibjpeg",),
    RLELossless: ("pydicom", "pylibjpeg"),
}


@dataclass(frozen=True, slots=True)
class StoredPixels:
    """Stored values of one frame.

    Attributes
    ----------
    values
        Integers or floats, (rows, columns) or (rows, columns, 3).
    photometric
        Photometric interpretation of ``values``: decoders turn YBR into RGB.
    """

    values: NDArray[Any]
    photometric: str


def decode(path: Path, header: Dataset, element: PixelElement | None = None) -> StoredPixels:
    """Decode the first frame of a file; see `decode_frames`."""
    return next(decode_frames(path, header, element, (0,)))


def decode_frames(
    path: Path, header: Dataset, element: PixelElement | None, frames: Sequence[int]
) -> Iterator[StoredPixels]:
    """Decode frames of a file, one after the other: never more than one is in memory.

    Parameters
    ----------
    path
        The file.
    header
        Its attributes without the pixel data, as `read_header` gives them.
    element
        Where its pixel data are; looked up when not given.
    frames
        Indices from 0. Those of a video must increase: it is read once, from its start.

    Raises
    ------
    PixelError
        Transfer syntax not supported, data damaged, or shorter than Rows, Columns, ... promise.
    RetriableError
        The operating system could not read the file.
    """
    if element is None:
        element = read_header(path).pixels
        if element is None:
            raise PixelError(f"{name_of(header)} has no Pixel Data (7FE0,0010).")
    syntax = UID(header.file_meta.TransferSyntaxUID, config.IGNORE)
    layout = PixelLayout.of(header)
    _require_memory(header, layout)
    if is_video(syntax):
        yield from _decode_video(path, header, syntax, layout, element, frames)
        return
    if len(frames) > 1 and _needs_gdcm(syntax, layout):
        yield from _decode_by_gdcm(path, header, syntax, layout, frames)
        return
    for frame in frames:
        try:
            yield _decode_one(path, header, syntax, layout, element, frame)
        except MemoryError as error:
            raise _too_large(header, layout) from error


def _decode_one(
    path: Path,
    header: Dataset,
    syntax: UID,
    layout: PixelLayout,
    element: PixelElement,
    frame: int,
) -> StoredPixels:
    if syntax in _NATIVE and element.offset is not None:
        if layout.allocated == 1:
            return StoredPixels(read_bits(path, header, element, layout, frame), "MONOCHROME2")
        if layout.is_plain:
            values = read_native(path, header, element, layout, frame)
            return StoredPixels(values, layout.photometric)
    with quiet_pydicom():
        return _decode_by_pydicom(path, header, syntax, layout, element, frame)


def _require_memory(header: Dataset, layout: PixelLayout) -> None:
    """Refuse a frame that memory cannot hold: the system would end the process instead."""
    # Once as it is stored, once more while it is converted.
    if 3 * layout.byte_count > psutil.virtual_memory().available:
        raise _too_large(header, layout)


def _too_large(header: Dataset, layout: PixelLayout) -> PixelError:
    return PixelError(
        f"A frame of {name_of(header, first=False)} is larger than memory: Rows (0028,0010) "
        f"{layout.rows} x Columns (0028,0011) {layout.columns}, {layout.byte_count / 1e9:.1f} GB."
    )


def _needs_gdcm(syntax: UID, layout: PixelLayout) -> bool:
    return syntax in _GDCM_ALONE or (syntax == JPEGExtended12Bit and layout.stored > 8)


def _decode_by_pydicom(
    path: Path,
    header: Dataset,
    syntax: UID,
    layout: PixelLayout,
    element: PixelElement,
    frame: int,
) -> StoredPixels:
    """Decode with the first plug-in of the list that can; say why each one could not."""
    if _needs_gdcm(syntax, layout):
        return next(_decode_by_gdcm(path, header, syntax, layout, (frame,)))
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise _undecodable(header, syntax, "no decoder for it exists here") from error
    index = 0
    if syntax.is_encapsulated and element.offset is not None:
        dataset = _pixels_alone(header, layout, _fragments(path, header, syntax, element, frame))
    elif syntax in _NATIVE and element.offset is not None and layout.is_subsampled:
        size = layout.byte_count * 2 // 3
        data = read_bytes(path, header, element, frame * size, size)
        dataset = _pixels_alone(header, layout, data)
    else:
        dataset, index = _whole(path, header), frame
    wanted = [p for p in _PLUGINS.get(syntax, ()) if p in decoder.available_plugins]
    if not wanted and syntax.is_encapsulated:
        missing = ", ".join(_PLUGINS.get(syntax, ())) or "none is known"
        raise _undecodable(header, syntax, f"its decoder is not installed ({missing})")
    reasons = []
    for plugin in wanted or [""]:
        try:
            values, meta = decoder.as_array(dataset, decoding_plugin=plugin, index=index)
        except (*PARSE_ERRORS, RuntimeError) as error:
            reasons.append(_reason(error))
            continue
        return StoredPixels(np.asarray(values), str(meta["photometric_interpretation"]).upper())
    raise _undecodable(header, syntax, "; ".join(dict.fromkeys(reasons)))


def _decode_by_gdcm(
    path: Path, header: Dataset, syntax: UID, layout: PixelLayout, frames: Sequence[int]
) -> Iterator[StoredPixels]:
    """Decode a whole file with GDCM: the only one here for 12-bit lossy and progressive JPEG."""
    try:
        import gdcm
    except ImportError as error:
        raise _undecodable(header, syntax, "its decoder is not installed (gdcm)") from error
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    if not reader.Read():
        raise _undecodable(header, syntax, "GDCM found the data damaged")
    # SWIG hands bytes over as text with surrogates for what is not UTF-8.
    data = reader.GetImage().GetBuffer().encode("utf-8", "surrogateescape")
    needed = layout.byte_count * (max(frames) + 1)
    if layout.samples != 1 or len(data) < needed:
        raise _undecodable(header, syntax, f"GDCM gave {len(data)} bytes of {needed}")
    dtype = np.dtype(f"{'i' if layout.signed else 'u'}{layout.allocated // 8}")
    for frame in frames:
        values = np.frombuffer(
            data, dtype, count=layout.rows * layout.columns, offset=frame * layout.byte_count
        )
        yield StoredPixels(values.reshape(layout.rows, layout.columns), layout.photometric)


def _decode_video(
    path: Path,
    header: Dataset,
    syntax: UID,
    layout: PixelLayout,
    element: PixelElement,
    frames: Sequence[int],
) -> Iterator[StoredPixels]:
    """Decode frames of an MPEG stream, the fragments of which follow each other (PS3.5 A.4.5)."""
    try:
        with path.open("rb") as file:
            file.seek(element.offset or 0)
            stream = b"".join(generate_fragments(file))
    except OSError as error:
        raise RetriableError(f"The file {path} could not be read: {error.strerror}.") from error
    except PARSE_ERRORS as error:
        raise _undecodable(header, syntax, _reason(error)) from error
    try:
        for values in video_frames(stream, frames):
            if values.shape != (layout.rows, layout.columns, 3):
                raise VideoError(f"its pictures are {values.shape[1]} x {values.shape[0]}")
            yield StoredPixels(values, "RGB")
    except VideoError as error:
        raise _undecodable(header, syntax, str(error)) from error


def _fragments(
    path: Path, header: Dataset, syntax: UID, element: PixelElement, frame: int
) -> bytes:
    """Return the encapsulated pixel data of one frame, as an object of one frame has them.

    A file that ends without the delimiter of its pixel data is read like any other.
    """
    count = int(number(header, "NumberOfFrames") or 1)
    try:
        with path.open("rb") as file:
            file.seek(element.offset or 0)
            if count <= 1 and frame == 0:
                return file.read(element.available) + _SEQUENCE_END
            table = header.get("ExtendedOffsetTable"), header.get("ExtendedOffsetTableLengths")
            offsets = (table[0], table[1]) if table[0] and table[1] else None
            data = get_frame(file, frame, number_of_frames=count, extended_offsets=offsets)
    except OSError as error:
        raise RetriableError(f"The file {path} could not be read: {error.strerror}.") from error
    except PARSE_ERRORS as error:
        raise _undecodable(header, syntax, f"frame {frame + 1}: {_reason(error)}") from error
    return encapsulate([data + b"\0" * (len(data) % 2)]) + _SEQUENCE_END


def _pixels_alone(header: Dataset, layout: PixelLayout, data: bytes) -> Dataset:
    """Return a data set of one frame's pixel data and what describes them, no more.

    The header is not parsed again.
    """
    dataset = Dataset()
    dataset.file_meta = header.file_meta
    dataset.Rows, dataset.Columns = layout.rows, layout.columns
    dataset.SamplesPerPixel = layout.samples
    dataset.PhotometricInterpretation = layout.photometric
    dataset.BitsAllocated, dataset.BitsStored = layout.allocated, layout.stored
    dataset.HighBit, dataset.PixelRepresentation = layout.high_bit, int(layout.signed)
    if layout.samples > 1:
        dataset.PlanarConfiguration = int(layout.planar)
    dataset.PixelData = data
    dataset["PixelData"].VR = "OB"
    return dataset


def _whole(path: Path, header: Dataset) -> Dataset:
    """Read a file with its pixel data."""
    try:
        dataset = dcmread(path, force=True)
    except OSError as error:
        if error.errno is not None:
            raise RetriableError(f"The file {path} could not be read: {error.strerror}.") from error
        raise PixelError(
            f"The file of {name_of(header, first=False)} is damaged: {error}."
        ) from error
    except PARSE_ERRORS as error:
        raise PixelError(
            f"The file of {name_of(header, first=False)} is damaged: {_reason(error)}."
        ) from error
    if "PixelData" not in dataset:
        raise PixelError(f"{name_of(header)} has no Pixel Data (7FE0,0010).")
    dataset.file_meta.TransferSyntaxUID = header.file_meta.TransferSyntaxUID
    return dataset


def _undecodable(header: Dataset, syntax: UID, reason: str) -> PixelError:
    name = syntax.name if syntax.name == str(syntax) else f"{syntax.name}, {syntax}"
    return PixelError(
        f"The pixel data of {name_of(header, first=False)} cannot be decoded (transfer syntax "
        f"{name}): {reason}."
    )


def _reason(error: BaseException) -> str:
    lines = [line.strip(" .") for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if len(lines) > 1 else (lines[0] if lines else type(error).__name__)
    return text[:200]
