"""Jobs as people and programs see them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session, joinedload

from db.models import (
    DeliveryState,
    FindingRecord,
    Job,
    JobEvent,
    JobStage,
    ResultRecord,
    Study,
)
from db.results import findings_of, results_of
from db.states import JobState
from db.studies import studies_found


@dataclass(frozen=True, slots=True)
class JobPage:
    """A page of jobs, newest first.

    Attributes
    ----------
    jobs
        One row each: see `job_line`.
    next_before
        Hand it to the next call as ``before``; ``None`` on the last page.
    """

    jobs: list[dict[str, Any]]
    next_before: int | None


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs a list shows; what is empty does not matter.

    Attributes
    ----------
    states, modality, rule, study_instance_uid
        Only these.
    received_since
        Only jobs that came in at this time or later.
    search
        Patient ID, Accession Number, Study or Series Instance UID, a job's number, or the
        beginning of the Patient's Name, in which case and accents do not matter.
    """

    states: Sequence[JobState] = ()
    modality: str | None = None
    rule: str | None = None
    study_instance_uid: str | None = None
    received_since: datetime | None = None
    search: str | None = None


def list_jobs(
    session: Session,
    *,
    states: Iterable[JobState] = (),
    study_instance_uid: str | None = None,
    modality: str | None = None,
    rule: str | None = None,
    search: str | None = None,
    received_since: datetime | None = None,
    before: int | None = None,
    limit: int = 50,
    patients: bool = False,
) -> JobPage:
    """List jobs, newest first.

    Parameters
    ----------
    session
        Any session.
    states, study_instance_uid, modality, rule, search, received_since
        As in `JobFilter`.
    before
        Only jobs with a smaller identifier: pages by key, so that the thousandth page costs what
        the first does.
    limit
        Jobs per page, at most 1000.
    patients
        Whether to tell whose study it is, too: `patient_line`.
    """
    chosen = JobFilter(tuple(states), modality, rule, study_instance_uid, received_since, search)
    limit = max(1, min(limit, 1000))
    ids = _newest_ids(session, chosen, before, limit + 1)
    page, more = ids[:limit], len(ids) > limit
    jobs = session.scalars(
        select(Job)
        .options(joinedload(Job.study, innerjoin=True))
        .where(Job.id.in_(page))
        .order_by(Job.id.desc())
    )
    lines = [job_line(job) | (patient_line(job.study) if patients else {}) for job in jobs]
    return JobPage(lines, page[-1] if more else None)


def _newest_ids(
    session: Session, chosen: JobFilter, before: int | None, limit: int
) -> Sequence[int]:
    """Return the identifiers of a page, each found by an index that ends in the identifier.

    One statement for each state: asked for two at once, a database sorts all that are in them.
    """
    query = select(Job.id)
    if chosen.modality is not None:
        query = query.where(Job.modality == chosen.modality)
    if chosen.rule is not None:
        query = query.where(Job.rule == chosen.rule)
    if chosen.study_instance_uid is not None:
        study = select(Study.id).where(Study.study_instance_uid == chosen.study_instance_uid)
        query = query.where(Job.study_id.in_(session.scalars(study).all()))
    if chosen.search:
        query = query.where(_found(session, chosen.search.strip()))
    if chosen.received_since is not None:
        # "+ 0": the least identifier is to be found among these, not by walking the primary key.
        since = Job.received_at >= chosen.received_since
        first = session.scalar(select(func.min(Job.id + 0)).where(since))
        if first is None:
            return []
        query = query.where(since, Job.id >= first)
    if before is not None:
        query = query.where(Job.id < before)
    query = query.order_by(Job.id.desc()).limit(limit)
    if not chosen.states:
        return session.scalars(query).all()
    found = [session.scalars(query.where(Job.state == state)).all() for state in set(chosen.states)]
    return sorted(chain.from_iterable(found), reverse=True)[:limit]


def _found(session: Session, search: str) -> ColumnElement[bool]:
    """Return the condition on jobs that a search stands for."""
    number = (
        [Job.id == int(search)]
        if search.isascii() and search.isdigit() and len(search) < 18
        else []
    )
    return or_(Job.study_id.in_(studies_found(session, search)), *number)


def patient_line(study: Study) -> dict[str, Any]:
    """Whose study it is."""
    return {
        "patient_name": study.patient_name,
        "patient_id": study.patient_id,
        "patient_birth_date": study.patient_birth_date,
        "patient_sex": study.patient_sex,
        "accession_number": study.accession_number,
        "study_date": study.study_date,
        "study_description": study.study_description,
    }


def job_line(job: Job) -> dict[str, Any]:
    """One job in few words: what the list shows."""
    return {
        "id": job.id,
        "study_instance_uid": job.study.study_instance_uid,
        "series_instance_uid": job.series_instance_uid,
        "state": str(job.state),
        "wait_reason": job.wait_reason,
        "error": job.error,
        "rule": job.rule,
        "modality": job.modality,
        "description": job.description,
        "priority": job.priority,
        "attempts": job.attempts,
        "progress": job.progress,
        "received_at": as_text(job.received_at),
        "updated_at": as_text(job.updated_at),
        "finished_at": as_text(job.finished_at),
    }


def job_as_json(session: Session, job_id: int, *, patients: bool = False) -> dict[str, Any] | None:
    """Tell all of a job, ready for `json.dumps`; ``None`` when there is no such job.

    Parameters
    ----------
    session, job_id
        Any session, and the job.
    patients
        Whether to tell whose study it is, too: `patient_line`.

    Returns
    -------
    dict
        Keys of `job_line`, and ``notes``, ``conflicts`` (how many objects of the study came again
        under their UID with other bytes), ``targets``, ``model``, ``stages`` (stage, attempt,
        started_at, ended_at, seconds, note), ``findings`` (text, target, presence, confidence,
        measurements ...), ``results`` (kind, sop_class_uid, sop_instance_uid, file, sha256,
        destination, confirmed; one entry per destination, one with ``destination: null`` for a
        result that goes nowhere) and ``events``. Times are ISO 8601 in UTC.
    """
    job = session.get(Job, job_id, options=[joinedload(Job.study)])
    if job is None:
        return None
    stages = session.scalars(
        select(JobStage).where(JobStage.job_id == job_id).order_by(JobStage.id)
    )
    events = session.scalars(
        select(JobEvent).where(JobEvent.job_id == job_id).order_by(JobEvent.id)
    )
    return {
        **job_line(job),
        **(patient_line(job.study) if patients else {}),
        "source_kind": job.source_kind,
        "notes": list(job.notes),
        "conflicts": job.study.conflicts,
        "targets": job.targets,
        "task": job.task,
        "destinations": list(job.destinations),
        "next_attempt_at": as_text(job.next_attempt_at),
        "model": {
            "name": job.model_name,
            "version": job.model_version,
            "digest": job.model_digest,
            "intensity": job.intensity,
        },
        "stages": [_stage(stage) for stage in stages],
        "findings": [_finding(finding) for finding in findings_of(session, job_id)],
        "results": [
            line for result in results_of(session, job_id) for line in _result_lines(result)
        ],
        "events": [
            {"at": as_text(event.at), "level": event.level, "text": event.text} for event in events
        ],
    }


def jobs_of_study(session: Session, job_id: int) -> list[dict[str, Any]]:
    """List the other jobs of a job's study, the newest first."""
    study = select(Job.study_id).where(Job.id == job_id).scalar_subquery()
    jobs = session.scalars(
        select(Job)
        .options(joinedload(Job.study, innerjoin=True))
        .where(Job.study_id == study, Job.id != job_id)
        .order_by(Job.id.desc())
        .limit(50)
    )
    return [job_line(job) for job in jobs]


def as_text(at: datetime | None) -> str | None:
    """Write a time as ISO 8601 in UTC with milliseconds."""
    return None if at is None else at.astimezone(UTC).isoformat(timespec="milliseconds")


def _stage(stage: JobStage) -> dict[str, Any]:
    seconds = None
    if stage.ended_at is not None:
        seconds = round((stage.ended_at - stage.started_at).total_seconds(), 3)
    return {
        "stage": str(stage.stage),
        "attempt": stage.attempt,
        "started_at": as_text(stage.started_at),
        "claimed_at": as_text(stage.claimed_at),
        "ended_at": as_text(stage.ended_at),
        "seconds": seconds,
        "owner": stage.owner,
        "note": stage.note,
    }


def _finding(finding: FindingRecord) -> dict[str, Any]:
    return {
        "text": finding.text,
        "target": finding.target,
        "presence": finding.presence,
        "confidence": finding.confidence,
        "measurements": finding.measurements,
        "phrase": finding.phrase,
        "prompt": finding.prompt,
        "key_frame": finding.key_frame,
        "predicted_iou": finding.predicted_iou,
        "segment_number": finding.segment_number,
        "tracking_uid": finding.tracking_uid,
    }


def _result_lines(result: ResultRecord) -> list[dict[str, Any]]:
    base = {
        "position": result.position,
        "kind": result.kind,
        "sop_class_uid": result.sop_class_uid,
        "sop_instance_uid": result.sop_instance_uid,
        "series_instance_uid": result.series_instance_uid,
        "file": result.path,
        "size": result.size,
        "sha256": result.sha256,
        "state": str(result.state),
        "problems": list(result.problems),
        "purged_at": as_text(result.purged_at),
        "withdrawn_at": as_text(result.withdrawal.at if result.withdrawal else None),
        "withdrawn_because": result.withdrawal.words if result.withdrawal else "",
    }
    if not result.deliveries:
        return [{**base, "destination": None, "delivery": None, "confirmed": False}]
    return [
        {
            **base,
            "destination": delivery.destination,
            "delivery": str(delivery.state),
            "status": delivery.status,
            "sentence": delivery.sentence,
            "attempts": delivery.attempts,
            "sent_at": as_text(delivery.sent_at),
            "confirmed": delivery.state is DeliveryState.CONFIRMED,
            "confirmed_at": as_text(delivery.confirmed_at),
            "confirmed_by": delivery.confirmed_by,
        }
        for delivery in result.deliveries
    ]
