"""Studies in by C-STORE, SEG and SR back at the PACS, with programs of other authors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from deploy.demo_pacs import OrthancPacs
from deploy.phantom_study import demo_phantom
from deploy.picture import read_segments
from dicom_node.objects.series import read_sources
from tests.e2e.conftest import SENDER, Node
from tests.e2e.contours import contour_mask, dice
from tests.e2e.peers import (
    DCIODVFY,
    DCMSEND,
    SEGIMAGE2ITKIMAGE,
    STORESCU,
    dciodvfy_errors,
    dcmqi_masks,
    dcmtk,
    fetch,
    instances_of_study,
    need,
    points,
    voxels_in_patient_space,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

KINDS = ["segmentation", "measurement_report", "grounded_report"]


def results_at_the_pacs(pacs: OrthancPacs, job: dict[str, object], folder: Path) -> dict[str, Path]:
    """Return the job's three objects as the PACS has them; it must have just these."""
    folder.mkdir(exist_ok=True)
    results = job["results"]
    assert isinstance(results, list)
    assert [result["kind"] for result in results] == KINDS
    assert all(result["confirmed"] for result in results)
    there = instances_of_study(pacs, str(job["study_instance_uid"]))
    assert set(there) == {result["sop_instance_uid"] for result in results}
    return {
        result["kind"]: fetch(
            pacs, there[result["sop_instance_uid"]], folder / f"{result['kind']}.dcm"
        )
        for result in results
    }


@pytest.mark.ihe("AIR", "Evidence Creator", "RAD-18", "RAD-43")
def test_phantom_by_storescu(
    node: Node, pacs: OrthancPacs, phantom_files: list[Path], tmp_path: Path
) -> None:
    need(STORESCU, DCIODVFY, SEGIMAGE2ITKIMAGE)
    study = str(pydicom.dcmread(phantom_files[0]).StudyInstanceUID)
    sent = dcmtk(
        STORESCU, "-aet", SENDER, "-aec", node.ready["ae_title"],
        "127.0.0.1", str(node.ready["port"]), *phantom_files,
    )  # fmt: skip
    assert sent.returncode == 0, sent.stderr

    job = node.delivered(study)
    files = results_at_the_pacs(pacs, job, tmp_path / "results")
    for path in files.values():
        assert dciodvfy_errors(path) == []

    (source,), set_aside = read_sources(phantom_files)
    assert set_aside == []
    assert source.geometry is not None
    segments = read_segments(files["segmentation"])
    masks = [
        np.stack(
            [
                segment.masks.get((uid, 1), np.zeros(source.shape[1:], bool))
                for uid in source.sop_instance_uids
            ]
        )
        for segment in segments
    ]

    # dcmqi puts each voxel where the source's geometry says the model's mask is.
    outside = dcmqi_masks(files["segmentation"], tmp_path / "dcmqi")
    assert sorted(outside) == [segment.number for segment in segments]
    for segment, mask in zip(segments, masks, strict=True):
        ours = points(
            mask,
            lambda i: source.geometry.pixel_to_patient(i[2], i[1], i[0]),
        )
        assert voxels_in_patient_space(outside[segment.number]) == ours

    # The phantom's truth is known in every number.
    phantom = demo_phantom()
    truth = phantom.labels > 0
    if source.headers[0].ImagePositionPatient[2] > source.headers[-1].ImagePositionPatient[2]:
        truth = truth[::-1]
    found = np.logical_or.reduce(masks)
    assert dice(found, truth) >= 0.9
    (finding,) = [one for one in job["findings"] if one["segment_number"] is not None]
    true_cm3 = sum(insert.volume for insert in phantom.inserts) / 1000
    assert finding["measurements"]["volume_cm3"] == pytest.approx(true_cm3, rel=0.05)


def test_pet_sarcoma_by_dcmsend_against_the_contour(
    node: Node, pacs: OrthancPacs, shared_data: Path, tmp_path: Path
) -> None:
    need(DCMSEND, DCIODVFY)
    folder = shared_data / "dicom" / "ibsi-sts" / "STS_014" / "PET"
    images = sorted((folder / "image").glob("*"))
    sent = dcmtk(
        DCMSEND, "--aetitle", SENDER, "--call", node.ready["ae_title"],
        "127.0.0.1", str(node.ready["port"]), *images,
    )  # fmt: skip
    assert sent.returncode == 0, sent.stderr
    job = node.delivered(str(pydicom.dcmread(images[0]).StudyInstanceUID))
    files = results_at_the_pacs(pacs, job, tmp_path / "results")
    errors = [error for path in files.values() for error in dciodvfy_errors(path, images[0])]
    assert errors == []

    (source,), _ = read_sources(images)
    (segment,) = read_segments(files["segmentation"])
    mask = np.stack(
        [
            segment.masks.get((uid, 1), np.zeros(source.shape[1:], bool))
            for uid in source.sop_instance_uids
        ]
    )
    structures = [pydicom.dcmread(path) for path in sorted((folder / "mask").glob("*"))]
    truth = contour_mask(structures[0], source.headers)
    overlap = dice(mask, truth)
    print(f"\nDice against the RT Structure Set of STS_014: {overlap:.3f}")
    assert overlap > 0.3


def test_mr_hippocampus_by_the_projects_own_sender(
    node: Node, pacs: OrthancPacs, shared_data: Path, tmp_path: Path
) -> None:
    from deploy.sending import send_folder

    folder = shared_data / "dicom" / "udacity" / "Study3" / "11_HCropVolume"
    said: list[str] = []
    sent = send_folder(folder, node.address, SENDER, said.append)
    assert sent.stored == sent.total > 0, said
    first = next(path for path in sorted(folder.rglob("*")) if path.is_file())
    job = node.delivered(str(pydicom.dcmread(first).StudyInstanceUID))
    files = results_at_the_pacs(pacs, job, tmp_path / "results")
    if DCIODVFY.exists():
        assert [error for path in files.values() for error in dciodvfy_errors(path, first)] == []


def test_the_same_study_again_makes_no_new_results(
    node: Node, pacs: OrthancPacs, phantom_files: list[Path]
) -> None:
    from deploy.sending import send_folder

    study = str(pydicom.dcmread(phantom_files[0]).StudyInstanceUID)
    send_folder(phantom_files[0].parent, node.address, SENDER, print)
    node.delivered(study)
    before = instances_of_study(pacs, study)
    send_folder(phantom_files[0].parent, node.address, SENDER, print)
    jobs = node.ended(study)
    assert [job["state"] for job in jobs if job["state"] != "superseded"] == ["delivered"]
    assert instances_of_study(pacs, study) == before
