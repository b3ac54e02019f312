"""Telling apart the volumes that lie at the same places of one series.

A dynamic, gated or multi-echo series holds several images of every position. Only one of each may
go into a volume, so the series is split by the attribute that tells the images apart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from pydicom import Dataset

from dicom_node.objects.calibration import number
from dicom_node.objects.geometry import SAME_PLACE_MM, Vector
from dicom_node.objects.headers import Header

# In this order: what a scanner sets on purpose comes before what merely differs.
_PHASE_KEYWORDS: Final = (
    ("TemporalPositionIdentifier", "Temporal Position Identifier (0020,0100)"),
    ("AcquisitionNumber", "Acquisition Number (0020,0012)"),
    ("TriggerTime", "Trigger Time (0018,1060)"),
    ("NominalPercentageOfCardiacPhase", "Nominal Percentage of Cardiac Phase (0020,9241)"),
    ("EchoNumbers", "Echo Number(s) (0018,0086)"),
    ("EchoTime", "Echo Time (0018,0081)"),
    ("InversionTime", "Inversion Time (0018,0082)"),
    ("DiffusionBValue", "Diffusion b-value (0018,9087)"),
    ("ImageType", "Image Type (0008,0008)"),
    ("FrameReferenceTime", "Frame Reference Time (0054,1300)"),
    ("AcquisitionTime", "Acquisition Time (0008,0032)"),
    ("ContentTime", "Content Time (0008,0033)"),
    ("SeriesTime", "Series Time (0008,0031)"),
)


@dataclass(frozen=True, slots=True)
class Phase:
    """One volume's headers out of a series, sorted along the normal, and how it was found.

    ``note`` is None where the series has a single volume.
    """

    headers: tuple[Header, ...]
    note: str | None


def split_phases(headers: Sequence[Header], positions: Vector, normal: Vector) -> list[Phase]:
    """Split images of one orientation so that every place occurs once in each part.

    Parameters
    ----------
    headers
        Images of one matrix and orientation.
    positions
        Image Position (Patient) of each, mm, shape (images, 3).
    normal
        Unit normal of the planes.

    Returns
    -------
    list of Phase
        In order of the attribute that tells them apart; each sorted along the normal.
    """
    order = sorted(
        range(len(headers)), key=lambda i: (float(positions[i] @ normal), _instance(headers[i]))
    )
    places = _number_places([positions[i] for i in order], normal)
    place_of = dict(zip(order, places, strict=True))
    counts = np.bincount(places)
    if counts.max() == 1:
        return [Phase(tuple(headers[i] for i in order), None)]
    for keyword, name in _PHASE_KEYWORDS:
        groups = _group(order, lambda i, k=keyword: _value(headers[i].dataset, k))  # type: ignore[misc]
        if len(groups) == counts.max() and all(_distinct(g, place_of) for g in groups.values()):
            return [
                Phase(
                    tuple(headers[i] for i in groups[value]),
                    f"Phase {n} of {len(groups)} of this series, by {name} = {_text(value)}.",
                )
                for n, value in enumerate(sorted(groups), start=1)
            ]
    return _split_by_order(headers, order, place_of)


def _split_by_order(
    headers: Sequence[Header], order: Sequence[int], place_of: dict[int, int]
) -> list[Phase]:
    """Take the first image of every place, then the second ...: no attribute tells them apart."""
    rank: dict[int, int] = {}
    seen: dict[int, int] = defaultdict(int)
    for i in order:
        rank[i] = seen[place_of[i]]
        seen[place_of[i]] += 1
    count = max(rank.values()) + 1
    return [
        Phase(
            tuple(headers[i] for i in order if rank[i] == n),
            f"Phase {n + 1} of {count} of this series: several images lie at the same place and no "
            "attribute tells them apart, so they were split by Instance Number (0020,0013).",
        )
        for n in range(count)
    ]


def _number_places(positions: Sequence[Vector], normal: Vector) -> list[int]:
    """Return a number for each position, the same for the same place along the normal."""
    places, last = [0], float(positions[0] @ normal)
    for position in positions[1:]:
        here = float(position @ normal)
        if here - last > SAME_PLACE_MM:
            places.append(places[-1] + 1)
            last = here
        else:
            places.append(places[-1])
    return places


def _group(
    order: Sequence[int], value: Callable[[int], tuple[float, str]]
) -> dict[tuple[float, str], list[int]]:
    groups: dict[tuple[float, str], list[int]] = defaultdict(list)
    for i in order:
        groups[value(i)].append(i)
    return groups


def _distinct(indices: Sequence[int], place_of: dict[int, int]) -> bool:
    return len({place_of[i] for i in indices}) == len(indices)


def _value(dataset: Dataset, keyword: str) -> tuple[float, str]:
    """Return an attribute's value in a form that sorts: numbers by size, then text."""
    as_number = number(dataset, keyword)
    return (as_number if as_number is not None else 0.0, str(dataset.get(keyword, "")))


def _text(value: tuple[float, str]) -> str:
    return value[1] or "absent"


def _instance(header: Header) -> tuple[float, float, str]:
    """Return what orders images of the same place: acquisition, instance number, time."""
    dataset = header.dataset
    return (
        number(dataset, "AcquisitionNumber") or 0.0,
        number(dataset, "InstanceNumber") or 0.0,
        str(dataset.get("SOPInstanceUID", "")),
    )
