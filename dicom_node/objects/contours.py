"""Outlines of masks as polygons along the sides of pixels.

Nothing is smoothed: filled again, the polygons give just the pixels of the mask.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from inference.findings import Mask

Points = NDArray[np.float64]
_Corner = tuple[int, int]


def rings(plane: Mask) -> list[Points]:
    """Return the closed outlines of a mask.

    Parameters
    ----------
    plane
        Boolean, (rows, columns).

    Returns
    -------
    list of ndarray
        Each (corners, 2) as (column, row); the upper left corner of the first pixel is (0, 0), the
        first corner is not repeated. The mask lies on the right hand of the way (rows grow
        downwards), so outer outlines run clockwise on the screen and holes against it. Pixels that
        touch only at a corner have outlines of their own.
    """
    ways = _sides(plane)
    found = []
    while ways:
        start = next(iter(ways))
        ring = [start]
        previous, here = start, _take(ways, start, None)
        while here != start:
            ring.append(here)
            previous, here = here, _take(ways, here, previous)
        found.append(_without_straight(np.array(ring, np.float64)))
    return found


def _sides(plane: Mask) -> dict[_Corner, list[_Corner]]:
    """Return the pixel sides between inside and outside, each from corner to corner."""
    padded = np.pad(plane.astype(np.bool_), 1)
    inside = padded[1:-1, 1:-1]
    ways: dict[_Corner, list[_Corner]] = defaultdict(list)
    for row, column in np.argwhere(inside & ~padded[:-2, 1:-1]).tolist():
        ways[column, row].append((column + 1, row))
    for row, column in np.argwhere(inside & ~padded[1:-1, 2:]).tolist():
        ways[column + 1, row].append((column + 1, row + 1))
    for row, column in np.argwhere(inside & ~padded[2:, 1:-1]).tolist():
        ways[column + 1, row + 1].append((column, row + 1))
    for row, column in np.argwhere(inside & ~padded[1:-1, :-2]).tolist():
        ways[column, row + 1].append((column, row))
    return dict(ways)


def _take(ways: dict[_Corner, list[_Corner]], here: _Corner, previous: _Corner | None) -> _Corner:
    """Take a side away that leaves a corner, and return where it leads.

    Where two pixels touch at a corner two sides leave it: the one that turns right stays at its
    pixel.
    """
    choices = ways[here]
    chosen = choices[0]
    if len(choices) > 1 and previous is not None:
        along = (here[0] - previous[0], here[1] - previous[1])
        right = (here[0] - along[1], here[1] + along[0])
        chosen = right if right in choices else choices[0]
    choices.remove(chosen)
    if not choices:
        del ways[here]
    return chosen


def _without_straight(ring: Points) -> Points:
    """Leave out corners at which the way goes straight on."""
    before = ring - np.roll(ring, 1, axis=0)
    after = np.roll(ring, -1, axis=0) - ring
    turns = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    kept: Points = ring[turns]
    return kept


def is_hole(ring: Points) -> bool:
    """Return whether an outline of `rings` is that of a hole."""
    columns, rows = ring[:, 0], ring[:, 1]
    return bool(np.sum(columns * np.roll(rows, -1) - rows * np.roll(columns, -1)) < 0)


def keyholed(outlines: Sequence[Points]) -> list[Points]:
    """Join holes to the outlines around them by channels without width.

    RT structure sets know no holes; PS3.3 C.8.8.6.3 asks for this keyhole technique.

    Parameters
    ----------
    outlines
        All outlines of one mask, as `rings` gives them.

    Returns
    -------
    list of ndarray
        One polygon for each outer outline.
    """
    outer = [ring for ring in outlines if not is_hole(ring)]
    joined = list(outer)
    for hole in (ring for ring in outlines if is_hole(ring)):
        # Looked for among the outlines as they were: channels go aslant.
        index = next(i for i, ring in enumerate(outer) if _encloses(ring, hole))
        joined[index] = _joined(joined[index], hole)
    return joined


def _encloses(ring: Points, hole: Points) -> bool:
    """Return whether a point just inside the hole's outline lies within a ring (even-odd rule)."""
    # A hole's outline runs around pixels outside of the mask; those at its first side lie left.
    along = np.sign(hole[1] - hole[0])
    column, row = hole[0] + 0.5 * along + 0.5 * np.array([along[1], -along[0]])
    ends = np.roll(ring, -1, axis=0)
    crossing = (ring[:, 1] > row) != (ends[:, 1] > row)
    # Sides that cross a row of pixel middles are upright: their column is that of either end.
    return bool(np.count_nonzero(crossing & (ring[:, 0] > column)) % 2)


def _joined(ring: Points, hole: Points) -> Points:
    """Cut a channel where ring and hole are nearest: no other outline lies between."""
    squares = ((ring[:, None] - hole[None]) ** 2).sum(axis=2)
    i, j = np.unravel_index(int(squares.argmin()), squares.shape)
    around = np.roll(hole, -int(j), axis=0)
    return np.concatenate([ring[: i + 1], around, around[:1], ring[i:]])
