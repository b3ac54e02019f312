"""Distortions: picture and mask move together, and the same on both ways through memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from learning.distortion import Distortion, distort, draw_distortion

SIZE = 32


def still(count: int = 1) -> Distortion:
    """Return a distortion that changes nothing."""
    one = torch.ones(count, 1, 1, 1)
    return Distortion(
        affine=torch.eye(2, 3).expand(count, 2, 3),
        bend=torch.zeros(count, 2, 5, 5),
        shade=torch.zeros(count, 1, 5, 5),
        gamma=one,
        gain=torch.ones(count, 3, 1, 1),
        offset=0 * one,
        noise=0 * one,
    )


def boxes(count: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Bright boxes of class 2, and two prompts: one for class 2, one for class 1."""
    classes = torch.zeros(count, SIZE, SIZE, dtype=torch.uint8)
    classes[:, 8:24, 4:16] = 2
    pictures = (classes * 100)[:, None].expand(-1, 3, -1, -1)
    values = torch.zeros(count, 2, 256)
    values[:, 0, 2] = values[:, 1, 1] = 1.0
    return pictures, classes, values


def test_without_distortion_everything_stays_where_it_is() -> None:
    pictures, classes, values = boxes()
    noise = torch.Generator().manual_seed(0)
    picture, masks = distort(pictures, classes, values, still(), SIZE, noise)
    assert torch.allclose(picture, pictures / 255.0, atol=1e-3)
    assert masks.shape == (1, 2, SIZE // 2, SIZE // 2)
    assert masks[0, 0].sum() * 4 == (classes == 2).sum()
    assert masks[0, 1].sum() == 0


@pytest.mark.parametrize("seed", range(8))
def test_the_mask_stays_on_what_it_marks(seed: int) -> None:
    pictures, classes, values = boxes(6)
    draw = np.random.default_rng(seed)
    drawn = draw_distortion(draw, np.ones(6, np.bool_), np.zeros(6, np.bool_))
    plain = still(6)
    moved = Distortion(
        drawn.affine, drawn.bend, plain.shade, plain.gamma, plain.gain, plain.offset, plain.noise
    )
    noise = torch.Generator().manual_seed(seed)
    picture, masks = distort(pictures, classes, values, moved, SIZE, noise)
    bright = torch.nn.functional.avg_pool2d((picture[:, :1] > 100 / 255).float(), 2)[:, 0]
    assert (bright - masks[:, 0]).abs().mean() < 0.01


def test_some_pictures_are_small_some_are_crops_and_some_lose_their_target() -> None:
    count = 400
    drawn = draw_distortion(
        np.random.default_rng(3), np.zeros(count, np.bool_), np.zeros(count, np.bool_)
    )
    scale = torch.linalg.det(drawn.affine[:, :, :2]).abs().sqrt()
    assert 0.1 < (scale > 1.35).float().mean() < 0.2
    assert 0.12 < (scale < 0.7).float().mean() < 0.25
    pictures, classes, values = boxes(count)
    noise = torch.Generator().manual_seed(0)
    _, masks = distort(pictures, classes, values, drawn, SIZE, noise)
    gone = masks[:, 0].sum((1, 2)) == 0
    assert 0.0 < gone.float().mean() < 0.15
    assert (scale[gone] < 0.8).float().mean() > 0.8


def test_grey_pictures_stay_grey() -> None:
    drawn = draw_distortion(np.random.default_rng(0), np.zeros(3, np.bool_), np.zeros(3, np.bool_))
    pictures, classes, values = boxes(3)
    picture, _ = distort(pictures, classes, values, drawn, SIZE, torch.Generator().manual_seed(0))
    assert torch.equal(picture[:, 0], picture[:, 2])
    coloured = draw_distortion(
        np.random.default_rng(0), np.zeros(3, np.bool_), np.ones(3, np.bool_)
    )
    assert not torch.equal(coloured.gain[:, 0], coloured.gain[:, 2])
