"""Delivering by DICOMweb: to Orthanc's plug-in, and to servers that are busy or forget."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from db.models import Job
from db.session import Database
from deploy.demo_pacs import LOOPBACK, OrthancPacs
from tests.factories.scripted_web import Scripted, says, scripted_web
from tests.orthanc import Orthanc
from tests.workflows.nodes import Clock, encoded_job, make_node, told
from tests.workflows.test_delivery import confirmed
from workflows.delivery import deliver_job
from workflows.node import Node

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    with scripted_web() as running:
        yield running


def node_for(tmp_path: Path, database: Database, clock: Clock, url: str, **more: Any) -> Node:
    destination = {"name": "web", "url": url, "confirm_seconds": 5.0, **more}
    return make_node(tmp_path, database, clock, destinations=[destination])


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrthancPacs]:
    if not PLUGIN.exists():
        pytest.skip("needs Orthanc and its DICOMweb plug-in (see tests/outside_peers.sh)")
    options: dict[str, object] = {
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    with Orthanc(tmp_path_factory.mktemp("orthanc"), options) as running:
        yield running


@pytest.mark.ihe("AIR", "Evidence Creator", "RAD-108")
def test_results_are_stored_and_proven_at_orthanc(
    tmp_path: Path, sqlite_database: Database, clock: Clock, orthanc: OrthancPacs
) -> None:
    rest = f"http://{LOOPBACK}:{orthanc.http_port}"
    node = node_for(tmp_path, sqlite_database, clock, f"{rest}/dicom-web")
    job_id = encoded_job(node, ["web"])
    deliver_job(node, job_id)
    job = told(node, job_id)
    assert job["state"] == "delivered", job["wait_reason"]
    assert job["wait_reason"] == "stored and proven at web (by QIDO-RS)"
    files = {node.archive.absolute(one["file"]).read_bytes() for one in job["results"]}
    kept = {
        httpx.get(f"{rest}/instances/{one}/file", timeout=60).content
        for one in httpx.get(f"{rest}/instances", timeout=60).json()
    }
    assert files == kept, "the same bytes"


def test_it_waits_as_long_as_the_server_asks_for(
    tmp_path: Path, sqlite_database: Database, clock: Clock, scripted: Scripted
) -> None:
    node = node_for(tmp_path, sqlite_database, clock, scripted.url)
    scripted.answers = [says(503, b"", Retry_After="7200")]
    job_id = encoded_job(node, ["web"])
    deliver_job(node, job_id)
    assert told(node, job_id)["state"] == "delivering"
    assert len(scripted.seen) == 1, "not called again at once"
    with node.database.reading() as session:
        assert session.get_one(Job, job_id).next_attempt_at >= clock() + timedelta(hours=2)


def test_a_success_that_the_search_does_not_bear_out_is_no_delivery(
    tmp_path: Path, sqlite_database: Database, clock: Clock, scripted: Scripted
) -> None:
    node = node_for(tmp_path, sqlite_database, clock, scripted.url, confirm_seconds=0.1)

    def stored(_: Any, body: bytes) -> tuple[int, dict[str, str], Any]:
        uid = next(one for one in uids if one.encode() in body)
        item = {"00081155": {"vr": "UI", "Value": [uid]}}
        return 200, {}, {"00081199": {"vr": "SQ", "Value": [item]}}

    job_id = encoded_job(node, ["web"])
    uids = [one["sop_instance_uid"] for one in told(node, job_id)["results"]]
    scripted.answers = [stored] * len(uids) + [says(200, [])] * 20
    deliver_job(node, job_id)
    job = told(node, job_id)
    assert (job["state"], confirmed(job)) == ("delivering", [False] * len(uids))
    assert "its QIDO-RS does not know the object" in job["wait_reason"]
