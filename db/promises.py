"""Received instances that the node has committed to: kept until an archive is proven to hold them.

Who asks for storage commitment deletes its own copy afterwards (PS3.4 annex J).
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import distinct, func, select, update
from sqlalchemy.orm import Session

from db.aging import may_age
from db.models import Instance, Series, Study

_AT_ONCE = 500
_PROMISED = (Instance.promised_at.is_not(None), Instance.purged_at.is_(None))


class Promise(NamedTuple):
    """A study of which nothing goes before an archive holds what the node committed to."""

    study_id: int
    study_instance_uid: str
    by_series: dict[str, set[str]]


def promise(session: Session, sop_instance_uids: Collection[str], now: datetime) -> None:
    """Keep these instances, if they are here; holds their studies, so that none is just deleted."""
    wanted = sorted(set(sop_instance_uids))
    for start in range(0, len(wanted), _AT_ONCE):
        of_these = Instance.sop_instance_uid.in_(wanted[start : start + _AT_ONCE])
        studies = select(Instance.study_id).where(of_these)
        session.execute(
            select(Study.id).where(Study.id.in_(studies)).order_by(Study.id).with_for_update()
        )
        session.execute(
            update(Instance)
            .where(of_these, Instance.purged_at.is_(None), Instance.promised_at.is_(None))
            .values(promised_at=now)
        )


def promises_due(
    session: Session, received_before: datetime, failed_before: datetime, limit: int
) -> list[Promise]:
    """List studies that could go by their age, but for what the node committed to.

    In any order: those that no archive ever gets must not stand before the others.
    """
    studies = session.execute(
        select(Study.id, Study.study_instance_uid)
        .where(
            Study.id.in_(select(Instance.study_id).where(*_PROMISED)),
            may_age(received_before, failed_before),
        )
        .order_by(func.random())
        .limit(limit)
    ).all()
    found = []
    for study_id, study_instance_uid in studies:
        by_series: dict[str, set[str]] = {}
        rows = session.execute(
            select(Series.series_instance_uid, Instance.sop_instance_uid)
            .join(Series, Series.id == Instance.series_id)
            .where(Instance.study_id == study_id, *_PROMISED)
        )
        for series, uid in rows:
            by_series.setdefault(series, set()).add(uid)
        found.append(Promise(study_id, study_instance_uid, by_series))
    return found


def redeem(session: Session, kept: Promise) -> None:
    """Note that an archive holds what was promised of a study; what was promised since stays."""
    for uids in kept.by_series.values():
        wanted = sorted(uids)
        for start in range(0, len(wanted), _AT_ONCE):
            session.execute(
                update(Instance)
                .where(
                    Instance.study_id == kept.study_id,
                    Instance.sop_instance_uid.in_(wanted[start : start + _AT_ONCE]),
                )
                .values(promised_at=None)
            )


def promised_studies(session: Session) -> int:
    """Count the studies that are kept so."""
    return session.scalar(select(func.count(distinct(Instance.study_id))).where(*_PROMISED)) or 0
