"""How good is a mask, how good is a score: plain numpy, no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Scores = NDArray[np.floating]


def dice(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Dice coefficient; 1 where both are empty.

    Raises
    ------
    ValueError
        When the masks lie on different grids.
    """
    if found.shape != truth.shape:
        raise ValueError(f"masks of shape {found.shape} and {truth.shape} cannot be compared")
    total = int(found.sum()) + int(truth.sum())
    return 1.0 if total == 0 else 2.0 * int((found & truth).sum()) / total


def iou(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Intersection over union; 1 where both are empty."""
    both = dice(found, truth)
    return both / (2.0 - both)


def calibration_error(
    probability: Scores, truth: NDArray[np.bool_], bins: int = 10
) -> tuple[float, list[tuple[float, float, int]]]:
    """Return the expected calibration error, and the diagram that it sums up.

    Returns
    -------
    tuple
        The mean distance of probability and frequency over equally wide bins, weighed by their
        counts (Guo et al., ICML 2017); and for each bin that is not empty its mean probability, the
        share of positives, and its count.
    """
    place = np.minimum((probability * bins).astype(int), bins - 1)
    rows = [
        (float(probability[place == b].mean()), float(truth[place == b].mean()), int(chosen))
        for b in range(bins)
        if (chosen := (place == b).sum())
    ]
    total = sum(count for _, _, count in rows)
    error = sum(abs(p - share) * count for p, share, count in rows) / max(1, total)
    return float(error), rows


def calibration_by_chance(
    probability: Scores, seed: int = 0, bins: int = 10, draws: int = 1000
) -> tuple[float, float]:
    """Return what the calibration error comes to by chance alone, were every probability right.

    Shares of a few cases scatter around the best of probabilities, and their distances add up
    whatever their sign: the error of 20 cases is some tenths even for a perfect forecast (Bröcker
    and Smith, Weather and Forecasting 2007; Roelofs et al., AISTATS 2022).

    Returns
    -------
    tuple
        Mean, and 95th percentile, over truths drawn from these very probabilities; cases are drawn
        one by one, so of slices of few patients the true figures are larger.
    """
    if not probability.size:
        return 0.0, 0.0
    truths = np.random.default_rng(seed).random((draws, probability.size)) < probability
    place = np.minimum((probability * bins).astype(int), bins - 1)
    inside = (place[:, None] == np.arange(bins)).astype(np.float64)
    # The weight of a bin takes its count away: what is left is a sum of differences.
    missing = (probability @ inside)[None] - truths @ inside
    errors = np.abs(missing).sum(axis=1) / probability.size
    return float(errors.mean()), float(np.percentile(errors, 95))


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models on the same images.

    Attributes
    ----------
    difference
        Mean of second minus first.
    low, high
        95 % bootstrap interval of it, drawing whole groups.
    p_value
        Of a paired t-test over images; ``None`` where all differences are equal.
    count
        Number of images.
    """

    difference: float
    low: float
    high: float
    p_value: float | None
    count: int


def compare(
    first: Sequence[float], second: Sequence[float], groups: Sequence[str], seed: int = 0
) -> Comparison:
    """Compare two models' scores, image by image.

    Raises
    ------
    ValueError
        When the lists are empty or of different lengths.
    """
    if not first or not len(first) == len(second) == len(groups):
        raise ValueError(f"{len(first)} and {len(second)} scores of {len(groups)} images")
    change = np.asarray(second, np.float64) - np.asarray(first, np.float64)
    low, high = bootstrap_mean(change.tolist(), groups, seed)
    p_value = None
    if change.size > 1 and np.ptp(change) > 1e-12:
        p_value = float(stats.ttest_rel(second, first).pvalue)
    return Comparison(float(change.mean()), low, high, p_value, change.size)


def roc_auc(positive: Scores, negative: Scores) -> float:
    """Area under the ROC curve: how often a positive outscores a negative, ties counted half.

    0.5 where one side is empty: nothing was shown.
    """
    if positive.size == 0 or negative.size == 0:
        return 0.5
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left")
    equal = np.searchsorted(ordered, positive, side="right") - below
    return float((below + 0.5 * equal).mean() / negative.size)


def sensitivity(positive: Scores, threshold: float) -> float:
    """Share of positives at or above a threshold; 0 without positives."""
    return float((positive >= threshold).mean()) if positive.size else 0.0


def specificity(negative: Scores, threshold: float) -> float:
    """Share of negatives below a threshold; 0 without negatives."""
    return float((negative < threshold).mean()) if negative.size else 0.0


def best_threshold(positive: Scores, negative: Scores) -> float:
    """Threshold with the largest sum of sensitivity and specificity (Youden's index).

    Midway between the two scores around it, so that it does not sit on a sample. The lowest of
    equals: a finding too many is put before a reader, a finding too few is not.
    """
    values = np.unique(np.concatenate([positive, negative]))
    if values.size < 2:
        return float(values[0]) if values.size else 0.0
    candidates = (values[1:] + values[:-1]) / 2.0
    sums = [sensitivity(positive, t) + specificity(negative, t) for t in candidates]
    return float(candidates[int(np.argmax(sums))])


def bootstrap_mean(
    values: Sequence[float], groups: Sequence[str], seed: int, draws: int = 1000
) -> tuple[float, float]:
    """95 % interval of a mean, drawing whole groups: images of a patient are no new evidence."""
    names, place = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.bincount(place, weights=np.asarray(values, np.float64))
    counts = np.bincount(place).astype(np.float64)
    random = np.random.default_rng(seed)
    chosen = random.integers(names.size, size=(draws, names.size))
    means = sums[chosen].sum(axis=1) / counts[chosen].sum(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def volume_error(found: float, truth: float) -> float:
    """Relative error of a volume; positive where too much was found.

    Raises
    ------
    ValueError
        When the true volume is not positive.
    """
    if truth <= 0:
        raise ValueError(f"true volume is {truth}, so no relative error exists")
    return found / truth - 1.0
