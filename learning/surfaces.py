"""Distances between the surfaces of two masks, in millimetres (MONAI's metrics)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
_MARGIN = 2
"""Voxels kept around both masks; the rest of the grid decides nothing."""


@contextmanager
def _quiet() -> Iterator[None]:
    """MONAI 1.6 warns of an argument that it hands to itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="monai")
        warnings.filterwarnings("ignore", message=".*always_return_as_numpy.*")
        yield


def hausdorff_95(found: Mask, truth: Mask, spacing: tuple[float, float, float]) -> float | None:
    """95th percentile of the distances between two surfaces, mm; the larger of both directions.

    Parameters
    ----------
    found, truth
        ``(frames, rows, columns)``; one frame is measured in its plane.
    spacing
        mm between frames, rows, columns.

    Returns
    -------
    float or None
        ``None`` where one of the masks is empty: there is no distance to nothing.
    """
    if not found.any() or not truth.any():
        return None
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance

    first, second, steps = _prepared(found, truth, spacing)
    with _quiet():
        value = compute_hausdorff_distance(
            first, second, include_background=True, percentile=95, spacing=steps
        )
    return float(value)


def surface_dice(
    found: Mask, truth: Mask, spacing: tuple[float, float, float], tolerance: float
) -> float | None:
    """Normalised surface Dice: part of both surfaces that lies within ``tolerance`` mm.

    Parameters are those of `hausdorff_95`; ``None`` where both masks are empty, 0 where one is.
    """
    if not found.any() and not truth.any():
        return None
    if not found.any() or not truth.any():
        return 0.0
    from monai.metrics.surface_dice import compute_surface_dice

    first, second, steps = _prepared(found, truth, spacing)
    with _quiet():
        value = compute_surface_dice(
            first, second, [tolerance], include_background=True, spacing=steps
        )
    return float(value)


def _prepared(
    found: Mask, truth: Mask, spacing: tuple[float, float, float]
) -> tuple[torch.Tensor, torch.Tensor, tuple[float, ...]]:
    """Cut both masks to the box that holds them, as ``(1, 1, ...)`` of two or three axes."""
    both = found | truth
    box = []
    for axis, length in enumerate(both.shape):
        others = tuple(other for other in range(3) if other != axis)
        filled = np.flatnonzero(both.any(axis=others))
        box.append(
            slice(max(0, int(filled[0]) - _MARGIN), min(length, int(filled[-1]) + 1 + _MARGIN))
        )
    parts = [torch.from_numpy(mask[tuple(box)].astype(np.float32)) for mask in (found, truth)]
    steps = tuple(float(mm) for mm in spacing)
    if found.shape[0] == 1:
        return parts[0][None], parts[1][None], steps[1:]
    return parts[0][None, None], parts[1][None, None], steps
