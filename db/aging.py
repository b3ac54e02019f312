"""What may go because it is old: sources, results, records.

Nothing that a job may still read is named here, and no result that is not proven elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, delete, exists, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from db.models import (
    REJECTION_NOTE,
    DeliveryRecord,
    DeliveryState,
    Instance,
    Job,
    JobInstance,
    Quarantine,
    Refusal,
    ResultRecord,
    ResultState,
    Study,
)
from db.states import END_STATES, LIVE_STATES, JobState


class AgedFile(NamedTuple):
    """A row whose file may go; the path is relative to the archive."""

    id: int
    path: str


def aged_studies(
    session: Session, received_before: datetime, failed_before: datetime, limit: int
) -> list[int]:
    """List studies whose sources may go, oldest first; none that the node committed to.

    Parameters
    ----------
    session
        Any session.
    received_before
        Studies whose last instance came earlier.
    failed_before
        A study with a failed job is kept for a retry unless the job failed earlier than this.
    limit
        At most so many.
    """
    oldest = (
        select(Instance.study_id)
        .join(Study, Study.id == Instance.study_id)
        .where(
            Instance.purged_at.is_(None),
            Instance.received_at < received_before,
            may_age(received_before, failed_before),
            ~_promised(),
        )
        .order_by(Instance.received_at)
        .limit(limit * 64)
    )
    return list(dict.fromkeys(session.scalars(oldest)))[:limit]


def aged_sources(
    session: Session,
    study_id: int,
    received_before: datetime,
    failed_before: datetime,
    limit: int,
) -> list[AgedFile]:
    """Hold a study and list some of its files, if they may go still.

    Until the transaction ends, no instance of the study is registered: the caller deletes the
    files and calls `db.catalog.forget` before that.
    """
    study = session.execute(
        select(Study.id)
        .where(Study.id == study_id, may_age(received_before, failed_before), ~_promised())
        .with_for_update()
    ).scalar_one_or_none()
    if study is None:
        return []
    rows = session.execute(
        select(Instance.id, Instance.path)
        .where(Instance.study_id == study_id, Instance.purged_at.is_(None))
        .order_by(Instance.id)
        .limit(limit)
    )
    return [AgedFile(*row) for row in rows]


def aged_results(session: Session, finished_before: datetime, limit: int) -> list[AgedFile]:
    """List results whose files may go: of delivered jobs, proven at a destination, every one.

    Results of a job without destinations lie nowhere else and stay. A rejection note goes after
    all that it rejects.
    """
    unproven = exists().where(
        DeliveryRecord.result_id == ResultRecord.id,
        DeliveryRecord.state != DeliveryState.CONFIRMED,
    )
    proven = exists().where(
        DeliveryRecord.result_id == ResultRecord.id,
        DeliveryRecord.state == DeliveryState.CONFIRMED,
    )
    other = aliased(ResultRecord)
    rejected = exists().where(
        other.job_id == ResultRecord.job_id,
        other.kind != REJECTION_NOTE,
        other.purged_at.is_(None),
    )
    rows = session.execute(
        select(ResultRecord.id, ResultRecord.path)
        .join(Job, Job.id == ResultRecord.job_id)
        .where(
            ResultRecord.purged_at.is_(None),
            ResultRecord.created_at < finished_before,
            Job.state == JobState.DELIVERED,
            Job.finished_at < finished_before,
            or_(
                and_(ResultRecord.kind != REJECTION_NOTE, proven, ~unproven),
                and_(ResultRecord.kind == REJECTION_NOTE, ~rejected),
            ),
        )
        .order_by(ResultRecord.created_at)
        .limit(limit)
    )
    return [AgedFile(*row) for row in rows]


def forget_results(session: Session, result_ids: Iterable[int], now: datetime) -> None:
    """Note that the files of these results were deleted."""
    session.execute(
        update(ResultRecord).where(ResultRecord.id.in_(list(result_ids))).values(purged_at=now)
    )


def aged_jobs(session: Session, finished_before: datetime, limit: int) -> list[int]:
    """List ended jobs whose records may go: none that has a result that is still kept and sound."""
    kept = exists().where(
        ResultRecord.job_id == Job.id,
        ResultRecord.purged_at.is_(None),
        Job.state == JobState.DELIVERED,
        ResultRecord.state == ResultState.READY,
    )
    return list(
        session.scalars(
            select(Job.id)
            .where(Job.finished_at < finished_before, Job.state.in_(END_STATES), ~kept)
            .order_by(Job.finished_at)
            .limit(limit)
        )
    )


def delete_jobs(session: Session, job_ids: Sequence[int]) -> list[str]:
    """Delete jobs with all that belongs to them, and studies of which nothing is left.

    Returns
    -------
    list of str
        Paths of result files that were kept to the last; delete them.
    """
    if not job_ids:
        return []
    ids = list(job_ids)
    paths = session.scalars(
        select(ResultRecord.path).where(
            ResultRecord.job_id.in_(ids), ResultRecord.purged_at.is_(None)
        )
    ).all()
    studies = set(session.scalars(select(Job.study_id).where(Job.id.in_(ids))))
    session.execute(delete(Job).where(Job.id.in_(ids)))
    session.execute(
        delete(Study).where(
            Study.id.in_(studies),
            ~exists().where(Job.study_id == Study.id),
            ~exists().where(Instance.study_id == Study.id, Instance.purged_at.is_(None)),
            ~exists().where(Instance.study_id == Study.id, JobInstance.instance_id == Instance.id),
        )
    )
    return list(paths)


def aged_quarantine(session: Session, received_before: datetime, limit: int) -> list[AgedFile]:
    """List objects in quarantine that may go."""
    rows = session.execute(
        select(Quarantine.id, Quarantine.path)
        .where(Quarantine.received_at < received_before, Quarantine.resolved_at.is_(None))
        .order_by(Quarantine.received_at)
        .limit(limit)
    )
    return [AgedFile(*row) for row in rows]


def excess_quarantine(session: Session, size: int, limit: int) -> list[AgedFile]:
    """List the oldest objects in quarantine that lie there beyond a size in bytes."""
    newest_first = (Quarantine.received_at.desc(), Quarantine.id.desc())
    kept = (
        select(
            Quarantine.id,
            Quarantine.path,
            func.sum(Quarantine.size).over(order_by=newest_first).label("so_far"),
        )
        .where(Quarantine.resolved_at.is_(None))
        .subquery()
    )
    rows = session.execute(
        select(kept.c.id, kept.c.path)
        .where(kept.c.so_far > size)
        .order_by(kept.c.so_far.desc())
        .limit(limit)
    )
    return [AgedFile(*row) for row in rows]


def resolve_quarantine(
    session: Session, quarantine_ids: Iterable[int], resolution: str, now: datetime
) -> None:
    """Note what became of objects in quarantine."""
    session.execute(
        update(Quarantine)
        .where(Quarantine.id.in_(list(quarantine_ids)))
        .values(resolved_at=now, resolution=resolution)
    )


def forget_refusals(session: Session, last_before: datetime) -> None:
    """Delete the counts of senders that have not tried for long."""
    session.execute(delete(Refusal).where(Refusal.last_at < last_before))


def may_age(received_before: datetime, failed_before: datetime) -> ColumnElement[bool]:
    """Whether a study is old enough to lose its sources, and no job reads them any more."""
    return and_(Study.last_received_at < received_before, ~_needed(failed_before))


def _promised() -> ColumnElement[bool]:
    """Whether the node committed to sources of the study; see `db.promises`."""
    one = aliased(Instance)
    return exists().where(
        one.study_id == Study.id, one.promised_at.is_not(None), one.purged_at.is_(None)
    )


def _needed(failed_before: datetime) -> ColumnElement[bool]:
    """Whether some job of the study reads its sources, or may when it is retried."""
    return exists().where(
        Job.study_id == Study.id,
        or_(
            Job.state.in_(LIVE_STATES),
            and_(Job.state == JobState.FAILED, Job.finished_at >= failed_before),
        ),
    )
