"""Intensity policies: explicit, and harmless on values that mean nothing."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from inference.intensity import IntensityPolicy, describe, limits, luminance, to_bytes

WINDOW = IntensityPolicy(kind="window", lower=-160, upper=240, unit="HU")
PERCENTILE = IntensityPolicy(kind="percentile", lower=1, upper=99.5)
EIGHT_BIT = IntensityPolicy(kind="eight_bit")


def test_a_window_maps_its_ends_and_clips() -> None:
    values = np.array([-2000.0, -160, 40, 240, 3000], np.float32)
    assert to_bytes(values, *limits(values, WINDOW)).tolist() == [0, 0, 128, 255, 255]


def test_percentiles_are_of_the_whole_series_and_skip_what_is_not_finite() -> None:
    values = np.arange(1001, dtype=np.float32)
    low, high = limits(np.append(values, [np.nan, np.inf]), PERCENTILE)
    assert (low, high) == pytest.approx((10.0, 995.0))


@pytest.mark.parametrize("policy", [PERCENTILE, EIGHT_BIT])
@pytest.mark.parametrize("value", [0.0, 7.0, 1e9, -3.0])
def test_a_constant_series_stays_flat(policy: IntensityPolicy, value: float) -> None:
    values = np.full((2, 3, 4), value, np.float32)
    assert np.unique(to_bytes(values, *limits(values, policy))).size == 1


def test_eight_bit_values_stay_and_wider_ones_are_scaled() -> None:
    assert limits(np.array([3, 200], np.uint8), EIGHT_BIT) == (0.0, 255.0)
    assert limits(np.array([100.0, 4000.0]), EIGHT_BIT) == (100.0, 4000.0)


def test_not_a_number_becomes_black() -> None:
    assert to_bytes(np.array([np.nan, -np.inf, np.inf]), 0.0, 1.0).tolist() == [0, 0, 255]


def test_luminance_weighs_green_most() -> None:
    assert luminance(np.eye(3, dtype=np.uint8) * 255).tolist() == [76, 150, 29]


def test_the_record_says_what_became_black_and_white() -> None:
    assert describe(WINDOW, -160, 240) == "window -160..240 HU"
    assert "percentiles 1..99.5 of the series: 3..700" in describe(PERCENTILE, 3.0, 700.0)


@pytest.mark.parametrize(("lower", "upper"), [(5, 5), (9, 1)])
def test_a_window_the_wrong_way_round_is_refused(lower: float, upper: float) -> None:
    with pytest.raises(ValidationError, match="is not below"):
        IntensityPolicy(kind="window", lower=lower, upper=upper)


def test_percentiles_beyond_100_are_refused() -> None:
    with pytest.raises(ValidationError, match="not within"):
        IntensityPolicy(kind="percentile", lower=1, upper=101)
