"""Geometry: what lies where in the source lies there in the mask."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.tiling import squash, tile_grid, to_source

SIDES = st.integers(min_value=1, max_value=90)


@settings(deadline=None, max_examples=40)
@given(rows=SIDES, columns=SIDES)
def test_masks_come_back_on_the_source_grid(rows: int, columns: int) -> None:
    assert to_source(torch.zeros(2, 16, 16), rows, columns).shape == (2, rows, columns)


@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(20, 90),
    columns=st.integers(20, 90),
    top=st.floats(0, 0.6),
    left=st.floats(0, 0.6),
    height=st.floats(0.2, 0.4),
    width=st.floats(0.2, 0.4),
)
def test_a_box_returns_where_it_was(
    rows: int, columns: int, top: float, left: float, height: float, width: float
) -> None:
    """Through the input size, down to the decoder's grid and back: off by a cell at most."""
    image = np.zeros((1, rows, columns), np.uint8)
    first_row, last_row = int(top * rows), int((top + height) * rows)
    first_column, last_column = int(left * columns), int((left + width) * columns)
    image[0, first_row:last_row, first_column:last_column] = 255
    pixels = squash(image, 64)[0, 0]
    coarse = torch.nn.functional.avg_pool2d(pixels[None, None], 4)[0, 0]
    middle = (pixels.max() + pixels.min()) / 2
    back = to_source((coarse - middle)[None], rows, columns)[0] > 0
    found_rows, found_columns = np.nonzero(back.numpy())
    near_rows, near_columns = rows / 16 + 1, columns / 16 + 1
    assert abs(found_rows.min() - first_row) <= near_rows
    assert abs(found_rows.max() + 1 - last_row) <= near_rows
    assert abs(found_columns.min() - first_column) <= near_columns
    assert abs(found_columns.max() + 1 - last_column) <= near_columns


def test_grey_and_equal_colour_are_the_same_input() -> None:
    grey = np.arange(48, dtype=np.uint8).reshape(1, 6, 8)
    colour = np.repeat(grey[..., None], 3, axis=3)
    torch.testing.assert_close(squash(grey, 32), squash(colour, 32))


def test_black_and_white_are_normalised_as_imagenet() -> None:
    white = squash(np.full((1, 4, 4), 255, np.uint8), 8)
    torch.testing.assert_close(white[0, 0], torch.full((8, 8), (1 - 0.485) / 0.229))


@pytest.mark.parametrize(
    ("width", "height", "grid"),
    [(512, 512, (1, 1)), (768, 768, (2, 2)), (1024, 1024, (3, 3)), (1200, 400, (3, 1)),
     (640, 480, (4, 3)), (2048, 2500, (3, 4))],
)  # fmt: skip
def test_tile_grids_are_those_measured_on_the_reference(
    width: int, height: int, grid: tuple[int, int]
) -> None:
    assert tile_grid(width, height) == grid
