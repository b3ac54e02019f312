"""The masks of a Segmentation as one small binary document for the browser.

Run lengths, because sixty segments of a thousand slices are gigabytes as bits, and a few megabytes
as runs. Layout, little endian::

    4 bytes   "RLE1"
    uint32    length of the JSON text that follows, padded with spaces to a multiple of 4
    JSON      rows, columns, segments, masks: [segment, frame, first run, number of runs] ...,
              edits: the same for the frames that people painted on
    uint32 *  runs: pixels outside, pixels inside, outside ... row by row, for each mask
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dicom_node.objects.segmentation_reading import FrameMask, SegmentRead

__all__ = [
    "MAGIC",
    "Edits",
    "FrameKey",
    "PackedMasks",
    "mask_of_runs",
    "pack_masks",
    "runs_of",
    "without_masks",
]

MAGIC: Final = b"RLE1"

FrameKey = tuple[str, int]
"""SOP Instance UID and frame number from 1."""
Edits = Mapping[tuple[int, int], Sequence[int]]
"""(segment, index of the frame) -> run lengths."""


@dataclass(frozen=True, slots=True)
class PackedMasks:
    """The document, compressed for ``Content-Encoding: deflate``."""

    body: bytes

    @property
    def size(self) -> int:
        """Bytes, for the cache."""
        return len(self.body)


def runs_of(mask: NDArray[np.bool_]) -> NDArray[np.uint32]:
    """Return the lengths of a mask's runs row by row, beginning with the pixels outside."""
    flat = mask.ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    bounds = np.concatenate([[0], edges, [flat.size]])
    runs = np.diff(bounds)
    if flat.size and flat[0]:
        runs = np.concatenate([[0], runs])
    return runs.astype("<u4")


def pack_masks(
    rows: int,
    columns: int,
    segments: Iterable[SegmentRead],
    masks: Iterable[FrameMask],
    frames: Sequence[FrameKey],
    edits: Edits | None = None,
) -> PackedMasks:
    """Write all masks that lie on the frames of a stack.

    Parameters
    ----------
    rows, columns
        Size of every mask.
    segments, masks
        As a Segmentation has them.
    frames
        The frames of the stack, in its order.
    edits
        What people made of masks.
    """
    places: Mapping[FrameKey, int] = {key: index for index, key in enumerate(frames)}
    document = _Document(rows, columns)
    for one in masks:
        frame = places.get((one.sop_instance_uid, one.frame_number))
        if frame is not None:
            document.masks.append((one.segment, frame, *document.add(runs_of(one.mask))))
    for (segment, edited), lengths in (edits or {}).items():
        runs = np.asarray(lengths, "<u4")
        document.edits.append((segment, edited, *document.add(runs)))
    document.segments = [
        {
            "number": segment.number,
            "label": segment.label,
            "colour": segment.colour,
            "tracking_uid": segment.tracking_uid,
        }
        for segment in segments
    ]
    return document.packed()


def without_masks() -> PackedMasks:
    """Return the document of a job that found nothing."""
    return _Document(0, 0).packed()


def mask_of_runs(runs: Sequence[int], rows: int, columns: int) -> NDArray[np.bool_]:
    """Return the mask that `runs_of` was given.

    Raises
    ------
    ValueError
        The runs do not add up to the pixels of a frame.
    """
    if any(run < 0 for run in runs) or sum(runs) != rows * columns:
        raise ValueError(f"the runs do not add up to {rows} x {columns} pixels")
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(rows, columns)


class _Document:
    """The document while it is written."""

    def __init__(self, rows: int, columns: int) -> None:
        self.rows, self.columns = rows, columns
        self.segments: Sequence[Mapping[str, object]] = []
        self.masks: list[tuple[int, int, int, int]] = []
        self.edits: list[tuple[int, int, int, int]] = []
        self._parts: list[NDArray[np.uint32]] = []
        self._length = 0

    def add(self, runs: NDArray[np.uint32]) -> tuple[int, int]:
        """Keep runs; return their place: the first one, and how many."""
        begin = self._length
        self._parts.append(runs)
        self._length += len(runs)
        return begin, len(runs)

    def packed(self) -> PackedMasks:
        described = {
            "rows": self.rows, "columns": self.columns, "segments": self.segments,
            "masks": self.masks, "edits": self.edits,
        }  # fmt: skip
        text = json.dumps(described, ensure_ascii=True).encode()
        text += b" " * (-len(text) % 4)
        runs = b"".join(part.tobytes() for part in self._parts)
        return PackedMasks(zlib.compress(MAGIC + struct.pack("<I", len(text)) + text + runs, 1))
