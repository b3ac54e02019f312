"""What is known of jobs, as plain values that can be printed or sent as JSON.

No patient data: a job is named by its number and its DICOM UIDs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.listing import as_text, job_as_json, list_jobs
from db.models import Instance, Quarantine, Refusal, Study
from db.states import JobState

__all__ = ["intake_report", "job_list", "job_report", "refusals"]


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
    wanted = list(states)
    jobs: list[dict[str, Any]] = []
    before: int | None = None
    while limit is None or len(jobs) < limit:
        page = list_jobs(
            session,
            states=wanted,
            study_instance_uid=study_instance_uid,
            before=before,
            limit=1000 if limit is None else limit - len(jobs),
        )
        jobs += page.jobs
        before = page.next_before
        if before is None:
            break
    return jobs


def job_report(session: Session, job_id: int) -> dict[str, Any] | None:
    """Return all that is known of a job, or None when there is no such job.

    See `db.listing.job_as_json`.
    """
    return job_as_json(session, job_id)


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
                "received_at": as_text(entry.received_at),
            }
            for entry in quarantined
        ],
        "refused": refusals(session),
    }


def refusals(session: Session) -> list[dict[str, Any]]:
    """Return who was refused, why, how often and when, the last first."""
    return [
        {
            "calling_ae_title": refusal.calling_ae_title,
            "called_ae_title": refusal.called_ae_title,
            "host": refusal.peer_host,
            "sentence": refusal.sentence,
            "count": refusal.count,
            "last_at": as_text(refusal.last_at),
        }
        for refusal in session.scalars(select(Refusal).order_by(Refusal.last_at.desc()))
    ]
