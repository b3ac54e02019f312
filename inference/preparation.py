"""From 8-bit pictures to both inputs of a model, in the way that its configuration asks for.

``nano`` sees each picture resized as a whole. The published model has it cut into tiles for its
language side and resized by PIL's bicubic filter, as in its training; see InternVL's
``dynamic_preprocess`` and UniBiomed's ``predict_forward``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from inference.architecture import ModelConfig, TilingConfig
from inference.tiling import normalise, squash, tile_grid


@dataclass(frozen=True, slots=True)
class Inputs:
    """What B pictures of one size become.

    Attributes
    ----------
    pixels
        ``(B, 3, s, s)`` for the grounding encoder.
    tiles
        ``(B, n, 3, v, v)`` for the vision tower, n tiles of each picture.
    """

    pixels: Tensor
    tiles: Tensor


def prepare(pictures: NDArray[np.uint8], config: ModelConfig) -> Inputs:
    """Prepare pictures for a model.

    Parameters
    ----------
    pictures
        ``(B, rows, columns)`` grey or ``(B, rows, columns, 3)`` RGB.
    """
    whole, side = config.grounding.image_size, config.vision.image_size
    if config.tiling is None:
        pixels = squash(pictures, whole)
        tiles = pixels if side == whole else squash(pictures, side)
        return Inputs(pixels, tiles[:, None])
    images = [_image(picture) for picture in pictures]
    return Inputs(
        pixels=torch.stack([_tensor(image.resize((whole, whole), _FILTER)) for image in images]),
        tiles=torch.stack([cut_tiles(image, side, config.tiling) for image in images]),
    )


_FILTER = Image.Resampling.BICUBIC


def cut_tiles(image: Image.Image, side: int, tiling: TilingConfig) -> Tensor:
    """Cut one picture into normalised tiles ``(n, 3, side, side)``, row by row.

    The picture is stretched to whole tiles; where there are several, the whole picture follows as
    a thumbnail.
    """
    columns, rows = tile_grid(image.width, image.height, side, tiling.most, tiling.fewest)
    stretched = image.resize((columns * side, rows * side), _FILTER)
    tiles = [
        stretched.crop((left, top, left + side, top + side))
        for top in range(0, rows * side, side)
        for left in range(0, columns * side, side)
    ]
    if tiling.thumbnail and len(tiles) > 1:
        tiles.append(image.resize((side, side), _FILTER))
    return torch.stack([_tensor(tile) for tile in tiles])


def _image(picture: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(picture)).convert("RGB")


def _tensor(image: Image.Image) -> Tensor:
    """Normalise a picture: ``(3, h, w)``."""
    values = torch.from_numpy(np.array(image, dtype=np.uint8)).permute(2, 0, 1)
    return normalise(values.float() / 255.0)
