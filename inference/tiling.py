"""From 8-bit images to the model's input tensors, and masks back to the source grid.

Both model parts see the whole image brought to their square input. The published model cuts the
image for its language side into up to twelve tiles of 448 pixels and a thumbnail; ``nano`` was
trained with one tile.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalise(picture: Tensor) -> Tensor:
    """ImageNet normalisation of ``(..., 3, h, w)`` in 0..1."""
    mean = picture.new_tensor(IMAGENET_MEAN).reshape(3, 1, 1)
    std = picture.new_tensor(IMAGENET_STD).reshape(3, 1, 1)
    return (picture - mean) / std


def squash(images: NDArray[np.uint8], size: int) -> Tensor:
    """Bring whole images to ``(B, 3, size, size)``, normalised; the aspect ratio is not kept.

    Parameters
    ----------
    images
        ``(B, rows, columns)`` grey or ``(B, rows, columns, 3)``, 8 bit.
    size
        Side of the model's input in pixels.
    """
    planes = images[..., None] if images.ndim == 3 else images
    # A copy: torch warns of arrays that may not be written to, as those of image files are.
    tensor = torch.from_numpy(planes.copy()).permute(0, 3, 1, 2).float()
    resized = functional.interpolate(
        tensor, (size, size), mode="bilinear", align_corners=False, antialias=True
    )
    # Rounded to 8 bit, as the reference feeds 8-bit pictures and as training images were stored.
    picture = resized.round().clamp(0, 255) / 255.0
    return normalise(picture.expand(-1, 3, -1, -1))


def to_source(logits: Tensor, rows: int, columns: int, via: int | None = None) -> Tensor:
    """Mask logits ``(P, h, w)`` on the source grid ``(P, rows, columns)``.

    Pixel centres of both grids are aligned by their edges (``align_corners=False``), the inverse
    of `squash`.

    Parameters
    ----------
    via
        Side in pixels of a square that the logits are brought to first, as the published model
        does with its input's size.
    """
    planes = logits[:, None].float()
    if via is not None:
        planes = functional.interpolate(planes, (via, via), mode="bilinear", align_corners=False)
    return functional.interpolate(planes, (rows, columns), mode="bilinear", align_corners=False)[
        :, 0
    ]


def tile_grid(
    width: int, height: int, tile: int = 448, most: int = 12, fewest: int = 1
) -> tuple[int, int]:
    """Columns and rows of tiles that the published model cuts an image into.

    The grid whose aspect ratio is nearest; among equals the larger one if the image has more than
    half of its pixels (InternVL's ``find_closest_aspect_ratio``).
    """
    grids = sorted(
        {
            (i, j)
            for count in range(fewest, most + 1)
            for i in range(1, count + 1)
            for j in range(1, count + 1)
            if fewest <= i * j <= most
        },
        key=lambda grid: grid[0] * grid[1],
    )
    best, smallest = (1, 1), float("inf")
    for columns, rows in grids:
        difference = abs(width / height - columns / rows)
        if difference < smallest:
            best, smallest = (columns, rows), difference
        elif difference == smallest and width * height > 0.5 * tile * tile * columns * rows:
            best = (columns, rows)
    return best
