"""The phantom: drawn from its seed, with inserts of known size."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from learning.phantom import Insert, generate_phantom


def test_the_seed_decides_everything() -> None:
    first, second = (generate_phantom(5, (8, 64, 64), (8.0, 5.0, 5.0)) for _ in range(2))
    assert np.array_equal(first.volume, second.volume)
    assert first.inserts == second.inserts
    assert not np.array_equal(first.volume, generate_phantom(6, (8, 64, 64)).volume)


def test_volumes_in_closed_form() -> None:
    ball = Insert("ellipsoid", 100.0, (0, 0, 0), (3.0, 3.0, 3.0))
    tube = Insert("cylinder", 100.0, (0, 0, 0), (5.0, 2.0, 2.0))
    assert ball.volume == pytest.approx(4 / 3 * np.pi * 27)
    assert tube.volume == pytest.approx(10 * np.pi * 4)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_labels_have_the_known_volume_and_density(seed: int) -> None:
    phantom = generate_phantom(seed, (80, 128, 128), (1.0, 2.8, 2.8), inserts=2)
    voxel = float(np.prod(phantom.spacing))
    assert len(phantom.inserts) == 2
    for number, insert in enumerate(phantom.inserts, start=1):
        cells = phantom.labels == number
        assert cells.sum() * voxel == pytest.approx(insert.volume, rel=0.1)
        inner = ndimage.binary_erosion(cells, iterations=2)
        if inner.any():
            assert np.median(phantom.volume[inner]) == pytest.approx(insert.density, abs=12)


def test_a_phantom_without_inserts_has_no_labels() -> None:
    phantom = generate_phantom(1, (6, 64, 64), (5.0, 5.0, 5.0), inserts=0)
    assert not phantom.labels.any()
    assert phantom.inserts == ()


def test_values_are_whole_hounsfield_units_of_a_scanner() -> None:
    volume = generate_phantom(2, (6, 64, 64), (5.0, 5.0, 5.0)).volume
    assert volume.dtype == np.float32
    assert volume.min() >= -1024
    assert np.array_equal(volume, np.round(volume))
    assert np.median(volume[:, 0]) == pytest.approx(-1000, abs=20)
