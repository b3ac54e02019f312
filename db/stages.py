"""The record of a job's stages and events, kept by every change of state."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from db.models import Job, JobEvent, JobStage
from db.states import JobState


def note_event(
    session: Session, job_id: int, text: str, at: datetime, *, level: str = "info"
) -> None:
    """Keep what happened to a job, in words (no names of patients)."""
    session.add(JobEvent(job_id=job_id, at=at, level=level, text=text))
    session.flush()


def attempt_number(session: Session, job_id: int) -> int:
    """Which try of its present step the job is at, from 1."""
    return 1 + session.execute(select(Job.attempts).where(Job.id == job_id)).scalar_one()


def reason_before(session: Session, job_id: int, attempts: int) -> str:
    """Give why the try before the present one ended; empty where there was none."""
    found = session.scalars(
        select(JobStage.note)
        .where(
            JobStage.job_id == job_id,
            JobStage.attempt == attempts,
            JobStage.ended_at.is_not(None),
        )
        .order_by(JobStage.id.desc())
        .limit(1)
    ).first()
    return found or ""


def end_stage(session: Session, job_id: int, now: datetime, note: str | None) -> None:
    """Close the open stage."""
    values: dict[str, Any] = {"ended_at": now}
    if note:
        values["note"] = note
    session.execute(
        update(JobStage)
        .where(JobStage.job_id == job_id, JobStage.ended_at.is_(None))
        .values(**values)
    )


def next_stage(
    session: Session, job_id: int, stage: JobState, now: datetime, note: str | None, attempt: int
) -> None:
    """Close the open stage and open the next."""
    end_stage(session, job_id, now, note)
    session.add(JobStage(job_id=job_id, stage=stage, attempt=attempt, started_at=now))
    session.flush()
