"""Figures of the node as a whole, for its first page and its metrics.

Each is one look at an index: they are asked for again and again, also with a million jobs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from db.models import Instance, Job, Study, StudyAssociation
from db.models_operation import EchoRecord, WorkerRecord
from db.states import LIVE_STATES, JobState

_SAMPLE: Final = 1000
_MOST_FAILED: Final = 5000
_MOST_VALUES: Final = 40
_ENDS: Final = (JobState.DELIVERED, JobState.FAILED)


@dataclass(frozen=True, slots=True)
class Latency:
    """From the last image of a study to its results proven in the PACS, in seconds.

    Attributes
    ----------
    jobs
        How many delivered jobs it was taken from.
    median, p95
        ``None`` without any.
    """

    jobs: int
    median: float | None
    p95: float | None


@dataclass(slots=True)
class Hour:
    """What ended in one hour."""

    begins_at: datetime
    delivered: int = 0
    failed: int = 0


@dataclass(slots=True)
class Cause:
    """Failed jobs of the same cause.

    Attributes
    ----------
    stage, sentence
        Where they failed, and what the newest of them says.
    jobs
        Their numbers, the newest first.
    last_at
        When the newest failed.
    """

    stage: str
    sentence: str
    last_at: datetime
    jobs: list[int] = field(default_factory=list)


def state_counts(session: Session) -> dict[str, int]:
    """Count the live jobs of each state; ended ones are too many to be counted each time."""
    rows = session.execute(
        select(Job.state, func.count(Job.id)).where(Job.state.in_(LIVE_STATES)).group_by(Job.state)
    )
    found = {str(state): count for state, count in rows}
    return {str(state): found.get(str(state), 0) for state in JobState if state in LIVE_STATES}


def received_since(session: Session, since: datetime) -> int:
    """Count the studies whose first instance came at this time or later."""
    return session.execute(
        select(func.count(Study.id)).where(
            Study.last_received_at >= since, Study.first_received_at >= since
        )
    ).scalar_one()


def ended_since(session: Session, since: datetime) -> dict[str, int]:
    """Count the jobs of each end state that ended at this time or later."""
    return {
        str(state): session.execute(
            select(func.count(Job.id)).where(Job.state == state, Job.finished_at >= since)
        ).scalar_one()
        for state in JobState
        if state not in LIVE_STATES
    }


def failed_count(session: Session) -> int:
    """Count all failed jobs: each waits for a person."""
    return session.execute(
        select(func.count(Job.id)).where(Job.state == JobState.FAILED)
    ).scalar_one()


def latency_since(session: Session, since: datetime) -> Latency:
    """Take the latency of the newest delivered jobs, at most a thousand.

    A study to which more came after its job had ended tells nothing, and is left out.
    """
    rows = session.execute(
        select(Job.finished_at, Study.last_received_at)
        .join(Study, Study.id == Job.study_id)
        .where(Job.state == JobState.DELIVERED, Job.finished_at >= since)
        .order_by(Job.finished_at.desc())
        .limit(_SAMPLE)
    )
    seconds = sorted(
        (finished - last).total_seconds()
        for finished, last in rows
        if finished is not None and last <= finished
    )
    return Latency(len(seconds), quantile(seconds, 0.5), quantile(seconds, 0.95))


def quantile(ordered: Sequence[float], part: float) -> float | None:
    """Return the smallest value that at least this part of the values does not exceed."""
    if not ordered:
        return None
    return ordered[max(0, min(len(ordered) - 1, -int(-part * len(ordered) // 1) - 1))]


def oldest_waiting(session: Session) -> tuple[int, datetime] | None:
    """Return the job that has waited longest for a worker or for its study, and since when."""
    found = []
    for state in (JobState.WAITING, JobState.QUEUED):
        row = session.execute(
            select(Job.id, Job.received_at).where(Job.state == state).order_by(Job.id).limit(1)
        ).first()
        if row is not None:
            found.append((row[0], row[1]))
    return min(found, key=lambda one: one[1], default=None)


def hours(session: Session, now: datetime, count: int = 24) -> list[Hour]:
    """Count what was delivered and what failed in each of the last hours, the oldest first."""
    begin = now - timedelta(hours=count)
    made = [Hour(begin + timedelta(hours=number)) for number in range(count)]
    for state in _ENDS:
        times = session.scalars(
            select(Job.finished_at).where(Job.state == state, Job.finished_at >= begin)
        )
        tally = Counter(
            min(count - 1, int((at - begin).total_seconds() // 3600))
            for at in times
            if at is not None
        )
        for number, ended in tally.items():
            if state is JobState.DELIVERED:
                made[number].delivered = ended
            else:
                made[number].failed = ended
    return made


def bytes_since(session: Session, since: datetime) -> int:
    """Sum the sizes of the kept instances that came in since then; takes a while with millions."""
    total = session.execute(
        select(func.sum(Instance.size)).where(
            Instance.purged_at.is_(None), Instance.received_at >= since
        )
    ).scalar_one()
    return int(total or 0)


def first_instance_at(session: Session) -> datetime | None:
    """Return when the first instance came of which there is a record."""
    return session.scalars(select(Instance.received_at).order_by(Instance.id).limit(1)).first()


def workers(session: Session) -> list[WorkerRecord]:
    """List the workers that ever told of themselves, by queue and name."""
    return list(
        session.scalars(select(WorkerRecord).order_by(WorkerRecord.queue, WorkerRecord.name))
    )


def jobs_in_hand(session: Session) -> dict[str, list[tuple[int, str]]]:
    """Return, for each owner of leases, the jobs it has in hand and their states."""
    rows = session.execute(
        select(Job.lease_owner, Job.id, Job.state)
        .where(Job.lease_owner.is_not(None))
        # The order of the index of leased jobs: by identifier, SQLite would read all jobs.
        .order_by(Job.lease_expires_at)
    )
    held: dict[str, list[tuple[int, str]]] = {}
    for owner, job_id, state in rows:
        held.setdefault(owner or "", []).append((job_id, str(state)))
    return held


def echoes(session: Session) -> dict[str, EchoRecord]:
    """Return what each destination said last."""
    return {one.destination: one for one in session.scalars(select(EchoRecord))}


def last_images(session: Session, ae_titles: Sequence[str]) -> dict[str, datetime]:
    """Return when the last image came from each of these callers."""
    found = {}
    for title in ae_titles:
        at = session.execute(
            select(func.max(StudyAssociation.last_received_at)).where(
                StudyAssociation.calling_ae_title == title
            )
        ).scalar_one()
        if at is not None:
            found[title] = at
    return found


def filter_values(session: Session) -> dict[str, list[str]]:
    """Return which modalities and rules there are, each found by a step in its index.

    A plain DISTINCT would read all jobs.
    """
    return {
        "modality": _distinct(session, Job.modality),
        "rule": _distinct(session, Job.rule),
    }


def _distinct(session: Session, column: InstrumentedAttribute[str]) -> list[str]:
    found: list[str] = []
    last = ""
    while len(found) < _MOST_VALUES:
        following = session.scalars(
            select(column).where(column > last).order_by(column).limit(1)
        ).first()
        if following is None:
            break
        found.append(following)
        last = following
    return found


def causes(session: Session) -> list[Cause]:
    """Group the failed jobs by where and why they failed, the newest cause first.

    Numbers, names in quotes and UIDs in a sentence do not make two causes of one.
    """
    rows = session.execute(
        select(Job.id, Job.failed_stage, Job.error, Job.finished_at, Job.updated_at)
        .where(Job.state == JobState.FAILED)
        .order_by(Job.id.desc())
        .limit(_MOST_FAILED)
    )
    grouped: dict[tuple[str, str], Cause] = {}
    for job_id, stage, error, finished_at, updated_at in rows:
        key = (str(stage or ""), same_cause(error))
        at = finished_at or updated_at
        cause = grouped.setdefault(key, Cause(key[0], error, at))
        cause.jobs.append(job_id)
        cause.last_at = max(cause.last_at, at)
    return sorted(grouped.values(), key=lambda one: one.last_at, reverse=True)


def same_cause(sentence: str) -> str:
    """Return what is the same in the sentences of one cause."""
    return re.sub(r"'[^']*'|\d[\d.]*", "#", sentence)[:300]
