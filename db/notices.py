"""Notices about jobs: which are to be sent, and how far each is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from sqlalchemy import exists, func, select, update
from sqlalchemy.orm import Session, joinedload

from db.models import Job
from db.models_operation import Notice, NoticeState

ATTEMPTS: Final = 80
_FIRST_PAUSE: Final = timedelta(seconds=20)
_LONGEST_PAUSE: Final = timedelta(hours=1)


def told_already(session: Session, job_ids: Sequence[int], kind: str) -> set[tuple[int, str]]:
    """Return for which of these jobs, by which channel, there is a notice of this kind."""
    rows = session.execute(
        select(Notice.job_id, Notice.channel).where(Notice.job_id.in_(job_ids), Notice.kind == kind)
    )
    return {(job_id, channel) for job_id, channel in rows}


def rules_of(session: Session, job_ids: Sequence[int]) -> dict[int, str]:
    """Return the name of the rule by which each of these jobs was made."""
    rows = session.execute(select(Job.id, Job.rule).where(Job.id.in_(job_ids)))
    return {job_id: rule for job_id, rule in rows}


def add_notice(
    session: Session, job_id: int, kind: str, channel: str, at: datetime, now: datetime
) -> None:
    """Note that something is to be sent, which happened at that time."""
    session.add(Notice(job_id=job_id, kind=kind, channel=channel, made_at=at, next_attempt_at=now))


def take_due(
    session: Session, channel: str, now: datetime, seconds: float, *, most: int, only: str = ""
) -> list[Notice]:
    """Take what is to be sent now by a channel, oldest first; nobody else gets it for a while.

    Parameters
    ----------
    channel
        Its name.
    seconds
        For so long; who dies meanwhile leaves it to another one.
    most
        No more than so many.
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
        .order_by(Notice.next_attempt_at, Notice.id)
        .limit(most)
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
