"""Measurements of balls and boxes whose size is known."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from dicom_node.objects.measurements import Measurements, axes, convex_hull, measure
from dicom_node.objects.pixels import PixelValues, read_pixels
from dicom_node.objects.series import Source, read_sources
from tests.factories import ball, write_ct_series, write_image, write_mr_series, write_pet_series

Mask = NDArray[np.bool_]


def read(paths: list[Path]) -> tuple[Source, PixelValues]:
    source = read_sources(paths)[0][0]
    return source, read_pixels(source)


@pytest.mark.parametrize("spacing", [(2.0, 1.0, 1.0), (3.0, 0.7, 0.9), (1.0, 0.5, 1.5)])
@pytest.mark.parametrize("tilt", [0.0, 18.0])
def test_a_ball_of_known_diameter(
    tmp_path: Path, spacing: tuple[float, float, float], tilt: float
) -> None:
    radius = 15.0
    shape = tuple(int(40 / s) + 2 for s in spacing)
    mask = ball(shape, centre_mm=(20, 20, 20), radius_mm=radius, spacing=spacing)  # type: ignore[arg-type]
    volume = np.where(mask, 80, -100)
    volume[1::2] += 10 * mask[1::2]
    paths = write_ct_series(
        tmp_path, volume, spacing=spacing[1:], slice_spacing=spacing[0], tilt_degrees=tilt
    )
    source, pixels = read(paths)
    found = measure(mask, source, pixels, round(20 / spacing[0]))
    assert found.volume_cm3 == pytest.approx(4 / 3 * math.pi * 1.5**3, rel=0.02)
    assert found.area_mm2 == pytest.approx(math.pi * radius**2, rel=0.03)
    assert found.long_axis is not None and found.short_axis is not None
    assert found.long_axis.length_mm == pytest.approx(2 * radius, abs=max(spacing[1:]))
    assert found.short_axis.length_mm == pytest.approx(2 * radius, abs=max(spacing[1:]))
    assert found.unit == "HU"
    assert found.mean == pytest.approx(float(volume[mask].mean()))
    assert found.standard_deviation == pytest.approx(float(volume[mask].std()))
    assert (found.minimum, found.maximum) == (80.0, 90.0)
    assert found.pixel_count == mask.sum()
    assert found.notes == ()


def test_volume_equals_simpleitk_label_statistics(tmp_path: Path) -> None:
    spacing = (3.0, 0.7, 0.9)
    mask = ball((14, 60, 50), centre_mm=(20, 20, 20), radius_mm=12, spacing=spacing)
    source, pixels = read(
        write_ct_series(tmp_path, mask * 50, spacing=spacing[1:], slice_spacing=3.0)
    )
    image = SimpleITK.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing(spacing[::-1])
    shape = SimpleITK.LabelShapeStatisticsImageFilter()
    shape.Execute(image)
    found = measure(mask, source, pixels, 7)
    assert found.volume_cm3 == pytest.approx(shape.GetPhysicalSize(1) / 1000.0)


def test_missing_slices_are_not_counted_and_said(tmp_path: Path) -> None:
    box = np.zeros((10, 12, 12), np.int16)
    box[2:8, 3:9, 3:9] = 100
    source, pixels = read(write_ct_series(tmp_path, box, skip={4, 5}))
    mask = pixels.values == 100
    found = measure(mask, source, pixels, 3)
    assert found.volume_cm3 == pytest.approx(4 * 36 * 2.0 / 1000)
    assert "2 slices are missing within the finding" in found.notes[0]
    outside = mask.copy()
    outside[4:] = False
    assert measure(outside, source, pixels, 3).notes == ()


def test_suv_statistics(tmp_path: Path) -> None:
    suv = np.full((4, 12, 12), 1.0)
    suv[1:3, 3:6, 3:6] = 5.0
    suv[2, 4, 4] = 9.0
    source, pixels = read(write_pet_series(tmp_path, suv))
    found = measure(suv >= 5.0, source, pixels, 2)
    assert found.unit == "SUVbw"
    assert found.maximum == pytest.approx(9.0, rel=1e-3)
    assert found.mean == pytest.approx(suv[suv >= 5].mean(), rel=1e-3)


def test_no_statistics_without_a_physical_unit(tmp_path: Path) -> None:
    volume = np.ones((3, 8, 8))
    source, pixels = read(write_mr_series(tmp_path, volume))
    found = measure(volume > 0, source, pixels, 1)
    assert (found.unit, found.mean, found.maximum) == (None, None, None)
    assert found.volume_cm3 is not None


def test_images_measure_in_pixels_or_by_their_calibration(tmp_path: Path) -> None:
    image = np.zeros((20, 30), np.uint8)
    image[5:9, 10:20] = 200
    mask = (image > 0)[np.newaxis]
    source, pixels = read([write_image(tmp_path / "a.dcm", image, kind="ES")])
    found = measure(mask, source, pixels, 0)
    assert (found.volume_cm3, found.area_mm2, found.area_px) == (None, None, 40)
    assert found.long_axis is not None and found.short_axis is not None
    assert found.long_axis.length_mm is None
    assert found.long_axis.length_px == pytest.approx(math.hypot(10, 3))
    scaled = write_image(tmp_path / "b.dcm", image, kind="US", spacing=(0.5, 0.25))
    source, pixels = read([scaled])
    found = measure(mask, source, pixels, 0)
    assert found.volume_cm3 is None
    assert found.area_mm2 == pytest.approx(40 * 0.125)
    assert found.long_axis is not None
    assert found.long_axis.length_mm == pytest.approx(math.hypot(9 * 0.25, 4 * 0.5))


def test_axes_of_a_slanted_bar_are_at_right_angles_and_in_place() -> None:
    rows, columns = np.mgrid[:80, :100]
    along = (columns - 50) * 0.8 + (rows - 40) * 0.6
    across = -(columns - 50) * 0.6 + (rows - 40) * 0.8
    plane = (np.abs(along) <= 30) & (np.abs(across) <= 8)
    long_axis, short_axis = axes(plane, (1.0, 1.0))
    assert long_axis.length_mm == pytest.approx(math.hypot(60, 16), abs=1.0)
    assert short_axis.length_mm is not None
    assert 15 < short_axis.length_mm < 32
    first = np.subtract(long_axis.end, long_axis.start)
    second = np.subtract(short_axis.end, short_axis.start)
    assert float(first @ second) == pytest.approx(0.0, abs=1e-6)


def test_one_pixel_is_one_pixel_long() -> None:
    plane = np.zeros((5, 5), dtype=bool)
    plane[2, 3] = True
    long_axis, short_axis = axes(plane, (0.5, 2.0))
    assert long_axis.length_mm == pytest.approx(2.0)
    assert long_axis.start == pytest.approx((3.0, 2.5))
    assert long_axis.end == pytest.approx((4.0, 2.5))
    assert short_axis.length_mm == pytest.approx(0.5)


def test_axes_belong_to_the_largest_part() -> None:
    plane = np.zeros((20, 40), dtype=bool)
    plane[2:4, 2:4] = True
    plane[10:14, 20:30] = True
    long_axis, _ = axes(plane, None)
    assert long_axis.length_px == pytest.approx(math.hypot(10, 3))


def test_a_key_frame_without_mask_has_no_axes(tmp_path: Path) -> None:
    volume = np.zeros((3, 8, 8), np.int16)
    volume[0, 2:4, 2:4] = 50
    source, pixels = read(write_ct_series(tmp_path, volume))
    found = measure(volume > 0, source, pixels, 2)
    assert (found.long_axis, found.area_px) == (None, 0)
    with pytest.raises(ValueError, match="no mask to measure"):
        measure(volume > 90, source, pixels, 0)
    with pytest.raises(ValueError, match="differ"):
        measure(volume[:2] > 0, source, pixels, 0)


def test_measurements_survive_json(tmp_path: Path) -> None:
    volume = ball((6, 16, 16), centre_mm=(6, 8, 8), radius_mm=5) * 40
    source, pixels = read(write_ct_series(tmp_path, volume))
    found = measure(volume > 0, source, pixels, 3)
    text = json.dumps(found.as_json(), allow_nan=False)
    assert Measurements.from_json(json.loads(text)) == found


@settings(deadline=None, max_examples=60)
@given(
    plane=arrays.arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))),
    spacing=st.tuples(st.floats(0.1, 5.0), st.floats(0.1, 5.0)),
)
def test_axes_of_any_mask(plane: Mask, spacing: tuple[float, float]) -> None:
    if not plane.any():
        plane[0, 0] = True
    long_axis, short_axis = axes(plane, spacing)
    assert long_axis.length_mm is not None and short_axis.length_mm is not None
    assert 0.0 < short_axis.length_mm <= long_axis.length_mm + 1e-9
    for column, row in (long_axis.start, long_axis.end, short_axis.start, short_axis.end):
        # Not by a hair beside it: a report with such a coordinate is kept back.
        assert 0.0 <= column <= plane.shape[1]
        assert 0.0 <= row <= plane.shape[0]
    scale = np.array([spacing[1], spacing[0]])
    first = np.subtract(long_axis.end, long_axis.start) * scale
    second = np.subtract(short_axis.end, short_axis.start) * scale
    assert abs(float(first @ second)) <= 1e-6 * long_axis.length_mm * short_axis.length_mm + 1e-9
    assert np.linalg.norm(first) == pytest.approx(long_axis.length_mm)


def test_convex_hull_leaves_out_inner_points() -> None:
    points = np.array([[0, 0], [2, 0], [2, 2], [0, 2], [1, 1], [1, 0]], dtype=float)
    assert sorted(map(tuple, convex_hull(points))) == [(0, 0), (0, 2), (2, 0), (2, 2)]
