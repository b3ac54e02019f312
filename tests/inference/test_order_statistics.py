"""Percentiles without a copy of the values, held against numpy's."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from inference.intensity import IntensityPolicy, limits
from inference.order_statistics import finite_extremes, finite_percentiles

floats = arrays(np.float32, st.integers(1, 60), elements=st.floats(-(2.0**99), 2.0**99, width=32))
percents = st.lists(st.floats(0, 100), min_size=1, max_size=3)


@given(floats, percents)
def test_percentiles_are_numpys(values: np.ndarray, asked: list[float]) -> None:
    expected = np.percentile(values.astype(np.float64), asked)
    scale = float(np.abs(values).max()) * 1e-12
    assert finite_percentiles(values, tuple(asked)) == pytest.approx(expected, rel=1e-9, abs=scale)
    assert finite_extremes(values) == (values.min(), values.max())


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float64])
def test_any_type_and_order_of_memory(dtype: type) -> None:
    values = np.random.default_rng(1).integers(0, 255, (40, 90, 100)).astype(dtype)
    expected = tuple(np.percentile(values, (1, 99.5)))
    assert finite_percentiles(values, (1, 99.5)) == pytest.approx(expected)
    turned = values.transpose(2, 0, 1)[::-1]
    assert finite_percentiles(turned, (1, 99.5)) == pytest.approx(expected)


def test_what_is_not_finite_is_left_out() -> None:
    odd = np.array([np.nan, np.inf, -np.inf, 3.0, -0.0], np.float32)
    assert finite_percentiles(odd, (0, 50, 100)) == (0.0, 1.5, 3.0)
    assert finite_percentiles(odd[:3], (50,)) is None
    assert finite_extremes(odd[:3]) is None


@pytest.mark.parametrize("kind", ["percentile", "eight_bit"])
def test_a_large_series_is_not_copied(kind: str) -> None:
    policy = IntensityPolicy.model_validate({"kind": kind, "lower": 1, "upper": 99.5})
    values = np.random.default_rng(1).normal(size=(64, 512, 512)).astype(np.float32)
    tracemalloc.start()
    limits(values, policy)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < values.nbytes / 4
