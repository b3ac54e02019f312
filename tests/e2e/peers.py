"""The outside peers of the end-to-end tests: DCMTK's senders, validators, and Orthanc's answers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from numpy.typing import NDArray

from deploy.demo_pacs import OrthancPacs

# By full path: pynetdicom puts programs of the same names into the virtual environment.
STORESCU = Path("/usr/bin/storescu")
DCMSEND = Path("/usr/bin/dcmsend")
DCIODVFY = Path(sys.executable).with_name("dciodvfy")
SEGIMAGE2ITKIMAGE = Path(sys.executable).with_name("segimage2itkimage")
SECONDS = 120.0


def need(*programs: Path) -> None:
    """Skip the test when an outside program is missing, and say how to get it."""
    for program in programs:
        if not program.exists():
            pytest.skip(f"needs {program} (see tests/outside_peers.sh)")


def dcmtk(program: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a program of DCMTK and return how it ended."""
    return subprocess.run(
        [str(program), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        # Debian's DCMTK leaves Nagle's algorithm on without this.
        env={**os.environ, "TCP_NODELAY": "1"},
    )


def orthanc(pacs: OrthancPacs, path: str, query: dict[str, Any] | None = None) -> Any:
    """Ask Orthanc's REST interface; a `query` is posted."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{pacs.http_port}{path}",
        data=None if query is None else json.dumps(query).encode(),
    )
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        return json.load(answer)


def instances_of_study(pacs: OrthancPacs, study_instance_uid: str) -> dict[str, str]:
    """Return what Orthanc has of a study: SOP Instance UID -> its own identifier."""
    found = orthanc(
        pacs,
        "/tools/find",
        {
            "Level": "Instance",
            "Query": {"StudyInstanceUID": study_instance_uid},
            "Expand": True,
        },
    )
    return {one["MainDicomTags"]["SOPInstanceUID"]: one["ID"] for one in found}


def fetch(pacs: OrthancPacs, identifier: str, path: Path) -> Path:
    """Write the file of an instance that Orthanc has."""
    address = f"http://127.0.0.1:{pacs.http_port}/instances/{identifier}/file"
    with urllib.request.urlopen(address, timeout=SECONDS) as answer:
        path.write_bytes(answer.read())
    return path


def dciodvfy_errors(path: Path, source: Path | None = None) -> list[str]:
    """Return the errors that dciodvfy finds in an object.

    With `source`, without those of the image that it was made from: what identifies patient and
    study is copied as it is, so that the object lands in the right study.
    """
    inherited = set() if source is None else set(_errors(source))
    return [error for error in _errors(path) if error not in inherited]


def _errors(path: Path) -> list[str]:
    checked = subprocess.run(
        [DCIODVFY, "-new", path], capture_output=True, text=True, timeout=SECONDS, check=False
    )
    lines = (checked.stdout + checked.stderr).splitlines()
    return [line for line in lines if line.startswith("Error")]


def dcmqi_masks(segmentation: Path, folder: Path) -> dict[int, SimpleITK.Image]:
    """Read a SEG with dcmqi, another author's code: segment number -> image in patient space."""
    folder.mkdir()
    subprocess.run(
        [SEGIMAGE2ITKIMAGE, "--inputDICOM", segmentation, "--outputDirectory", folder,
         "--outputType", "nrrd", "--prefix", "seg"],
        capture_output=True, timeout=SECONDS, check=True,
    )  # fmt: skip
    found = {}
    for path in sorted(folder.glob("seg*.nrrd")):
        number = re.search(r"(\d+)\.nrrd$", path.name)
        if number is not None:
            found[int(number[1])] = SimpleITK.ReadImage(path)
    return found


def voxels_in_patient_space(image: SimpleITK.Image) -> set[tuple[float, float, float]]:
    """Return the centres of all set voxels, LPS millimetres, rounded to a hundredth."""
    array = SimpleITK.GetArrayViewFromImage(image) > 0
    return points(array, lambda index: image.TransformContinuousIndexToPhysicalPoint(index))


def points(array: NDArray[np.bool_], place: Any) -> set[tuple[float, float, float]]:
    """Return `place` of the (column, row, frame) of each set voxel, rounded to a hundredth."""
    indices = np.argwhere(array)[:, ::-1].astype(float)
    return {
        (round(x, 2) + 0.0, round(y, 2) + 0.0, round(z, 2) + 0.0)
        for x, y, z in (place(index.tolist()) for index in indices)
    }


def names(paths: Sequence[Path]) -> list[str]:
    """Return paths as texts, for a command line."""
    return [str(path) for path in paths]
