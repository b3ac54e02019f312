"""Where the pixels of a source lie in the patient (PS3.3 C.7.6.2, image plane module).

All coordinates are in mm in the patient-based system of DICOM: x to the patient's left, y to the
back, z to the head (LPS). Pixel indices count from 0 and name the centre of a pixel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Orientation = tuple[float, float, float, float, float, float]

# A direction cosine is written with at least four digits by every scanner seen so far.
COSINE_TOLERANCE = 1e-2
# Positions nearer than this are the same place: DS text often keeps only two decimals.
SAME_PLACE_MM = 0.01
# Gaps may differ by this part of the regular step before a stack counts as unevenly spaced.
EVEN_PART = 0.05
WHOLE_TOLERANCE = 0.15
LEAST_REGULAR_PART = 0.25
TILT_DEGREES = 0.5
TILT_MM = 0.1


def unit_orientation(cosines: Sequence[float]) -> Orientation | None:
    """Return Image Orientation (Patient) with exact unit vectors, or None when it is absurd.

    Parameters
    ----------
    cosines
        Direction cosines of the first row and the first column, six values.
    """
    if len(cosines) != 6 or not all(math.isfinite(float(c)) for c in cosines):
        return None
    row, column = np.array(cosines[:3], dtype=float), np.array(cosines[3:], dtype=float)
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if any(abs(length - 1.0) > COSINE_TOLERANCE for length in lengths):
        return None
    row, column = row / lengths[0], column / lengths[1]
    if abs(float(row @ column)) > COSINE_TOLERANCE:
        return None
    column = column - (row @ column) * row
    column /= np.linalg.norm(column)
    r, c = row.tolist(), column.tolist()
    return (r[0], r[1], r[2], c[0], c[1], c[2])


def normal_of(orientation: Orientation) -> Vector:
    """Return the unit normal of the image plane: row direction x column direction."""
    return np.asarray(np.cross(orientation[:3], orientation[3:]), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Geometry:
    """A stack of parallel planes in patient space.

    Attributes
    ----------
    positions
        Image Position (Patient) of each frame: centre of its first pixel, mm, shape (frames, 3).
    orientation
        Image Orientation (Patient): unit vectors along the row (increasing column index) and
        along the column (increasing row index).
    spacing
        Pixel Spacing in mm: (distance of neighbouring rows, distance of neighbouring columns).
    slice_spacing
        Regular distance of neighbouring planes along the normal, mm. Of a single plane: its
        slice thickness, and 0 where that is unknown (there is no volume then).
    rows, columns
        Size of each frame.
    frame_of_reference_uid
        Frame of Reference UID, or None.
    uniform
        True when all gaps equal ``slice_spacing`` within 5 %: neither missing nor uneven slices.
    tilted
        True when the planes are not stacked along their normal (gantry tilt: a sheared volume).
    missing
        For every missing slice the index of the frame before it: ``(3, 3)`` says that two slices
        are missing between frames 3 and 4.
    """

    positions: Vector
    orientation: Orientation
    spacing: tuple[float, float]
    slice_spacing: float
    rows: int
    columns: int
    frame_of_reference_uid: str | None = None
    uniform: bool = True
    tilted: bool = False
    missing: tuple[int, ...] = ()

    @property
    def frames(self) -> int:
        """Number of planes."""
        return len(self.positions)

    @property
    def normal(self) -> Vector:
        """Unit normal of the planes; frames are in increasing order along it."""
        return normal_of(self.orientation)

    @property
    def axes(self) -> Vector:
        """Millimetres to the patient's left, back and head of a step, shape (3, 3).

        One row each for frames, rows and columns.
        """
        row, column = np.array(self.orientation[:3]), np.array(self.orientation[3:])
        if self.frames > 1:
            step = (self.positions[-1] - self.positions[0]) / (self.frames - 1)
        else:
            step = self.normal * self.slice_spacing
        return np.stack([step, column * self.spacing[0], row * self.spacing[1]])

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of a voxel in mm3 for a stack with regular steps (0 without a thickness)."""
        return self.spacing[0] * self.spacing[1] * self.slice_spacing

    @property
    def tilt_degrees(self) -> float:
        """Angle between the normal and the line through first and last position, degrees."""
        path = self.positions[-1] - self.positions[0]
        length = float(np.linalg.norm(path))
        if length == 0.0:
            return 0.0
        return math.degrees(math.acos(min(1.0, abs(float(path @ self.normal)) / length)))

    def distances(self) -> Vector:
        """Return the distance of each plane from the origin along the normal, mm."""
        return np.asarray(self.positions @ self.normal, dtype=np.float64)

    def frame_thickness(self, frame: int) -> float:
        """Return how much of the normal one frame stands for, in mm.

        Half the way to each neighbour; the end frames take their only neighbour's half twice.
        Where slices are missing the frame stands for its own regular share alone: what was not
        imaged is not counted.
        """
        if self.frames == 1:
            return self.slice_spacing
        gaps = np.diff(self.distances())
        absent = set(self.missing)
        halves = [
            (self.slice_spacing if index in absent else float(gaps[index])) / 2.0
            for index in (frame - 1, frame)
            if 0 <= index < len(gaps)
        ]
        return halves[0] * 2.0 if len(halves) == 1 else sum(halves)

    def pixel_to_patient(self, frame: float, row: float, column: float) -> Vector:
        """Return the point (x, y, z) in mm of a place in the stack (PS3.3 C.7.6.2.1.1).

        Parameters
        ----------
        frame
            Frame index; between two frames the position is interpolated, outside continued.
        row, column
            Pixel indices: integers are the centres of pixels.
        """
        along_row = np.array(self.orientation[:3]) * self.spacing[1]
        along_column = np.array(self.orientation[3:]) * self.spacing[0]
        point = self._origin(frame) + column * along_row + row * along_column
        return np.asarray(point, dtype=np.float64)

    def patient_to_pixel(self, point: Sequence[float] | Vector) -> tuple[float, float, float]:
        """Return (frame, row, column), all fractional, of a point in mm: the inverse."""
        target = np.asarray(point, dtype=np.float64)
        frame = self._frame_at(float(target @ self.normal))
        offset = target - self._origin(frame)
        column = float(offset @ np.array(self.orientation[:3])) / self.spacing[1]
        row = float(offset @ np.array(self.orientation[3:])) / self.spacing[0]
        return frame, row, column

    def _origin(self, frame: float) -> Vector:
        """Return the position of a possibly fractional frame."""
        if self.frames == 1:
            step = self.normal * (self.slice_spacing or 1.0)
            return np.asarray(self.positions[0] + frame * step)
        below = min(max(math.floor(frame), 0), self.frames - 2)
        step = self.positions[below + 1] - self.positions[below]
        return np.asarray(self.positions[below] + (frame - below) * step)

    def _frame_at(self, distance: float) -> float:
        """Return the fractional frame index of a distance along the normal."""
        distances = self.distances()
        if self.frames == 1:
            return (distance - float(distances[0])) / (self.slice_spacing or 1.0)
        below = int(np.searchsorted(distances, distance, side="right")) - 1
        below = min(max(below, 0), self.frames - 2)
        gap = float(distances[below + 1] - distances[below])
        return below + (distance - float(distances[below])) / gap


def build_geometry(
    positions: Vector,
    orientation: Orientation,
    spacing: tuple[float, float],
    *,
    rows: int,
    columns: int,
    thickness: float | None,
    frame_of_reference_uid: str | None,
) -> Geometry:
    """Return the geometry of planes that are already sorted along the normal.

    Parameters
    ----------
    positions
        Distinct positions in mm, shape (frames, 3), increasing along the normal.
    thickness
        Slice thickness in mm, used only where there is a single plane.
    """
    distances = positions @ normal_of(orientation)
    gaps = np.diff(distances)
    step, missing, uniform = regular_step(gaps) if len(gaps) else (thickness or 0.0, (), True)
    plain = Geometry(
        positions, orientation, spacing, step, rows, columns, frame_of_reference_uid,
        uniform=uniform, missing=missing,
    )  # fmt: skip
    path = positions[-1] - positions[0]
    sideways = path - (path @ plain.normal) * plain.normal
    # Rounded positions of a thin stack look like a tilt: the offset must be one that matters.
    if plain.tilt_degrees <= TILT_DEGREES or float(np.linalg.norm(sideways)) <= TILT_MM:
        return plain
    return Geometry(
        positions, orientation, spacing, step, rows, columns, frame_of_reference_uid,
        uniform=uniform, missing=missing, tilted=True,
    )  # fmt: skip


def regular_step(gaps: Vector) -> tuple[float, tuple[int, ...], bool]:
    """Return the regular distance of neighbours, the missing slices, and whether gaps are even.

    Where every gap is a whole multiple of the smallest (and that is no rare exception), it is
    the step. Otherwise the median is. Gaps of whole multiples of the step miss slices.

    Returns
    -------
    step, missing, uniform
        Millimetres; one entry per missing slice (index of the frame before it); see `Geometry`.
    """
    step = float(np.median(gaps))
    multiples = gaps / float(gaps.min())
    whole = np.abs(multiples - np.rint(multiples)) <= WHOLE_TOLERANCE
    if whole.all() and np.mean(np.rint(multiples) == 1) >= LEAST_REGULAR_PART:
        step = float(np.median(gaps / np.rint(multiples)))
    steps = np.rint(gaps / step)
    is_multiple = np.abs(gaps - steps * step) <= EVEN_PART * gaps
    absent = [
        index
        for index, count in enumerate(steps)
        if count >= 2 and is_multiple[index]
        for _ in range(int(count) - 1)
    ]
    uniform = bool(np.all(np.abs(gaps - step) <= EVEN_PART * step))
    return step, tuple(absent), uniform
