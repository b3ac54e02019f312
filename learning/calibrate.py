"""From measurements to a model card: thresholds, calibration, and what may be listed at all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from inference.card import (
    CardModality,
    CardTarget,
    Interval,
    MeasuredScore,
    ModelCard,
    NotListed,
    PresenceCalibration,
    VolumeRules,
)
from learning import metrics
from learning.evidence import NAMES, Collected, Weights, weigh
from learning.recipe import Concept, Recipe

MARGIN = 0.1
"""On moved images a listed target beats the best constant mask by this much."""
TOLERANCE = 0.05
"""On images as they are it may fall behind it by this much: some sources are cropped around the
target, so that a constant mask scores high without having seen anything."""
LEAST_DICE = 0.4
LEAST_AUC = 0.8
_KEPT_POSITIVES = 0.97
"""Share of positives that must not be called absent."""

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
    positive, negative_own, negative_other
        Object scores of images that show it, of empty images of its own source, and of others.
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
    positive: Scores
    negative_own: Scores
    negative_other: Scores
    further: Further | None = None

    @property
    def negative(self) -> Scores:
        """All negatives."""
        return np.concatenate([self.negative_own, self.negative_other])


def fit_logistic(positive: Scores, negative: Scores, weight: Scores) -> tuple[float, float]:
    """Slope and offset of Platt's calibration, both sides given the same weight.

    Platt's smoothed targets keep the fit finite where the scores are perfectly separated.

    Parameters
    ----------
    weight
        Of each negative.
    """
    scores = np.concatenate([positive, negative])
    truth = np.concatenate(
        [
            np.full(positive.size, (positive.size + 1) / (positive.size + 2)),
            np.full(negative.size, 1 / (negative.size + 2)),
        ]
    )
    weights = np.concatenate(
        [np.full(positive.size, 0.5 / positive.size), 0.5 * weight / weight.sum()]
    )

    def loss(parameters: NDArray[np.float64]) -> float:
        logit = np.exp(parameters[0]) * scores + parameters[1]
        return float((weights * (np.logaddexp(0.0, logit) - truth * logit)).sum())

    found = minimize(loss, np.zeros(2), method="Nelder-Mead")
    return float(np.clip(np.exp(found.x[0]), 0.05, 10.0)), float(np.clip(found.x[1], -20, 20))


def calibrate(measured: ConceptMeasurement) -> PresenceCalibration:
    """Fit probability and thresholds; empty images of the own source weigh half of all.

    Evidence beside the object score is taken in where `learning.evidence.weigh` finds it better.
    """
    own, other = measured.negative_own, measured.negative_other
    weight = np.concatenate(
        [np.full(part.size, 1.0 / part.size) for part in (own, other) if part.size]
    )
    slope, offset = fit_logistic(measured.positive, measured.negative, weight)
    weights = Weights(round(slope, 5), round(offset, 5), {})
    if measured.further is not None:
        weights = weigh(_collected(measured, measured.further)) or weights
    odds = _odds(measured, weights)
    harder = odds.negative_own if own.size >= 5 else odds.negative
    present = metrics.best_threshold(odds.positive, harder)
    absent = min(present, float(np.quantile(odds.positive, 1.0 - _KEPT_POSITIVES)))
    return PresenceCalibration(
        slope=weights.slope,
        offset=weights.offset,
        coefficients=weights.coefficients,
        absent_below=round(min(_chance(absent), 0.5), 4),
        present_from=round(_chance(present), 4),
    )


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
class _Odds:
    """Calibrated log odds of a measurement's images."""

    positive: Scores
    negative_own: Scores
    negative_other: Scores

    @property
    def negative(self) -> Scores:
        """All negatives."""
        return np.concatenate([self.negative_own, self.negative_other])


def _odds(measured: ConceptMeasurement, weights: Weights | PresenceCalibration) -> _Odds:
    coefficients = np.array([weights.coefficients.get(name, 0.0) for name in NAMES])

    def of(score: Scores, further: Scores | None) -> Scores:
        total: Scores = weights.slope * score + weights.offset
        return total if further is None or not score.size else total + further @ coefficients

    more = measured.further
    return _Odds(
        of(measured.positive, None if more is None else more.positive),
        of(measured.negative_own, None if more is None else more.negative_own),
        of(measured.negative_other, None if more is None else more.negative_other),
    )


def measured_score(
    measured: ConceptMeasurement,
    calibration: PresenceCalibration,
    seed: int,
    volumes: tuple[float, ...] = (),
) -> MeasuredScore:
    """Sum up one concept for the card."""
    low, high = metrics.bootstrap_mean(measured.dice.tolist(), measured.groups, seed)
    p = calibration.present_from
    threshold = np.log(p / (1.0 - p)) if 0 < p < 1 else np.inf
    odds = _odds(measured, calibration)
    own = odds.negative_own
    return MeasuredScore(
        dice=round(float(measured.dice.mean()), 4),
        dice_interval=Interval(low=round(low, 4), high=round(high, 4)),
        images=measured.dice.size,
        groups=len(set(measured.groups)),
        floor=round(float(measured.floor.mean()), 4),
        dice_shifted=round(float(measured.dice_shifted.mean()), 4),
        floor_shifted=round(float(measured.floor_shifted.mean()), 4),
        presence_auc=round(metrics.roc_auc(odds.positive, odds.negative), 4),
        presence_auc_own=round(metrics.roc_auc(odds.positive, own), 4) if own.size else None,
        negatives=odds.negative.size,
        negatives_own=own.size,
        sensitivity=round(metrics.sensitivity(odds.positive, threshold), 4),
        specificity=round(metrics.specificity(odds.negative, threshold), 4),
        volume_dice=round(float(np.mean(volumes)), 4) if volumes else None,
        volumes=len(volumes),
    )


def refusal(score: MeasuredScore) -> str | None:
    """Why a target must not be listed; ``None`` where it may."""
    figures = f"Dice {score.dice:.2f} on {score.images} held-out images"
    if score.dice < score.floor - TOLERANCE:
        return f"{figures} is worse than a constant mask ({score.floor:.2f})"
    if score.dice_shifted < score.floor_shifted + MARGIN:
        return (
            f"{figures}; on moved images {score.dice_shifted:.2f} does not beat a constant mask "
            f"({score.floor_shifted:.2f}) by {MARGIN}"
        )
    if min(score.dice, score.dice_shifted) < LEAST_DICE:
        return f"{figures}, {score.dice_shifted:.2f} on moved ones; {LEAST_DICE} is asked of both"
    if score.presence_auc < LEAST_AUC:
        return f"presence AUC {score.presence_auc:.2f} is below {LEAST_AUC}"
    return None


def build_card(
    recipe: Recipe,
    measured: list[ConceptMeasurement],
    volumes: dict[str, tuple[float, ...]],
) -> ModelCard:
    """Write down what was measured; what does not hold is named as not listed.

    Parameters
    ----------
    volumes
        Concept key to the Dice of whole volumes, where they were measured.
    """
    targets: list[CardTarget] = []
    refused: list[NotListed] = []
    for item in measured:
        concept = item.concept
        calibration = calibrate(item)
        score = measured_score(item, calibration, recipe.seed, volumes.get(concept.key, ()))
        reason = refusal(score)
        if reason is not None:
            refused.append(NotListed(name=concept.target, modality=concept.modality, reason=reason))
            continue
        targets.append(
            CardTarget(
                name=concept.target,
                modality=concept.modality,
                body_parts=concept.body_parts,
                category=concept.category,
                score=score,
                presence=calibration,
                rules=VolumeRules(
                    single_component=concept.single_component,
                    min_mm3=concept.min_mm3,
                    min_pixels=concept.min_pixels,
                    smoothing_mm=concept.smoothing_mm,
                    solid=concept.solid,
                    mask_threshold=item.mask_threshold,
                ),
            )
        )
    used = {target.modality for target in targets}
    text = recipe.card
    return ModelCard(
        name=text.name,
        version=text.version,
        licence=text.licence,
        intended_use=text.intended_use,
        limitations=text.limitations,
        training_data=tuple(source.folder for source in recipe.sources),
        modalities=tuple(
            CardModality(
                name=name, dicom=item.dicom, kind=item.kind, intensity=recipe.intensity[name]
            )
            for name, item in recipe.modalities.items()
            if name in used
        ),
        targets=tuple(targets),
        not_listed=tuple(refused),
    )
