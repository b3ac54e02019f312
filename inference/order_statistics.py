"""Percentiles and extremes of a whole series, exact, in the memory of a few of its slices.

Sorting or partitioning needs a copy of all values; a series of a thousand slices is a gigabyte.
Here the values are counted instead, by the upper half of their bits and then, where a percentile
lies, by the lower half (a radix selection).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

_CHUNK: Final = 1 << 18
"""Values looked at together: 1 MiB of them, with a few MiB of working memory."""
_HALF: Final = 1 << 16

Counts = NDArray[np.int64]


def finite_extremes(values: NDArray[np.generic]) -> tuple[float, float] | None:
    """Return the smallest and the largest finite value; None where there is none."""
    found = [
        (float(chunk.min()), float(chunk.max())) for chunk in _finite_chunks(values) if chunk.size
    ]
    if not found:
        return None
    return min(low for low, _ in found), max(high for _, high in found)


def finite_percentiles(
    values: NDArray[np.generic], percents: tuple[float, ...]
) -> tuple[float, ...] | None:
    """Return percentiles of the finite values, with linear interpolation as `numpy.percentile`.

    Parameters
    ----------
    values
        Any shape and real type; values are taken as 32-bit floats.
    percents
        0..100.

    Returns
    -------
    tuple of float, or None
        One for each percent; None where no value is finite.
    """
    upper = np.zeros(_HALF, np.int64)
    for chunk in _finite_chunks(values):
        upper += np.bincount(_keys(chunk) >> 16, minlength=_HALF)
    total = int(upper.sum())
    if total == 0:
        return None
    places = [percent / 100 * (total - 1) for percent in percents]
    ranks = {rank for place in places for rank in (math.floor(place), math.ceil(place))}
    before = np.concatenate(([0], np.cumsum(upper)))
    half_of = {rank: int(np.searchsorted(before, rank, side="right")) - 1 for rank in ranks}
    lower = {half: np.zeros(_HALF, np.int64) for half in set(half_of.values())}
    for chunk in _finite_chunks(values):
        keys = _keys(chunk)
        for half, counts in lower.items():
            counts += np.bincount(keys[keys >> 16 == half] & (_HALF - 1), minlength=_HALF)
    value_of = {
        rank: _value(half, lower[half], rank - int(before[half])) for rank, half in half_of.items()
    }
    return tuple(
        value_of[math.floor(place)]
        + (value_of[math.ceil(place)] - value_of[math.floor(place)]) * (place % 1)
        for place in places
    )


def _finite_chunks(values: NDArray[np.generic]) -> Iterator[NDArray[np.float32]]:
    """Give the finite values, some at a time, as 32-bit floats."""
    flat = values.reshape(-1) if values.flags.c_contiguous else values.flat
    for start in range(0, values.size, _CHUNK):
        chunk = np.asarray(flat[start : start + _CHUNK], dtype=np.float32)
        yield chunk[np.isfinite(chunk)]


def _keys(chunk: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Turn floats into integers of the same order (IEEE 754: sign and magnitude)."""
    bits = chunk.view(np.uint32)
    # Negative numbers are turned over, positive ones are moved above them.
    turned = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    return turned.astype(np.uint32, copy=False)


def _value(half: int, counts: Counts, rank: int) -> float:
    """Return the value of a rank within those that share the upper half of their keys."""
    low = int(np.searchsorted(np.cumsum(counts), rank, side="right"))
    key = np.uint32(half << 16 | low)
    bits = key ^ np.uint32(1 << 31) if key >> 31 else ~key
    return float(np.array([bits], np.uint32).view(np.float32)[0])
