"""Jobs as people and programs see them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Select, or_, select
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


def list_jobs(
    session: Session,
    *,
    states: Iterable[JobState] = (),
    study_instance_uid: str | None = None,
    modality: str | None = None,
    rule: str | None = None,
    search: str | None = None,
    before: int | None = None,
    limit: int = 50,
) -> JobPage:
    """List jobs, newest first.

    Parameters
    ----------
    session
        Any session.
    states
        Only these; empty for all.
    study_instance_uid, modality, rule
        Only these.
    search
        Exact Patient ID, Accession Number or Study Instance UID, or the beginning of the
        Patient's Name.
    before
        Only jobs with a smaller identifier: pages by key, so that the thousandth page costs what
        the first does.
    limit
        Jobs per page, at most 1000.
    """
    limit = max(1, min(limit, 1000))
    query: Select[Job] = select(Job).options(joinedload(Job.study, innerjoin=True))
    wanted = list(states)
    if wanted:
        query = query.where(Job.state.in_(wanted))
    if study_instance_uid is not None:
        found = select(Study.id).where(Study.study_instance_uid == study_instance_uid)
        query = query.where(Job.study_id.in_(found))
    if modality is not None:
        query = query.where(Job.modality == modality)
    if rule is not None:
        query = query.where(Job.rule == rule)
    if search:
        found = select(Study.id).where(
            or_(
                Study.patient_id == search,
                Study.accession_number == search,
                Study.study_instance_uid == search,
                Study.patient_name.startswith(search, autoescape=True),
            )
        )
        query = query.where(Job.study_id.in_(found))
    if before is not None:
        query = query.where(Job.id < before)
    jobs = session.scalars(query.order_by(Job.id.desc()).limit(limit + 1)).all()
    page = jobs[:limit]
    more = len(jobs) > limit
    return JobPage([job_line(job) for job in page], page[-1].id if more else None)


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


def job_as_json(session: Session, job_id: int) -> dict[str, Any] | None:
    """Tell all of a job, ready for `json.dumps`; ``None`` when there is no such job.

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
