"""What is to be done when the computer's clock was set back.

Every wait is kept as a time, so that it outlives its process. Times that lie ahead of the clock
would make jobs sleep until it has caught up, an hour for a wrong time zone.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, and_, select, update
from sqlalchemy.orm import Session

from db.models import Job, Study, StudyAssociation
from db.states import LIVE_STATES


def is_set_back(session: Session, limit: datetime) -> bool:
    """Say whether live jobs were written later than ``limit``, which lies ahead of the clock."""
    return session.execute(select(Job.id).where(_ahead(limit)).limit(1)).first() is not None


def follow_clock(session: Session, now: datetime, limit: datetime, lease_ends: datetime) -> int:
    """Bring the times of live jobs, and of their studies, back to the clock.

    Parameters
    ----------
    session
        An open transaction.
    now
        What the clock says.
    limit
        See `is_set_back`.
    lease_ends
        When leases end that would outlast it: a worker that lives renews its own long before.

    Returns
    -------
    int
        Jobs whose times were brought back.
    """
    jobs = session.execute(select(Job.id, Job.study_id).where(_ahead(limit))).all()
    studies = {study for _, study in jobs}
    session.execute(
        update(Study)
        .where(Study.id.in_(studies), Study.last_received_at > now)
        .values(last_received_at=now)
    )
    for column in (StudyAssociation.last_received_at, StudyAssociation.ended_at):
        session.execute(
            update(StudyAssociation)
            .where(StudyAssociation.study_id.in_(studies), column > now)
            .values({column: now})
        )
    ids = [job for job, _ in jobs]
    session.execute(
        update(Job).where(Job.id.in_(ids), Job.received_at > now).values(received_at=now)
    )
    session.execute(
        update(Job)
        .where(Job.id.in_(ids), Job.lease_owner.is_not(None), Job.lease_expires_at > lease_ends)
        .values(lease_expires_at=lease_ends)
    )
    session.execute(
        update(Job)
        .where(Job.id.in_(ids))
        .values(next_attempt_at=now, announced_at=None, updated_at=now)
    )
    return len(ids)


def _ahead(limit: datetime) -> ColumnElement[bool]:
    return and_(Job.state.in_(LIVE_STATES), Job.updated_at > limit)
