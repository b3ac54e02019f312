"""Nodes and jobs for the tests of what happens after the model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian
from sqlalchemy import select

from db import catalog, jobs
from db.catalog import Arrival
from db.jobs import JobState
from db.models import Job
from db.results import WrittenResult, record_results
from db.session import Database
from dicom_node.archive import Archive
from dicom_node.services.header import attributes_of
from tests.databases import START
from tests.workflows.pacs import COMPREHENSIVE_3D_SR, ENHANCED_SR, SEG, Pacs
from workflows.configuration import Configuration
from workflows.home import Home
from workflows.node import Node
from workflows.rules import Rules
from workflows.settings import NodeSettings

KINDS = {
    "segmentation": SEG,
    "measurement_report": COMPREHENSIVE_3D_SR,
    "grounded_report": ENHANCED_SR,
}


@dataclass
class Clock:
    """A clock that goes when it is told to."""

    at: datetime = field(default=START)

    def __call__(self) -> datetime:
        return self.at

    def forward(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


def destination(pacs: Pacs, name: str = "pacs", **changes: Any) -> dict[str, Any]:
    """Describe a test PACS as node.yaml does."""
    return {
        "name": name,
        "ae_title": "PACS",
        "host": "127.0.0.1",
        "port": pacs.port,
        "confirm_seconds": 20.0,
        "connection_timeout_seconds": 2.0,
        "acse_timeout_seconds": 5.0,
        "dimse_timeout_seconds": 5.0,
        "network_timeout_seconds": 5.0,
        **changes,
    }


def make_node(
    tmp_path: Path,
    database: Database,
    clock: Callable[[], datetime],
    /,
    reserve: int = 0,
    **settings: Any,
) -> Node:
    """Make a node on the given database."""
    home = Home(tmp_path / "home")
    home.make_folders()
    values = {
        "node": {"ae_title": "UNIBIOMED"},
        "retries": {"fast_attempts": 1, "first_seconds": 10.0},
        **settings,
    }
    configuration = Configuration(
        home, NodeSettings.model_validate(values), Rules.model_validate({"rules": []})
    )
    archive = Archive(home.archive, reserve_bytes=reserve)
    return Node(configuration, database, archive, "test", clock)


def store_source(node: Node, number: int = 1, study: str = "1.2.3", text: str = "x") -> Arrival:
    """Put an instance into the archive and tell of it as the listener does."""
    uid = f"{study}.1.{number}"
    with node.archive.receive("1.2.840.10008.5.1.4.1.1.2", uid, ExplicitVRLittleEndian) as incoming:
        incoming.write(_encoded(dataset_of("", uid, study, f"{study}.1", text)))
        stored = incoming.file(study, f"{study}.1", uid)
    return Arrival(
        study_instance_uid=study,
        series_instance_uid=f"{study}.1",
        sop_instance_uid=uid,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        transfer_syntax_uid=str(ExplicitVRLittleEndian),
        path=stored.path,
        size=stored.size,
        sha256=stored.sha256,
        beside="~" in stored.path,
        received_at=node.now(),
    )


def dataset_of(sop_class: str, uid: str, study: str, series: str, text: str = "x") -> Dataset:
    """Give a small data set."""
    dataset = Dataset()
    dataset.SOPClassUID = UID(sop_class or "1.2.840.10008.5.1.4.1.1.2")
    dataset.SOPInstanceUID = UID(uid)
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = UID(study), UID(series)
    dataset.Modality, dataset.PatientID = "CT", "P1"
    dataset.PatientComments = text
    return dataset


def _encoded(dataset: Dataset) -> bytes:
    buffer = BytesIO()
    dataset.save_as(buffer, implicit_vr=False, little_endian=True)
    return buffer.getvalue()


def _file(dataset: Dataset) -> bytes:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def encoded_job(
    node: Node, destinations: list[str], study: str = "1.2.3", kinds: dict[str, str] = KINDS
) -> int:
    """Make a job with results that rests in delivering; UIDs are 2.25.<job><position>."""
    database, now = node.database, node.now()
    with database.session() as session:
        study_id = catalog.register(session, store_source(node, study=study)).study_id
        job_id = session.scalars(
            select(Job.id).where(Job.study_id == study_id, Job.state == JobState.WAITING)
        ).one()
        lease = jobs.claim(session, job_id, "w", JobState.WAITING, 60, now)
        assert lease is not None
        sources = catalog.instances_of(session, study_id)
        one = jobs.Pair(
            key=hashlib.sha256(f"{study}{job_id}".encode()).hexdigest(),
            rule="default",
            instance_ids=[source.id for source in sources],
            series_instance_uid=f"{study}.1",
            modality="CT",
            source_kind="volume",
            destinations=destinations,
        )
        jobs.enqueue(session, lease, [one], now)
        lease = jobs.claim(session, job_id, "w", JobState.QUEUED, 60, now)
        assert lease is not None
        for step in (JobState.PREPARING, JobState.INFERRING, JobState.ENCODING):
            jobs.advance(session, lease, step, now)
        lease = jobs.claim(session, job_id, "w", JobState.ENCODING, 60, now)
        assert lease is not None
        jobs.advance(session, lease, JobState.VALIDATING, now)
        results = [
            _result(node, job_id, position, kind, sop_class, study)
            for position, (kind, sop_class) in enumerate(kinds.items(), start=1)
        ]
        record_results(session, lease, results, now)
        jobs.advance(session, lease, JobState.DELIVERING, now)
    return job_id


def _result(
    node: Node, job_id: int, position: int, kind: str, sop_class: str, study: str
) -> WrittenResult:
    uid = f"2.25.{job_id}{position}"
    dataset = dataset_of(sop_class, uid, study, f"{uid}0")
    stored = node.archive.write_result(job_id, f"{kind}.dcm", _file(dataset))
    return WrittenResult(
        kind=kind,
        sop_class_uid=sop_class,
        sop_instance_uid=uid,
        series_instance_uid=f"{uid}0",
        path=stored.path,
        size=stored.size,
        sha256=stored.sha256,
        attributes=attributes_of(dataset),
    )


def told(node: Node, job_id: int) -> dict[str, Any]:
    """Tell all of a job."""
    with node.database.reading() as session:
        job = jobs.job_as_json(session, job_id)
    assert job is not None
    return job
