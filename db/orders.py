"""What people order about jobs: go on now, try again, end, sooner or later.

Each order says in a sentence what came of it; two people who press the same button at once get the
same job in the same state, and the second is told so.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from db.leases import changed_rows, finish
from db.models import Job
from db.resting import hurry, reopen
from db.stages import note_event
from db.states import LIVE_STATES, JobState
from db.withdrawals import has_withdrawn

PRIORITIES: Final = {"stat": 0, "urgent": 3, "routine": 6}


class Order(enum.StrEnum):
    """What can be ordered."""

    RETRY = "retry"
    RESTART = "restart"
    CANCEL = "cancel"
    STAT = "stat"
    URGENT = "urgent"
    ROUTINE = "routine"


class Outcome(NamedTuple):
    """What came of an order for one job."""

    job_id: int
    done: bool
    sentence: str


def give(
    session: Session, order: Order, job_ids: Iterable[int], who: str, now: datetime
) -> list[Outcome]:
    """Give an order for some jobs.

    Parameters
    ----------
    session
        An open transaction.
    order
        ``retry`` goes on where a job ended, or hurries one that waits; ``restart`` begins at the
        images, with new UIDs.
    job_ids
        The jobs; each once, in order of their numbers.
    who
        Who wants it; kept with the job.
    now
        Aware time.
    """
    outcomes = []
    for job_id in sorted(set(job_ids)):
        if session.scalars(select(Job.id).where(Job.id == job_id)).first() is None:
            outcomes.append(Outcome(job_id, False, f"There is no job {job_id} any more."))
            continue
        if order in (Order.RETRY, Order.RESTART):
            outcomes.append(_retry(session, job_id, who, now, order is Order.RESTART))
        elif order is Order.CANCEL:
            outcomes.append(_cancel(session, job_id, who, now))
        else:
            outcomes.append(_prioritise(session, job_id, order, who, now))
    return outcomes


def _retry(session: Session, job_id: int, who: str, now: datetime, anew: bool) -> Outcome:
    state = reopen(session, job_id, f"tried again by {who}", now=now, from_start=anew)
    if state is not None:
        return Outcome(job_id, True, f"Job {job_id} goes on: {state}.")
    if hurry(session, job_id, now):
        # A study that waits is complete, then, with what is here.
        session.execute(
            update(Job)
            .where(Job.id == job_id, Job.state == JobState.WAITING)
            .values(complete_by=who[:64])
        )
        note_event(session, job_id, f"{who} wants it to go on now", now)
        return Outcome(job_id, True, f"Job {job_id} is looked at at once.")
    if not anew and has_withdrawn(session, job_id):
        return Outcome(
            job_id, False, f"The results of job {job_id} were withdrawn; it can only begin anew."
        )
    return Outcome(job_id, False, _why_left(session, job_id))


def _cancel(session: Session, job_id: int, who: str, now: datetime) -> Outcome:
    if finish(session, job_id, JobState.CANCELLED, f"cancelled by {who}", now=now):
        return Outcome(job_id, True, f"Job {job_id} is cancelled.")
    return Outcome(job_id, False, _why_left(session, job_id))


def _prioritise(session: Session, job_id: int, order: Order, who: str, now: datetime) -> Outcome:
    changed = changed_rows(
        session,
        update(Job)
        .where(Job.id == job_id, Job.state.in_(LIVE_STATES))
        # Announced anew: the message that waits in the queue has the old priority.
        .values(priority=PRIORITIES[order], announced_at=None, updated_at=now),
    )
    if not changed:
        return Outcome(job_id, False, _why_left(session, job_id))
    note_event(session, job_id, f"{who} made it {order}", now)
    return Outcome(job_id, True, f"Job {job_id} is {order} now.")


def _why_left(session: Session, job_id: int) -> str:
    job = session.get_one(Job, job_id, populate_existing=True)
    if job.finished_at is None:
        return f"Job {job_id} is left as it is: a worker has it ({job.state})."
    return f"Job {job_id} is left as it is: it is {job.state}."
