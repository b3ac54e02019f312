"""Calibration and the card: figures decide what is listed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.card import Interval
from inference.presence import Evidence, probability
from learning.calibrate import (
    ConceptMeasurement,
    Curve,
    calibrate,
    calibrations,
    fit_curve,
    lost_below,
    pool,
)
from learning.recipe import Recipe
from learning.scoring import build_card, judged, measured_score
from tests.learning.small_recipe import recipe_data

PRIOR = Curve(1.0, -2.0)
RECIPE = Recipe.model_validate(recipe_data())


def measured(
    dice: float = 0.8, floor: float = 0.4, apart: float = 4.0, moved_floor: float = 0.1
) -> ConceptMeasurement:
    draw = np.random.default_rng(0)
    return ConceptMeasurement(
        concept=RECIPE.concepts[0],
        mask_threshold=0.5,
        dice=np.full(40, dice),
        floor=np.full(40, floor),
        dice_shifted=np.full(40, dice - 0.02),
        floor_shifted=np.full(40, moved_floor),
        groups=tuple(f"g{i // 2}" for i in range(40)),
        groups_shifted=tuple(f"g{i // 2}" for i in range(40)),
        positive=draw.normal(apart, 1, 40),
        negative_own=draw.normal(0, 1, 30),
        negative_other=draw.normal(-apart, 1, 200),
    )


def test_probabilities_rise_with_the_score_and_part_the_sides() -> None:
    item = measured()
    calibration = calibrate(item, PRIOR)
    positive = probability(Evidence(item.positive), calibration)
    negative = probability(Evidence(item.negative), calibration)
    assert (positive >= calibration.present_from).mean() > 0.9
    assert (negative < calibration.absent_below).mean() > 0.9
    assert calibration.absent_below <= 0.5


def test_few_patients_bear_no_threshold_of_absence() -> None:
    odds = np.linspace(-1.0, 3.0, 32)
    assert lost_below(odds, [f"g{i}" for i in range(32)]) == 0.0
    assert lost_below(np.repeat(odds, 3), [f"g{i // 3}" for i in range(96)]) == 0.0
    groups = [f"g{i}" for i in range(33)]
    assert lost_below(np.append(odds, 4.0), groups) == pytest.approx(1 / (1 + np.e))
    assert calibrate(measured(), PRIOR).absent_below == 0.2, "twenty patients"


@given(
    st.lists(st.tuples(st.floats(-8, 8), st.integers(0, 80)), min_size=40, max_size=200),
    st.floats(0.02, 0.5),
)
def test_few_of_the_patients_themselves_lie_below_the_threshold(
    images: list[tuple[float, int]], most: float
) -> None:
    odds, groups = np.array([value for value, _ in images]), [str(group) for _, group in images]
    threshold = lost_below(odds, groups, most)
    chances = 1.0 / (1.0 + np.exp(-odds))
    below = {g for value, g in zip(chances, groups, strict=True) if value < threshold - 1e-12}
    assert len(below) <= most * (len(set(groups)) + 1)


@pytest.mark.parametrize("apart", [1000.0, 0.0])
def test_scores_that_are_parted_fully_or_not_at_all_stay_finite(apart: float) -> None:
    calibration = calibrate(measured(apart=apart), PRIOR)
    assert np.isfinite([calibration.slope, calibration.offset]).all()


def test_a_good_target_is_listed_with_what_was_measured() -> None:
    (item,) = judged(
        [measured()], calibrations([measured()]), RECIPE, {"polyp, endoscopy": 0.61234}
    )
    card = build_card(RECIPE, [item.with_volumes((0.7, 0.9))])
    target = card.targets[0]
    assert target.score.dice == 0.8
    assert target.score.images == 40
    assert target.score.groups == 20
    assert target.score.volume_dice == 0.8
    assert target.score.baseline == 0.6123
    assert target.score.over_floor == Interval(low=0.4, high=0.4)
    assert target.score.over_floor_shifted == Interval(low=0.68, high=0.68)
    assert target.rules.mask_threshold == 0.5
    assert target.score.negatives_own == 30
    assert [m.name for m in card.modalities] == ["endoscopy"]


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (measured(dice=0.42, floor=0.7), "is worse than a constant mask (0.70)"),
        (measured(dice=0.42, floor=0.4, moved_floor=0.45), "does not beat a constant mask (0.45)"),
        (measured(dice=0.3, floor=0.1), "0.4 is asked"),
        (measured(apart=0.1), "presence AUC"),
    ],
)
def test_what_was_not_learned_is_not_listed(item: ConceptMeasurement, reason: str) -> None:
    card = build_card(RECIPE, judged([item], calibrations([item]), RECIPE, {}))
    assert card.targets == ()
    assert reason in card.not_listed[0].reason


def test_a_target_without_own_negatives_says_so() -> None:
    item = measured()
    alone = replace(item, negative_own=np.array([]))
    score = measured_score(alone, calibrate(alone, PRIOR), seed=1)
    assert score.presence_auc_own is None
    assert score.negatives_own == 0


def test_a_target_with_few_images_keeps_what_all_taught() -> None:
    item = measured()
    few = replace(
        item, positive=item.positive[:1], negative_own=item.negative_own[:0], further=None
    )
    none = replace(few, positive=few.positive[:0])
    assert fit_curve(none, PRIOR) == PRIOR
    near, own = fit_curve(few, PRIOR), fit_curve(item, PRIOR)
    assert abs(near.offset - PRIOR.offset) < 0.3
    assert abs(near.slope - PRIOR.slope) < abs(own.slope - PRIOR.slope)


def test_the_pooled_curve_parts_the_sides_of_all_targets() -> None:
    curve = pool([measured(), measured(apart=3.0)])
    assert curve.slope > 0
    assert -6 < curve.offset / curve.slope < 0
    assert pool([]) == Curve(1.0, 0.0)
