"""From the single-frame CT, MR or PET images of one series to its volumes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from pydicom import Dataset

from dicom_node.objects.calibration import numbers, pixel_spacing, slice_thickness
from dicom_node.objects.geometry import (
    Geometry,
    Orientation,
    Vector,
    build_geometry,
    normal_of,
    unit_orientation,
)
from dicom_node.objects.headers import Header
from dicom_node.objects.phases import split_phases

_LOCALIZER_TYPES: Final = frozenset({"LOCALIZER", "SCOUT"})
# Two planes are parallel when no direction cosine differs by more: text keeps few digits.
_SAME_DIRECTION: Final = 2e-3
_LARGEST_COORDINATE_MM: Final = 1e5


_TWO_PATIENTS: Final = (
    "The series holds images of more than one patient (Patient ID (0010,0020) differs): a result "
    "would be filed under one of them. Correct it where it comes from, and send it again."
)


@dataclass(frozen=True, slots=True)
class Stack:
    """One volume: headers sorted along the normal, where it lies, what to know of it.

    ``is_placed`` is False for an image without a position in the patient.
    """

    headers: tuple[Header, ...]
    geometry: Geometry | None
    notes: tuple[str, ...]
    is_placed: bool = True


@dataclass(frozen=True, slots=True)
class Leftover:
    """Images that go into no volume, and the sentence that says why."""

    headers: tuple[Header, ...]
    reason: str


def build_stacks(headers: Sequence[Header]) -> tuple[list[Stack], list[Leftover]]:
    """Sort out one series: localizers, odd sizes, odd directions, phases; then stack the rest."""
    if len(patients_in(header.dataset for header in headers)) > 1:
        # Neither half is safe: whoever mixed them may have mixed up the others, too.
        return [], [Leftover(tuple(headers), _TWO_PATIENTS)]
    left: list[Leftover] = []
    rest = _take_out_localizers(headers, left)
    rest = _keep_majority(
        rest, left, _matrix, lambda h: f"its matrix {_matrix_text(h)} differs from the others'"
    )
    placed = _take_out_unplaced(rest, left)
    if not placed:
        return ([_unplaced_image(rest[0])] if len(rest) == 1 else []), left
    rest = _keep_majority(
        placed, left, _direction_key(placed), lambda h: "its plane is not parallel to the others'"
    )
    rest = _keep_majority(
        rest, left, _frame_of_reference, lambda h: "its Frame of Reference UID (0020,0052) differs"
    )
    rest = _keep_majority(
        rest, left, _spacing_key, lambda h: "its Pixel Spacing (0028,0030) differs from the others'"
    )
    orientation = _orientation(rest[0].dataset)
    assert orientation is not None  # noqa: S101  # only placed images come this far
    positions = np.array([_position(h.dataset) for h in rest], dtype=np.float64)
    phases = split_phases(rest, positions, normal_of(orientation))
    return [_stack(p.headers, orientation, p.note) for p in phases], left


def patients_in(datasets: Iterable[Dataset]) -> set[str]:
    """Return the Patient IDs (0010,0020) that differ; an absent one contradicts none."""
    stated = (str(dataset.get("PatientID") or "").strip() for dataset in datasets)
    return {one for one in stated if one}


def _stack(headers: tuple[Header, ...], orientation: Orientation, note: str | None) -> Stack:
    """Return the volume of images that are sorted and lie at different places."""
    first = headers[0].dataset
    notes = [note] if note else []
    spacing, reason = pixel_spacing(first)
    if spacing is None:
        return Stack(headers, None, (*notes, reason or ""))
    geometry = build_geometry(
        np.array([_position(h.dataset) for h in headers], dtype=np.float64),
        orientation,
        spacing,
        rows=int(first.Rows),
        columns=int(first.Columns),
        thickness=slice_thickness(first),
        frame_of_reference_uid=_frame_of_reference(headers[0]),
    )
    return Stack(headers, geometry, (*notes, *describe_geometry(geometry)))


def describe_geometry(geometry: Geometry) -> list[str]:
    """Return a sentence for each thing about a volume that its reader should know."""
    notes = []
    if geometry.missing:
        places = Counter(geometry.missing)
        where = ", ".join(f"{n} after slice {i + 1}" for i, n in sorted(places.items())[:5])
        more = f" and at {len(places) - 5} more places" if len(places) > 5 else ""
        notes.append(
            f"{len(geometry.missing)} slices are missing ({where}{more}; regular distance "
            f"{geometry.slice_spacing:.3g} mm): volumes count only what was imaged."
        )
    elif not geometry.uniform:
        gaps = np.diff(geometry.distances())
        notes.append(f"Slices are unevenly spaced: {gaps.min():.3g} to {gaps.max():.3g} mm.")
    if geometry.tilted:
        notes.append(
            f"The slices are stacked at {geometry.tilt_degrees:.1f} degrees to their normal "
            "(gantry tilt): a sheared volume, measured in its own planes."
        )
    if _zigzag(geometry) > max(geometry.spacing):
        notes.append(
            f"The slices are shifted against each other by up to {_zigzag(geometry):.1f} mm in "
            "their plane: every slice is placed by its own position."
        )
    if geometry.frames == 1 and not geometry.slice_spacing:
        notes.append("One slice without Slice Thickness (0018,0050): areas, but no volumes.")
    elif geometry.frames == 1:
        notes.append("A volume of one slice: its thickness is Slice Thickness (0018,0050).")
    return notes


def _zigzag(geometry: Geometry) -> float:
    """Return how far a position lies off the line from the first to the last one, mm."""
    distances = geometry.distances()
    if geometry.frames < 3:
        return 0.0
    part = (distances - distances[0]) / (distances[-1] - distances[0])
    line = geometry.positions[0] + part[:, None] * (geometry.positions[-1] - geometry.positions[0])
    return float(np.linalg.norm(geometry.positions - line, axis=1).max())


def _unplaced_image(header: Header) -> Stack:
    note = (
        "Image Position (Patient) (0020,0032) or Image Orientation (Patient) (0020,0037) is absent "
        "or unusable: read as a single image without a place in the patient."
    )
    return Stack((header,), None, (note,), is_placed=False)


def _take_out_localizers(headers: Sequence[Header], left: list[Leftover]) -> list[Header]:
    def is_localizer(header: Header) -> bool:
        types = header.dataset.get("ImageType") or ()
        values = [types] if isinstance(types, str) else list(types)
        return any(str(v).upper() in _LOCALIZER_TYPES for v in values)

    found = tuple(h for h in headers if is_localizer(h))
    if found:
        left.append(
            Leftover(found, "A localizer (Image Type (0008,0008)): it plans the scan, no more.")
        )
    return [h for h in headers if not is_localizer(h)]


def _take_out_unplaced(headers: Sequence[Header], left: list[Leftover]) -> list[Header]:
    """Keep the images with a usable position; several without one cannot be ordered."""
    placed = [h for h in headers if _is_placed(h.dataset)]
    unplaced = tuple(h for h in headers if not _is_placed(h.dataset))
    if unplaced and (placed or len(unplaced) > 1):
        left.append(
            Leftover(
                unplaced,
                "Image Position (Patient) (0020,0032) or Image Orientation (Patient) (0020,0037) "
                "is absent or unusable: nobody can say where in the stack this slice lies.",
            )
        )
    return placed


def _keep_majority(
    headers: Sequence[Header],
    left: list[Leftover],
    key: Callable[[Header], Hashable],
    why: Callable[[Header], str],
) -> list[Header]:
    """Keep the images that most share; the first kind wins a tie."""
    if not headers:
        return []
    keys = [key(h) for h in headers]
    winner = Counter(keys).most_common(1)[0][0]
    for other in dict.fromkeys(k for k in keys if k != winner):
        odd = tuple(h for h, k in zip(headers, keys, strict=True) if k == other)
        left.append(Leftover(odd, f"It does not fit into the volume of its series: {why(odd[0])}."))
    return [h for h, k in zip(headers, keys, strict=True) if k == winner]


def _matrix(header: Header) -> tuple[int, int, int]:
    ds = header.dataset
    return int(ds.Rows), int(ds.Columns), int(ds.get("SamplesPerPixel") or 1)


def _matrix_text(header: Header) -> str:
    rows, columns, samples = _matrix(header)
    return f"{columns} x {rows}" + (" in colour" if samples > 1 else "")


def _frame_of_reference(header: Header) -> str | None:
    return str(header.dataset.get("FrameOfReferenceUID") or "") or None


def _spacing_key(header: Header) -> tuple[float, ...]:
    spacing, _ = pixel_spacing(header.dataset)
    return tuple(round(v, 4) for v in spacing) if spacing else ()


def _orientation(dataset: Dataset) -> Orientation | None:
    return unit_orientation(numbers(dataset, "ImageOrientationPatient"))


def _position(dataset: Dataset) -> tuple[float, ...]:
    return numbers(dataset, "ImagePositionPatient")


def _is_placed(dataset: Dataset) -> bool:
    position = _position(dataset)
    return (
        len(position) == 3
        and all(abs(c) <= _LARGEST_COORDINATE_MM for c in position)
        and _orientation(dataset) is not None
    )


def _direction_key(headers: Sequence[Header]) -> Callable[[Header], int]:
    """Return a function that numbers the directions found among the images."""
    kinds: list[Vector] = []

    def key(header: Header) -> int:
        orientation = np.array(_orientation(header.dataset), dtype=np.float64)
        for number, kind in enumerate(kinds):
            if np.abs(orientation - kind).max() <= _SAME_DIRECTION:
                return number
        kinds.append(orientation)
        return len(kinds) - 1

    return key
