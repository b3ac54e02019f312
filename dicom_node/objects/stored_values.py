"""The image pixel module of one file, and its values where they are not compressed.

PS3.3 C.7.6.3 and PS3.5 8.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import ExplicitVRBigEndian

from dicom_node.errors import FinalError, RetriableError
from dicom_node.objects.calibration import number
from dicom_node.objects.headers import PixelElement


class PixelError(FinalError):
    """Pixel values cannot be had; the sentence names the attribute or transfer syntax."""


@dataclass(frozen=True, slots=True)
class PixelLayout:
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
    def of(cls, header: Dataset) -> PixelLayout:
        """Read and check the module; raises `PixelError` naming the attribute that is wrong."""
        samples = int(number(header, "SamplesPerPixel") or 1)
        photometric = str(header.get("PhotometricInterpretation") or "").strip().upper()
        allocated = _positive(header, "BitsAllocated", "0028,0100")
        stored = int(number(header, "BitsStored") or allocated)
        high = number(header, "HighBit")
        if stored > allocated:
            raise PixelError(
                f"Bits Stored (0028,0101) of {name_of(header, first=False)} is {stored}, more than "
                f"Bits Allocated (0028,0100), {allocated}."
            )
        if samples not in (1, 3):
            raise PixelError(
                f"Samples per Pixel (0028,0002) of {name_of(header, first=False)} is {samples}: "
                "only 1 and 3 exist (colour with an alpha channel was retired from DICOM)."
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
    def is_subsampled(self) -> bool:
        """True for 8-bit colour of which two pixels share their chrominance: 2 bytes a pixel."""
        return self.photometric == "YBR_FULL_422" and self.allocated == 8

    @property
    def byte_count(self) -> int:
        """Bytes of a frame, rounded up."""
        return -(-self.rows * self.columns * self.samples * self.allocated // 8)


def _positive(header: Dataset, keyword: str, tag: str) -> int:
    value = number(header, keyword)
    if value is None or value < 1:
        raise PixelError(f"{keyword} ({tag}) of {name_of(header, first=False)} is absent or zero.")
    return int(value)


def name_of(header: Dataset, *, first: bool = True) -> str:
    """Return what an instance is called in sentences, at their beginning or within."""
    return f"{'I' if first else 'i'}nstance {header.get('SOPInstanceUID', 'without UID')}"


def _too_short(header: Dataset, needed: int, there: int) -> PixelError:
    return PixelError(
        f"Pixel Data (7FE0,0010) of {name_of(header, first=False)} is too short: its attributes "
        f"promise {needed} bytes, {there} are there. The file was cut off; send it again."
    )


def read_bytes(path: Path, header: Dataset, element: PixelElement, start: int, count: int) -> bytes:
    """Read bytes of uncompressed pixel data; excess bytes (padding) are left alone."""
    try:
        with path.open("rb") as file:
            file.seek((element.offset or 0) + start)
            data = file.read(min(count, max(0, element.length - start)))
    except OSError as error:
        raise RetriableError(f"The file {path} could not be read: {error.strerror}.") from error
    if len(data) < count:
        raise _too_short(header, start + count, start + len(data))
    return data


def read_native(
    path: Path, header: Dataset, element: PixelElement, layout: PixelLayout, frame: int
) -> NDArray[Any]:
    """Read uncompressed values straight from the file."""
    big = header.file_meta.TransferSyntaxUID == ExplicitVRBigEndian
    start, count = frame * layout.byte_count, layout.byte_count
    # 8-bit values of a big endian OW element are swapped in pairs (PS3.5 8.1.2).
    if big and layout.allocated == 8 and _is_word(path, element):
        first, last = start - start % 2, start + count + (start + count) % 2
        pairs = read_bytes(path, header, element, first, last - first)
        data = np.frombuffer(pairs, "<u2").byteswap().tobytes()[start - first :][:count]
    else:
        data = read_bytes(path, header, element, start, count)
    dtype = np.dtype(f"{'>' if big else '<'}u{layout.allocated // 8}")
    values = np.frombuffer(data, dtype)
    values = _used_bits(values.astype(dtype.newbyteorder("="), copy=False), layout)
    return _arrange(values, layout)


def read_bits(
    path: Path, header: Dataset, element: PixelElement, layout: PixelLayout, frame: int
) -> NDArray[np.uint8]:
    """Read one frame of single bits: frames follow each other without gaps (PS3.5 8.1.1)."""
    pixels = layout.rows * layout.columns
    first = frame * pixels
    start = first // 8
    data = read_bytes(path, header, element, start, -(-(first + pixels) // 8) - start)
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    return bits[first - start * 8 :][:pixels].reshape(layout.rows, layout.columns)


def _is_word(path: Path, element: PixelElement) -> bool:
    """Return whether the VR before the pixel data is OW (explicit VR: 8 bytes before)."""
    with path.open("rb") as file:
        file.seek((element.offset or 0) - 8)
        return file.read(2) == b"OW"


def _used_bits(values: NDArray[Any], layout: PixelLayout) -> NDArray[Any]:
    """Take the stored bits out of each value: the others may hold anything (PS3.5 8.1.1)."""
    top = layout.allocated - 1 - layout.high_bit
    unused = layout.allocated - layout.stored
    if top:
        values = values << top
    if layout.signed:
        values = values.view(values.dtype.str.replace("u", "i"))
    return values >> unused if unused else values


def _arrange(values: NDArray[Any], layout: PixelLayout) -> NDArray[Any]:
    if layout.samples == 1:
        return values.reshape(layout.rows, layout.columns)
    if layout.planar:
        planes = values.reshape(layout.samples, layout.rows, layout.columns)
        return np.ascontiguousarray(planes.transpose(1, 2, 0))
    return values.reshape(layout.rows, layout.columns, layout.samples)
