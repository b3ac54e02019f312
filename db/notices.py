"""Notices about jobs: which are to be sent, and how far each is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload

from db.models import FindingRecord, Job
from db.models_operation import Notice, NoticeState
from db.states import JobState

ATTEMPTS: Final = 12
_FIRST_PAUSE: Final = timedelta(seconds=20)
_LONGEST_PAUSE: Final = timedelta(hours=1)
_AT_ONCE: Final = 200
_FINDINGS_AT_ONCE: Final = 2000


class Ended(NamedTuple):
    """A job that ended."""

    job_id: int
    state: JobState


class Found(NamedTuple):
    """A target that a job found present, and the rule by which it was looked for."""

    job_id: int
    rule: str
    target: str


def ended_jobs(session: Session, since: datetime) -> list[Ended]:
    """List the jobs that failed or were delivered since then, the newest first."""
    rows: list[Ended] = []
    for state in (JobState.FAILED, JobState.DELIVERED):
        found = session.scalars(
            select(Job.id)
            .where(Job.state == state, Job.finished_at >= since)
            .order_by(Job.finished_at.desc())
            .limit(_AT_ONCE)
        )
        rows += [Ended(job_id, state) for job_id in found]
    return rows


def found_present(session: Session, rules: Sequence[str], since: datetime) -> list[Found]:
    """List what jobs of these rules that changed since then found present, in order."""
    rows = session.execute(
        select(Job.id, Job.rule, FindingRecord.target)
        .join(FindingRecord, FindingRecord.job_id == Job.id)
        .where(Job.rule.in_(rules), Job.updated_at >= since, FindingRecord.presence == "present")
        .order_by(Job.updated_at.desc(), FindingRecord.position)
        .limit(_FINDINGS_AT_ONCE)
    )
    return [Found(*row) for row in rows]


def present_targets(session: Session, job_id: int) -> list[str]:
    """List the targets that a job found present, in the order of its findings."""
    return list(
        session.scalars(
            select(FindingRecord.target)
            .where(FindingRecord.job_id == job_id, FindingRecord.presence == "present")
            .order_by(FindingRecord.position)
        )
    )


def known_notices(session: Session, job_ids: Sequence[int]) -> set[tuple[int, str, str]]:
    """Return the notices that there are: job, kind, channel."""
    rows = session.execute(
        select(Notice.job_id, Notice.kind, Notice.channel).where(Notice.job_id.in_(job_ids))
    )
    return {(job_id, kind, channel) for job_id, kind, channel in rows}


def add_notice(session: Session, job_id: int, kind: str, channel: str, now: datetime) -> None:
    """Note that something is to be sent."""
    session.add(Notice(job_id=job_id, kind=kind, channel=channel, made_at=now, next_attempt_at=now))


def due_notices(session: Session, now: datetime) -> list[Notice]:
    """List what is to be sent now, oldest first."""
    return list(
        session.scalars(
            select(Notice)
            .where(Notice.state == NoticeState.PENDING, Notice.next_attempt_at <= now)
            .order_by(Notice.next_attempt_at)
            .limit(_AT_ONCE)
        )
    )


def told_job(session: Session, job_id: int) -> Job | None:
    """Return a job with its study."""
    return session.get(Job, job_id, options=[joinedload(Job.study)])


def note_sending(session: Session, notice_id: int, problem: str, now: datetime) -> None:
    """Note that a notice was sent, or why not; after `ATTEMPTS` it is given up."""
    notice = session.get_one(Notice, notice_id)
    notice.attempts += 1
    notice.sentence = problem
    if not problem:
        notice.state = NoticeState.SENT
    elif notice.attempts >= ATTEMPTS:
        notice.state = NoticeState.GIVEN_UP
    else:
        pause = _FIRST_PAUSE * 2 ** (notice.attempts - 1)
        notice.next_attempt_at = now + min(pause, _LONGEST_PAUSE)
