"""Sum up what was measured of each target, judge it, and write the model card of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

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
from learning.calibrate import ConceptMeasurement, Scores, odds_of
from learning.listing import Verdict, judge
from learning.recipe import Concept, Recipe


@dataclass(frozen=True, slots=True)
class Judged:
    """One concept: what was measured on test images, and whether it may stand on the card.

    Attributes
    ----------
    presence
        Fitted on the calibration images.
    mask_threshold
        The logit at which masks are cut.
    """

    concept: Concept
    score: MeasuredScore
    verdict: Verdict
    presence: PresenceCalibration
    mask_threshold: float

    def with_volumes(self, dice: Sequence[float]) -> Judged:
        """Add what was measured of whole volumes."""
        if not dice:
            return self
        figures = {"volume_dice": round(float(np.mean(dice)), 4), "volumes": len(dice)}
        return replace(self, score=self.score.model_copy(update=figures))


def judged(
    measured: Sequence[ConceptMeasurement],
    calibrations: Mapping[str, PresenceCalibration],
    recipe: Recipe,
    baselines: Mapping[str, float],
) -> list[Judged]:
    """Sum up and judge every measured concept.

    Parameters
    ----------
    measured
        On the test images; what no image shows is left out.
    calibrations
        Concept key to what was fitted on the calibration images.
    baselines
        Concept key to the Dice of the U-Net, where one was trained.
    """
    result = []
    for item in measured:
        if not item.dice.size:
            continue
        key, presence = item.concept.key, calibrations[item.concept.key]
        score = measured_score(item, presence, recipe.seed, baselines.get(key))
        verdict = judge(score, least_dice=item.concept.least_dice, centred=recipe.centred(key))
        result.append(Judged(item.concept, score, verdict, presence, item.mask_threshold))
    return result


def measured_score(
    measured: ConceptMeasurement,
    calibration: PresenceCalibration,
    seed: int,
    baseline: float | None = None,
) -> MeasuredScore:
    """Sum up one concept for the card.

    Parameters
    ----------
    baseline
        Dice of the U-Net beside it, where one was trained.
    """
    p = calibration.present_from
    threshold = np.log(p / (1.0 - p)) if 0 < p < 1 else np.inf
    odds = odds_of(measured, calibration)
    own = odds.negative_own
    return MeasuredScore(
        dice=round(float(measured.dice.mean()), 4),
        dice_interval=_interval(measured.dice, measured.groups, seed),
        images=measured.dice.size,
        groups=len(set(measured.groups)),
        floor=round(float(measured.floor.mean()), 4),
        dice_shifted=round(float(measured.dice_shifted.mean()), 4),
        floor_shifted=round(float(measured.floor_shifted.mean()), 4),
        over_floor=_interval(measured.dice - measured.floor, measured.groups, seed),
        over_floor_shifted=_interval(
            measured.dice_shifted - measured.floor_shifted, measured.groups_shifted, seed
        ),
        baseline=None if baseline is None else round(baseline, 4),
        presence_auc=round(metrics.roc_auc(odds.positive, odds.negative), 4),
        presence_auc_own=round(metrics.roc_auc(odds.positive, own), 4) if own.size else None,
        negatives=odds.negative.size,
        negatives_own=own.size,
        sensitivity=round(metrics.sensitivity(odds.positive, threshold), 4),
        specificity=round(metrics.specificity(odds.negative, threshold), 4),
    )


def _interval(values: Scores, groups: Sequence[str], seed: int) -> Interval:
    low, high = metrics.bootstrap_mean(values.tolist(), groups, seed)
    return Interval(low=round(low, 4), high=round(high, 4))


def build_card(recipe: Recipe, judged: Sequence[Judged]) -> ModelCard:
    """Write down what was measured; what does not hold is named as not listed."""
    targets = tuple(_target(item) for item in judged if item.verdict.listed)
    refused = tuple(
        NotListed(
            name=item.concept.target, modality=item.concept.modality, reason=item.verdict.reason
        )
        for item in judged
        if not item.verdict.listed
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
        targets=targets,
        not_listed=refused,
    )


def _target(item: Judged) -> CardTarget:
    concept = item.concept
    return CardTarget(
        name=concept.target,
        modality=concept.modality,
        body_parts=concept.body_parts,
        category=concept.category,
        score=item.score,
        presence=item.presence,
        rules=VolumeRules(
            single_component=concept.single_component,
            min_mm3=concept.min_mm3,
            min_pixels=concept.min_pixels,
            smoothing_mm=concept.smoothing_mm,
            solid=concept.solid,
            mask_threshold=item.mask_threshold,
        ),
    )
