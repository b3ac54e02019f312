"""The published preparation: tiles, thumbnail, and the way back to the source's grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from inference.architecture import TilingConfig
from inference.preparation import cut_tiles, prepare
from inference.tiling import tile_grid, to_source
from tests.inference.tiny_model import tiny_config
from tests.inference.tiny_published import make_config, make_tokenizer

PUBLISHED = TilingConfig()


@pytest.mark.parametrize(
    ("width", "height", "tiles"),
    [
        (256, 256, 1), (512, 512, 1), (768, 768, 5), (1024, 1024, 10), (1200, 400, 4),
        (420, 300, 13), (640, 480, 13), (2048, 2500, 13), (500, 300, 7), (1, 1, 1), (20000, 1, 13),
    ],
)  # fmt: skip
def test_pictures_are_cut_as_the_published_model_cuts_them(
    width: int, height: int, tiles: int
) -> None:
    columns, rows = tile_grid(width, height)
    assert columns * rows + (columns * rows > 1) == tiles
    assert cut_tiles(Image.new("RGB", (width, height)), 448, PUBLISHED).shape[0] == tiles


def test_tiles_run_row_by_row_and_the_thumbnail_is_last() -> None:
    picture = np.zeros((300, 400, 3), np.uint8)
    picture[150:, :200] = 255
    tiles = cut_tiles(Image.fromarray(picture), 100, TilingConfig(most=12))
    columns, rows = tile_grid(400, 300, 100)
    bright = [bool(tile.mean() > 1) for tile in tiles[:-1]]
    assert bright == [
        row >= rows / 2 and column < columns / 2 for row in range(rows) for column in range(columns)
    ]
    assert tiles[-1].shape == (3, 100, 100)
    assert -2 < float(tiles[-1].mean()) < 0


def test_grey_and_equal_colour_pictures_are_the_same() -> None:
    config = make_config(make_tokenizer())
    grey = np.random.default_rng(0).integers(0, 256, (2, 40, 90), dtype=np.uint8)
    one = prepare(grey, config)
    three = prepare(np.repeat(grey[..., None], 3, axis=3), config)
    assert torch.equal(one.pixels, three.pixels)
    assert torch.equal(one.tiles, three.tiles)
    assert one.pixels.shape == (2, 3, 1024, 1024)
    assert one.tiles.shape[:3] == (2, 3, 3)


def test_nano_sees_the_whole_picture_in_both_parts() -> None:
    inputs = prepare(np.zeros((3, 20, 30), np.uint8), tiny_config())
    assert inputs.pixels.shape == (3, 3, 64, 64)
    assert torch.equal(inputs.tiles[:, 0], inputs.pixels)


@given(st.integers(1, 30000), st.integers(1, 30000))
def test_every_picture_fits_a_grid(width: int, height: int) -> None:
    columns, rows = tile_grid(width, height)
    assert 1 <= columns * rows <= 12


def test_logits_pass_the_square_on_their_way_to_the_source() -> None:
    logits = torch.randn(2, 16, 16)
    square = to_source(logits, 64, 64)
    assert torch.equal(to_source(logits, 20, 30, via=64), to_source(square, 20, 30))
    assert not torch.equal(to_source(logits, 20, 30), to_source(square, 20, 30))
