"""The type of a segmentation: BINARY, LABELMAP or FRACTIONAL, and how one is chosen."""

from __future__ import annotations

from typing import Literal

from pydicom.uid import UID

from dicom_node.objects.segment_masks import PackedMask, overlapping
from dicom_node.objects.segments import segments_of
from dicom_node.objects.series import Source
from inference.findings import Interpretation

Encoding = Literal["binary", "labelmap", "fractional"]

# Newer than pydicom's dictionary.
LABEL_MAP_SEGMENTATION_STORAGE = UID("1.2.840.10008.5.1.4.1.1.66.7")


def choose_encoding(
    setting: Literal["auto", "binary", "labelmap", "fractional"],
    source: Source,
    interpretation: Interpretation,
    *,
    garbles_unaligned: bool = False,
) -> tuple[Encoding, str]:
    """Choose between BINARY and LABELMAP for a destination.

    Parameters
    ----------
    setting
        What the destination asks for.
    source, interpretation
        What is to be encoded.
    garbles_unaligned
        Whether the destination's viewer is OHIF 3.13 or a relative: they read BINARY frames wrongly
        and silently unless rows x columns is a multiple of 8 and the bit stream has an even
        number of bytes.

    Returns
    -------
    tuple of str, str
        The encoding, and a sentence for the job's log that says why.
    """
    if setting == "binary":
        return "binary", "BINARY, as the destination asks."
    segments = segments_of(interpretation)
    if setting == "fractional":
        if all(segment.finding.probabilities is not None for segment in segments):
            return "fractional", "FRACTIONAL probabilities, as the destination asks."
        return "binary", (
            "BINARY: FRACTIONAL is written only where all destinations of a job ask for it."
        )
    masks = [PackedMask.of(segment.mask) for segment in segments]
    if overlapping(masks):
        return "binary", "BINARY: segments overlap, which a label map cannot hold."
    if setting == "labelmap":
        return "labelmap", "LABELMAP, as the destination asks."
    frames = sum(len(mask.frames) for mask in masks)
    rows, columns = int(source.headers[0].Rows), int(source.headers[0].Columns)
    if is_aligned(rows, columns, frames):
        return "binary", f"BINARY: {rows} x {columns} and {frames} frames end on whole byte pairs."
    if garbles_unaligned:
        return "labelmap", (
            f"LABELMAP: the destination's viewer would garble BINARY frames of {rows} x {columns}."
        )
    return "binary", (
        f"BINARY, though {rows} x {columns} and {frames} frames do not end on whole byte pairs: "
        "OHIF 3.13 would show the mask wrongly; set garbles_unaligned where it is in use."
    )


def is_aligned(rows: int, columns: int, frames: int) -> bool:
    """Whether every viewer tried reads such a BINARY object rightly."""
    pixels = rows * columns
    return pixels % 8 == 0 and pixels // 8 * frames % 2 == 0
