"""Measurements of a finding in physical units (PS3.16 TID 1411 and 1501 report them).

Every number can be computed again from the mask and the headers:

- **volume**: area of the mask on each frame times the thickness that the frame stands for
  (`Geometry.frame_thickness`); what lies between frames at missing slices is not counted.
- **long axis**: greatest distance within the largest connected part on the key frame, between
  the outer edges of its pixels (the middles of their sides): a single pixel is one pixel long.
- **short axis**: greatest extent at a right angle to the long axis, of the same part's convex
  outline, as in RECIST.
- **statistics**: over all pixels of the mask on all frames; standard deviation of the population.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from dicom_node.objects.calibration import Spacing
from dicom_node.objects.pixels import PixelValues
from dicom_node.objects.series import Source

Mask = NDArray[np.bool_]
Points = NDArray[np.float64]

_MM3_PER_CM3: Final = 1000.0
# Chords are compared at places along the long axis; nearer ones are the same place.
_SAME_PLACE: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Axis:
    """A line on the key frame.

    Attributes
    ----------
    length_mm
        Length in mm; None where the image is not calibrated.
    length_px
        Length in pixels, rows and columns counted alike.
    start, end
        Ends as (column, row) in image coordinates of SCOORD (PS3.3 C.18.6.1.2): the upper left
        corner of the first pixel is (0, 0), its centre (0.5, 0.5).
    """

    length_mm: float | None
    length_px: float
    start: tuple[float, float]
    end: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Measurements:
    """What was measured of one finding.

    Attributes
    ----------
    key_frame
        Index of the frame that the axes and the area belong to.
    pixel_count
        Pixels of the mask on all frames.
    area_px
        Pixels of the mask on the key frame.
    volume_cm3
        Volume in cm3; None for images, and where geometry or thickness are unknown.
    area_mm2
        Area on the key frame in mm2; None where the image is not calibrated.
    long_axis, short_axis
        See the module; None when the mask has no pixel on the key frame.
    mean, standard_deviation, minimum, maximum
        Of the pixel values in ``unit``; None where they have no physical unit.
    unit
        ``"HU"``, ``"SUVbw"`` or None.
    notes
        Sentences that limit what the numbers mean.
    """

    key_frame: int
    pixel_count: int
    area_px: int
    volume_cm3: float | None
    area_mm2: float | None
    long_axis: Axis | None
    short_axis: Axis | None
    mean: float | None = None
    standard_deviation: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    unit: Literal["HU", "SUVbw"] | None = None
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return plain values: numbers, strings, lists and None."""
        values = asdict(self)
        values["notes"] = list(self.notes)
        for name in ("long_axis", "short_axis"):
            if values[name] is not None:
                values[name]["start"] = list(values[name]["start"])
                values[name]["end"] = list(values[name]["end"])
        return values

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Measurements:
        """Return the measurements that `as_json` gave."""
        given = dict(values)
        for name in ("long_axis", "short_axis"):
            if given[name] is not None:
                axis = given[name]
                given[name] = Axis(
                    axis["length_mm"], axis["length_px"], tuple(axis["start"]), tuple(axis["end"])
                )
        given["notes"] = tuple(given["notes"])
        return cls(**given)


def measure(mask: Mask, source: Source, pixels: PixelValues, key_frame: int) -> Measurements:
    """Measure a finding.

    Parameters
    ----------
    mask
        Boolean, on the grid of the source: (frames, rows, columns).
    source, pixels
        What the mask was drawn on, and its values.
    key_frame
        Frame for area and axes.

    Raises
    ------
    ValueError
        Mask, source and pixels do not fit together, or the mask is empty.
    """
    if mask.shape != source.shape or mask.shape != pixels.values.shape[:3]:
        raise ValueError(
            f"mask {mask.shape}, source {source.shape} and pixels {pixels.values.shape} differ"
        )
    if not 0 <= key_frame < mask.shape[0] or not mask.any():
        raise ValueError(f"no mask to measure (key frame {key_frame} of {mask.shape[0]})")
    spacing = source.geometry.spacing if source.geometry else source.calibration
    plane = mask[key_frame]
    area_px = int(plane.sum())
    long_axis, short_axis = axes(plane, spacing) if area_px else (None, None)
    volume, notes = _volume(mask, source)
    return Measurements(
        key_frame=key_frame,
        pixel_count=int(mask.sum()),
        area_px=area_px,
        volume_cm3=volume,
        area_mm2=area_px * spacing[0] * spacing[1] if spacing else None,
        long_axis=long_axis,
        short_axis=short_axis,
        notes=notes,
        **_statistics(mask, pixels),
    )


def _volume(mask: Mask, source: Source) -> tuple[float | None, tuple[str, ...]]:
    """Return the volume in cm3 and what limits it."""
    geometry = source.geometry
    if geometry is None or not geometry.slice_spacing:
        return None, ()
    counts = mask.reshape(mask.shape[0], -1).sum(axis=1)
    touched = np.flatnonzero(counts)
    area = geometry.spacing[0] * geometry.spacing[1]
    volume = sum(float(counts[i]) * area * geometry.frame_thickness(int(i)) for i in touched)
    within = [i for i in geometry.missing if touched[0] <= i < touched[-1]]
    note = f"{len(within)} slices are missing within the finding: the volume is a lower bound."
    return volume / _MM3_PER_CM3, ((note,) if within else ())


def _statistics(mask: Mask, pixels: PixelValues) -> dict[str, Any]:
    """Return mean, deviation and extremes where the values have a physical unit."""
    if pixels.unit not in ("HU", "SUVbw"):
        return {}
    values = pixels.values[mask].astype(np.float64)
    return {
        "mean": float(values.mean()),
        "standard_deviation": float(values.std()),
        "minimum": float(values.min()),
        "maximum": float(values.max()),
        "unit": pixels.unit,
    }


def axes(plane: Mask, spacing: Spacing | None) -> tuple[Axis, Axis]:
    """Return long and short axis of the largest connected part of a mask (rows, columns).

    Parameters
    ----------
    plane
        At least one pixel is set.
    spacing
        Millimetres per pixel, (row spacing, column spacing). None: measured in pixels.
    """
    scale = np.array([spacing[1], spacing[0]]) if spacing else np.ones(2)
    outline = convex_hull(_edge_points(largest_part(plane)) * scale)
    differences = outline[:, None, :] - outline[None, :, :]
    squares = (differences**2).sum(axis=2)
    start, end = np.unravel_index(int(squares.argmax()), squares.shape)
    first, second = outline[start], outline[end]
    across = _widest_chord(outline, first, second)
    is_calibrated = spacing is not None
    return (
        _axis(first, second, scale, plane.shape, calibrated=is_calibrated),
        _axis(*across, scale, plane.shape, calibrated=is_calibrated),
    )


def _axis(
    start: Points, end: Points, scale: Points, shape: tuple[int, ...], *, calibrated: bool
) -> Axis:
    # Rounding puts the end of an axis at the image's border a hair beside it, which no SCOORD may.
    first, second = np.clip(np.stack([start, end]) / scale, 0.0, shape[::-1])
    return Axis(
        length_mm=float(np.linalg.norm(end - start)) if calibrated else None,
        length_px=float(np.linalg.norm(second - first)),
        start=(float(first[0]), float(first[1])),
        end=(float(second[0]), float(second[1])),
    )


def largest_part(plane: Mask) -> Mask:
    """Return the largest connected part (pixels that touch at sides or corners)."""
    image = SimpleITK.GetImageFromArray(plane.astype(np.uint8))
    labels = SimpleITK.ConnectedComponent(image, True)
    ordered = SimpleITK.RelabelComponent(labels)
    return np.asarray(SimpleITK.GetArrayFromImage(ordered) == 1)


def _edge_points(plane: Mask) -> Points:
    """Return the middles of the outermost pixel sides, as (column, row) of SCOORD.

    The first and last pixel of each row and column are enough: no other lies further out.
    """
    rows = np.flatnonzero(plane.any(axis=1))
    columns = np.flatnonzero(plane.any(axis=0))
    left = plane[rows].argmax(axis=1)
    right = plane.shape[1] - plane[rows][:, ::-1].argmax(axis=1)
    top = plane[:, columns].argmax(axis=0)
    bottom = plane.shape[0] - plane[::-1][:, columns].argmax(axis=0)
    return np.concatenate(
        [
            np.stack([left, rows + 0.5], axis=1),
            np.stack([right, rows + 0.5], axis=1),
            np.stack([columns + 0.5, top], axis=1),
            np.stack([columns + 0.5, bottom], axis=1),
        ]
    )


def convex_hull(points: Points) -> Points:
    """Return the corners of the convex hull in turning order (monotone chain of Andrew, 1979)."""
    ordered = np.unique(points, axis=0)

    def chain(candidates: Points) -> list[Points]:
        hull: list[Points] = []
        for point in candidates:
            while len(hull) > 1 and _turn(hull[-2], hull[-1], point) <= 0.0:
                hull.pop()
            hull.append(point)
        return hull

    return np.array(chain(ordered)[:-1] + chain(ordered[::-1])[:-1])


def _turn(origin: Points, first: Points, second: Points) -> float:
    """Return a positive number when the way over three points turns left."""
    a, b = first - origin, second - origin
    return float(a[0] * b[1] - a[1] * b[0])


def _widest_chord(outline: Points, start: Points, end: Points) -> tuple[Points, Points]:
    """Return the longest line inside a convex outline at a right angle to the line start-end.

    The length of a chord changes linearly between the corners, so the longest passes through one.
    """
    along = (end - start) / math.dist(start, end)
    across = np.array([-along[1], along[0]])
    turned = np.stack([(outline - start) @ along, (outline - start) @ across], axis=1)
    best, ends = -1.0, (start, start)
    for place in turned[:, 0]:
        low, high = _chord(turned, float(place))
        if high - low > best:
            best = high - low
            ends = (start + place * along + low * across, start + place * along + high * across)
    return ends


def _chord(turned: Points, place: float) -> tuple[float, float]:
    """Return lowest and highest point of a convex outline at a place along the long axis."""
    found = []
    for first, second in zip(turned, np.roll(turned, -1, axis=0), strict=True):
        near, far = sorted((first, second), key=lambda p: float(p[0]))
        if not near[0] - _SAME_PLACE <= place <= far[0] + _SAME_PLACE:
            continue
        width = float(far[0] - near[0])
        if width <= _SAME_PLACE:
            found += [float(near[1]), float(far[1])]
        else:
            part = min(max((place - float(near[0])) / width, 0.0), 1.0)
            found.append(float(near[1] + part * (far[1] - near[1])))
    return min(found), max(found)
