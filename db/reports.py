"""What is known of jobs, as plain values that can be printed or sent as JSON.

No patient data: a job is named by its number and its DICOM UIDs.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.models import (
    DeliveryRecord,
    DeliveryState,
    FindingRecord,
    Instance,
    Job,
    JobStage,
    Quarantine,
    Refusal,
    ResultRecord,
    Study,
)
from db.states import JobState

__all__ = ["intake_report", "job_list", "job_report"]


def job_list(
    session: Session,
    *,
    states: Iterable[JobState] = (),
    study_instance_uid: str | None = None,
    limit: int | None = 50,
) -> list[dict[str, Any]]:
    """Return the newest jobs first, without their stages, findings and results.

    Parameters
    ----------
    session
        A session that may only read.
    states
        Only jobs in one of these states; none given means all.
    study_instance_uid
        Only jobs of this study.
    limit
        The greatest number of jobs; None for all.
    """
    query = select(Job, Study.study_instance_uid).join(Study).order_by(Job.id.desc()).limit(limit)
    if wanted := list(states):
        query = query.where(Job.state.in_(wanted))
    if study_instance_uid is not None:
        query = query.where(Study.study_instance_uid == study_instance_uid)
    return [_summary(job, uid) for job, uid in session.execute(query)]


def job_report(session: Session, job_id: int) -> dict[str, Any] | None:
    """Return all that is known of a job, or None when there is no such job.

    Returns
    -------
    dict or None
        The keys of `job_list`, and ``stages``, ``findings`` and ``results``. Times are ISO 8601 in
        UTC, durations seconds. ``results`` has one entry for each object and destination.
    """
    row = session.execute(
        select(Job, Study.study_instance_uid).join(Study).where(Job.id == job_id)
    ).one_or_none()
    if row is None:
        return None
    job, study_instance_uid = row
    stages = session.scalars(
        select(JobStage).where(JobStage.job_id == job_id).order_by(JobStage.id)
    )
    findings = session.scalars(
        select(FindingRecord).where(FindingRecord.job_id == job_id).order_by(FindingRecord.position)
    )
    results = session.execute(
        select(ResultRecord, DeliveryRecord)
        .outerjoin(DeliveryRecord, DeliveryRecord.result_id == ResultRecord.id)
        .where(ResultRecord.job_id == job_id)
        .order_by(ResultRecord.position, DeliveryRecord.id)
    )
    return {
        **_summary(job, study_instance_uid),
        "notes": list(job.notes),
        "targets": job.targets,
        "model": {
            "name": job.model_name,
            "version": job.model_version,
            "digest": job.model_digest,
            "intensity": job.intensity,
        },
        "stages": [_stage(stage) for stage in stages],
        "findings": [_finding(finding) for finding in findings],
        "results": [_result(result, delivery) for result, delivery in results],
    }


def intake_report(session: Session) -> dict[str, Any]:
    """Return what came in and what became of it: counts, quarantine reasons, refused senders."""
    quarantined = session.scalars(
        select(Quarantine).where(Quarantine.resolved_at.is_(None)).order_by(Quarantine.id)
    )
    return {
        "studies": session.scalar(select(func.count(Study.id))),
        "instances": session.scalar(select(func.count(Instance.id))),
        "conflicts": session.scalar(select(func.count(Instance.id)).where(Instance.conflict)),
        "quarantined": [
            {
                "sop_instance_uid": entry.sop_instance_uid,
                "sop_class_uid": entry.sop_class_uid,
                "reason": entry.reason,
                "path": entry.path,
                "received_at": _time(entry.received_at),
            }
            for entry in quarantined
        ],
        "refused": [
            {
                "calling_ae_title": refusal.calling_ae_title,
                "called_ae_title": refusal.called_ae_title,
                "host": refusal.peer_host,
                "sentence": refusal.sentence,
                "count": refusal.count,
                "last_at": _time(refusal.last_at),
            }
            for refusal in session.scalars(select(Refusal).order_by(Refusal.last_at.desc()))
        ],
    }


def _summary(job: Job, study_instance_uid: str) -> dict[str, Any]:
    return {
        "id": job.id,
        "study_instance_uid": study_instance_uid,
        "series_instance_uid": job.series_instance_uid,
        "modality": job.modality,
        "rule": job.rule,
        "state": str(job.state),
        "wait_reason": job.wait_reason,
        "error": job.error,
        "attempts": job.attempts,
        "progress": job.progress,
        "received_at": _time(job.received_at),
        "updated_at": _time(job.updated_at),
        "finished_at": _time(job.finished_at),
    }


def _stage(stage: JobStage) -> dict[str, Any]:
    ended = stage.ended_at
    return {
        "stage": str(stage.stage),
        "attempt": stage.attempt,
        "started_at": _time(stage.started_at),
        "claimed_at": _time(stage.claimed_at),
        "ended_at": _time(ended),
        "seconds": None if ended is None else (ended - stage.started_at).total_seconds(),
        "note": stage.note,
    }


def _finding(finding: FindingRecord) -> dict[str, Any]:
    return {
        "target": finding.target,
        "text": finding.text,
        "phrase": finding.phrase,
        "presence": finding.presence,
        "confidence": finding.confidence,
        "predicted_iou": finding.predicted_iou,
        "key_frame": finding.key_frame,
        "segment_number": finding.segment_number,
        "tracking_uid": finding.tracking_uid,
        "measurements": dict(finding.measurements),
    }


def _result(result: ResultRecord, delivery: DeliveryRecord | None) -> dict[str, Any]:
    report: dict[str, Any] = {
        "kind": result.kind,
        "sop_class_uid": result.sop_class_uid,
        "sop_instance_uid": result.sop_instance_uid,
        "series_instance_uid": result.series_instance_uid,
        "file": result.path,
        "size": result.size,
        "sha256": result.sha256,
        "state": str(result.state),
        "problems": list(result.problems),
        "destination": None,
        "confirmed": False,
    }
    if delivery is not None:
        report |= {
            "destination": delivery.destination,
            "delivery": str(delivery.state),
            "status": delivery.status,
            "sentence": delivery.sentence,
            "attempts": delivery.attempts,
            "confirmed": delivery.state is DeliveryState.CONFIRMED,
            "confirmed_at": _time(delivery.confirmed_at),
            "confirmed_by": delivery.confirmed_by,
        }
    return report


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="milliseconds")
