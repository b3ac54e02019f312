"""A study grows after its results were delivered: a new version beside the old, nothing lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from deploy.demo_pacs import OrthancPacs
from deploy.picture import read_segments
from tests.e2e.conftest import SENDER, Node, short_study
from tests.e2e.peers import (
    DCIODVFY,
    STORESCU,
    dciodvfy_errors,
    dcmtk,
    fetch,
    instances_of_study,
    need,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

DSRDUMP = Path("/usr/bin/dsrdump")
REPORTS = ("measurement_report", "grounded_report")


def sent(node: Node, paths: list[Path]) -> None:
    done = dcmtk(
        STORESCU, "-aet", SENDER, "-aec", node.ready["ae_title"],
        "127.0.0.1", str(node.ready["port"]), *paths,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def as_another_series(paths: list[Path], folder: Path) -> list[Path]:
    """Write the same slices as a second series of the study."""
    folder.mkdir()
    series = generate_uid()
    written = []
    for path in paths:
        image = pydicom.dcmread(path)
        image.SeriesInstanceUID, image.SeriesNumber = series, 2
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        written.append(folder / path.name)
        image.save_as(written[-1])
    return written


def delivered(node: Node, study: str, count: int) -> list[dict[str, Any]]:
    """Wait for so many delivered jobs of the study; return them, the first one first."""

    def all_delivered() -> list[dict[str, Any]]:
        jobs = [job for job in node.jobs_of(study) if job["state"] != "superseded"]
        is_done = len(jobs) == count and all(job["state"] == "delivered" for job in jobs)
        return sorted(jobs, key=lambda job: int(job["id"])) if is_done else []

    found: list[dict[str, Any]] = node.wait(all_delivered, f"{count} jobs delivered")
    return found


def uids_of(job: dict[str, Any]) -> dict[str, str]:
    return {result["kind"]: result["sop_instance_uid"] for result in job["results"]}


def predecessors(report: Dataset) -> list[str]:
    return [
        str(instance.ReferencedSOPInstanceUID)
        for study in report.get("PredecessorDocumentsSequence", [])
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    ]


def images_of(segmentation: Dataset) -> set[str]:
    return {
        str(instance.ReferencedSOPInstanceUID)
        for series in segmentation.ReferencedSeriesSequence
        for instance in series.ReferencedInstanceSequence
    }


def test_what_comes_late_makes_a_new_version_that_names_the_old_one(
    node: Node, pacs: OrthancPacs, tmp_path: Path
) -> None:
    need(STORESCU, DCIODVFY, DSRDUMP)
    folder, study = short_study(tmp_path, "late series", slices=6)
    slices = sorted(folder.glob("*"))
    sent(node, slices[:4])
    [first] = delivered(node, study, 1)
    before = {
        uid: fetch(pacs, identifier, tmp_path / f"{uid}.dcm").read_bytes()
        for uid, identifier in instances_of_study(pacs, study).items()
    }
    assert set(before) == set(uids_of(first).values())

    late = as_another_series(slices[:4], tmp_path / "late")
    sent(node, [*slices[4:], *late])
    jobs = delivered(node, study, 3)
    assert jobs[0]["id"] == first["id"] and uids_of(jobs[0]) == uids_of(first)
    own_series = str(pydicom.dcmread(slices[0]).SeriesInstanceUID)
    [again] = [job for job in jobs[1:] if job["series_instance_uid"] == own_series]
    [other] = [job for job in jobs[1:] if job["series_instance_uid"] != own_series]

    there = instances_of_study(pacs, study)
    written = [uid for job in jobs for uid in uids_of(job).values()]
    assert set(there) == set(written) and len(written) == 9, "three objects of each, none lost"
    files = {
        uid: fetch(pacs, identifier, tmp_path / f"{uid}.dcm") for uid, identifier in there.items()
    }
    assert {uid: files[uid].read_bytes() for uid in before} == before, "the old stay as they were"
    for path in files.values():
        assert dciodvfy_errors(path) == []

    for job, images in ((first, slices[:4]), (again, slices), (other, late)):
        uids = uids_of(job)
        segmentation = files[uids["segmentation"]]
        known = {str(pydicom.dcmread(path).SOPInstanceUID) for path in images}
        assert images_of(pydicom.dcmread(segmentation)) <= known
        segments = read_segments(segmentation)
        assert segments and all(segment.masks for segment in segments)
        for kind in REPORTS:
            report = files[uids[kind]]
            assert dcmtk(DSRDUMP, report).returncode == 0
            # A series of its own replaces nothing; the same one with more images does.
            replaced = [uids_of(first)[kind]] if job is again else []
            assert predecessors(pydicom.dcmread(report)) == replaced
    late_images = {str(pydicom.dcmread(path).SOPInstanceUID) for path in slices[4:]}
    assert images_of(pydicom.dcmread(files[uids_of(again)["segmentation"]])) & late_images
