"""The rule of the model card, one part of it at a time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.card import Interval, MeasuredScore
from learning.listing import judge

CLEAR = Interval(low=0.2, high=0.4)
UNSURE = Interval(low=-0.06, high=0.05)
WORSE = Interval(low=-0.1, high=-0.01)


def score(**changes: object) -> MeasuredScore:
    good: dict[str, object] = {
        "dice": 0.78,
        "dice_interval": Interval(low=0.7, high=0.84),
        "images": 30,
        "groups": 6,
        "floor": 0.5,
        "dice_shifted": 0.71,
        "floor_shifted": 0.38,
        "over_floor": CLEAR,
        "over_floor_shifted": CLEAR,
        "presence_auc": 0.99,
        "negatives": 100,
        "negatives_own": 6,
        "sensitivity": 0.9,
        "specificity": 0.9,
    }
    return MeasuredScore.model_validate({**good, **changes})


def test_what_beats_its_floor_both_ways_is_listed_with_the_intervals() -> None:
    verdict = judge(score(), centred=False)
    assert verdict.listed
    assert verdict.reason == (
        "beats a constant mask by +0.20 to +0.40, on moved images by +0.20 to +0.40"
    )


@pytest.mark.parametrize(
    ("changes", "asked", "reason"),
    [
        ({"over_floor": UNSURE}, 0.4, "does not beat a constant mask (0.50): -0.06 to +0.05"),
        ({"over_floor": WORSE}, 0.4, "is worse than a constant mask (0.50)"),
        ({"over_floor_shifted": UNSURE}, 0.4, "on moved images 0.71 does not beat"),
        ({"over_floor_shifted": None}, 0.4, "the difference is not measured"),
        ({}, 0.8, "of 6 patients or clusters; 0.8 is asked"),
        ({"groups": 3}, 0.4, "too few to say how good it is"),
        ({"dice_shifted": 0.39}, 0.4, "0.39 on moved ones; 0.4 is asked of both"),
        ({"presence_auc": 0.79}, 0.4, "presence AUC 0.79 is below 0.8"),
    ],
)
def test_each_part_of_the_rule_refuses(
    changes: dict[str, object], asked: float, reason: str
) -> None:
    verdict = judge(score(**changes), least_dice=asked, centred=False)
    assert not verdict.listed
    assert reason in verdict.reason


def test_on_crops_around_the_target_the_moved_images_decide_and_it_is_said() -> None:
    verdict = judge(score(over_floor=UNSURE), centred=True)
    assert verdict.listed
    assert "not shown to be better than a constant mask (-0.06 to +0.05)" in verdict.reason
    assert not judge(score(over_floor=WORSE), centred=True).listed
    assert not judge(score(over_floor=UNSURE, over_floor_shifted=UNSURE), centred=True).listed


@given(st.floats(-1, 1), st.floats(0, 1), st.booleans())
def test_nothing_is_listed_that_position_alone_explains(
    low: float, width: float, centred: bool
) -> None:
    over = Interval(low=low, high=low + width)
    verdict = judge(score(over_floor=over, over_floor_shifted=over), centred=centred)
    assert verdict.listed == (low > 0)
