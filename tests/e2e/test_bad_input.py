"""Senders and PACS that do wrong: each ends in a clear state, with a sentence, and nothing lost."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest

from db.counts import Series, counted, labels_text
from db.reports import intake_report
from deploy.node_database import open_database
from deploy.sending import send_folder
from tests.e2e.conftest import SENDER, MisbehavingPeers, Node, short_study
from tests.e2e.peers import STORESCU, dcmtk, need

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


def test_unknown_ae_title_is_rejected_with_the_right_reason(
    node: Node, phantom_files: list[Path]
) -> None:
    need(STORESCU)
    sent = dcmtk(
        STORESCU, "-aet", "STRANGER", "-aec", node.ready["ae_title"],
        "127.0.0.1", str(node.ready["port"]), phantom_files[0],
    )  # fmt: skip
    assert sent.returncode != 0
    assert "Calling AE Title Not Recognized" in sent.stderr + sent.stdout

    def refused() -> list[str]:
        with open_database(node.home) as session:
            entries = intake_report(session)["refused"]
        return [e["sentence"] for e in entries if e["calling_ae_title"] == "STRANGER"]

    (sentence,) = node.wait(refused, "the refusal is in the database", 20)
    assert "peers" in sentence, "it says where to allow the caller"
    series = Series("unibiomed_associations_refused", labels_text({"cause": "unknown_ae_title"}))
    node.wait(lambda: counts(node).get(series), "the refusal is counted", 20)


def counts(node: Node) -> dict[Series, int]:
    """Return what all processes of the node counted."""
    with open_database(node.home) as session:
        return counted(session)


def test_pacs_that_refuses_the_class(
    node: Node, misbehaving: MisbehavingPeers, tmp_path: Path
) -> None:
    folder, study = short_study(tmp_path, "to: refuser")
    send_folder(folder, node.address, SENDER, print)
    (job,) = node.ended(study)
    assert job["state"] == "failed"
    assert "Segmentation Storage" in job["error"]
    assert "refuser" in job["error"]
    assert not any(misbehaving.refuser.stored.values()), "an SR without its SEG is of no use"


def test_pacs_that_drops_the_association_half_way(
    node: Node, misbehaving: MisbehavingPeers, tmp_path: Path
) -> None:
    folder, study = short_study(tmp_path, "to: dropper")
    send_folder(folder, node.address, SENDER, print)
    job = node.delivered(study)
    assert misbehaving.drops, "it did drop"
    expected = {result["sop_instance_uid"] for result in job["results"]}
    assert set(misbehaving.dropper.stored) == expected
    assert all(result["confirmed"] for result in job["results"])
    # The worker that delivers counts what it is answered, as listener and web server do.
    sent = Series("unibiomed_objects_sent", labels_text({"verdict": "stored"}))
    node.wait(lambda: counts(node).get(sent, 0) >= len(expected), "what was sent is counted", 20)


def test_pacs_that_is_down_and_comes_up(
    node: Node, misbehaving: MisbehavingPeers, tmp_path: Path
) -> None:
    folder, study = short_study(tmp_path, "to: sleeper")
    send_folder(folder, node.address, SENDER, print)

    def waits_for_the_pacs() -> bool:
        (job,) = node.jobs_of(study) or [{"state": "", "wait_reason": "", "attempts": 0}]
        return job["state"] == "delivering" and "sleeper" in job["wait_reason"]

    node.wait(waits_for_the_pacs, "the job waits for the PACS and says so")
    misbehaving.sleeper.start()
    job = node.delivered(study)
    expected = {result["sop_instance_uid"] for result in job["results"]}
    assert dict(misbehaving.sleeper.stored) == dict.fromkeys(expected, 1)


def test_objects_that_are_no_images_end_with_a_reason(node: Node, tmp_path: Path) -> None:
    """A file without pixel data, and a truncated one, in one study with nothing else."""
    folder, study = short_study(tmp_path, "broken")
    paths = sorted(folder.iterdir())
    without = pydicom.dcmread(paths[0])
    del without.PixelData
    without.save_as(paths[0])
    whole = paths[1].read_bytes()
    paths[1].write_bytes(whole[: len(whole) - 40_000])
    for path in paths[2:]:
        path.unlink()
    send_folder(folder, node.address, SENDER, print)
    jobs = node.ended(study)
    assert {job["state"] for job in jobs} <= {"not_applicable", "failed"}
    assert all(job["error"] or job["wait_reason"] for job in jobs)
