"""Studies and series of the archive, as pages list them."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, and_, exists, select
from sqlalchemy.orm import Session

from db.models import Instance, Job, Series, Study
from db.names import folded_name

__all__ = [
    "StudyPage",
    "instances_of_series",
    "jobs_with_images",
    "list_studies",
    "series_of",
    "series_of_job",
    "series_with_images",
    "studies_found",
    "study_of",
]

_HIGHEST: Final = "\U0010ffff"
_MOST_STUDIES: Final = 500
"""Below the number of parameters that a statement may have; who finds more should write more."""


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
        As in `studies_found`.
    before
        Only studies with a smaller identifier.
    limit
        Studies on one page.
    """
    query = select(Study)
    if search:
        query = query.where(Study.id.in_(studies_found(session, search)))
    if before is not None:
        query = query.where(Study.id < before)
    found = list(session.scalars(query.order_by(Study.id.desc()).limit(limit + 1)))
    page = found[:limit]
    return StudyPage(page, page[-1].id if len(found) > limit else None)


def studies_found(session: Session, search: str) -> set[int]:
    """Return the studies that a person searches for, the newest where there are very many.

    Parameters
    ----------
    session
        Any session.
    search
        Beginning of a Patient's Name, however it is written, or a whole Patient ID, Accession
        Number, Study or Series Instance UID.
    """
    text = search.strip()
    if "\0" in text:  # in no text of a database: PostgreSQL refuses even to compare it
        return set()
    beginnings = {folded_name(text), folded_name(re.sub(r"[\s,]+", "^", text))} - {""}
    conditions: list[ColumnElement[bool]] = [
        Study.patient_id == text,
        Study.accession_number == text,
        Study.study_instance_uid == text,
        *(
            and_(Study.patient_name_key >= name, Study.patient_name_key < name + _HIGHEST)
            for name in beginnings
        ),
    ]
    # One statement for each index: asked for all at once, a database reads the whole table.
    queries = [select(Study.id).where(condition) for condition in conditions]
    queries.append(select(Series.study_id).where(Series.series_instance_uid == text))
    found: set[int] = set()
    for query in queries:
        found.update(session.scalars(query.limit(_MOST_STUDIES)))
    return set(sorted(found)[-_MOST_STUDIES:])


def study_of(session: Session, study_id: int) -> Study | None:
    """Return a study by its identifier."""
    return session.get(Study, study_id)


def series_of(session: Session, study_id: int) -> list[Series]:
    """List the series of a study by their numbers."""
    rows = session.scalars(select(Series).where(Series.study_id == study_id).order_by(Series.id))
    return sorted(rows, key=lambda one: (_number(one.series_number), one.id))


def _number(text: str) -> int:
    """Read a Series Number (VR IS); what is none, as a hostile sender may write, comes last."""
    try:
        return int(text)
    except ValueError:
        return 1 << 31


def series_of_job(session: Session, job: Job) -> Series | None:
    """Return the series that a job reads; None before it is queued."""
    return session.scalars(
        select(Series).where(
            Series.study_id == job.study_id,
            Series.series_instance_uid == job.series_instance_uid,
        )
    ).one_or_none()


def jobs_with_images(session: Session, job_ids: Collection[int]) -> set[int]:
    """Return those of these jobs whose series has images in the archive still."""
    query = (
        select(Job.id)
        .join(
            Series,
            and_(
                Series.study_id == Job.study_id,
                Series.series_instance_uid == Job.series_instance_uid,
            ),
        )
        .where(Job.id.in_(job_ids), _has_images())
    )
    return set(session.scalars(query))


def series_with_images(session: Session, study_id: int) -> set[int]:
    """Return those series of a study that have images in the archive still."""
    query = select(Series.id).where(Series.study_id == study_id, _has_images())
    return set(session.scalars(query))


def _has_images() -> ColumnElement[bool]:
    return exists().where(
        Instance.series_id == Series.id,
        Instance.conflict.is_(False),
        Instance.purged_at.is_(None),
    )


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
