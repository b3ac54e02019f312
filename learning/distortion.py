"""How training images are distorted, the same on CPU and GPU: one resampling, then the greys.

A small data set is only enough for a small model if it never sees the same picture twice. Beside
turns, shifts and flips a part of the pictures is shown small, in a wide black field, and a part as
a crop, in which the target may not be at all: so every source has images without its target.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

_SMALL, _CROPPED = 0.15, 0.2
"""Parts of the pictures that are shown small, and as a crop."""
_KNOTS = 5
"""Of the smooth fields that bend a picture and shade it, along each side."""
_BEND = 0.025
"""Standard deviation of the bend, in half widths of the picture."""
_SHADE = 0.12


@dataclass(frozen=True, slots=True)
class Distortion:
    """How each of B pictures is distorted.

    Attributes
    ----------
    affine
        ``(B, 2, 3)`` from the output's coordinates to the picture's, both -1..1.
    bend, shade
        ``(B, 2, k, k)`` displacements in the same units, ``(B, 1, k, k)`` change of brightness.
    gamma, offset, noise
        ``(B, 1, 1, 1)``.
    gain
        ``(B, 3, 1, 1)``.
    """

    affine: Tensor
    bend: Tensor
    shade: Tensor
    gamma: Tensor
    gain: Tensor
    offset: Tensor
    noise: Tensor

    def row(self, number: int) -> Distortion:
        """Return the distortion of one picture, as a batch of one."""
        return Distortion(*(getattr(self, f.name)[number : number + 1] for f in fields(self)))

    def to(self, device: torch.device) -> Distortion:
        """Bring it to a device without waiting."""
        return Distortion(
            *(
                getattr(self, f.name).pin_memory().to(device, non_blocking=True)
                for f in fields(self)
            )
        )


def draw_distortion(
    draw: np.random.Generator, any_angle: NDArray[np.bool_], colour: NDArray[np.bool_]
) -> Distortion:
    """Draw for B pictures.

    Parameters
    ----------
    any_angle
        ``(B,)``: pictures without an upright direction; others are turned by up to 20 degrees.
    colour
        ``(B,)``: pictures whose channels may change one by one.
    """
    count = any_angle.size

    def even(low: float, high: float, *shape: int) -> NDArray[np.float64]:
        return draw.uniform(low, high, (count, *shape))

    def tensor(values: NDArray[np.float64], *shape: int) -> Tensor:
        return torch.from_numpy(values.astype(np.float32)).reshape(count, *shape)

    bent = draw.random((count, 1, 1, 1)) < 0.6
    shaded = draw.random((count, 1, 1, 1)) < 0.4
    channels = np.where(colour[:, None], even(0.88, 1.12, 3), 1.0)
    return Distortion(
        affine=tensor(_affine(draw, any_angle), 2, 3),
        bend=tensor(bent * draw.normal(0.0, _BEND, (count, 2, _KNOTS, _KNOTS)), 2, _KNOTS, _KNOTS),
        shade=tensor(
            shaded * draw.normal(0.0, _SHADE, (count, 1, _KNOTS, _KNOTS)), 1, _KNOTS, _KNOTS
        ),
        gamma=tensor(np.exp(even(-0.4, 0.4)), 1, 1, 1),
        gain=tensor(channels * even(0.85, 1.15, 1), 3, 1, 1),
        offset=tensor(even(-0.07, 0.07), 1, 1, 1),
        noise=tensor((draw.random(count) < 0.5) * even(0.0, 0.06), 1, 1, 1),
    )


def _affine(draw: np.random.Generator, any_angle: NDArray[np.bool_]) -> NDArray[np.float64]:
    count = any_angle.size
    limit = np.where(any_angle, math.pi, math.radians(20.0))
    turn = draw.uniform(-1.0, 1.0, count) * limit
    aspect = np.exp(draw.uniform(-0.14, 0.14, count))
    flip = np.where(draw.random(count) < 0.5, -1.0, 1.0)
    roll = draw.random(count)
    scale = np.exp(draw.uniform(-0.28, 0.28, count))
    reach = np.full(count, 0.2)
    small = roll < _SMALL
    scale = np.where(small, np.exp(draw.uniform(0.25, 1.1, count)), scale)
    # Anywhere in the wide field, but inside it for the most part.
    reach = np.where(small, 0.8 * (scale - 1.0) + 0.1, reach)
    crop = roll > 1.0 - _CROPPED
    scale = np.where(crop, np.exp(draw.uniform(-1.05, -0.3, count)), scale)
    reach = np.where(crop, 1.0 - 0.7 * scale, reach)
    shift = draw.uniform(-1.0, 1.0, (count, 2)) * reach[:, None]
    sx, sy = scale * aspect * flip, scale / aspect
    cos, sin = np.cos(turn), np.sin(turn)
    rows = np.stack([cos * sx, -sin * sy, shift[:, 0], sin * sx, cos * sy, shift[:, 1]], axis=1)
    return rows.reshape(count, 2, 3)


def distort(
    pictures: Tensor,
    classes: Tensor,
    values: Tensor,
    distortion: Distortion,
    size: int,
    noise: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Turn, shift, scale, bend and flip pictures and masks in one resampling; change the greys.

    Parameters
    ----------
    pictures, classes
        ``(B, 3, h, w)`` and ``(B, h, w)``, 8 bit.
    values
        ``(B, P, 256)``: 1 where a class belongs to a prompt's target.

    Returns
    -------
    tuple of Tensor
        Pictures ``(B, 3, s, s)``, 0..1, and masks ``(B, P, s / 2, s / 2)``, the part of each cell
        that belongs to the target.
    """
    count, prompts = values.shape[:2]
    index = classes.flatten(1).long()[:, None].expand(-1, prompts, -1)
    layers = values.gather(2, index).reshape(count, prompts, *classes.shape[1:])
    stack = torch.cat([pictures.float() / 255.0, layers], dim=1)
    grid = functional.affine_grid(
        distortion.affine, [count, 1, size, size], align_corners=False
    ) + _field(distortion.bend, size).permute(0, 2, 3, 1)
    moved = functional.grid_sample(stack, grid, mode="bilinear", align_corners=False)
    masks = functional.avg_pool2d((moved[:, 3:] > 0.5).float(), 2)
    picture = moved[:, :3].clamp(1e-4, 1.0) ** distortion.gamma
    picture = picture * distortion.gain * torch.exp(_field(distortion.shade, size))
    grain = torch.randn(
        (count, 1, size, size), generator=noise, device=pictures.device, dtype=torch.float32
    )
    return (picture + distortion.offset + grain * distortion.noise).clamp(0.0, 1.0), masks


def _field(knots: Tensor, size: int) -> Tensor:
    """Lay a smooth field through knots."""
    return functional.interpolate(knots, (size, size), mode="bicubic", align_corners=True)
