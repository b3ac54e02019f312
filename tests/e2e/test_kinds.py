"""Every kind of source: Orthanc keeps its results as they are, and a node takes it up."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from deploy.demo_pacs import OrthancPacs
from deploy.picture import read_segments
from deploy.sending import parse_address
from dicom_node.objects.encoding import encode
from dicom_node.objects.identifiers import ResultIdentifiers
from dicom_node.services.storage_scu import StoreStatus, send
from tests.dicom_node.objects.example_results import build
from tests.dicom_node.objects.kinds import KINDS, moving_block, sources_of
from tests.e2e.conftest import SENDER, Node
from tests.e2e.peers import fetch, instances_of_study
from tests.factories import (
    write_cine,
    write_enhanced,
    write_image,
    write_slide,
    write_video,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

Write = Callable[[Path], Path]


def sent(paths: list[Path], address: str) -> None:
    """Send files; each must be stored."""
    statuses: list[StoreStatus] = []
    send(paths, parse_address(address), calling_ae_title=SENDER, on_status=statuses.append)
    assert [status.sentence for status in statuses if not status.is_stored] == []
    assert len(statuses) == len(paths)


def test_orthanc_returns_the_results_of_every_kind_as_they_were(
    pacs: OrthancPacs, tmp_path: Path
) -> None:
    files: dict[str, Path] = {}
    studies = set()
    for number, kind in enumerate(KINDS):
        for index, source in enumerate(sources_of(kind, tmp_path / str(number))):
            # UIDs of their own: Orthanc would keep the first object of a UID alone.
            results = build(source, identifiers=ResultIdentifiers.draw(datetime.now(UTC)))
            studies.add(source.study_instance_uid)
            for part, dataset in enumerate(results.objects):
                path = tmp_path / f"{number}-{index}-{part}.dcm"
                path.write_bytes(encode(dataset))
                files[str(dataset.SOPInstanceUID)] = path
    sent(list(files.values()), f"{pacs.ae_title}@127.0.0.1:{pacs.port}")
    there = {
        uid: identifier
        for study in studies
        for uid, identifier in instances_of_study(pacs, study).items()
    }
    assert set(there) == set(files)
    for uid, path in files.items():
        back = fetch(pacs, there[uid], tmp_path / "back.dcm")
        assert pydicom.dcmread(back) == pydicom.dcmread(path), path.name


TAKEN_UP: dict[str, tuple[Write, int]] = {
    "enhanced MR, two phases": (
        lambda f: write_enhanced(f / "mr.dcm", ramp((8, 64, 64)), kind="MR", phases=2),
        2,
    ),
    "enhanced CT": (lambda f: write_enhanced(f / "ct.dcm", ramp((4, 64, 64)), kind="CT"), 1),
    "US multi-frame": (lambda f: write_cine(f / "us.dcm", ramp((4, 64, 64), True)), 1),
    "US": (lambda f: write_image(f / "us.dcm", ramp((1, 64, 64), True)[0], kind="US"), 1),
    "endoscopy video": (lambda f: write_video(f / "v.dcm", moving_block()), 1),
    "whole slide": (lambda f: write_slide(f / "sm.dcm", ramp((1, 96, 96), True)[0], tile=48), 1),
}
LEFT_ALONE: dict[str, Write] = {
    "XA": lambda f: write_cine(f / "xa.dcm", ramp((4, 32, 32)), kind="XA"),
    "NM": lambda f: write_cine(f / "nm.dcm", ramp((4, 32, 32)), kind="NM"),
    "OPT": lambda f: write_enhanced(f / "oct.dcm", ramp((4, 32, 32)), kind="OCT"),
}


def ramp(shape: tuple[int, int, int], colour: bool = False) -> NDArray[Any]:
    values: NDArray[np.int64] = np.indices(shape).sum(axis=0) * 7 % 251
    if colour:
        return np.stack([values, values // 2, 250 - values], axis=-1).astype(np.uint8)
    return values.astype(np.uint16)


def test_a_node_takes_up_what_its_model_lists_and_says_why_it_leaves_the_rest(
    node: Node, pacs: OrthancPacs, tmp_path: Path
) -> None:
    paths: dict[str, Path] = {}
    for name, write in [*((n, w) for n, (w, _) in TAKEN_UP.items()), *LEFT_ALONE.items()]:
        folder = tmp_path / name
        folder.mkdir()
        paths[name] = write(folder)
    sent(list(paths.values()), node.address)
    headers = {name: pydicom.dcmread(path, stop_before_pixels=True) for name, path in paths.items()}
    for name, (_, count) in TAKEN_UP.items():
        jobs = node.ended(str(headers[name].StudyInstanceUID))
        assert [job["state"] for job in jobs] == ["delivered"] * count, (name, jobs)
        for job in jobs:
            assert all(result["confirmed"] for result in job["results"])
            check_segmentation(node, job, headers[name])
    for name in LEFT_ALONE:
        (job,) = node.ended(str(headers[name].StudyInstanceUID))
        assert job["state"] == "not_applicable"
        assert f"not made for images of modality {name}" in job["error"] + job["wait_reason"]


def check_segmentation(node: Node, job: dict[str, object], header: pydicom.Dataset) -> None:
    """Hold the frames of a job's segmentation to frames of its source, where there is one."""
    results = job["results"]
    assert isinstance(results, list)
    for result in results:
        if result["kind"] == "segmentation":
            segments = read_segments(node.home / "archive" / result["file"])
            frames = int(header.get("NumberOfFrames") or 1)
            for segment in segments:
                assert segment.masks
                assert all(
                    uid == header.SOPInstanceUID and 1 <= frame <= frames
                    for uid, frame in segment.masks
                )
