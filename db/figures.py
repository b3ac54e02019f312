"""Figures of the node as a whole, for its first page and its metrics."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.models import Job
from db.states import LIVE_STATES


def state_counts(session: Session) -> dict[str, int]:
    """Count the live jobs of each state; ended ones are too many to be counted each time."""
    rows = session.execute(
        select(Job.state, func.count(Job.id)).where(Job.state.in_(LIVE_STATES)).group_by(Job.state)
    )
    return {str(state): count for state, count in rows}
