"""The reference contour of an RT Structure Set as a mask on the grid of an image series."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.path import Path as Polygon
from numpy.typing import NDArray
from pydicom import Dataset


def contour_mask(structure_set: Dataset, headers: Sequence[Dataset]) -> NDArray[np.bool_]:
    """Rasterise every closed planar contour of a structure set.

    Parameters
    ----------
    structure_set
        RT Structure Set (PS3.3 A.19) drawn on the series.
    headers
        The slices in the order of the wanted mask, all of one orientation.

    Returns
    -------
    ndarray
        Boolean ``(frames, rows, columns)``: a pixel is inside where its centre is; contours
        of one slice combine by exclusive or, so that an inner contour cuts a hole.

    Raises
    ------
    ValueError
        When a contour lies on none of the slices.
    """
    first = headers[0]
    along_row = np.array(first.ImageOrientationPatient[:3], dtype=float)
    along_column = np.array(first.ImageOrientationPatient[3:], dtype=float)
    normal = np.cross(along_row, along_column)
    row_spacing, column_spacing = (float(value) for value in first.PixelSpacing)
    heights = np.array([np.dot(normal, np.array(h.ImagePositionPatient, float)) for h in headers])
    rows, columns = int(first.Rows), int(first.Columns)
    grid = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1).reshape(-1, 2)
    mask = np.zeros((len(headers), rows, columns), dtype=bool)
    for item in structure_set.ROIContourSequence:
        for contour in item.ContourSequence:
            points = np.array(contour.ContourData, dtype=float).reshape(-1, 3)
            distance = np.abs(heights - np.dot(points[0], normal))
            frame = int(distance.argmin())
            if distance[frame] > 0.1:
                raise ValueError(f"a contour is {distance[frame]:.2f} mm from the nearest slice")
            offset = points - np.array(headers[frame].ImagePositionPatient, dtype=float)
            pixels = np.column_stack(
                [offset @ along_row / column_spacing, offset @ along_column / row_spacing]
            )
            mask[frame] ^= Polygon(pixels).contains_points(grid).reshape(rows, columns)
    return mask


def dice(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Dice coefficient of two masks of equal shape; 1 where both are empty."""
    total = int(first.sum()) + int(second.sum())
    return 1.0 if total == 0 else 2.0 * int((first & second).sum()) / total
