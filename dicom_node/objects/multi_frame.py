"""The frames of one multi-frame image: which of them are looked at, and as what."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from pydicom import Dataset, config
from pydicom.uid import UID

from dicom_node.objects.calibration import number
from dicom_node.objects.functional_groups import FunctionalGroupsError, frame_headers
from dicom_node.objects.headers import UNDEFINED_LENGTH, Header
from dicom_node.objects.nuclear_medicine import is_reconstruction, slice_headers
from dicom_node.objects.stacks import Leftover, Stack, build_stacks

MOST_PIXELS: Final = 1 << 29
"""Pixels of one cine that are looked at: a mask of them takes half a gigabyte."""

_STACKS_DIFFER: Final = "Stack ID (0020,9056) or Data Type (0018,9808)"
_SUBSAMPLED: Final = frozenset({"YBR_FULL_422", "YBR_PARTIAL_422"})
# A compressed frame has at least an item of its own, a frame of a video some bytes.
_SMALLEST_FRAME_BYTES: Final = 8


def number_of_frames(dataset: Dataset) -> int:
    """Return Number of Frames (0028,0008); 1 where it is absent or senseless."""
    return max(1, int(number(dataset, "NumberOfFrames") or 1))


def why_too_few_bytes(header: Header) -> str | None:
    """Return the sentence for pixel data that cannot hold the frames that are promised, or None."""
    dataset, pixels = header.dataset, header.pixels
    frames = number_of_frames(dataset)
    if pixels is None or frames == 1:
        return None
    if (
        pixels.length == UNDEFINED_LENGTH
        or UID(dataset.file_meta.TransferSyntaxUID, config.IGNORE).is_encapsulated
    ):
        held = pixels.available // _SMALLEST_FRAME_BYTES
    elif pixels.offset is None:
        return None
    else:
        bits = int(number(dataset, "BitsAllocated") or 8)
        samples = int(number(dataset, "SamplesPerPixel") or 1)
        if str(dataset.get("PhotometricInterpretation")) in _SUBSAMPLED:
            samples = 2
        pixel_bits = int(dataset.Rows) * int(dataset.Columns) * samples * bits
        held = pixels.length * 8 // max(1, pixel_bits)
    if held >= frames:
        return None
    return (
        f"Number of Frames (0028,0008) is {frames}, but Pixel Data (7FE0,0010) can hold at most "
        f"{held}: the object is incomplete or damaged."
    )


def cine_frames(dataset: Dataset) -> tuple[tuple[int, ...], list[str]]:
    """Choose the frames of a cine that are looked at.

    Returns
    -------
    frame numbers, notes
        From 1, in order: all of them, or every n-th where all would be too many to hold.
    """
    frames = number_of_frames(dataset)
    pixels = int(dataset.Rows) * int(dataset.Columns)
    most = max(1, MOST_PIXELS // pixels)
    if frames <= most:
        return tuple(range(1, frames + 1)), []
    step = -(-frames // most)
    return tuple(range(1, frames + 1, step)), [
        f"Of {frames} frames of {dataset.Columns} x {dataset.Rows} every {step}th is looked at."
    ]


def enhanced_stacks(header: Header) -> tuple[list[Stack], list[Leftover]]:
    """Sort the frames of an enhanced or reconstructed image into volumes: by stack, then phase.

    Returns
    -------
    stacks, leftovers
        As of `build_stacks`; no stack and no leftover where the frames have no place at all.
    """
    try:
        reconstructed = is_reconstruction(header.dataset)
        frames = slice_headers(header) if reconstructed else frame_headers(header)
    except FunctionalGroupsError as error:
        return [], [Leftover((header,), str(error))]
    if not any("ImagePositionPatient" in frame.dataset for frame in frames):
        return [], []
    stacks: list[Stack] = []
    left: list[Leftover] = []
    groups = _by_stack(frames)
    for position, group in enumerate(groups, start=1):
        found, odd = build_stacks(group)
        if len(groups) > 1:
            note = f"Stack {position} of {len(groups)} of this image, by {_STACKS_DIFFER}."
            found = [replace(stack, notes=(note, *stack.notes)) for stack in found]
        stacks.extend(found)
        left.extend(odd)
    return stacks, left


def _by_stack(frames: Sequence[Header]) -> list[list[Header]]:
    groups: dict[str, list[Header]] = defaultdict(list)
    for frame in frames:
        key = (frame.dataset.get("StackID"), frame.dataset.get("DataType"))
        groups[str(key)].append(frame)
    return list(groups.values())
