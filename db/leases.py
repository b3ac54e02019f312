"""Leases: the right of one worker to change one job.

A worker claims a job and gets a `Lease` with a fencing token; each write that it makes for the
job names the token and fails with `LostLease` once another worker, the sweep or an operator has
taken the job away. Nothing here commits: the caller's transaction does.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import ColumnElement, CursorResult, Update, and_, select, update
from sqlalchemy.orm import Session

from db.happenings import note_happening
from db.models import Job, JobStage
from db.stages import attempt_number, end_stage, next_stage, note_event, reason_before
from db.states import (
    END_STATES,
    RESTING_STATE_OF,
    RESTING_STATES,
    IllegalTransition,
    JobState,
    require_allowed,
)

_TOLD = frozenset({JobState.FAILED, JobState.DELIVERED})
"""Ends that people may want to be told of."""


class LostLease(Exception):  # noqa: N818 - it is no mistake, and says what happened
    """The job was taken from this worker; drop the work, write nothing more about it."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to work on a job.

    Attributes
    ----------
    job_id
        The job.
    owner
        Name of the worker, for people.
    token
        Fencing token; valid until the job is claimed, released, ended or freed again.
    """

    job_id: int
    owner: str
    token: int


def claim(
    session: Session,
    job_id: int,
    owner: str,
    frm: JobState,
    lease_seconds: float,
    now: datetime,
) -> Lease | None:
    """Take a resting job, if it still rests, is due and nobody has it.

    Parameters
    ----------
    session
        An open transaction.
    job_id
        The job.
    owner
        Name of the worker (host, process), shown to people.
    frm
        The resting state that the caller works on.
    lease_seconds
        Seconds after which the job counts as lost without a `heartbeat`.
    now
        Aware time.

    Returns
    -------
    Lease or None
        ``None`` when there is nothing to do: a doubled or late message does no harm.
    """
    if frm not in RESTING_STATES:
        raise IllegalTransition(f"a job is not claimed from {frm}")
    token = session.execute(
        update(Job)
        .where(
            Job.id == job_id,
            Job.state == frm,
            Job.lease_owner.is_(None),
            Job.next_attempt_at <= now,
        )
        .values(
            lease_owner=owner,
            lease_token=Job.lease_token + 1,
            lease_expires_at=now + timedelta(seconds=lease_seconds),
            updated_at=now,
        )
        .returning(Job.lease_token)
    ).scalar_one_or_none()
    if token is None:
        return None
    session.execute(
        update(JobStage)
        .where(JobStage.job_id == job_id, JobStage.ended_at.is_(None))
        .values(claimed_at=now, owner=owner)
    )
    return Lease(job_id=job_id, owner=owner, token=token)


def guard(session: Session, lease: Lease, **values: Any) -> None:
    """Write columns of the job, and hold its row until the transaction ends, under the token.

    Call it first in every transaction that writes anything on behalf of a worker.

    Raises
    ------
    LostLease
        When the token is not the job's any more.
    """
    values.setdefault("lease_token", lease.token)
    _checked(session, lease, _held(lease), values)


def heartbeat(
    session: Session,
    lease: Lease,
    lease_seconds: float,
    now: datetime,
    progress: float | None = None,
) -> None:
    """Prolong the lease; raises `LostLease` when it is gone. `progress` is 0..1 of the stage."""
    values: dict[str, Any] = {"lease_expires_at": now + timedelta(seconds=lease_seconds)}
    if progress is not None:
        values["progress"] = progress
    guard(session, lease, **values)


def advance(
    session: Session,
    lease: Lease,
    to: JobState,
    now: datetime,
    note: str | None = None,
) -> None:
    """Go on to the next stage.

    Reaching a resting state gives the lease back: the next step is another worker's.

    Parameters
    ----------
    session
        An open transaction.
    lease
        The worker's right to the job.
    to
        The next stage; ends are reached by `finish`, steps back by `postpone`.
    now
        Aware time.
    note
        Kept with the stage that ends, in words.

    Raises
    ------
    LostLease
        When the job is not this worker's any more.
    IllegalTransition
        When there is no such way.
    """
    state = _state_under(session, lease)
    require_allowed(state, to)
    if to in END_STATES or to is RESTING_STATE_OF[state]:
        raise IllegalTransition(f"{state} -> {to} is not a step on: use finish or postpone")
    values: dict[str, Any] = {
        "state": to,
        "wait_reason": "",
        "progress": None,
        "updated_at": now,
    }
    if to in RESTING_STATES:
        values |= at_rest(now) | {"attempts": 0, "lost_leases": 0, "strikes": 0}
    _checked(session, lease, and_(_held(lease), Job.state == state), values)
    attempt = 1 if to in RESTING_STATES else attempt_number(session, lease.job_id)
    next_stage(session, lease.job_id, to, now, note, attempt)


def postpone(
    session: Session,
    lease: Lease,
    resting_state: JobState,
    reason: str,
    at: datetime,
    *,
    now: datetime,
    strike: bool = False,
) -> bool:
    """Give the job back, to be tried again at a later time.

    A waiting job that goes on waiting only changes its reason; any other postponed job counts
    an attempt and starts its step anew. A reason that stays the same is no news: its event is
    noted at the first try, the second, the fourth, the eighth and so on, as a PACS that needs a
    day would fill a job's story with a hundred equal lines.

    Parameters
    ----------
    session
        An open transaction.
    lease
        The worker's right to the job.
    resting_state
        Resting state of the present step.
    reason
        Why, in words; shown as the job's wait reason.
    at
        Not before this time.
    now
        Aware time.
    strike
        Whether this attempt ended in an error of which few in a row are enough.

    Returns
    -------
    bool
        Whether the reason is news.

    Raises
    ------
    LostLease
        When the job is not this worker's any more.
    IllegalTransition
        When the state is not the resting state of the present step.
    """
    state = _state_under(session, lease)
    if RESTING_STATE_OF[state] is not resting_state:
        raise IllegalTransition(f"a job in {state} rests in {RESTING_STATE_OF[state]}")
    tries, waits_for = session.execute(
        select(Job.attempts + 1, Job.wait_reason).where(Job.id == lease.job_id)
    ).one()
    values: dict[str, Any] = {
        "state": resting_state,
        "wait_reason": reason,
        "progress": None,
        "updated_at": now,
        **at_rest(at),
    }
    goes_on_waiting = state is JobState.WAITING
    if not goes_on_waiting:
        values["attempts"] = Job.attempts + 1
        values["strikes"] = Job.strikes + 1 if strike else 0
    _checked(session, lease, and_(_held(lease), Job.state == state), values)
    if goes_on_waiting:
        return bool(reason != waits_for)
    is_power_of_two = tries & (tries - 1) == 0
    is_news = is_power_of_two or reason != reason_before(session, lease.job_id, tries - 1)
    next_stage(session, lease.job_id, resting_state, now, reason, tries + 1)
    if is_news:
        note_event(session, lease.job_id, f"{state}: {reason}", now, level="warning")
    return is_news


def finish(
    session: Session,
    lease: Lease | int,
    end_state: JobState,
    reason: str,
    *,
    now: datetime,
) -> bool:
    """End a job.

    Parameters
    ----------
    session
        An open transaction.
    lease
        The worker's lease, or a job's identifier when an operator or the sweep ends it: the
        fencing token then moves on, and a worker that still has the job loses it.
    end_state
        One of `END_STATES`.
    reason
        In words: what was the case and, for a failure, what to do.
    now
        Aware time.

    Returns
    -------
    bool
        False when a job named by its identifier had ended before; nothing is changed then.

    Raises
    ------
    LostLease
        When the job is not this worker's any more.
    IllegalTransition
        When the job cannot end so from its state.
    """
    if end_state not in END_STATES:
        raise IllegalTransition(f"{end_state} is not an end")
    job_id = lease.job_id if isinstance(lease, Lease) else lease
    if isinstance(lease, Lease):
        state = _state_under(session, lease)
    else:
        state = session.execute(
            select(Job.state).where(Job.id == job_id).with_for_update()
        ).scalar_one()
        if state in END_STATES:
            return False
    require_allowed(state, end_state)
    failed = end_state is JobState.FAILED
    session.execute(
        update(Job)
        .where(Job.id == job_id)
        .values(
            state=end_state,
            wait_reason="" if failed else reason,
            error=reason if failed else "",
            failed_stage=state if failed or end_state is JobState.CANCELLED else None,
            finished_at=now,
            updated_at=now,
            progress=None,
            lease_owner=None,
            lease_expires_at=None,
            lease_token=Job.lease_token + 1,
        )
    )
    end_stage(session, job_id, now, reason)
    session.add(JobStage(job_id=job_id, stage=end_state, started_at=now, ended_at=now, note=reason))
    note_event(session, job_id, f"{end_state}: {reason}", now, level="error" if failed else "info")
    if end_state in _TOLD:
        note_happening(session, job_id, end_state, now)
    return True


def at_rest(at: datetime) -> dict[str, Any]:
    """Columns of a job that lies without a lease until a time."""
    return {
        "lease_owner": None,
        "lease_expires_at": None,
        "announced_at": None,
        "next_attempt_at": at,
    }


def changed_rows(session: Session, statement: Update) -> int:
    """Run an UPDATE and say how many rows it changed."""
    result = session.execute(statement.execution_options(synchronize_session=False))
    return cast("CursorResult[Any]", result).rowcount


def _held(lease: Lease) -> ColumnElement[bool]:
    return and_(
        Job.id == lease.job_id, Job.lease_token == lease.token, Job.lease_owner.is_not(None)
    )


def _checked(
    session: Session, lease: Lease, where: ColumnElement[bool], values: dict[str, Any]
) -> None:
    if changed_rows(session, update(Job).where(where).values(**values)) != 1:
        raise LostLease(f"job {lease.job_id} is not {lease.owner}'s any more")


def _state_under(session: Session, lease: Lease) -> JobState:
    state = session.execute(
        select(Job.state).where(_held(lease)).with_for_update()
    ).scalar_one_or_none()
    if state is None:
        raise LostLease(f"job {lease.job_id} is not {lease.owner}'s any more")
    return state
