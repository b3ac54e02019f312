"""Instances that a person withdrew: not found and not given out any more (`db.held`)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from db.models import Job, ResultRecord, Withdrawal


def record_withdrawal(
    session: Session,
    job_id: int,
    sop_instance_uids: Sequence[str],
    *,
    reason: str,
    words: str,
    account: str,
    now: datetime,
) -> None:
    """Withdraw instances of a job; what was withdrawn before keeps its first reason."""
    known = set(
        session.scalars(
            select(Withdrawal.sop_instance_uid).where(
                Withdrawal.sop_instance_uid.in_(list(sop_instance_uids))
            )
        )
    )
    session.add_all(
        Withdrawal(
            sop_instance_uid=uid,
            job_id=job_id,
            reason=reason[:16],
            words=words,
            account=account[:64],
            at=now,
        )
        for uid in sop_instance_uids
        if uid not in known
    )
    # Lists of jobs would go on to say that its results are in the PACS.
    job = session.get_one(Job, job_id)
    job.wait_reason = "its results were withdrawn: they are not given out here any more"
    session.flush()


def has_withdrawn(session: Session, job_id: int) -> bool:
    """Say whether some of the results that a job has now were withdrawn."""
    some = exists().where(
        ResultRecord.job_id == job_id,
        Withdrawal.sop_instance_uid == ResultRecord.sop_instance_uid,
    )
    return bool(session.scalar(select(some)))
