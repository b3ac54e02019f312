"""Presence: calibrated, in words."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from inference.card import PresenceCalibration
from inference.findings import Presence
from inference.presence import Evidence, decide, probability, smoothed

CALIBRATION = PresenceCalibration(slope=2.0, offset=1.0, absent_below=0.2, present_from=0.7)


def test_the_logistic_map_is_slope_and_offset() -> None:
    values = probability(Evidence(np.array([-0.5, 0.0, 1e6, -1e6], np.float32)), CALIBRATION)
    assert values[0] == pytest.approx(0.5)
    assert values[1] == pytest.approx(1 / (1 + np.exp(-1)))
    assert values[2] <= 1.0
    assert values[3] >= 0.0


@pytest.mark.parametrize(
    ("value", "presence"),
    [
        (0.0, "absent"),
        (0.1999, "absent"),
        (0.2, "uncertain"),
        (0.69, "uncertain"),
        (0.7, "present"),
    ],
)
def test_thresholds_belong_to_the_upper_side(value: float, presence: str) -> None:
    assert decide(value, CALIBRATION) is Presence(presence)


def test_thresholds_the_wrong_way_round_are_refused() -> None:
    with pytest.raises(ValidationError, match="above"):
        PresenceCalibration(slope=1, offset=0, absent_below=0.8, present_from=0.5)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_smoothing_keeps_length_and_range(values: list[float]) -> None:
    given_values = np.array(values)
    result = smoothed(given_values)
    assert result.shape == given_values.shape
    assert result.min() >= given_values.min() - 1e-12
    assert result.max() <= given_values.max() + 1e-12


def test_a_lonely_slice_is_weak_evidence() -> None:
    assert smoothed(np.array([0.0, 0, 0.9, 0, 0])).max() == pytest.approx(0.3)
