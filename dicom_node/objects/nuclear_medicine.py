"""Where the slices of a reconstructed nuclear medicine tomography lie (PS3.3 C.8.4.8, C.8.4.15).

The first slice has its place in the Detector Information Sequence; the others follow along its
normal, by the signed Spacing Between Slices. Every frame becomes a header of its own, as those of
enhanced images do (`functional_groups`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from pydicom import Dataset

from dicom_node.objects.calibration import number, numbers
from dicom_node.objects.functional_groups import FunctionalGroupsError, instance_header
from dicom_node.objects.geometry import normal_of, unit_orientation
from dicom_node.objects.headers import Header

_CLASSES: Final = frozenset({"1.2.840.10008.5.1.4.1.1.20", "1.2.840.10008.5.1.4.1.1.5"})
_RECONSTRUCTIONS: Final = frozenset({"RECON TOMO", "RECON GATED TOMO"})
# What tells volumes at the same places apart, slowest first (PS3.3 table C.8-8).
_PHASE_VECTORS: Final = ("RRIntervalVector", "TimeSlotVector")


def is_reconstruction(dataset: Dataset) -> bool:
    """Whether the frames are slices: Image Type (0008,0008) value 3 says so (PS3.3 C.8.4.9.1)."""
    kinds = dataset.get("ImageType") or ()
    values = [kinds] if isinstance(kinds, str) else list(kinds)
    is_nuclear = str(dataset.get("SOPClassUID")) in _CLASSES
    return is_nuclear and len(values) > 2 and str(values[2]).upper() in _RECONSTRUCTIONS


def slice_headers(header: Header) -> list[Header]:
    """Return a header for each frame of a reconstruction; none where their places are not known.

    Raises
    ------
    FunctionalGroupsError
        A vector describes other frames than there are.
    """
    dataset = header.dataset
    frames = int(number(dataset, "NumberOfFrames") or 1)
    place = next(iter(dataset.get("DetectorInformationSequence") or ()), Dataset())
    position = numbers(place, "ImagePositionPatient") or numbers(dataset, "ImagePositionPatient")
    cosines = numbers(place, "ImageOrientationPatient") or numbers(
        dataset, "ImageOrientationPatient"
    )
    orientation, step = unit_orientation(cosines), number(dataset, "SpacingBetweenSlices")
    slices = _vector(dataset, "SliceVector", frames) or list(range(1, frames + 1))
    if len(position) != 3 or orientation is None or (not step and len(set(slices)) > 1):
        return []
    phases = [
        vector for name in _PHASE_VECTORS if (vector := _vector(dataset, name, frames)) is not None
    ]
    base, along = instance_header(dataset), normal_of(orientation) * (step or 0.0)
    base.ImageOrientationPatient = list(orientation)
    order = sorted({tuple(vector[index] for vector in phases) for index in range(frames)})
    found = []
    for index, number_of_slice in enumerate(slices):
        frame = Dataset()
        for element in base:
            # Shared, not copied: nothing changes a header after it was read.
            frame.add(element)
        frame.InstanceNumber = index + 1
        frame.ImagePositionPatient = (np.array(position) + along * (number_of_slice - 1)).tolist()
        if len(order) > 1:
            phase = tuple(vector[index] for vector in phases)
            frame.TemporalPositionIdentifier = order.index(phase) + 1
        found.append(replace(header, dataset=frame, frame=index))
    return found


def _vector(dataset: Dataset, keyword: str, frames: int) -> Sequence[int] | None:
    """Return a frame indexing vector, from 1; None where it is absent."""
    values = numbers(dataset, keyword)
    if not values:
        return None
    if len(values) != frames:
        raise FunctionalGroupsError(
            f"Number of Frames (0028,0008) is {frames}, but {keyword} describes {len(values)}."
        )
    return [int(value) for value in values]
