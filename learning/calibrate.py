"""From measurements to probabilities: calibration of presence, and its thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from inference.card import PresenceCalibration
from learning.evidence import NAMES, Collected, Weights, weigh
from learning.recipe import Concept

_LOST: Final = 0.03
"""Share of patients or clusters that show a target of whom a part may be called absent."""
_PRESENT_FROM: Final = 0.5
_ABSENT_BELOW: Final = (0.2, 0.5)
_MOST_IMAGES: Final = 150.0
_SLOPE_SPREAD, _OFFSET_SPREAD = 0.5, 1.5
"""Standard deviations of the targets' curves around the pooled one (log slope, log odds)."""

Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Further:
    """Evidence beside the object score, in the order of a measurement's images.

    Attributes
    ----------
    positive, negative_own, negative_other
        ``(N, len(learning.evidence.NAMES))`` each.
    groups_own
        Patient or cluster of the negatives of the own source.
    """

    positive: Scores
    negative_own: Scores
    negative_other: Scores
    groups_own: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ConceptMeasurement:
    """Everything measured of one concept on held-out groups.

    Attributes
    ----------
    mask_threshold
        The logit at which masks are cut.
    dice, floor, groups
        One entry for each image that shows the concept: Dice of the model, of the best constant
        mask, and the patient or cluster.
    dice_shifted, floor_shifted
        The same on images moved at random.
    groups_shifted
        Patient or cluster of each of those.
    positive, negative_own, negative_other
        Object scores of images that show it, of empty images of its own source, and of others.
    near
        Which of ``negative_other`` are of the target's own modality; ``None``: none.
    further
        Evidence beside these scores; ``None`` where only scores are known.
    """

    concept: Concept
    mask_threshold: float
    dice: Scores
    floor: Scores
    dice_shifted: Scores
    floor_shifted: Scores
    groups: tuple[str, ...]
    groups_shifted: tuple[str, ...]
    positive: Scores
    negative_own: Scores
    negative_other: Scores
    near: NDArray[np.bool_] | None = None
    further: Further | None = None

    @property
    def negative(self) -> Scores:
        """All negatives."""
        return np.concatenate([self.negative_own, self.negative_other])

    @property
    def negative_near(self) -> Scores:
        """Negatives of the target's own modality."""
        near = self.negative_other[:0] if self.near is None else self.negative_other[self.near]
        return np.concatenate([self.negative_own, near])


@dataclass(frozen=True, slots=True)
class Curve:
    """From an object score to log odds: ``slope * score + offset``."""

    slope: float
    offset: float


def pool(measured: Sequence[ConceptMeasurement]) -> Curve:
    """Fit one curve to all targets together, each weighing the same: what a target begins from."""
    known = [item for item in measured if item.positive.size and item.negative_near.size]
    if not known:
        return Curve(1.0, 0.0)
    positive = np.concatenate([item.positive for item in known])
    negative = np.concatenate([item.negative_near for item in known])
    weights = [_weight(item) for item in known]
    return _fit(
        positive,
        negative,
        np.concatenate([np.full(i.positive.size, w) for i, w in zip(known, weights, strict=True)]),
        np.concatenate(
            [np.full(i.negative_near.size, w) for i, w in zip(known, weights, strict=True)]
        ),
        None,
    )


def fit_curve(measured: ConceptMeasurement, prior: Curve) -> Curve:
    """Fit a target's curve on its own images, held back towards the pooled one.

    The most probable curve under normal priors on the logarithm of the slope and on the offset, so
    that a target with a handful of images keeps what all targets taught. Images count as they are
    found, shown and empty, among those of the target's own modality.
    """
    if not measured.positive.size + measured.negative_near.size:
        return prior
    weight = _weight(measured)
    return _fit(
        measured.positive,
        measured.negative_near,
        np.full(measured.positive.size, weight),
        np.full(measured.negative_near.size, weight),
        prior,
    )


def _weight(measured: ConceptMeasurement) -> float:
    """Slices of a patient repeat each other: beyond some number more images add no evidence."""
    return min(1.0, _MOST_IMAGES / (measured.positive.size + measured.negative_near.size))


def _fit(
    positive: Scores,
    negative: Scores,
    positive_weight: Scores,
    negative_weight: Scores,
    prior: Curve | None,
) -> Curve:
    """Logistic regression of two parameters, by the most probable value."""
    start = prior or Curve(1.0, 0.0)
    spread = (_SLOPE_SPREAD, _OFFSET_SPREAD) if prior else (2.0, 10.0)

    def loss(parameters: NDArray[np.float64]) -> float:
        slope, offset = np.exp(parameters[0]), parameters[1]
        data = (positive_weight * np.logaddexp(0.0, -(slope * positive + offset))).sum()
        data += (negative_weight * np.logaddexp(0.0, slope * negative + offset)).sum()
        held = ((parameters[0] - np.log(start.slope)) / spread[0]) ** 2
        held += ((offset - start.offset) / spread[1]) ** 2
        return float(data + 0.5 * held)

    found = minimize(loss, np.array([np.log(start.slope), start.offset]), method="Nelder-Mead")
    return Curve(
        float(np.clip(np.exp(found.x[0]), 0.05, 10.0)), float(np.clip(found.x[1], -20, 20))
    )


def calibrate(measured: ConceptMeasurement, prior: Curve) -> PresenceCalibration:
    """Fit probability and thresholds on the images that are set aside for it.

    Present is what is more probable than not. Absent is what is improbable, below a threshold that
    loses few of the patients who show the target (`lost_below`). Evidence beside the object score
    is taken in where `learning.evidence.weigh` finds it better.
    """
    curve = fit_curve(measured, prior)
    weights = Weights(round(curve.slope, 5), round(curve.offset, 5), {})
    if measured.further is not None:
        weights = weigh(_collected(measured, measured.further)) or weights
    odds = odds_of(measured, weights)
    lost = lost_below(odds.positive, measured.groups)
    return PresenceCalibration(
        slope=weights.slope,
        offset=weights.offset,
        coefficients=weights.coefficients,
        absent_below=round(float(np.clip(lost, *_ABSENT_BELOW)), 4),
        present_from=_PRESENT_FROM,
    )


def calibrations(measured: Sequence[ConceptMeasurement]) -> dict[str, PresenceCalibration]:
    """Fit every target on the calibration images, each held back towards what all share."""
    prior = pool(measured)
    return {item.concept.key: calibrate(item, prior) for item in measured}


def lost_below(odds: Scores, groups: Sequence[str], most: float = _LOST) -> float:
    """Find the probability below which few of the patients who show a target have an image.

    A split conformal bound: of n patients' lowest values the k-th, k the whole part of
    ``most * (n + 1)``. The lowest value of one patient more, were he drawn like these, lies below
    it with a chance of ``k / (n + 1)`` at most. Fewer than 33 patients bear no bound of 3 %: the
    lowest value of ten tells little of an eleventh's.

    Parameters
    ----------
    odds
        ``(N,)`` log odds of images that show the target.
    groups
        Patient or cluster of each.

    Returns
    -------
    float
        0..1; 0 where patients are too few.

    References
    ----------
    Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005, chapter 2.
    """
    lowest: dict[str, float] = {}
    for value, group in zip(odds, groups, strict=True):
        lowest[group] = min(float(value), lowest.get(group, np.inf))
    rank = int(most * (len(lowest) + 1))
    return _chance(sorted(lowest.values())[rank - 1]) if rank else 0.0


def _chance(odds: float) -> float:
    return float(1.0 / (1.0 + np.exp(-np.clip(odds, -30, 30))))


def _collected(measured: ConceptMeasurement, further: Further) -> Collected:
    """Images that show a concept, and the empty ones of its own source."""
    return Collected(
        score=np.concatenate([measured.positive, measured.negative_own]),
        further=np.concatenate([further.positive, further.negative_own]),
        truth=np.arange(measured.positive.size + measured.negative_own.size)
        < measured.positive.size,
        groups=(*measured.groups, *further.groups_own),
    )


@dataclass(frozen=True, slots=True)
class Odds:
    """Calibrated log odds of a measurement's images."""

    positive: Scores
    negative_own: Scores
    negative_other: Scores

    @property
    def negative(self) -> Scores:
        """All negatives."""
        return np.concatenate([self.negative_own, self.negative_other])


def odds_of(measured: ConceptMeasurement, weights: Weights | PresenceCalibration) -> Odds:
    """Bring a measurement's evidence to log odds."""
    coefficients = np.array([weights.coefficients.get(name, 0.0) for name in NAMES])

    def of(score: Scores, further: Scores | None) -> Scores:
        total: Scores = weights.slope * score + weights.offset
        return total if further is None or not score.size else total + further @ coefficients

    more = measured.further
    return Odds(
        of(measured.positive, None if more is None else more.positive),
        of(measured.negative_own, None if more is None else more.negative_own),
        of(measured.negative_other, None if more is None else more.negative_other),
    )
