"""Notices about jobs: which are to be sent, and how far each is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from sqlalchemy import exists, func, select, update
from sqlalchemy.orm import Session, joinedload

from db.models import FindingRecord, Job
from db.models_operation import Notice, NoticeState
from db.states import JobState

ATTEMPTS: Final = 80
_FIRST_PAUSE: Final = timedelta(seconds=20)
_LONGEST_PAUSE: Final = timedelta(hours=1)
_AT_ONCE: Final = 200
_ENDED_AT_ONCE: Final = 5000
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
            .limit(_ENDED_AT_ONCE)
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


def take_due(
    session: Session, channel: str, now: datetime, seconds: float, *, only: str = ""
) -> list[Notice]:
    """Take what is to be sent now by a channel, oldest first; nobody else gets it for a while.

    Parameters
    ----------
    channel
        Its name.
    seconds
        For so long; who dies meanwhile leaves it to another one.
    only
        A kind; without, all kinds.
    """
    due = (
        select(Notice.id)
        .where(
            Notice.channel == channel,
            Notice.state == NoticeState.PENDING,
            Notice.next_attempt_at <= now,
            *([Notice.kind == only] if only else []),
        )
        .order_by(Notice.next_attempt_at)
        .limit(_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    ids = list(session.scalars(due))
    session.execute(
        update(Notice)
        .where(Notice.id.in_(ids))
        .values(next_attempt_at=now + timedelta(seconds=seconds))
        .execution_options(synchronize_session=False)
    )
    return list(session.scalars(select(Notice).where(Notice.id.in_(ids)).order_by(Notice.id)))


def put_back(session: Session, notice_ids: Sequence[int], now: datetime) -> None:
    """Let what was taken and not tried be taken again, after what was tried."""
    session.execute(
        update(Notice)
        .where(Notice.id.in_(notice_ids), Notice.state == NoticeState.PENDING)
        .where(Notice.attempts == 0)
        .values(next_attempt_at=now + _FIRST_PAUSE)
        .execution_options(synchronize_session=False)
    )


def sent_since(session: Session, channel: str, since: datetime) -> bool:
    """Say whether a channel took something since then."""
    return session.execute(
        select(
            exists().where(
                Notice.channel == channel,
                Notice.state == NoticeState.SENT,
                Notice.next_attempt_at > since,
            )
        )
    ).scalar_one()


def forget_channels(session: Session, known: Sequence[str]) -> None:
    """Give up what was to go by channels that ``node.yaml`` does not have any more."""
    session.execute(
        update(Notice)
        .where(Notice.state == NoticeState.PENDING, Notice.channel.not_in(known))
        .values(state=NoticeState.GIVEN_UP, sentence="this channel is not in node.yaml any more")
        .execution_options(synchronize_session=False)
    )


class Silence(NamedTuple):
    """A channel by which nothing goes out at the moment."""

    channel: str
    waiting: int
    sentence: str


def silent_channels(session: Session, channels: Sequence[str]) -> list[Silence]:
    """List the channels whose notices were tried and not taken, with how many wait."""
    rows = session.execute(
        select(Notice.channel, func.count(), func.max(Notice.sentence))
        .where(Notice.state == NoticeState.PENDING, Notice.channel.in_(channels))
        .group_by(Notice.channel)
        .having(func.max(Notice.attempts) > 0)
        .order_by(Notice.channel)
    )
    return [Silence(*row) for row in rows]


def told_job(session: Session, job_id: int) -> Job | None:
    """Return a job with its study."""
    return session.get(Job, job_id, options=[joinedload(Job.study)])


def note_sending(session: Session, notice_ids: Sequence[int], problem: str, now: datetime) -> None:
    """Note that notices were sent (`next_attempt_at` says when), or why not.

    After `ATTEMPTS`, which take three days, one is given up.
    """
    for notice in session.scalars(select(Notice).where(Notice.id.in_(notice_ids))):
        notice.attempts += 1
        notice.sentence = problem
        if not problem:
            notice.state, notice.next_attempt_at = NoticeState.SENT, now
        elif notice.attempts >= ATTEMPTS:
            notice.state = NoticeState.GIVEN_UP
        else:
            pause = _FIRST_PAUSE * 2 ** min(notice.attempts - 1, 20)
            notice.next_attempt_at = now + min(pause, _LONGEST_PAUSE)
