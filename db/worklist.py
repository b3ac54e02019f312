"""Workitems: what others asked of the node by UPS-RS, and how far the jobs of their studies are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.held import HELD_RESULT
from db.leases import finish
from db.models import Job, ResultRecord, Study
from db.models_operation import WorkItem
from db.states import LIVE_STATES, JobState

Step = Literal["SCHEDULED", "IN PROGRESS", "COMPLETED", "CANCELED"]
_ORDER = list(JobState)


@dataclass(frozen=True, slots=True)
class WorkOutput:
    """A result that stands for a workitem."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str


@dataclass(frozen=True, slots=True)
class WorkStatus:
    """Where a workitem stands.

    Attributes
    ----------
    step
        State of the procedure step (PS3.4 CC.1.1).
    progress
        From 0 to 100.
    sentence
        In words.
    outputs
        Results, once it is completed.
    """

    step: Step
    progress: float
    sentence: str
    outputs: Sequence[WorkOutput] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True)
class Performance:
    """What another performer says of a workitem that it has claimed.

    Attributes
    ----------
    by
        Who, as the table of users calls it.
    transaction_uid
        Its key to the workitem; nobody else is shown it (PS3.4 CC.1.1).
    step
        As it set it.
    dataset
        Attributes that it set, in DICOM JSON.
    cancel_wish
        Why somebody asked for the end of the work; empty: nobody did.
    """

    by: str
    transaction_uid: str
    step: Step = "IN PROGRESS"
    dataset: dict[str, Any] = field(default_factory=dict)
    cancel_wish: str = ""


def performance_of(item: WorkItem) -> Performance | None:
    """Return what another performer made of a workitem."""
    return None if item.performance is None else Performance(**item.performance)


def record_performance(item: WorkItem, performance: Performance) -> None:
    """Keep what another performer says; the caller has checked that it may."""
    item.performance = asdict(performance)


def add_workitem(
    session: Session,
    sop_instance_uid: str,
    study_instance_uid: str,
    dataset: dict[str, Any],
    created_by: str,
    now: datetime,
) -> bool:
    """Keep a workitem; False when its UID is known."""
    if session.get(WorkItem, sop_instance_uid) is not None:
        return False
    session.add(
        WorkItem(
            sop_instance_uid=sop_instance_uid,
            study_instance_uid=study_instance_uid,
            dataset=dataset,
            created_by=created_by,
            created_at=now,
        )
    )
    session.flush()
    return True


def workitem(session: Session, sop_instance_uid: str) -> WorkItem | None:
    """Return a workitem."""
    return session.get(WorkItem, sop_instance_uid)


def workitems(session: Session, study_instance_uid: str, limit: int) -> list[WorkItem]:
    """List workitems, the newest first; of one study, or of all."""
    statement = select(WorkItem).order_by(WorkItem.created_at.desc(), WorkItem.sop_instance_uid)
    if study_instance_uid:
        statement = statement.where(WorkItem.study_instance_uid == study_instance_uid)
    return list(session.scalars(statement.limit(limit)))


def status_of(session: Session, item: WorkItem) -> WorkStatus:
    """Say where a workitem stands that this node performs."""
    if item.cancelled_at is not None:
        return WorkStatus("CANCELED", 0.0, item.cancel_reason or "cancelled")
    return status_of_study(session, item.study_instance_uid)


def status_of_study(session: Session, study_instance_uid: str) -> WorkStatus:
    """Say how far the work for a study is: its jobs do it."""
    jobs = list(
        session.scalars(
            select(Job)
            .join(Study, Study.id == Job.study_id)
            .where(
                Study.study_instance_uid == study_instance_uid,
                Job.state.not_in([JobState.SUPERSEDED]),
            )
            .order_by(Job.id)
        )
    )
    live = [job for job in jobs if job.state in LIVE_STATES]
    if not jobs:
        return WorkStatus("SCHEDULED", 0.0, "the study has not arrived")
    if live:
        least = min(live, key=lambda job: _ORDER.index(job.state))
        begun = any(job.state not in (JobState.RECEIVED, JobState.WAITING) for job in jobs)
        done = sum(_share(job.state) for job in jobs) / len(jobs)
        step: Step = "IN PROGRESS" if begun else "SCHEDULED"
        return WorkStatus(step, round(100 * done, 1), least.wait_reason or str(least.state))
    if any(job.state is JobState.DELIVERED for job in jobs):
        return WorkStatus("COMPLETED", 100.0, jobs[-1].wait_reason, _outputs(session, jobs))
    last = jobs[-1]
    return WorkStatus("CANCELED", 0.0, last.error or last.wait_reason or str(last.state))


def cancel_workitem(session: Session, item: WorkItem, reason: str, now: datetime) -> int:
    """End the work for a workitem; returns how many jobs were cancelled."""
    item.cancelled_at, item.cancel_reason = now, reason
    return cancel_work(session, item.study_instance_uid, reason, now)


def cancel_work(session: Session, study_instance_uid: str, reason: str, now: datetime) -> int:
    """End the jobs of a study; returns how many."""
    live = session.scalars(
        select(Job.id)
        .join(Study, Study.id == Job.study_id)
        .where(Study.study_instance_uid == study_instance_uid, Job.state.in_(LIVE_STATES))
    ).all()
    return sum(finish(session, one, JobState.CANCELLED, reason, now=now) for one in live)


def _share(state: JobState) -> float:
    """Return how much of a job's way lies behind it."""
    if state not in LIVE_STATES:
        return 1.0
    return _ORDER.index(state) / _ORDER.index(JobState.DELIVERED)


def _outputs(session: Session, jobs: Sequence[Job]) -> tuple[WorkOutput, ...]:
    delivered = [job.id for job in jobs if job.state is JobState.DELIVERED]
    rows = session.scalars(
        select(ResultRecord)
        .where(ResultRecord.job_id.in_(delivered), HELD_RESULT)
        .order_by(ResultRecord.id)
    )
    return tuple(
        WorkOutput(one.sop_class_uid, one.sop_instance_uid, one.series_instance_uid) for one in rows
    )
