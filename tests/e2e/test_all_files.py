"""All 528 real files through one node, whole and broken: none unaccounted for."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from db.models import Instance, Study
from db.reports import intake_report
from deploy.demo import write_configuration
from deploy.node_database import open_database
from deploy.sending import parse_address
from dicom_node.services.storage_scu import StoreStatus, send
from inference.card import read_card
from inference.engine import SHIPPED
from tests.e2e.conftest import SENDER, Node, model_settings
from tests.inference.tiny_model import save_tiny
from tests.orthanc import Orthanc

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ALL_SECONDS = 800.0


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A node and a PACS of their own: other tests send some of these studies, too, and count.

    Its model is what the shipped one is, all that its card lists and as many questions, but small:
    the way of the files is shown here, and what the shipped weights find in them elsewhere.
    """
    home = tmp_path / "node"
    home.mkdir()
    (tmp_path / "pacs").mkdir()
    with Orthanc(tmp_path / "pacs") as pacs:
        small = save_tiny(tmp_path / "model", read_card(SHIPPED))
        write_configuration(home, pacs, model_settings() or {"model": {"folder": str(small)}})
        with Node(home) as running:
            yield running


def test_none_of_the_real_files_is_unaccounted_for(node: Node, shared_data: Path) -> None:
    root = shared_data / "dicom"
    with (root / "manifest.csv").open(newline="") as manifest:
        paths = [root / row["path"] for row in csv.DictReader(manifest)]
    assert len(paths) == 528

    statuses: list[StoreStatus] = []
    address = parse_address(node.address)
    send(paths, address, calling_ae_title=SENDER, stop_on_failure=False, on_status=statuses.append)
    by_path = {status.path: status for status in statuses}
    assert set(by_path) == set(paths)

    stored = {status.sop_instance_uid for status in statuses if status.is_stored}
    with open_database(node.home) as session:
        studies_of: dict[str, set[str]] = {}
        for instance, study in session.execute(
            select(Instance.sop_instance_uid, Study.study_instance_uid).join(Study)
        ):
            studies_of.setdefault(instance, set()).add(study)
        quarantined = {entry["sop_instance_uid"] for entry in intake_report(session)["quarantined"]}

    # What was answered Success is in the catalog; what was not was never sent or is in quarantine.
    assert stored <= set(studies_of), "answered Success but not registered"
    refused = [status for status in statuses if not status.is_stored]
    assert all(status.sentence for status in refused)
    answered = [status for status in refused if status.status is not None]
    assert {status.sop_instance_uid for status in answered} <= quarantined

    # Every study that came in comes to an end, with a reason where nothing was delivered.
    studies = set().union(*(studies_of[uid] for uid in stored))
    jobs = [job for study in sorted(studies) for job in node.ended(study, ALL_SECONDS)]
    assert {job["study_instance_uid"] for job in jobs} == studies
    for job in jobs:
        if job["state"] == "delivered":
            assert job["results"] and all(one["confirmed"] for one in job["results"])
        else:
            assert job["error"] or job["wait_reason"], job["id"]
    print("\nends:", dict(Counter(job["state"] for job in jobs)))
    for job in jobs:
        if job["state"] == "failed":
            print(f"failed: {job['modality']}: {job['error']}")
    print("not stored:", *(f"\n  {one.path.name}: {one.sentence}" for one in refused))
    assert "failed" not in {job["state"] for job in jobs if not job["error"]}
