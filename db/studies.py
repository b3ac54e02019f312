"""Studies and series of the archive, as pages list them."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from db.models import Instance, Job, Series, Study

__all__ = [
    "StudyPage",
    "instances_of_series",
    "list_studies",
    "series_of",
    "series_of_job",
    "study_of",
]


@dataclass(frozen=True, slots=True)
class StudyPage:
    """A page of studies, newest first.

    Attributes
    ----------
    studies
        At most as many as asked for.
    next_before
        Identifier to pass as ``before`` for the next page; ``None`` on the last.
    """

    studies: list[Study]
    next_before: int | None


def list_studies(
    session: Session, *, search: str = "", before: int | None = None, limit: int = 50
) -> StudyPage:
    """List studies, newest first.

    Parameters
    ----------
    session
        A session.
    search
        Beginning of a Patient's Name, or a whole Patient ID, Accession Number or Study UID.
    before
        Only studies with a smaller identifier.
    limit
        Studies on one page.
    """
    query = select(Study)
    if search:
        query = query.where(
            or_(
                Study.patient_id == search,
                Study.accession_number == search,
                Study.study_instance_uid == search,
                Study.patient_name.startswith(search, autoescape=True),
            )
        )
    if before is not None:
        query = query.where(Study.id < before)
    found = list(session.scalars(query.order_by(Study.id.desc()).limit(limit + 1)))
    page = found[:limit]
    return StudyPage(page, page[-1].id if len(found) > limit else None)


def study_of(session: Session, study_id: int) -> Study | None:
    """Return a study by its identifier."""
    return session.get(Study, study_id)


def series_of(session: Session, study_id: int) -> list[Series]:
    """List the series of a study by their numbers."""
    rows = session.scalars(select(Series).where(Series.study_id == study_id).order_by(Series.id))
    return sorted(rows, key=lambda one: (_number(one.series_number), one.id))


def _number(text: str) -> int:
    return int(text) if text.strip().lstrip("-").isdecimal() else 1 << 31


def series_of_job(session: Session, job: Job) -> Series | None:
    """Return the series that a job reads; None before it is queued."""
    return session.scalars(
        select(Series).where(
            Series.study_id == job.study_id,
            Series.series_instance_uid == job.series_instance_uid,
        )
    ).one_or_none()


def instances_of_series(session: Session, series_id: int) -> list[Instance]:
    """List the instances of a series whose files are there, first versions only."""
    return list(
        session.scalars(
            select(Instance)
            .where(
                Instance.series_id == series_id,
                Instance.conflict.is_(False),
                Instance.purged_at.is_(None),
            )
            .order_by(Instance.sop_instance_uid)
        )
    )
