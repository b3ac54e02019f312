"""From answers per slice to one mask of a series.

Presence decides which slices may carry a mask; logits are smoothed across slices by physical
distance; what is too small to be the target is dropped by physical size.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import SimpleITK
import torch
from numpy.typing import NDArray

from inference.card import CardTarget, VolumeRules
from inference.findings import HALF, Mask, Presence
from inference.presence import (
    Evidence,
    Probabilities,
    decide,
    mask_statistics,
    probability,
    shows,
    smoothed,
)
from inference.series import Spacing
from inference.tiling import to_source

_CHUNK = 16
"""Slices brought to the source grid at a time; bounds the memory of large series."""
_SMALLEST_WEIGHT = 0.02
"""Neighbouring slices of less weight are left out of the smoothing."""


@dataclass(frozen=True, slots=True)
class SliceAnswers:
    """What the decoder said of one target in each of F slices.

    Attributes
    ----------
    logits
        ``(F, h, w)`` mask logits at the decoder's size, float16.
    score
        ``(F,)`` object scores.
    predicted_iou
        ``(F,)`` 0..1.
    blank
        ``(F,)`` slices without any contrast: nothing can be seen there.
    via
        See `inference.tiling.to_source`.
    seg_log_odds
        ``(F,)`` see `inference.presence.Evidence`; ``None`` where nobody asked for it.
    """

    logits: NDArray[np.float16]
    score: NDArray[np.float32]
    predicted_iou: NDArray[np.float32]
    blank: NDArray[np.bool_]
    via: int | None = None
    seg_log_odds: NDArray[np.float32] | None = None

    def evidence(self, names: Collection[str]) -> Evidence:
        """Collect what speaks for the target; statistics of masks only where they are named."""
        certainty = extent = None
        if {"mask_certainty", "mask_extent"} & set(names):
            certainty, extent = mask_statistics(self.logits)
        return Evidence(self.score, self.predicted_iou, self.seg_log_odds, certainty, extent)


@dataclass(frozen=True, slots=True)
class Assembled:
    """One target's answer for a series."""

    presence: Presence
    confidence: float
    mask: Mask | None
    key_frame: int | None
    predicted_iou: float | None
    probabilities: NDArray[np.uint8] | None = None


def assemble(
    answers: SliceAnswers,
    target: CardTarget,
    *,
    kind: str,
    grid: tuple[int, int],
    spacing: Spacing | None,
    probabilities: bool = False,
) -> Assembled:
    """Decide presence and build the mask on the source grid.

    Parameters
    ----------
    answers
        Of all slices, in order.
    target
        Its calibration and rules.
    kind
        ``volume``: neighbouring slices inform each other; ``images``: each stands alone.
    grid
        Rows and columns of the source.
    spacing
        mm between frames, rows, columns, or ``None`` where it is unknown.
    probabilities
        Whether to give the probability of each pixel, too.
    """
    evidence = answers.evidence(target.presence.coefficients)
    values = probability(evidence, target.presence)
    values[answers.blank] = 0.0
    if kind == "volume":
        values = smoothed(values)
    confidence = float(values.max())
    presence = decide(confidence, target.presence)
    if presence is Presence.ABSENT:
        return Assembled(presence, confidence, None, None, None)
    if presence is Presence.PRESENT:
        shown = shows(evidence, target.presence, whole=kind == "volume") & ~answers.blank
    else:
        shown = values >= target.presence.absent_below
    logits = answers.logits
    if kind == "volume" and spacing is not None:
        logits = smooth_across(logits, spacing[0], target.rules.smoothing_mm)
    mask = on_source(logits, shown, grid, answers.via, target.rules.mask_threshold)
    mask = clean(mask, target.rules, spacing, whole=kind == "volume")
    if not mask.any():
        # The object score says yes, but nothing is left that could be it: a reader would be
        # shown a finding without a place. It counts as not found.
        below = float(np.nextafter(target.presence.absent_below, 0.0))
        return Assembled(Presence.ABSENT, min(confidence, below), None, None, None)
    key = key_frame(mask, values)
    pixels = None
    if probabilities:
        pixels = pixel_probabilities(logits, shown, mask, answers.via, target.rules.mask_threshold)
    return Assembled(presence, confidence, mask, key, float(answers.predicted_iou[key]), pixels)


def smooth_across(
    logits: NDArray[np.float16], distance: float, sigma: float
) -> NDArray[np.float16]:
    """Weighted mean of each slice's logits with its neighbours.

    Parameters
    ----------
    distance
        mm between slices.
    sigma
        Standard deviation of the weights, mm; slices that are far apart are left as they are.
    """
    if sigma <= 0 or distance <= 0 or logits.shape[0] == 1:
        return logits
    reach = int(sigma * math.sqrt(-2.0 * math.log(_SMALLEST_WEIGHT)) / distance)
    reach = min(reach, 5, logits.shape[0] - 1)
    if reach == 0:
        return logits
    count = logits.shape[0]
    result = np.empty_like(logits)
    for index in range(count):
        first, last = max(0, index - reach), min(count, index + reach + 1)
        offset = (np.arange(first, last) - index) * distance
        weight = np.exp(-0.5 * (offset / sigma) ** 2).astype(np.float32)
        part = logits[first:last].astype(np.float32)
        result[index] = np.tensordot(weight / weight.sum(), part, axes=1)
    return result


def on_source(
    logits: NDArray[np.float16],
    shown: NDArray[np.bool_],
    grid: tuple[int, int],
    via: int | None = None,
    threshold: float = 0.0,
) -> Mask:
    """Threshold logits at the source's size; slices that are not shown stay empty."""
    mask: Mask = np.zeros((logits.shape[0], *grid), np.bool_)
    frames = np.flatnonzero(shown)
    for start in range(0, frames.size, _CHUNK):
        chosen = frames[start : start + _CHUNK]
        part = torch.from_numpy(logits[chosen].astype(np.float32))
        upsampled = to_source(part, *grid, via=via)
        mask[chosen] = (upsampled > threshold).numpy()
    return mask


def pixel_probabilities(
    logits: NDArray[np.float16],
    shown: NDArray[np.bool_],
    mask: Mask,
    via: int | None = None,
    threshold: float = 0.0,
) -> NDArray[np.uint8]:
    """Return the probability of each pixel, 0 to 255, so that `HALF` and more is the mask.

    The logistic function of the logits above the threshold that makes the mask. What cleaning took
    out of the mask or filled in it is brought to the nearest value on its side.
    """
    values = np.zeros(mask.shape, np.uint8)
    frames = np.flatnonzero(shown)
    for start in range(0, frames.size, _CHUNK):
        chosen = frames[start : start + _CHUNK]
        part = torch.from_numpy(logits[chosen].astype(np.float32))
        upsampled = to_source(part, mask.shape[1], mask.shape[2], via=via)
        values[chosen] = torch.round(torch.sigmoid(upsampled - threshold) * 255).numpy()
    return np.where(mask, np.maximum(values, HALF), np.minimum(values, HALF - 1))


def clean(mask: Mask, rules: VolumeRules, spacing: Spacing | None, *, whole: bool) -> Mask:
    """Fill holes, drop parts that are too small, keep one part, as far as the rules say so.

    Parameters
    ----------
    whole
        The frames are one volume; otherwise each is cleaned alone.
    """
    if not mask.any():
        return mask
    if rules.solid:
        mask = np.stack([_filled(frame) if frame.any() else frame for frame in mask])
    if whole:
        return _clean_part(mask, rules, spacing)
    return np.concatenate([_clean_part(frame[None], rules, spacing) for frame in mask])


def _filled(frame: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Fill the holes of one slice."""
    image = SimpleITK.GetImageFromArray(frame.astype(np.uint8))
    filled = SimpleITK.BinaryFillhole(image, False, 1.0)
    result: NDArray[np.bool_] = SimpleITK.GetArrayFromImage(filled) > 0
    return result


def _clean_part(mask: Mask, rules: VolumeRules, spacing: Spacing | None) -> Mask:
    """Drop parts by size, within the box that holds them all: labels take eight bytes a voxel."""
    if not mask.any():
        return mask
    box = _bounding_box(mask)
    image = SimpleITK.GetImageFromArray(mask[box].astype(np.uint8))
    parts = SimpleITK.ConnectedComponent(image, True)
    labels = SimpleITK.GetArrayViewFromImage(parts)
    count = int(labels.max()) + 1
    sizes = np.zeros(count, np.float64)
    for frame in labels:
        sizes += np.bincount(frame.reshape(-1), minlength=count)
    smallest = float(rules.min_pixels)
    if spacing is not None and mask.shape[0] > 1:
        smallest = max(1.0, rules.min_mm3 / math.prod(spacing))
    sizes[0] = 0
    keep = sizes >= smallest
    if rules.single_component:
        keep &= np.arange(sizes.size) == sizes.argmax()
    keep[0] = False
    kept: Mask = np.zeros_like(mask)
    kept[box] = keep[labels]
    return kept


def _bounding_box(mask: Mask) -> tuple[slice, ...]:
    """Return the smallest box of a mask that is not empty."""
    ranges = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        filled = np.flatnonzero(mask.any(axis=others))
        ranges.append(slice(int(filled[0]), int(filled[-1]) + 1))
    return tuple(ranges)


def key_frame(mask: Mask, values: Probabilities) -> int:
    """Pick the frame with the largest area, weighed by how surely the target is there."""
    area = mask.sum(axis=(1, 2)).astype(np.float64)
    return int(np.argmax(area * (0.05 + values)))
