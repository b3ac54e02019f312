"""Masks as packed bits: one pass over each, and everything else on an eighth of its size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.findings import Mask


@dataclass(frozen=True, eq=False, slots=True)
class PackedMask:
    """The frames of a mask that are not empty.

    Attributes
    ----------
    frames
        Indices of those frames, increasing.
    bits
        One row for each: its pixels as bits, the first in the lowest bit, with zeros up to a whole
        byte.
    """

    frames: NDArray[np.intp]
    bits: NDArray[np.uint8]

    @classmethod
    def of(cls, mask: Mask) -> PackedMask:
        """Pack a mask of shape (frames, rows, columns)."""
        frames = np.flatnonzero(mask.any(axis=(1, 2)))
        pixels = mask.shape[1] * mask.shape[2]
        bits = np.empty((len(frames), -(-pixels // 8)), np.uint8)
        # Frame by frame: a copy of them all would take eight times the memory of the bits.
        for row, frame in zip(bits, frames, strict=True):
            row[:] = np.packbits(mask[frame].reshape(-1), bitorder="little")
        return cls(frames, bits)


def overlapping(masks: Sequence[PackedMask]) -> bool:
    """Return whether any voxel lies in two masks."""
    seen: dict[int, NDArray[np.uint8]] = {}
    for mask in masks:
        for frame, bits in zip(mask.frames.tolist(), mask.bits, strict=True):
            before = seen.get(frame)
            if before is None:
                seen[frame] = bits
            elif np.bitwise_and(before, bits).any():
                return True
            else:
                seen[frame] = np.bitwise_or(before, bits)
    return False


def bit_stream(masks: Sequence[PackedMask], pixels: int) -> bytes:
    """Return the frames of a BINARY object: one bit a pixel, the first in the lowest bit.

    The bits of all frames follow each other without gaps (PS3.5 8.1.1); a zero byte makes the
    length even.

    Parameters
    ----------
    masks
        Of the segments in their order.
    pixels
        Of one frame.
    """
    if pixels % 8 == 0:
        parts = [mask.bits.tobytes() for mask in masks]
    else:
        parts = _close_gaps([row for mask in masks for row in mask.bits], pixels)
    data = b"".join(parts)
    return data + b"\x00" if len(data) % 2 else data


def _close_gaps(rows: Sequence[NDArray[np.uint8]], pixels: int) -> list[bytes]:
    """Pack frames anew that do not end on a whole byte; eight of them always do together."""
    parts = []
    for start in range(0, len(rows), 8):
        flat = [
            np.unpackbits(row, count=pixels, bitorder="little") for row in rows[start : start + 8]
        ]
        parts.append(np.packbits(np.concatenate(flat), bitorder="little").tobytes())
    return parts


def label_map(masks: Sequence[Mask], packed: Sequence[PackedMask]) -> NDArray[Any]:
    """Return the frames of a label map that are not empty, (frames, rows, columns).

    The masks must not overlap; the label of each is its place in the list, from 1.
    """
    kind = np.uint8 if len(masks) < 256 else np.uint16
    frames = filled_frames(packed)
    place = {frame: index for index, frame in enumerate(frames)}
    labels = np.zeros((len(frames), *masks[0].shape[1:]), kind)
    for number, (mask, part) in enumerate(zip(masks, packed, strict=True), start=1):
        for frame in part.frames.tolist():
            labels[place[frame]] |= np.multiply(mask[frame], kind(number), dtype=kind)
    return labels


def filled_frames(packed: Sequence[PackedMask]) -> list[int]:
    """Return the frames on which any mask has a pixel."""
    return sorted({frame for mask in packed for frame in mask.frames.tolist()})
