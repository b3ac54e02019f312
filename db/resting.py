"""What happens to jobs that no worker holds: found, freed, hurried, reopened."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import and_, null, or_, select, update
from sqlalchemy.orm import Session

from db.leases import at_rest, changed_rows, finish
from db.models import Job
from db.stages import attempt_number, next_stage, note_event
from db.states import (
    LIVE_STATES,
    REOPENABLE_STATES,
    RESTING_STATE_OF,
    RESTING_STATES,
    JobState,
    require_allowed,
)
from db.withdrawals import has_withdrawn


class Due(NamedTuple):
    """A job that waits for a worker: since when, and when it was announced last."""

    job_id: int
    state: JobState
    study_id: int
    priority: int
    since: datetime
    announced_at: datetime | None


class Released(NamedTuple):
    """A job whose worker was lost: where it rests now, or that it failed."""

    job_id: int
    state: JobState


def reopen(
    session: Session, job_id: int, reason: str, *, now: datetime, from_start: bool = False
) -> JobState | None:
    """Give a failed, cancelled or not applicable job another chance, at the step at which it ended.

    A study that ended before it became jobs (no rule fitted, its files could not be read) waits
    again, and so is looked at anew under the rules and the model of now.

    Parameters
    ----------
    session
        An open transaction.
    job_id
        The job.
    reason
        Who wants it, or why; shown with the job.
    now
        Aware time.
    from_start
        Begin at preparing, with new UIDs for the results: what an earlier step left is lost or bad.

    Returns
    -------
    JobState or None
        Where it rests now; ``None`` when it has not ended in one of these ways, another job does
        the same work by now, or its results were withdrawn and it does not begin at the start.
    """
    job = session.execute(
        select(Job).where(Job.id == job_id).with_for_update()
    ).scalar_one_or_none()
    if job is None or job.state not in REOPENABLE_STATES or _is_succeeded(session, job):
        return None
    if not from_start and has_withdrawn(session, job_id):
        return None
    resting = RESTING_STATE_OF[job.failed_stage or JobState.QUEUED]
    if job.pairing_key is None:
        resting = JobState.WAITING
    elif from_start:
        resting = JobState.QUEUED
    require_allowed(job.state, resting)
    values: dict[str, Any] = {
        "state": resting,
        "error": "",
        "wait_reason": reason,
        "failed_stage": None,
        "finished_at": None,
        "attempts": 0,
        "lost_leases": 0,
        "strikes": 0,
        "updated_at": now,
        "lease_token": Job.lease_token + 1,
        **at_rest(now),
    }
    if from_start:
        # Other bytes must not go out under UIDs that a destination may know.
        values["identifiers"] = null()
    session.execute(update(Job).where(Job.id == job_id).values(**values))
    next_stage(session, job_id, resting, now, None, 1)
    note_event(session, job_id, f"reopened: {reason}", now)
    return resting


def hurry(session: Session, job_id: int, now: datetime) -> bool:
    """Make a resting job due at once; False when it does not rest."""
    return bool(
        changed_rows(
            session,
            update(Job)
            .where(Job.id == job_id, Job.state.in_(RESTING_STATES), Job.lease_owner.is_(None))
            .values(next_attempt_at=now, announced_at=None, updated_at=now),
        )
    )


def has_expired(session: Session, now: datetime) -> bool:
    """Say whether `release_expired` has anything to do; reading only, so nobody has to wait."""
    found = select(Job.id).where(Job.lease_owner.is_not(None), Job.lease_expires_at <= now).limit(1)
    return session.execute(found).first() is not None


def forget_workers(session: Session, now: datetime) -> int:
    """Let every lease expire now and every message count as lost: no worker lives any more.

    Only for the start of a node that has its database for itself; the sweep then takes up the work
    at once, where it would otherwise wait for the leases of the dead to run out.

    Returns
    -------
    int
        Jobs that were held by a worker.
    """
    session.execute(
        update(Job)
        .where(Job.state.in_(LIVE_STATES), Job.announced_at.is_not(None))
        .values(announced_at=None)
    )
    held = update(Job).where(Job.lease_owner.is_not(None)).values(lease_expires_at=now)
    return changed_rows(session, held)


def release_expired(session: Session, now: datetime, max_attempts: int) -> list[Released]:
    """Free the jobs whose workers fell silent.

    Parameters
    ----------
    session
        An open transaction.
    now
        Aware time.
    max_attempts
        Lost workers after which one step of a job is given up: its input, or what it needs,
        kills them.

    Returns
    -------
    list of Released
        Each freed job with its resting state, or `JobState.FAILED`.
    """
    expired = session.execute(
        select(Job.id, Job.state, Job.lost_leases, Job.lease_owner)
        .where(Job.lease_owner.is_not(None), Job.lease_expires_at <= now)
        .order_by(Job.id)
        .with_for_update(skip_locked=True)
    ).all()
    released = []
    for job_id, state, lost, owner in expired:
        if lost + 1 >= max_attempts and state is not JobState.WAITING:
            finish(
                session,
                job_id,
                JobState.FAILED,
                f"the worker was lost {lost + 1} times while {state} this study; look for "
                "'killed' or 'out of memory' in the worker's log, then retry the job",
                now=now,
            )
            released.append(Released(job_id, JobState.FAILED))
            continue
        resting = RESTING_STATE_OF[state]
        session.execute(
            update(Job)
            .where(Job.id == job_id)
            .values(
                state=resting,
                wait_reason="the worker was lost; another one takes over",
                attempts=Job.attempts + 1,
                lost_leases=Job.lost_leases + 1,
                lease_token=Job.lease_token + 1,
                progress=None,
                updated_at=now,
                **at_rest(now),
            )
        )
        sentence = f"worker {owner} was lost while {state}"
        if state is not JobState.WAITING:
            next_stage(session, job_id, resting, now, sentence, attempt_number(session, job_id))
        note_event(session, job_id, sentence, now, level="warning")
        released.append(Released(job_id, resting))
    return released


def due(
    session: Session,
    now: datetime,
    *,
    announce_again_seconds: float = 60.0,
    limit: int = 500,
) -> list[Due]:
    """List the jobs that a worker should take, most urgent first.

    Jobs that `announced` noted lately are left out, so that a sweep each few seconds does not
    fill the queue with copies of its backlog.
    """
    since = now - timedelta(seconds=announce_again_seconds)
    rows = session.execute(
        select(
            Job.id,
            Job.state,
            Job.study_id,
            Job.priority,
            Job.next_attempt_at,
            Job.announced_at,
        )
        .where(
            Job.state.in_(RESTING_STATES),
            Job.next_attempt_at <= now,
            Job.lease_owner.is_(None),
            or_(Job.announced_at.is_(None), Job.announced_at <= since),
        )
        .order_by(Job.priority, Job.next_attempt_at, Job.id)
        .limit(limit)
    ).all()
    return [Due(*row) for row in rows]


def untaken(session: Session, since: datetime) -> list[int]:
    """List the queued jobs due before `since` without a reason, while no worker infers any job.

    With one that infers, they only wait for their turn.
    """
    busy = select(Job.id).where(Job.state.in_((JobState.PREPARING, JobState.INFERRING))).limit(1)
    if session.execute(busy).first() is not None:
        return []
    return list(
        session.scalars(
            select(Job.id).where(
                Job.state == JobState.QUEUED,
                Job.next_attempt_at <= since,
                Job.lease_owner.is_(None),
                Job.wait_reason == "",
            )
        )
    )


def explain(session: Session, job_ids: Sequence[int], reason: str) -> None:
    """Say why queued jobs wait, unless a worker took them up meanwhile."""
    session.execute(
        update(Job)
        .where(Job.id.in_(job_ids), Job.state == JobState.QUEUED, Job.lease_owner.is_(None))
        .values(wait_reason=reason)
    )


def announced(session: Session, job_ids: Sequence[int], now: datetime) -> None:
    """Note that a message about these jobs was sent."""
    if job_ids:
        session.execute(update(Job).where(Job.id.in_(job_ids)).values(announced_at=now))


def _is_succeeded(session: Session, job: Job) -> bool:
    """Whether another job stands for the same work: the same pair, or the same waiting study."""
    if job.pairing_key is None:
        same = and_(Job.study_id == job.study_id, Job.state == JobState.WAITING)
    else:
        standing = LIVE_STATES | {JobState.DELIVERED}
        same = and_(Job.pairing_key == job.pairing_key, Job.state.in_(standing))
    return session.execute(select(Job.id).where(same).limit(1)).first() is not None
