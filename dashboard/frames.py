"""One frame of a stack, from its file in the archive to bytes that a browser draws.

The browser gets values in physical units, not shades of grey: window and level are then a matter
of a millisecond there, and the value under the pointer can be shown. Only the one file is opened,
so the first frame of a series of a thousand slices is there as soon as that of a single image.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dicom_node.errors import FinalError
from dicom_node.objects.pixels import read_pixels
from dicom_node.objects.series import Source, read_sources

__all__ = [
    "FramePlace",
    "FrameRead",
    "FrameUnavailableError",
    "PackedFrame",
    "frames_of",
    "pack",
    "read_frame",
    "require_file",
]

_COMPRESSED_UP_TO: Final = 4 << 20
"""Bytes. A radiograph of 30 MB is sent as it is: packing it takes longer than a hospital's
network."""
_LEVEL: Final = 1


class FrameUnavailableError(FinalError):
    """The frame cannot be shown; the sentence says why and what to do."""


@dataclass(frozen=True, slots=True)
class FramePlace:
    """Where a frame lies.

    Attributes
    ----------
    path
        The file.
    index
        Of the frame in the file, from 0.
    sop_instance_uid
        The file's instance.
    digest
        Of the file: other bytes are another frame to a browser that keeps it.
    """

    path: Path
    index: int
    sop_instance_uid: str
    digest: str = ""

    @property
    def etag(self) -> str:
        """Name of just these pixels."""
        return f'"{self.digest[:24]}-{self.index}"'


@dataclass(frozen=True, eq=False, slots=True)
class FrameRead:
    """A decoded frame.

    Attributes
    ----------
    values
        float32 (rows, columns) in `unit`, or uint8 (rows, columns, 3) for colour.
    unit
        As in `dicom_node.objects.pixels.PixelValues`.
    window
        (lower, upper) of the header's first window, or None.
    spacing
        mm between rows, between columns; None where the header does not promise them.
    position, orientation
        Image Position and Orientation (Patient); None where the image has no place.
    modality, kind
        As in `dicom_node.objects.series.Source`.
    """

    values: NDArray[Any]
    unit: str
    window: tuple[float, float] | None
    spacing: tuple[float, float] | None
    position: tuple[float, float, float] | None
    orientation: tuple[float, ...] | None
    thickness: float | None
    modality: str
    kind: str


@dataclass(frozen=True, slots=True)
class PackedFrame:
    """A frame as it goes over the network.

    Attributes
    ----------
    body
        The values, little endian, row by row; packed by `zlib` when `encoding` is ``deflate``.
    encoding
        Content-Encoding of `body`; empty for none.
    described
        What the browser must know: ``type``, ``rows``, ``columns``, ``samples``, ``unit``,
        ``window``, ``spacing``, ``position``, ``orientation``.
    """

    body: bytes
    encoding: str
    described: dict[str, Any]

    @property
    def size(self) -> int:
        """Bytes, for the cache."""
        return len(self.body) + 1024


def read_frame(place: FramePlace) -> FrameRead:
    """Decode the frame of a single-frame file and bring it to its physical unit.

    Raises
    ------
    FrameUnavailableError
        The file is gone, or holds no image that can be read.
    PixelError
        The pixels cannot be decoded.
    RetriableError
        The operating system could not read the file.
    """
    require_file(place.path)
    sources, aside = read_sources([place.path])
    if not sources:
        raise FrameUnavailableError(aside[0].reason if aside else "this file holds no image")
    return next(frames_of(sources[0], (0,)))


def require_file(path: Path) -> None:
    """Check that a file of the archive is there.

    Raises
    ------
    FrameUnavailableError
        It is not.
    """
    if not path.exists():
        raise FrameUnavailableError(
            "this image is not in the archive any more: it was deleted after the time that "
            "retention in node.yaml sets; send the study again to see it"
        )


def frames_of(source: Source, indices: Sequence[int]) -> Iterator[FrameRead]:
    """Decode some frames of a source; raises as `read_frame`.

    Parameters
    ----------
    source
        One file: with one frame, or with several.
    indices
        Of frames in the source, increasing.
    """
    pixels = read_pixels(_part(source, indices))
    geometry = source.geometry
    placed = geometry is not None and source.kind == "volume"
    for place, index in enumerate(indices):
        yield FrameRead(
            values=pixels.values[place],
            unit=pixels.unit,
            window=pixels.window,
            spacing=source.calibration,
            position=_three(geometry.positions[index]) if placed and geometry else None,
            orientation=geometry.orientation if placed and geometry else None,
            thickness=(geometry.slice_spacing or None) if geometry is not None else None,
            modality=source.modality,
            kind=source.kind,
        )


def _part(source: Source, indices: Sequence[int]) -> Source:
    """Return a source of some frames of a multi-frame image, without its place in space."""
    if not source.frame_numbers:
        return source
    return replace(
        source,
        geometry=None,
        frame_numbers=tuple(source.frame_numbers[index] for index in indices),
        frame_headers=tuple(source.frame_headers[index] for index in indices)
        if source.frame_headers
        else (),
        tiles=tuple(source.tiles[index] for index in indices) if source.tiles else (),
    )


def _three(values: NDArray[np.float64]) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z


def pack(frame: FrameRead) -> PackedFrame:
    """Write a frame in the smallest type that holds every value exactly, and compress it."""
    values, name = _smallest(frame.values)
    raw = np.ascontiguousarray(values).tobytes()
    packed = len(raw) <= _COMPRESSED_UP_TO
    described = {
        "type": name,
        "rows": int(values.shape[0]),
        "columns": int(values.shape[1]),
        "samples": int(values.shape[2]) if values.ndim == 3 else 1,
        "unit": frame.unit,
        "window": frame.window,
        "spacing": frame.spacing,
        "position": frame.position,
        "orientation": frame.orientation,
        "thickness": frame.thickness,
    }
    body = zlib.compress(raw, _LEVEL) if packed else raw
    return PackedFrame(body, "deflate" if packed else "", described)


def _smallest(values: NDArray[Any]) -> tuple[NDArray[Any], str]:
    """Return the same values in the smallest exact type, and that type's name for the browser."""
    if values.dtype == np.uint8:
        return values, "uint8"
    low, high = float(values.min()), float(values.max())
    for name in ("uint8", "int16", "uint16"):
        limits = np.iinfo(name)
        if limits.min <= low and high <= limits.max:
            whole = values.astype(np.dtype(name).newbyteorder("<"))
            if np.array_equal(whole, values):
                return whole, name
            break
    return values.astype("<f4"), "float32"
