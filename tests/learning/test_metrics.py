"""Metrics against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning import metrics


def test_dice_by_hand() -> None:
    found = np.array([True, True, False, False])
    truth = np.array([True, False, True, False])
    assert metrics.dice(found, truth) == 0.5
    assert metrics.dice(found, found) == 1.0
    assert metrics.dice(np.zeros(3, bool), np.zeros(3, bool)) == 1.0
    assert metrics.dice(np.ones(3, bool), np.zeros(3, bool)) == 0.0


def test_masks_on_different_grids_are_not_compared() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        metrics.dice(np.zeros((2, 2), bool), np.zeros((2, 3), bool))


def test_auc_by_hand() -> None:
    assert metrics.roc_auc(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 1.0
    assert metrics.roc_auc(np.array([1.0]), np.array([0.0, 1.0, 2.0])) == pytest.approx(0.5)
    assert metrics.roc_auc(np.array([]), np.array([1.0])) == 0.5


@given(
    st.lists(st.integers(-5, 5), min_size=1, max_size=20),
    st.lists(st.integers(-5, 5), min_size=1, max_size=20),
)
def test_auc_is_the_share_of_pairs_in_order(positive: list[int], negative: list[int]) -> None:
    pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    found = metrics.roc_auc(np.array(positive, float), np.array(negative, float))
    assert found == pytest.approx(np.mean(pairs))


def test_the_best_threshold_parts_what_can_be_parted() -> None:
    positive, negative = np.array([2.0, 3.0, 4.0]), np.array([-1.0, 0.0])
    threshold = metrics.best_threshold(positive, negative)
    assert threshold == 1.0
    assert metrics.sensitivity(positive, threshold) == 1.0
    assert metrics.specificity(negative, threshold) == 1.0


def test_the_bootstrap_draws_groups_not_images() -> None:
    values = [0.0] * 50 + [1.0] * 50
    few = metrics.bootstrap_mean(values, ["a"] * 50 + ["b"] * 50, seed=1)
    many = metrics.bootstrap_mean(values, [str(i) for i in range(100)], seed=1)
    assert few == (0.0, 1.0)
    assert 0.35 < many[0] < 0.5 < many[1] < 0.65


def test_volume_error_has_a_sign() -> None:
    assert metrics.volume_error(95.0, 100.0) == pytest.approx(-0.05)
    with pytest.raises(ValueError, match="true volume is 0"):
        metrics.volume_error(1.0, 0.0)


def test_the_error_of_a_perfect_forecast_is_chance() -> None:
    draw = np.random.default_rng(3)
    probability = draw.random(20)
    errors = [
        metrics.calibration_error(probability, draw.random(20) < probability)[0]
        for _ in range(2000)
    ]
    mean, high = metrics.calibration_by_chance(probability)
    assert mean == pytest.approx(np.mean(errors), abs=0.01)
    assert high == pytest.approx(np.percentile(errors, 95), abs=0.02)
    assert mean > 0.15, "of twenty cases it is large"


def test_chance_shrinks_with_the_cases_and_sees_what_is_no_chance() -> None:
    few, _ = metrics.calibration_by_chance(np.tile(np.linspace(0.05, 0.95, 10), 2))
    probability = np.tile(np.linspace(0.05, 0.95, 10), 200)
    many, high = metrics.calibration_by_chance(probability)
    assert many < few / 8
    skewed = np.random.default_rng(0).random(2000) < probability**2
    assert metrics.calibration_error(probability, skewed)[0] > 3 * high
    assert metrics.calibration_by_chance(np.array([0.0, 1.0])) == (0.0, 0.0)
    assert metrics.calibration_by_chance(np.array([])) == (0.0, 0.0)
