"""What is asked of a study that waits to be complete."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.models import Job, ResultRecord, Series, Study
from db.states import JobState


def waiting_job_of(session: Session, study_id: int) -> Job | None:
    """Return the job that collects the study's instances, if one does; a study has at most one."""
    return session.scalars(
        select(Job).where(Job.study_id == study_id, Job.state == JobState.WAITING)
    ).one_or_none()


def hold_study(session: Session, study_id: int) -> Study:
    """Return the study as it is now, and keep others from changing it until the commit.

    Instances that come in meanwhile are registered after the commit, and then find the study's
    job queued: they open a new one. Without this they could slip in between the last look at the
    study and its queueing, and no job would ever see them.
    """
    return session.scalars(
        select(Study)
        .where(Study.id == study_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one()


def own_series_of(session: Session, study_id: int) -> frozenset[str]:
    """Return the Series Instance UIDs of the results that the node wrote for a study."""
    return frozenset(
        session.scalars(
            select(ResultRecord.series_instance_uid)
            .join(Job, Job.id == ResultRecord.job_id)
            .where(Job.study_id == study_id)
        )
    )


def series_of(session: Session, study_id: int) -> list[Series]:
    """List the series of a study."""
    return list(
        session.scalars(select(Series).where(Series.study_id == study_id).order_by(Series.id))
    )


def digests_of(session: Session, study_id: int) -> list[str]:
    """List the digests of the weights by which jobs of a study were answered."""
    return list(
        session.scalars(
            select(Job.model_digest)
            .where(Job.study_id == study_id, Job.model_digest != "")
            .distinct()
        )
    )
