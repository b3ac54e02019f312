"""Stored pixel values of one file, decoded by the fastest plug-in installed (PS3.5 8)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, config, dcmread
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

from dicom_node.errors import FinalError, RetriableError
from dicom_node.objects.calibration import number
from dicom_node.objects.headers import PARSE_ERRORS, PixelElement, quiet_pydicom, read_header

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


class PixelError(FinalError):
    """Pixel values cannot be had; the sentence names the attribute or transfer syntax."""


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
    """Decode the single frame of a file.

    Parameters
    ----------
    path
        The file.
    header
        Its attributes without the pixel data, as `read_header` gives them.
    element
        Where its pixel data are; looked up when not given.

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
            raise PixelError(f"{_who(header)} has no Pixel Data (7FE0,0010).")
    syntax = UID(header.file_meta.TransferSyntaxUID, config.IGNORE)
    layout = _Layout.of(header)
    try:
        if syntax in _NATIVE and layout.is_plain and element.offset is not None:
            return StoredPixels(_read_native(path, header, element, layout), layout.photometric)
        with quiet_pydicom():
            return _decode_by_pydicom(path, header, syntax, layout, element)
    except MemoryError as error:
        raise PixelError(
            f"{_who(header)} is larger than memory: Rows (0028,0010) {layout.rows} x Columns "
            f"(0028,0011) {layout.columns}."
        ) from error


@dataclass(frozen=True, slots=True)
class _Layout:
    """The image pixel module (PS3.3 C.7.6.3), checked."""

    rows: int
    columns: int
    samples: int
    allocated: int
    stored: int
    high_bit: int
    signed: bool
    planar: bool
    photometric: str

    @classmethod
    def of(cls, header: Dataset) -> _Layout:
        """Read and check the module; raises `PixelError` naming the attribute that is wrong."""
        samples = int(number(header, "SamplesPerPixel") or 1)
        photometric = str(header.get("PhotometricInterpretation") or "").strip().upper()
        allocated = _positive(header, "BitsAllocated", "0028,0100")
        stored = int(number(header, "BitsStored") or allocated)
        high = number(header, "HighBit")
        if stored > allocated:
            raise PixelError(
                f"Bits Stored (0028,0101) of {_who(header, first=False)} is {stored}, more than "
                f"Bits Allocated (0028,0100), {allocated}."
            )
        if samples not in (1, 3):
            raise PixelError(
                f"Samples per Pixel (0028,0002) of {_who(header, first=False)} is {samples}: only "
                "1 and 3 exist (colour with an alpha channel was retired from DICOM)."
            )
        return cls(
            rows=_positive(header, "Rows", "0028,0010"),
            columns=_positive(header, "Columns", "0028,0011"),
            samples=samples,
            allocated=allocated,
            stored=stored,
            high_bit=stored - 1 if high is None or high >= allocated else int(high),
            signed=number(header, "PixelRepresentation") == 1,
            planar=number(header, "PlanarConfiguration") == 1,
            photometric=photometric or ("RGB" if samples == 3 else "MONOCHROME2"),
        )

    @property
    def is_plain(self) -> bool:
        """True when the values lie in the file as whole bytes, one after the other."""
        subsampled = self.photometric in ("YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420")
        return self.allocated in (8, 16, 32) and not subsampled

    @property
    def byte_count(self) -> int:
        """Bytes of the frame."""
        return self.rows * self.columns * self.samples * self.allocated // 8


def _positive(header: Dataset, keyword: str, tag: str) -> int:
    value = number(header, keyword)
    if value is None or value < 1:
        raise PixelError(f"{keyword} ({tag}) of {_who(header, first=False)} is absent or zero.")
    return int(value)


def _who(header: Dataset, *, first: bool = True) -> str:
    return f"{'I' if first else 'i'}nstance {header.get('SOPInstanceUID', 'without UID')}"


def _too_short(header: Dataset, needed: int, there: int) -> PixelError:
    return PixelError(
        f"Pixel Data (7FE0,0010) of {_who(header, first=False)} is too short: its attributes "
        f"promise {needed} bytes, {there} are there. The file was cut off; send it again."
    )


def _read_native(
    path: Path, header: Dataset, element: PixelElement, layout: _Layout
) -> NDArray[Any]:
    """Read uncompressed values straight from the file; excess bytes (padding) are left alone."""
    try:
        with path.open("rb") as file:
            file.seek(element.offset or 0)
            data = file.read(min(layout.byte_count + layout.byte_count % 2, element.length))
    except OSError as error:
        raise RetriableError(f"The file {path} could not be read: {error.strerror}.") from error
    if len(data) < layout.byte_count:
        raise _too_short(header, layout.byte_count, len(data))
    big = header.file_meta.TransferSyntaxUID == ExplicitVRBigEndian
    # 8-bit values of a big endian OW element are swapped in pairs (PS3.5 8.1.2).
    swapped = big and layout.allocated == 8 and _is_word(path, element)
    if swapped:
        data = np.frombuffer(data, "<u2", count=len(data) // 2).byteswap().tobytes()
    dtype = np.dtype(f"{'>' if big else '<'}u{layout.allocated // 8}")
    values = np.frombuffer(data, dtype, count=layout.byte_count // dtype.itemsize)
    values = _used_bits(values.astype(dtype.newbyteorder("="), copy=False), layout)
    return _arrange(values, layout)


def _is_word(path: Path, element: PixelElement) -> bool:
    """Return whether the VR before the pixel data is OW (explicit VR: 8 bytes before)."""
    with path.open("rb") as file:
        file.seek((element.offset or 0) - 8)
        return file.read(2) == b"OW"


def _used_bits(values: NDArray[Any], layout: _Layout) -> NDArray[Any]:
    """Take the stored bits out of each value: the others may hold anything (PS3.5 8.1.1)."""
    top = layout.allocated - 1 - layout.high_bit
    unused = layout.allocated - layout.stored
    if top:
        values = values << top
    if layout.signed:
        values = values.view(values.dtype.str.replace("u", "i"))
    return values >> unused if unused else values


def _arrange(values: NDArray[Any], layout: _Layout) -> NDArray[Any]:
    if layout.samples == 1:
        return values.reshape(layout.rows, layout.columns)
    if layout.planar:
        planes = values.reshape(layout.samples, layout.rows, layout.columns)
        return np.ascontiguousarray(planes.transpose(1, 2, 0))
    return values.reshape(layout.rows, layout.columns, layout.samples)


def _decode_by_pydicom(
    path: Path, header: Dataset, syntax: UID, layout: _Layout, element: PixelElement
) -> StoredPixels:
    """Decode with the first plug-in of the list that can; say why each one could not."""
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        if syntax in _GDCM_ALONE:
            return _decode_by_gdcm(path, header, syntax, layout)
        raise _undecodable(header, syntax, "no decoder for it exists here") from error
    if syntax == JPEGExtended12Bit and layout.stored > 8:
        return _decode_by_gdcm(path, header, syntax, layout)
    if syntax.is_encapsulated and element.offset is not None:
        dataset = _pixels_alone(path, header, layout, element)
    else:
        dataset = _whole(path, header)
    wanted = [p for p in _PLUGINS.get(syntax, ()) if p in decoder.available_plugins]
    if not wanted and syntax.is_encapsulated:
        missing = ", ".join(_PLUGINS.get(syntax, ())) or "none is known"
        raise _undecodable(header, syntax, f"its decoder is not installed ({missing})")
    reasons = []
    for plugin in wanted or [""]:
        try:
            values, meta = decoder.as_array(dataset, decoding_plugin=plugin)
        except (*PARSE_ERRORS, RuntimeError) as error:
            reasons.append(_reason(error))
            continue
        values = np.asarray(values)
        # A file may hold more frames than it states; the first is the one that is stated.
        while values.ndim > (2 if layout.samples == 1 else 3):
            values = values[0]
        return StoredPixels(values, str(meta["photometric_interpretation"]).upper())
    raise _undecodable(header, syntax, "; ".join(dict.fromkeys(reasons)))


def _decode_by_gdcm(path: Path, header: Dataset, syntax: UID, layout: _Layout) -> StoredPixels:
    """Decode a whole file with GDCM: the only one here for 12-bit lossy and progressive JPEG."""
    try:
        import gdcm
    except ImportError as error:
        raise _undecodable(header, syntax, "its decoder is not installed (gdcm)") from error
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    if not reader.Read():
        raise _undecodable(header, syntax, "GDCM found the data damaged")
    image = reader.GetImage()
    # SWIG hands bytes over as text with surrogates for what is not UTF-8.
    data = image.GetBuffer().encode("utf-8", "surrogateescape")
    dtype = np.dtype(f"{'i' if layout.signed else 'u'}{layout.allocated // 8}")
    if layout.samples != 1 or len(data) < layout.byte_count:
        raise _undecodable(header, syntax, f"GDCM gave {len(data)} bytes of {layout.byte_count}")
    values = np.frombuffer(data, dtype, count=layout.rows * layout.columns)
    return StoredPixels(values.reshape(layout.rows, layout.columns), layout.photometric)


def _pixels_alone(path: Path, header: Dataset, layout: _Layout, element: PixelElement) -> Dataset:
    """Return a data set of encapsulated pixel data and what describes them, no more.

    The header is not parsed again, and a file that ends without the delimiter of its pixel data
    is read like any other.
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
    try:
        with path.open("rb") as file:
            file.seek(element.offset or 0)
            dataset.PixelData = file.read(element.available) + _SEQUENCE_END
    except OSError as error:
        raise RetriableError(f"The file {path} could not be read: {error.strerror}.") from error
    dataset["PixelData"].VR = "OB"
    return dataset


def _whole(path: Path, header: Dataset) -> Dataset:
    """Read a file with its pixel data."""
    try:
        dataset = dcmread(path, force=True)
    except OSError as error:
        if error.errno is not None:
            raise RetriableError(f"The file {path} could not be read: {error.strerror}.") from error
        raise PixelError(f"The file of {_who(header, first=False)} is damaged: {error}.") from error
    except PARSE_ERRORS as error:
        raise PixelError(
            f"The file of {_who(header, first=False)} is damaged: {_reason(error)}."
        ) from error
    if "PixelData" not in dataset:
        raise PixelError(f"{_who(header)} has no Pixel Data (7FE0,0010).")
    dataset.file_meta.TransferSyntaxUID = header.file_meta.TransferSyntaxUID
    return dataset


def _undecodable(header: Dataset, syntax: UID, reason: str) -> PixelError:
    name = syntax.name if syntax.name == str(syntax) else f"{syntax.name}, {syntax}"
    return PixelError(
        f"The pixel data of {_who(header, first=False)} cannot be decoded (transfer syntax "
        f"{name}): {reason}."
    )


def _reason(error: BaseException) -> str:
    lines = [line.strip(" .") for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if len(lines) > 1 else (lines[0] if lines else type(error).__name__)
    return text[:200]
