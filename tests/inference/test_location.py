"""Where and how large: geometry in words."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference import location
from inference.series import Series, evenly_spaced
from tests.inference.tiny_model import tiny_card

CT = tiny_card().modalities[1]
AXIAL = np.array([[0.0, 0, 3], [0, 0.5, 0], [0.5, 0, 0]])


def series(axes: np.ndarray | None = AXIAL, kind: str = "volume", **changes: object) -> Series:
    images = np.zeros((10, 40, 40), np.float32)
    arguments = {"spacing": (3.0, 0.5, 0.5), "axes": axes, **changes}
    return Series(images, CT, kind, **arguments)  # type: ignore[arg-type]


def mask(frame: int, row: int, column: int, size: int = 4) -> np.ndarray:
    result = np.zeros((10, 40, 40), np.bool_)
    result[frame : frame + 2, row : row + size, column : column + size] = True
    return result


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ((4, 18, 2), "in the right part of the imaged field"),
        ((4, 18, 34), "in the left part of the imaged field"),
        ((4, 2, 18), "in the anterior part of the imaged field"),
        ((8, 34, 2), "in the right posterior superior part of the imaged field"),
        ((4, 18, 18), "in the middle of the imaged field"),
    ],
)
def test_sides_are_the_patients(place: tuple[int, int, int], words: str) -> None:
    assert location.where(mask(*place), series()) == words


def test_a_turned_patient_turns_the_words() -> None:
    coronal = np.array([[0, 0.5, 0], [0.0, 0, -3], [-0.5, 0, 0]])
    assert location.where(mask(4, 18, 2), series(coronal)) == (
        "in the left part of the imaged field"
    )
    assert location.where(mask(4, 34, 18), series(coronal)) == (
        "in the inferior part of the imaged field"
    )


def test_without_axes_only_the_picture_has_sides() -> None:
    words = location.where(mask(4, 2, 34), series(None))
    assert words == "in the upper right part of the picture"
    assert location.side(mask(4, 2, 34), series(None)) is None


def test_sizes_are_physical_where_the_spacing_is_known() -> None:
    found = mask(4, 10, 10, size=20)
    assert location.how_large(found, series()) == "volume 0.6 cm3, extent 6 x 10 x 10 mm"
    one = series().only(4)
    assert location.how_large(found[4:5], one) == "area 1 cm2, extent 10 x 10 mm"
    assert location.how_large(found[4:5], series(spacing=None).only(4)) == "25 % of the picture"


@given(st.integers(1, 300), st.integers(1, 16))
def test_slices_are_evenly_spaced_in_order_and_different(frames: int, count: int) -> None:
    chosen = evenly_spaced(frames, count)
    assert len(set(chosen)) == min(frames, count)
    assert list(chosen) == sorted(chosen)
    assert 0 <= chosen[0] and chosen[-1] < frames
    gaps = np.diff(chosen)
    assert gaps.size == 0 or gaps.max() - gaps.min() <= 1
    # As much is left over before the first as after the last: they stand for the whole volume.
    assert 0 <= chosen[0] - (frames - 1 - chosen[-1]) <= 1
