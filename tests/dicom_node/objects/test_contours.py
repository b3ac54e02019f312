"""Outlines: filled again they give the mask, whatever its shape."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dicom_node.objects.contours import Points, is_hole, keyholed, rings

PLANES = arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9)))
SECOND_HOLE_BESIDE_A_CHANNEL = np.ones((5, 6), np.bool_)
SECOND_HOLE_BESIDE_A_CHANNEL[[2, 3, 4], [3, 2, 0]] = False


def filled(outlines: list[Points], shape: tuple[int, ...]) -> np.ndarray:
    """Fill polygons by the even-odd rule, looked at in the middles of pixels."""
    rows, columns = np.indices(shape) + 0.5
    inside = np.zeros(shape, np.bool_)
    for ring in outlines:
        for (x1, y1), (x2, y2) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            crosses = (y1 > rows) != (y2 > rows)
            with np.errstate(divide="ignore", invalid="ignore"):
                inside ^= crosses & (columns < x1 + (rows - y1) * (x2 - x1) / (y2 - y1))
    return inside


@settings(deadline=None)
@given(PLANES)
def test_rings_filled_again_are_the_mask(plane: np.ndarray) -> None:
    outlines = rings(plane)
    assert np.array_equal(filled(outlines, plane.shape), plane)
    assert all(len(ring) >= 4 for ring in outlines)


@settings(deadline=None)
@given(PLANES)
@example(plane=SECOND_HOLE_BESIDE_A_CHANNEL)
def test_channels_to_holes_change_nothing(plane: np.ndarray) -> None:
    outlines = rings(plane)
    joined = keyholed(outlines)
    assert len(joined) == sum(not is_hole(ring) for ring in outlines)
    assert np.array_equal(filled(joined, plane.shape), plane)


def test_pixels_that_touch_at_a_corner_have_outlines_of_their_own() -> None:
    plane = np.eye(2, dtype=np.bool_)
    assert sorted(len(ring) for ring in rings(plane)) == [4, 4]


def test_a_ring_has_a_hole_and_becomes_one_polygon() -> None:
    plane = np.ones((5, 5), np.bool_)
    plane[2, 2] = False
    outlines = rings(plane)
    assert sorted(is_hole(ring) for ring in outlines) == [False, True]
    (polygon,) = keyholed(outlines)
    assert len(polygon) == 4 + 4 + 2
