"""Whether more than the object score tells if a target is there: decided by cross-validation.

Further evidence is only weighed in where it was clearly better on patients that it was not fitted
on, and where there are enough empty images of the target's own source: with a handful of them a
coefficient is a guess.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GroupKFold

from inference.card import Evidence
from learning.metrics import roc_auc

LEAST_OWN_NEGATIVES: Final = 30
LEAST_GROUPS: Final = 10
LEAST_GAIN: Final = 0.1
"""Part of the log loss that further evidence must take away."""
PARTED: Final = 0.98
"""Area under the ROC curve from which the score parts the sides so well that a gain in the loss is
one of a few images, and is paid for elsewhere: on other images presence got worse by it."""
NAMES: Final[tuple[Evidence, ...]] = ("predicted_iou", "mask_certainty", "mask_extent")
"""What a model gives beside the score. The log odds of ``[SEG]`` are left out: models that are
trained here force the answer, so that their head never learned to choose it."""

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Collected:
    """Evidence of N images that show a target, or of its own source and do not.

    Attributes
    ----------
    score
        ``(N,)`` object scores.
    further
        ``(N, len(NAMES))``.
    truth
        ``(N,)`` whether the target is there.
    groups
        Patient or cluster of each.
    """

    score: Values
    further: Values
    truth: NDArray[np.bool_]
    groups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Weights:
    """A logistic regression on the object score and further evidence."""

    slope: float
    offset: float
    coefficients: dict[Evidence, float]


def weigh(collected: Collected) -> Weights | None:
    """Fit all evidence; ``None`` where the object score alone is as good or data are too few."""
    negatives = int((~collected.truth).sum())
    groups = len(set(collected.groups))
    if negatives < LEAST_OWN_NEGATIVES or groups < LEAST_GROUPS or not collected.truth.any():
        return None
    shown = collected.truth
    if roc_auc(collected.score[shown], collected.score[~shown]) >= PARTED:
        return None
    whole = np.column_stack([collected.score, collected.further])
    alone = _held_out_loss(collected, whole[:, :1])
    together = _held_out_loss(collected, whole)
    if together > (1.0 - LEAST_GAIN) * alone:
        return None
    model = _fitted(whole, collected.truth)
    slope, *rest = (float(value) for value in model.coef_[0])
    if slope <= 0:
        return None
    coefficients = {name: round(value, 5) for name, value in zip(NAMES, rest, strict=True)}
    return Weights(round(slope, 5), round(float(model.intercept_[0]), 5), coefficients)


def _held_out_loss(collected: Collected, values: Values) -> float:
    """Log loss on groups that a fit did not see, both sides weighing the same."""
    truth = collected.truth
    probability = np.zeros(truth.size)
    for train, test in GroupKFold(5).split(values, truth, collected.groups):
        if truth[train].all() or not truth[train].any():
            return np.inf
        probability[test] = _fitted(values[train], truth[train]).predict_proba(values[test])[:, 1]
    weight = np.where(truth, 0.5 / truth.mean(), 0.5 / (1.0 - truth.mean()))
    return float(log_loss(truth, probability, sample_weight=weight))


def _fitted(values: Values, truth: NDArray[np.bool_]) -> LogisticRegression:
    """Fit on standardised values, and give the coefficients back in the values' own units."""
    mean, spread = values.mean(axis=0), values.std(axis=0)
    spread = np.where(spread > 1e-9, spread, 1.0)
    model = LogisticRegression(class_weight="balanced", max_iter=1000)
    model.fit((values - mean) / spread, truth)
    model.coef_ = model.coef_ / spread
    model.intercept_ = model.intercept_ - model.coef_ @ mean
    return model
