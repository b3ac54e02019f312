"""Pairs of a source and a rule: how a complete study becomes jobs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, cast

from sqlalchemy import Table, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from db.leases import Lease, advance, finish, guard
from db.models import STANDING_PAIR, Instance, Job, JobEvent, JobInstance, JobStage
from db.states import JobState

_NOT_YET_SENT: Final = (
    JobState.QUEUED,
    JobState.PREPARING,
    JobState.INFERRING,
    JobState.ENCODING,
    JobState.VALIDATING,
)


SEGMENTATION: Final = "segmentation"
"""The task of a job that only looks for targets."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One source under one rule.

    Attributes
    ----------
    key
        See `pairing_key`.
    rule
        Name of the rule.
    instance_ids
        `db.models.Instance.id` of the source's instances, in the order of the source.
    targets
        What to look for; ``None`` for all that the model's card lists for the modality.
    task
        What is asked of them, in the words of the model's room.
    destinations
        Names of the destinations.
    priority
        Smaller is sooner: 0 stat, 3 urgent, 6 routine.
    notes
        What an administrator should know of the source.
    frame_numbers
        Frames of a multi-frame instance, from 1: several sources may come out of one.
    """

    key: str
    rule: str
    instance_ids: Sequence[int]
    series_instance_uid: str
    modality: str
    source_kind: str
    description: str = ""
    targets: Sequence[str] | None = None
    task: str = SEGMENTATION
    destinations: Sequence[str] = ()
    priority: int = 6
    notes: Sequence[str] = field(default=())
    frame_numbers: Sequence[int] = field(default=())


def pairing_key(
    rule: str,
    model_digest: str,
    targets: Iterable[str] | None,
    instances: Iterable[tuple[str, str]],
    task: str = SEGMENTATION,
    frame_numbers: Sequence[int] = (),
) -> str:
    """Digest of what makes a pair the same work as another one.

    Parameters
    ----------
    rule
        Name of the rule.
    model_digest
        Digest of the model's weights.
    targets
        Targets asked for, in any order; ``None`` for all of the card.
    instances
        (SOP Instance UID, SHA-256 of the data set) of each instance, in any order.
    task
        What is asked of the targets.
    frame_numbers
        Frames of a multi-frame instance; empty for single-frame instances.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    said: list[object] = [
        rule,
        model_digest,
        None if targets is None else sorted(targets),
        sorted(instances),
        # Left out where it is the task of all jobs before there were others: their keys stay.
        *([] if task == SEGMENTATION else [task]),
    ]
    if frame_numbers:
        said.append(list(frame_numbers))
    return hashlib.sha256(json.dumps(said, ensure_ascii=True).encode()).hexdigest()


def enqueue(
    session: Session,
    lease: Lease,
    pairs: Sequence[Pair],
    now: datetime,
    note: str | None = None,
) -> list[int]:
    """Turn the study's waiting job into one queued job per new pair.

    The waiting row becomes the first of them; the others are rows beside it with the same times
    of receiving and waiting. Pairs that are worked on or were delivered are not made again, nor
    those that hold nothing but what a delivered one held (a PACS fetches old studies back, often in
    part, long after their files were purged and maybe under new weights); when no other is left,
    the waiting row ends superseded and says so.

    Parameters
    ----------
    session
        An open transaction.
    lease
        Lease of the waiting row.
    pairs
        At least one; without any, `finish` the row as not applicable instead.
    now
        Aware time.
    note
        Why the study counts as complete, kept with the stage.

    Returns
    -------
    list of int
        The queued jobs.

    Raises
    ------
    LostLease
        When the row is not this worker's any more.
    ValueError
        Without pairs.
    """
    if not pairs:
        raise ValueError("a study without pairs is not queued; finish its job instead")
    guard(session, lease)
    standing = set(
        session.scalars(
            select(Job.pairing_key).where(
                Job.pairing_key.in_([pair.key for pair in pairs]), STANDING_PAIR
            )
        )
    )
    new = {pair.key: pair for pair in pairs if pair.key not in standing}
    fresh = _without_delivered(session, lease.job_id, new.values())
    if not fresh:
        finish(
            session,
            lease,
            JobState.SUPERSEDED,
            "everything in this study is interpreted already or under way in another job; "
            "nothing new arrived",
            now=now,
        )
        return []
    _end_receiving(session, lease.job_id)
    _supersede_parts(session, lease.job_id, fresh, now)
    first, *others = fresh
    session.execute(update(Job).where(Job.id == lease.job_id).values(**_columns(first)))
    _link(session, {lease.job_id: first})
    advance(session, lease, JobState.QUEUED, now, note)
    job = session.get_one(Job, lease.job_id, populate_existing=True)
    return [lease.job_id, *_further_jobs(session, job, others, now)]


def queued_priorities(session: Session, study_id: int) -> dict[int, int]:
    """Return the queued jobs of a study, and the priority of each."""
    rows = session.execute(
        select(Job.id, Job.priority).where(Job.study_id == study_id, Job.state == JobState.QUEUED)
    )
    return {job_id: priority for job_id, priority in rows}


def sources_of(session: Session, job_id: int) -> list[Instance]:
    """List the instances that a job reads, in the order of its source."""
    return list(
        session.scalars(
            select(Instance)
            .join(JobInstance, JobInstance.instance_id == Instance.id)
            .where(JobInstance.job_id == job_id)
            .order_by(JobInstance.position)
        )
    )


def _without_delivered(session: Session, job_id: int, pairs: Iterable[Pair]) -> list[Pair]:
    """Leave out pairs of which a delivered job of the same rule and targets read every instance."""
    asked = list(pairs)
    if not asked:
        return []
    of_study = select(Job.study_id).where(Job.id == job_id).scalar_subquery()
    rows = session.execute(
        select(Job.id, Job.rule, Job.targets, JobInstance.instance_id)
        .join(JobInstance, JobInstance.job_id == Job.id)
        .where(Job.study_id == of_study, Job.state == JobState.DELIVERED)
    )
    # Of each instance the delivered jobs that read it, each with its rule and targets.
    read: dict[int, set[tuple[int, str, str]]] = {}
    for delivered, rule, targets, instance in rows:
        read.setdefault(instance, set()).add((delivered, rule, _targets_text(targets)))
    fresh = []
    for pair in asked:
        readers = set.intersection(*(read.get(one, set()) for one in pair.instance_ids))
        task = (pair.rule, _targets_text(pair.targets))
        if task not in {reader[1:] for reader in readers}:
            fresh.append(pair)
    return fresh


def _targets_text(targets: Iterable[str] | None) -> str:
    return json.dumps(None if targets is None else sorted(targets))


def _columns(pair: Pair) -> dict[str, object]:
    return {
        "rule": pair.rule,
        "pairing_key": pair.key,
        "series_instance_uid": pair.series_instance_uid,
        "modality": pair.modality,
        "source_kind": pair.source_kind,
        "frame_numbers": list(pair.frame_numbers),
        "description": pair.description,
        "notes": list(pair.notes),
        "targets": None if pair.targets is None else list(pair.targets),
        "task": pair.task,
        "destinations": list(pair.destinations),
        "priority": pair.priority,
    }


def _link(session: Session, pairs: Mapping[int, Pair]) -> None:
    """Say which instances each job reads, in their order."""
    rows = [
        {"job_id": job_id, "position": position, "instance_id": instance_id}
        for job_id, pair in pairs.items()
        for position, instance_id in enumerate(pair.instance_ids)
    ]
    if rows:
        session.execute(insert(JobInstance), rows)


def _end_receiving(session: Session, job_id: int) -> None:
    """Let "received" last to the study's last instance and "waiting" from there on."""
    job = session.get_one(Job, job_id, populate_existing=True)
    last = job.study.last_received_at
    stages = session.scalars(
        select(JobStage).where(
            JobStage.job_id == job_id,
            JobStage.stage.in_([JobState.RECEIVED, JobState.WAITING]),
        )
    )
    for stage in stages:
        if stage.stage is JobState.RECEIVED:
            stage.ended_at = max(stage.started_at, last)
        else:
            stage.started_at = max(stage.started_at, last)
    session.flush()


def _further_jobs(session: Session, job: Job, pairs: Sequence[Pair], now: datetime) -> list[int]:
    """Make the jobs beside the first one.

    In a handful of statements, however many: a study of a thousand single images is a thousand
    jobs, and the listener cannot register anything meanwhile.
    """
    made = _insert_jobs(session, job, pairs, now)
    _link(session, made)
    earlier = session.scalars(
        select(JobStage).where(
            JobStage.job_id == job.id,
            JobStage.stage.in_([JobState.RECEIVED, JobState.WAITING]),
        )
    ).all()
    kept = ("stage", "started_at", "claimed_at", "ended_at", "owner", "note")
    stages: list[dict[str, object]] = []
    for job_id in made:
        stages += [
            {"job_id": job_id, **{name: getattr(stage, name) for name in kept}} for stage in earlier
        ]
        stages.append(
            {"job_id": job_id, "stage": JobState.QUEUED, "started_at": now}
            | dict.fromkeys(("claimed_at", "ended_at"))
            | {"owner": "", "note": ""}
        )
    if stages:
        # By the table: the ORM would part the rows by their empty columns.
        session.connection().execute(insert(cast("Table", JobStage.__table__)), stages)
        text = f"queued with job {job.id} of the same study"
        session.execute(
            insert(JobEvent), [{"job_id": job_id, "at": now, "text": text} for job_id in made]
        )
    return list(made)


def _supersede_parts(session: Session, job_id: int, pairs: Sequence[Pair], now: datetime) -> None:
    """End the jobs that look at a part of what a new pair looks at, unless they are sent already.

    Late images of a series make a new pair of all of them; a destination should not get a second
    set of results that knows a part only.
    """
    wholes = [
        (pair.rule, pair.series_instance_uid, set(pair.instance_ids))
        for pair in pairs
        if len(pair.instance_ids) > 1  # a single image is a part of nothing and has none
    ]
    if not wholes:
        return
    of_study = select(Job.study_id).where(Job.id == job_id).scalar_subquery()
    rows = session.execute(
        select(Job.id, Job.rule, Job.series_instance_uid, JobInstance.instance_id)
        .join(JobInstance, JobInstance.job_id == Job.id)
        .where(Job.study_id == of_study, Job.state.in_(_NOT_YET_SENT))
    )
    parts: dict[tuple[int, str, str], set[int]] = {}
    for earlier, rule, series, instance in rows:
        parts.setdefault((earlier, rule, series), set()).add(instance)
    for (earlier, rule, series), part in parts.items():
        if any((rule, series) == (r, s) and part < whole for r, s, whole in wholes):
            reason = "more images of the series came in; a new job looks at all of them"
            finish(session, earlier, JobState.SUPERSEDED, reason, now=now)


def _insert_jobs(
    session: Session, job: Job, pairs: Sequence[Pair], now: datetime
) -> dict[int, Pair]:
    """Insert a row for each pair; returns the pair of each new job, in their order."""
    if not pairs:
        return {}
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    # Another worker may queue the same pair of another study row at this moment; the partial
    # unique index decides, and the loser makes nothing.
    statement = (
        dialect.insert(cast("Table", Job.__table__))
        .on_conflict_do_nothing()
        .returning(Job.__table__.c.id, Job.__table__.c.pairing_key)
    )
    shared = {
        "study_id": job.study_id,
        "state": JobState.QUEUED,
        "received_at": job.received_at,
        "updated_at": now,
        "next_attempt_at": now,
    }
    rows = [shared | _columns(pair) for pair in pairs]
    ids = {key: job_id for job_id, key in session.connection().execute(statement, rows)}
    return {ids[pair.key]: pair for pair in pairs if pair.key in ids}
