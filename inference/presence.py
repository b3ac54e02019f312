"""From object scores to present, absent or uncertain."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from inference.card import PresenceCalibration
from inference.findings import Presence

Probabilities = NDArray[np.float64]

_STRONGEST_VOTE = 2.0
"""Logits from the threshold beyond which a slice is no surer."""


def probability(score: NDArray[np.floating], calibration: PresenceCalibration) -> Probabilities:
    """Calibrated probability that the target is in each image, from its object score (a logit)."""
    logit = np.clip(calibration.slope * score.astype(np.float64) + calibration.offset, -30, 30)
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
    score: NDArray[np.floating], calibration: PresenceCalibration, *, whole: bool
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
    logit = calibration.slope * score.astype(np.float64) + calibration.offset
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
