"""Moves to the node itself: asked for by one of its processes, recognised by the listener."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from db.models_told import OwnMove

_MESSAGE_IDS = 0xFFFF
# Others count from 1: what somebody else has a PACS move here must not look like ours.
_FIRST = 30_000


def begin(
    session: Session,
    *,
    study_instance_uid: str,
    folder: str,
    senders: Collection[str],
    originator: str,
    now: datetime,
    until: datetime,
    job_id: int | None = None,
) -> OwnMove:
    """Note a C-MOVE before it is asked for; what an attempt before left open for the job ends."""
    if job_id is not None:
        session.execute(
            update(OwnMove)
            .where(OwnMove.job_id == job_id, OwnMove.ended_at.is_(None))
            .values(ended_at=now)
        )
    move = OwnMove(
        job_id=job_id,
        study_instance_uid=study_instance_uid,
        folder=folder,
        senders=sorted(senders),
        originator=originator,
        until=until,
    )
    session.add(move)
    session.flush()
    # No two that are under way have the same: 65,535 others would have to begin meanwhile.
    move.message_id = (move.id - 1 + _FIRST) % _MESSAGE_IDS + 1
    session.flush()
    return move


def end(session: Session, move_id: int, now: datetime) -> None:
    """Note that nothing more is expected of it."""
    session.execute(update(OwnMove).where(OwnMove.id == move_id).values(ended_at=now))


def find(session: Session, study_instance_uid: str, message_id: int) -> OwnMove | None:
    """Return the move that an instance says it belongs to: the last one, or None."""
    return session.scalars(
        select(OwnMove)
        .where(OwnMove.study_instance_uid == study_instance_uid, OwnMove.message_id == message_id)
        .order_by(OwnMove.id.desc())
        .limit(1)
    ).first()


def forget_moves(session: Session, before: datetime) -> None:
    """Delete those that belong to no job, and were over before a time."""
    session.execute(delete(OwnMove).where(OwnMove.job_id.is_(None), OwnMove.until < before))
