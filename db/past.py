"""Studies that came in lately, as rules are tried on them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.models import Instance, Job, ResultRecord, Series, Study, StudyAssociation


@dataclass(frozen=True, slots=True)
class PastSeries:
    """One series.

    Attributes
    ----------
    path
        One of its files, relative to the archive; None when all are gone.
    instances
        How many came in.
    is_own
        Whether the node wrote it.
    called_ae_titles
        What the node was called when its study was sent.
    """

    series_instance_uid: str
    path: str | None
    instances: int
    is_own: bool
    called_ae_titles: frozenset[str]


def past_series(session: Session, since: datetime, limit: int) -> dict[str, list[PastSeries]]:
    """Return the series of the studies that came in since then, the newest first."""
    studies = session.execute(
        select(Study.id, Study.study_instance_uid)
        .where(Study.last_received_at >= since)
        .order_by(Study.last_received_at.desc())
        .limit(limit)
    ).all()
    ids = [study_id for study_id, _ in studies]
    called: dict[int, set[str]] = defaultdict(set)
    for study_id, title in session.execute(
        select(StudyAssociation.study_id, StudyAssociation.called_ae_title).where(
            StudyAssociation.study_id.in_(ids)
        )
    ):
        called[study_id].add(title)
    own = set(
        session.scalars(
            select(ResultRecord.series_instance_uid)
            .join(Job, Job.id == ResultRecord.job_id)
            .where(Job.study_id.in_(ids))
        )
    )
    first = (
        select(Instance.path)
        .where(Instance.series_id == Series.id, Instance.purged_at.is_(None), ~Instance.conflict)
        .limit(1)
        .scalar_subquery()
    )
    of_study: dict[int, list[PastSeries]] = defaultdict(list)
    for study_id, uid, count, path in session.execute(
        select(Series.study_id, Series.series_instance_uid, Series.number_of_instances, first)
        .where(Series.study_id.in_(ids))
        .order_by(Series.id)
    ):
        titles = frozenset(called[study_id])
        of_study[study_id].append(PastSeries(uid, path, max(1, count), uid in own, titles))
    return {uid: of_study[study_id] for study_id, uid in studies}
