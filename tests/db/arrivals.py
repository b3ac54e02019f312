"""Instances and jobs for the tests of this folder."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

from sqlalchemy import select

from db import catalog, jobs
from db.catalog import Arrival
from db.jobs import JobState, Lease
from db.models import Job
from db.session import Database
from tests.databases import START

STUDY = "1.2.3"


def arrival(number: int = 1, **changes: Any) -> Arrival:
    """Give an instance of one CT series of `STUDY`."""
    study = changes.pop("study", STUDY)
    series = changes.pop("series", f"{study}.1")
    uid = f"{series}.{number}"
    values: dict[str, Any] = {
        "study_instance_uid": study,
        "series_instance_uid": series,
        "sop_instance_uid": uid,
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "path": f"studies/{study}/{series}/{uid}.dcm",
        "size": 1000,
        "sha256": hashlib.sha256(uid.encode()).hexdigest(),
        "received_at": START,
        "attributes": {"PatientID": "P1", "Modality": "CT", "StationName": "CT7"},
        "association": "a1",
        "listener": "l1",
        "calling_ae_title": "MODALITY",
    }
    return Arrival(**(values | changes))


def waiting_job(database: Database, study: str = STUDY, instances: int = 3) -> int:
    """Register a study; returns its waiting job."""
    with database.session() as session:
        catalog.register_batch(
            session, [arrival(number, study=study) for number in range(1, instances + 1)]
        )
        return session.scalars(
            select(Job.id).join(Job.study).where(Job.study.has(study_instance_uid=study))
        ).one()


def pair(database: Database, job_id: int, rule: str = "default", **changes: Any) -> jobs.Pair:
    """Give a pair of all the job's study's instances and a rule."""
    with database.reading() as session:
        study_id = session.get_one(Job, job_id).study_id
        instances = catalog.instances_of(session, study_id)
    key = jobs.pairing_key(
        rule, "digest", None, [(one.sop_instance_uid, one.sha256) for one in instances]
    )
    values: dict[str, Any] = {
        "key": key,
        "rule": rule,
        "instance_ids": [one.id for one in instances],
        "series_instance_uid": f"{STUDY}.1",
        "modality": "CT",
        "source_kind": "volume",
        "destinations": ["pacs"],
    }
    return jobs.Pair(**(values | changes))


def claimed(
    database: Database, job_id: int, state: JobState, at: datetime = START, seconds: float = 30
) -> Lease:
    """Claim a job that must be free."""
    with database.session() as session:
        lease = jobs.claim(session, job_id, "worker", state, seconds, at)
    assert lease is not None
    return lease


def queued_job(database: Database, study: str = STUDY) -> int:
    """Register a study and queue it."""
    job_id = waiting_job(database, study)
    lease = claimed(database, job_id, JobState.WAITING)
    with database.session() as session:
        assert jobs.enqueue(session, lease, [pair(database, job_id)], START) == [job_id]
    return job_id


STEPS = {
    JobState.QUEUED: (JobState.PREPARING, JobState.INFERRING, JobState.ENCODING),
    JobState.ENCODING: (JobState.VALIDATING, JobState.DELIVERING),
    JobState.DELIVERING: (JobState.CONFIRMING,),
}


def brought_to(database: Database, job_id: int, goal: JobState) -> Lease:
    """Take a queued job on to a state and give the lease under which it is there."""
    state = JobState.QUEUED
    while True:
        lease = claimed(database, job_id, state)
        if state is goal:
            return lease
        for step in STEPS[state]:
            with database.session() as session:
                jobs.advance(session, lease, step, START)
            state = step
            if state is goal and state not in STEPS:
                return lease


def state_of(database: Database, job_id: int) -> JobState:
    """Give the job's state."""
    with database.reading() as session:
        return session.scalars(select(Job.state).where(Job.id == job_id)).one()
