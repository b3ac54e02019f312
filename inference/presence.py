"""From object scores to present, absent or uncertain."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from inference.card import PresenceCalibration
from inference.findings import Presence

Probabilities = NDArray[np.float64]


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
