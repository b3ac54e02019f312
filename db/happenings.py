"""What happened to jobs that people may be to be told of, on its way to notices."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import delete, exists, select
from sqlalchemy.orm import Session

from db.models_operation import Happening

FOUND: Final = "found"
"""The model found something; ends of jobs are named as their states are."""


def note_happening(session: Session, job_id: int, kind: str, at: datetime) -> None:
    """Keep that something happened, in the transaction in which it does."""
    session.add(Happening(job_id=job_id, kind=kind, at=at))


def has_happened(session: Session) -> bool:
    """Say whether there is anything to be made into notices."""
    return session.execute(select(exists().where(Happening.id > 0))).scalar_one()


def take_happenings(session: Session, most: int) -> list[Happening]:
    """Take out what happened, the oldest first; another one who takes at the same time gets others.

    What is taken is gone with the caller's transaction, or is still there without it.
    """
    found = list(
        session.scalars(
            select(Happening).order_by(Happening.id).limit(most).with_for_update(skip_locked=True)
        )
    )
    session.execute(
        delete(Happening)
        .where(Happening.id.in_([one.id for one in found]))
        .execution_options(synchronize_session=False)
    )
    for one in found:
        session.expunge(one)
    return found
