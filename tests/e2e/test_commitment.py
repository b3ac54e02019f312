"""Storage commitment with Orthanc, as the one who commits and as the one who asks."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pynetdicom import AE, build_role
from sqlalchemy import select

from db import jobs
from db.jobs import JobState
from db.models import DeliveryRecord, Instance, Job, Refusal
from db.models_told import Commitment
from deploy.demo_pacs import LOOPBACK, OrthancPacs
from dicom_node.services.association import COMMITMENT, Destination
from dicom_node.services.commitment import COMMITMENT_INSTANCE
from dicom_node.services.storage_scu import send
from tests.databases import *  # noqa: F403
from tests.e2e.peers import orthanc
from tests.orthanc import Orthanc
from tests.workflows.nodes import Clock, encoded_job, make_node
from tests.workflows.test_listener import listening
from workflows.committing import report_commitments
from workflows.delivery import deliver_job
from workflows.node import Node
from workflows.retention import clean_up

pytestmark = pytest.mark.e2e


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[OrthancPacs]:
    with Orthanc(tmp_path / "orthanc") as running:
        yield running


@pytest.fixture
def node(pacs: OrthancPacs, tmp_path: Path, sqlite_database: Any) -> Node:
    """Give a node whose listener can be started as a process, on a database of its own."""
    settings: dict[str, Any] = {
        "node": {"ae_title": "UNIBIOMED", "host": LOOPBACK, "port": 0},
        "database": {"url": sqlite_database.url},
        "storage": {"reserve": 0},
        "peers": [{"name": "pacs", "ae_title": pacs.ae_title, "host": LOOPBACK, "port": pacs.port,
                   "allow": ["echo", "store", "commit"]},
                  {"name": "stranger", "ae_title": "STRANGER", "allow": ["commit"]}],
        "destinations": [{"name": "pacs", "ae_title": pacs.ae_title, "host": LOOPBACK,
                          "port": pacs.port, "confirm": "commitment"}],
        "retention": {"archive": "pacs"},
    }  # fmt: skip
    # A little ahead of the listener's clock, so that all it noted is due.
    clock = Clock(datetime.now(UTC) + timedelta(seconds=30))
    made = make_node(tmp_path, sqlite_database, clock, **settings)
    made.home.node_yaml.write_text(json.dumps(settings))
    made.home.rules_yaml.write_text("rules: []\n")
    return made


def introduce(pacs: OrthancPacs, port: int) -> None:
    """Tell Orthanc where the node listens."""
    modality = {"AET": "UNIBIOMED", "Host": LOOPBACK, "Port": port}
    put = urllib.request.Request(
        f"http://127.0.0.1:{pacs.http_port}/modalities/node",
        data=json.dumps(modality).encode(),
        method="PUT",
    )
    urllib.request.urlopen(put, timeout=60).read()


@pytest.mark.ihe("AIR", "Evidence Creator", "RAD-10")
def test_orthanc_commits_to_results(node: Node, pacs: OrthancPacs, tmp_path: Path) -> None:
    job_id = encoded_job(node, ["pacs"])
    with listening(node, tmp_path / "listener.log") as (_, port):
        introduce(pacs, port)
        until = time.monotonic() + 60
        while _state(node, job_id) is not JobState.DELIVERED and time.monotonic() < until:
            deliver_job(node, job_id)
    assert _state(node, job_id) is JobState.DELIVERED, (tmp_path / "listener.log").read_text()
    with node.database.reading() as session:
        assert set(session.scalars(select(DeliveryRecord.confirmed_by))) == {"commitment"}
        (transaction,) = session.scalars(select(Commitment)).all()
    assert [reason for _, _, reason in transaction.items] == [None, None, None]


def _state(node: Node, job_id: int) -> JobState:
    with node.database.reading() as session:
        return session.get_one(Job, job_id).state


@pytest.mark.ihe("SWF.b", "Evidence Creator, Image Manager (in part)", "RAD-10")
def test_the_node_commits_to_what_it_holds_and_says_what_it_lacks(
    node: Node, pacs: OrthancPacs, tmp_path: Path
) -> None:
    encoded_job(node, ["pacs"])
    with node.database.reading() as session:
        held = session.scalars(select(Instance)).one()
    with listening(node, tmp_path / "listener.log") as (_, port):
        introduce(pacs, port)
        questions = {
            held.sop_instance_uid: held.sop_class_uid,
            "1.2.3.4.5.6": held.sop_class_uid,
        }
        asked = orthanc(
            pacs,
            "/modalities/node/storage-commitment",
            {"DicomInstances": [
                {"SOPClassUID": sop_class, "SOPInstanceUID": uid}
                for uid, sop_class in questions.items()
            ]},
        )["ID"]  # fmt: skip
        assert report_commitments(node) == 1
        report = orthanc(pacs, f"/storage-commitment/{asked}")
    assert report["Status"] == "Failure"
    assert [one["SOPInstanceUID"] for one in report["Success"]] == [held.sop_instance_uid]
    assert [(one["SOPInstanceUID"], one["FailureReason"]) for one in report["Failures"]] == [
        ("1.2.3.4.5.6", 0x0112)
    ]
    assert report_commitments(node) == 0, "told once"
    clean_up_until_orthanc_holds_it(node, pacs)


def clean_up_until_orthanc_holds_it(node: Node, pacs: OrthancPacs) -> None:
    """What was committed is deleted by its age only when Orthanc, as the archive, has it."""
    [image] = list(node.archive.walk())
    with node.database.session() as session:
        jobs.finish(session, 1, JobState.CANCELLED, "for the test", now=node.now())
    assert isinstance(node.now, Clock)
    node.now.forward(15 * 86400)
    clean_up(node)
    assert image.exists()
    there = Destination("pacs", pacs.ae_title, LOOPBACK, pacs.port)
    assert send([image], there, calling_ae_title="UNIBIOMED")[0].is_stored
    clean_up(node)
    assert not image.exists()


def test_a_report_that_answers_nothing_is_refused_and_counted(node: Node, tmp_path: Path) -> None:
    information = pydicom.Dataset()
    information.TransactionUID = "1.2.3.4"
    item = pydicom.Dataset()
    item.ReferencedSOPClassUID = item.ReferencedSOPInstanceUID = "1.2.3"
    information.ReferencedSOPSequence = [item]
    log = tmp_path / "listener.log"
    with listening(node, log) as (process, port):
        caller = AE(ae_title="STRANGER")
        caller.add_requested_context(COMMITMENT)
        association = caller.associate(
            LOOPBACK, port, ae_title="UNIBIOMED",
            ext_neg=[build_role(COMMITMENT, scp_role=True)],
        )  # fmt: skip
        assert association.is_established
        for event_type, expected in ((1, 0x0115), (7, 0x0113)):
            status, _ = association.send_n_event_report(
                information, event_type, COMMITMENT, COMMITMENT_INSTANCE
            )
            assert status.Status == expected
        association.release()
        process.terminate()
        process.wait(60)
    with node.database.reading() as session:
        assert "1.2.3.4" in session.scalars(select(Refusal.sentence)).one()
    assert log.read_text().count("1.2.3.4,") == 1
