"""Further evidence of presence is weighed in where it helps, and only there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from inference.card import PresenceCalibration
from inference.presence import Evidence, mask_statistics, probability
from learning.evidence import NAMES, Collected, weigh


def collected(helps: float, count: int = 200, groups: int = 40) -> Collected:
    draw = np.random.default_rng(1)
    truth = draw.random(count) < 0.5
    further = draw.normal(0, 0.1, (count, len(NAMES)))
    further[:, 0] += helps * truth
    return Collected(
        score=draw.normal(0, 2, count) + 1.5 * truth,
        further=further,
        truth=truth,
        groups=tuple(f"g{n % groups}" for n in range(count)),
    )


def test_evidence_that_helps_is_weighed_in() -> None:
    data = collected(0.3)
    weights = weigh(data)
    assert weights is not None
    assert weights.slope > 0
    assert weights.coefficients["predicted_iou"] > 5
    calibration = PresenceCalibration(
        slope=weights.slope,
        offset=weights.offset,
        coefficients=weights.coefficients,
        absent_below=0.5,
        present_from=0.5,
    )
    parts = {name: data.further[:, place] for place, name in enumerate(NAMES)}
    value = probability(Evidence(data.score, **parts), calibration)
    assert ((value > 0.5) == data.truth).mean() > 0.9
    alone = probability(Evidence(data.score), calibration)
    assert not np.allclose(value, alone)


@pytest.mark.parametrize(
    "data",
    [
        collected(0.0),
        collected(0.3, count=40),
        collected(0.3, groups=5),
    ],
)
def test_noise_and_few_data_are_left_out(data: Collected) -> None:
    assert weigh(data) is None


def test_a_score_that_parts_the_sides_needs_no_more() -> None:
    data = collected(0.3)
    parted = replace(data, score=np.where(data.truth, 5.0, -5.0))
    assert weigh(parted) is None


def test_statistics_of_masks() -> None:
    logits = np.full((3, 8, 8), -5.0)
    logits[1, :4] = 9.0
    logits[2, 0, 0] = 0.01
    certainty, extent = mask_statistics(logits)
    assert certainty == pytest.approx([0.0, 0.99975, 0.005], abs=1e-3)
    assert extent == pytest.approx([0.0, np.sqrt(0.5), 1 / 8])
