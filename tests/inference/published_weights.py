"""Weights under published names, made by the parity fixture's recipe (its README, step by step)."""

from __future__ import annotations

import csv
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray


class RecipeWeights:
    """A source of tensors for the loader; each is drawn when it is asked for, none is kept."""

    place = "the parity recipe"

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], seed: int = 1) -> None:
        self.shapes = shapes
        self._seed = seed

    def tensor(self, name: str) -> torch.Tensor:
        key = zlib.crc32(name.encode())
        generator = np.random.Generator(np.random.PCG64([self._seed, key]))
        drawn = generator.standard_normal(self.shapes[name], dtype=np.float32)
        return torch.from_numpy(np.asarray(_scaled(name, drawn), dtype=np.float32))


def _scaled(name: str, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale a draw; in place where it is large, so that no second copy is made."""
    if name.endswith((".ls1", ".ls2")):
        return np.float32(0.1) + np.float32(0.01) * x
    if x.ndim == 1:
        return (1.0 if name.endswith("weight") else 0.0) + np.float32(0.02) * x
    if x.ndim == 2:
        x /= np.float32(np.sqrt(x.shape[-1]))
    elif x.ndim == 4 and x.shape[0] != 1:
        x /= np.float32(np.sqrt(np.prod(x.shape[1:])))
    else:
        x = np.float32(0.02) * x
    return x


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Read ``published_keys.csv``."""
    with path.open(encoding="utf-8", newline="") as file:
        return {
            row["key"]: ()
            if row["shape"] == "scalar"
            else tuple(int(size) for size in row["shape"].split("x"))
            for row in csv.DictReader(file)
        }
