"""Which jobs changed lately, for pages that are open."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.models import Job

_MANY = 200


class Changed(NamedTuple):
    """A job that changed."""

    job_id: int
    state: str
    updated_at: datetime


def last_change(session: Session) -> datetime:
    """Return when any job changed last; the beginning of time without jobs."""
    found = session.scalars(select(Job.updated_at).order_by(Job.updated_at.desc()).limit(1)).first()
    return found or datetime(1970, 1, 1, tzinfo=UTC)


def changed_since(session: Session, since: datetime) -> list[Changed]:
    """List the jobs that changed after a time, the latest first, at most some hundreds."""
    rows = session.execute(
        select(Job.id, Job.state, Job.updated_at)
        .where(Job.updated_at > since)
        .order_by(Job.updated_at.desc())
        .limit(_MANY)
    )
    return [Changed(job_id, str(state), at) for job_id, state, at in rows]


def under_way(session: Session) -> dict[int, float | None]:
    """Return how far the jobs are that a worker has in hand: 0 to 1 of the present stage."""
    rows = session.execute(
        select(Job.id, Job.progress)
        .where(Job.lease_owner.is_not(None))
        .order_by(Job.lease_expires_at)
    )
    return {job_id: progress for job_id, progress in rows}
