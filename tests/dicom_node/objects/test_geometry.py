"""Patient space: round trips, thickness, missing slices, tilt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_node.objects.geometry import (
    Geometry,
    build_geometry,
    normal_of,
    regular_step,
    unit_orientation,
)
from dicom_node.objects.series import read_sources
from tests.factories import EIGHT_ORIENTATIONS, plane_positions, write_ct_series


def stack(
    *,
    orientation: tuple[float, ...] = EIGHT_ORIENTATIONS[0],
    gaps: list[float] | None = None,
    tilt: float = 0.0,
    spacing: tuple[float, float] = (0.7, 0.9),
) -> Geometry:
    unit = unit_orientation(orientation)
    assert unit is not None
    steps = np.concatenate([[0.0], np.cumsum(gaps if gaps is not None else [2.0] * 5)])
    along = normal_of(unit) + np.tan(np.radians(tilt)) * np.array(unit[3:])
    positions = np.array([-10.0, 20.0, 30.0]) + steps[:, None] * along
    return build_geometry(
        positions, unit, spacing, rows=16, columns=20, thickness=3.0, frame_of_reference_uid="1.2"
    )


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    first = np.array(draw(st.tuples(*[st.floats(-1, 1)] * 3)))
    second = np.array(draw(st.tuples(*[st.floats(-1, 1)] * 3)))
    cross = np.cross(first, second)
    if np.linalg.norm(first) < 0.1 or np.linalg.norm(cross) < 0.05:
        first, second = np.array([1.0, 0, 0]), np.array([0, 1.0, 0])
    row = first / np.linalg.norm(first)
    column = second - (second @ row) * row
    column /= np.linalg.norm(column)
    return stack(
        orientation=(*row.tolist(), *column.tolist()),
        gaps=draw(st.lists(st.floats(0.3, 12.0), min_size=0, max_size=8)),
        tilt=draw(st.floats(-30, 30)),
        spacing=draw(st.tuples(st.floats(0.05, 6), st.floats(0.05, 6))),
    )


@settings(deadline=None, max_examples=80)
@given(
    geometry=geometries(),
    frame=st.floats(-2, 11),
    row=st.floats(-20, 600),
    column=st.floats(-20, 600),
)
def test_pixel_to_patient_and_back(
    geometry: Geometry, frame: float, row: float, column: float
) -> None:
    point = geometry.pixel_to_patient(frame, row, column)
    assert geometry.patient_to_pixel(point) == pytest.approx((frame, row, column), abs=1e-4)
    again = geometry.pixel_to_patient(*geometry.patient_to_pixel(point))
    assert np.abs(again - point).max() <= 1e-3


@pytest.mark.parametrize("orientation", EIGHT_ORIENTATIONS)
def test_points_agree_with_simpleitk(tmp_path: Path, orientation: tuple[float, ...]) -> None:
    """An outside reader of the same files puts every voxel at the same place."""
    paths = write_ct_series(
        tmp_path, np.zeros((5, 6, 7), np.int16), orientation=orientation, spacing=(0.7, 0.9)
    )
    geometry = read_sources(paths)[0][0].geometry
    assert geometry is not None
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames([str(p) for p in paths])
    image = reader.Execute()
    for frame, row, column in ((0, 0, 0), (4, 5, 6), (2, 0, 6), (1, 5, 0)):
        outside = image.TransformIndexToPhysicalPoint((column, row, frame))
        assert np.abs(geometry.pixel_to_patient(frame, row, column) - outside).max() <= 1e-3


def test_orientation_is_normalised_and_nonsense_refused() -> None:
    rounded = unit_orientation([0.7071, 0.7071, 0, -0.7071, 0.7071, 0])
    assert rounded is not None
    assert np.linalg.norm(rounded[:3]) == pytest.approx(1.0, abs=1e-12)
    assert np.dot(rounded[:3], rounded[3:]) == pytest.approx(0.0, abs=1e-12)
    assert unit_orientation([1, 0, 0, 1, 0, 0]) is None
    assert unit_orientation([0] * 6) is None
    assert unit_orientation([1, 0, 0, 0, float("nan"), 0]) is None
    assert unit_orientation([1, 0, 0, 0, 1]) is None


@pytest.mark.parametrize(
    ("gaps", "step", "missing", "uniform"),
    [
        ([2, 2, 2], 2, (), True),
        ([2, 2.05, 1.96], 2, (), True),
        ([2, 4, 2, 6], 2, (1, 3, 3), False),
        ([2, 3.2, 2.8], 2.8, (), False),
        ([5, 5, 5, 10, 10], 5, (3, 4), False),
        # One pair of nearly equal places does not make everything else a gap.
        ([0.1, 3, 3, 3, 3, 3, 3], 3, (), False),
        ([1.25], 1.25, (), True),
    ],
)
def test_regular_step(
    gaps: list[float], step: float, missing: tuple[int, ...], uniform: bool
) -> None:
    found = regular_step(np.array(gaps, dtype=float))
    expected: tuple[object, ...] = (pytest.approx(step, rel=0.03), missing, uniform)
    assert found == expected


def test_thickness_of_frames() -> None:
    even = stack()
    assert [even.frame_thickness(i) for i in range(6)] == pytest.approx([2.0] * 6)
    uneven = stack(gaps=[2.0, 3.2, 2.8])
    assert [uneven.frame_thickness(i) for i in range(4)] == pytest.approx([2.0, 2.6, 3.0, 2.8])
    # What was not imaged is not counted.
    gap = stack(gaps=[2.0, 6.0, 2.0])
    assert gap.missing == (1, 1)
    assert [gap.frame_thickness(i) for i in range(4)] == pytest.approx([2.0] * 4)
    assert stack(gaps=[]).frame_thickness(0) == 3.0
    assert even.voxel_volume_mm3 == pytest.approx(0.7 * 0.9 * 2.0)


def test_tilt_needs_more_than_rounding() -> None:
    assert stack(tilt=12.0).tilted
    assert stack(tilt=12.0).tilt_degrees == pytest.approx(12.0)
    assert not stack(tilt=0.0).tilted
    # Two slices 0.6 mm apart whose positions were rounded to 0.01 mm.
    assert not stack(gaps=[0.6], tilt=0.95).tilted


def test_positions_of_the_factory_lie_where_they_should() -> None:
    positions = plane_positions(3, slice_spacing=2.0)
    assert positions[:, 2] == pytest.approx([30.0, 32.0, 34.0])
