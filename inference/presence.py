"""From what the model gives to present, absent or uncertain.

The published model computes an object score and an overlap for each mask and throws them away.
Here they, the probability of ``[SEG]`` and the mask itself are evidence of presence, weighed by a
logistic regression whose coefficients stand in the model card (fitted in `learning.calibrate`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.card import PresenceCalibration
from inference.findings import Presence

Probabilities = NDArray[np.float64]
Values = NDArray[np.floating]

_STRONGEST_VOTE = 2.0
"""Logits from the threshold beyond which a slice is no surer."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What speaks for a target in each of F slices.

    Attributes
    ----------
    score
        ``(F,)`` object score, a logit.
    predicted_iou
        ``(F,)`` the decoder's estimate of its overlap, 0..1.
    seg_log_odds
        ``(F,)`` log odds of ``[SEG]`` where the answer has it.
    mask_certainty
        ``(F,)`` mean of ``|2p - 1|`` over the pixels of the mask, 0..1; 0 without a mask.
    mask_extent
        ``(F,)`` square root of the part of the image that the mask covers, 0..1.

    What is ``None`` was not computed and counts as 0.
    """

    score: Values
    predicted_iou: Values | None = None
    seg_log_odds: Values | None = None
    mask_certainty: Values | None = None
    mask_extent: Values | None = None

    def part(self, name: str) -> Probabilities:
        """Return one kind of evidence."""
        values = getattr(self, name)
        if values is None:
            return np.zeros(self.score.shape, np.float64)
        result: Probabilities = np.asarray(values, np.float64)
        return result


def mask_statistics(logits: NDArray[np.floating]) -> tuple[Values, Values]:
    """Certainty and extent of masks.

    Parameters
    ----------
    logits
        ``(F, h, w)``; above 0 is inside.

    Returns
    -------
    tuple of ndarray
        ``mask_certainty`` and ``mask_extent`` of `Evidence`, ``(F,)`` each.
    """
    certainty = np.zeros(logits.shape[0])
    extent = np.zeros(logits.shape[0])
    for number, frame in enumerate(logits):
        inside = frame[frame > 0].astype(np.float64)
        if inside.size:
            # |2 sigmoid(x) - 1| is tanh(x / 2) for positive x.
            certainty[number] = np.tanh(inside / 2.0).mean()
            extent[number] = np.sqrt(inside.size / frame.size)
    return certainty, extent


def log_odds(evidence: Evidence, calibration: PresenceCalibration) -> Probabilities:
    """Calibrated log odds that the target is in each image."""
    total = calibration.slope * evidence.part("score") + calibration.offset
    for name, coefficient in calibration.coefficients.items():
        total = total + coefficient * evidence.part(name)
    return total


def probability(evidence: Evidence, calibration: PresenceCalibration) -> Probabilities:
    """Calibrated probability that the target is in each image."""
    logit = np.clip(log_odds(evidence, calibration), -30, 30)
    result: Probabilities = 1.0 / (1.0 + np.exp(-logit))
    return result


def decide(value: float, calibration: PresenceCalibration) -> Presence:
    """Turn one probability into words."""
    if value >= calibration.present_from:
        return Presence.PRESENT
    if value < calibration.absent_below:
        return Presence.ABSENT
    return Presence.UNCERTAIN


def shows(
    evidence: Evidence, calibration: PresenceCalibration, *, whole: bool
) -> NDArray[np.bool_]:
    """Decide for each slice of a series that has the target whether it shows it.

    Each slice has a vote of limited strength (the distance of its logit from the threshold,
    clipped), so that in a volume two neighbours can correct one slice, and the first and last slice
    of a body stay where they are.

    Parameters
    ----------
    whole
        The slices are one volume, in order; otherwise each stands alone.
    """
    p = min(max(calibration.present_from, 1e-9), 1 - 1e-9)
    logit = log_odds(evidence, calibration)
    votes = np.clip(logit - np.log(p / (1.0 - p)), -_STRONGEST_VOTE, _STRONGEST_VOTE)
    if whole and votes.size > 1:
        padded = np.pad(votes, 1, mode="edge")
        votes = 0.25 * padded[:-2] + 0.5 * padded[1:-1] + 0.25 * padded[2:]
    seen: NDArray[np.bool_] = votes >= 0.0
    return seen


def smoothed(values: Probabilities, neighbours: int = 1) -> Probabilities:
    """Average over neighbouring slices; the ends average over what there is.

    One slice alone is weak evidence in a volume: its neighbours show the same body.
    """
    if values.size <= 1 or neighbours == 0:
        return values
    kernel = np.ones(2 * neighbours + 1)
    total = np.convolve(values, kernel, mode="full")[neighbours:-neighbours]
    count = np.convolve(np.ones_like(values), kernel, mode="full")[neighbours:-neighbours]
    mean: Probabilities = total / count
    return mean
