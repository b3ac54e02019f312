"""Questions to the model: asked by people, answered by the worker that holds it.

A question is no job: it waits for a person, lives for minutes, and writes nothing to a PACS. Like
a job it is leased with a fencing token, so that a worker that was thought dead cannot write over
its successor, and it has an end: the deadline, and a few attempts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from db.models import FindingRecord, Instance, Job, JobEvent, JobInstance, JobStage
from db.models_reader import AskedQuestion, QuestionState
from db.results import FoundFinding
from db.states import JobState

__all__ = [
    "AskedQuestion",
    "NewQuestion",
    "QuestionState",
    "TakenAwayError",
    "answer",
    "ask",
    "beat",
    "cancel",
    "end",
    "instances_asked",
    "question_as_json",
    "question_by_id",
    "questions_of",
    "send_answer",
    "take",
    "waits",
]

_ATTEMPTS: Final = 2
_OPEN: Final = (QuestionState.QUEUED, QuestionState.RUNNING)


class TakenAwayError(Exception):
    """The question is not this worker's any more, was cancelled, or ran out of time."""


@dataclass(frozen=True, slots=True)
class NewQuestion:
    """What somebody asks.

    Attributes
    ----------
    study_id, series_instance_uid, modality, source_kind
        What is asked about.
    instance_ids
        `db.models.Instance.id` of the source, in its order.
    frame_numbers
        Frames of a multi-frame instance, from 1, as `db.pairs.Pair` has them.
    task
        As `inference.tasks.Task.to_json` writes it.
    """

    study_id: int
    series_instance_uid: str
    modality: str
    source_kind: str
    instance_ids: Sequence[int]
    task: Mapping[str, Any]
    frame_numbers: Sequence[int] = ()


def ask(
    session: Session, new: NewQuestion, *, account: str, now: datetime, deadline_seconds: float
) -> AskedQuestion:
    """Put a question where the worker finds it."""
    question = AskedQuestion(
        study_id=new.study_id,
        series_instance_uid=new.series_instance_uid,
        modality=new.modality,
        source_kind=new.source_kind,
        instance_ids=list(new.instance_ids),
        frame_numbers=list(new.frame_numbers),
        task=dict(new.task),
        state=QuestionState.QUEUED,
        asked_by=account,
        asked_at=now,
        deadline_at=now + timedelta(seconds=deadline_seconds),
    )
    session.add(question)
    session.flush()
    return question


def waits(session: Session, now: datetime) -> bool:
    """Say whether `take` would find something; reads only."""
    due = select(AskedQuestion.id).where(_is_due(now)).limit(1)
    return session.scalars(due).first() is not None


def take(session: Session, now: datetime, lease_seconds: float) -> AskedQuestion | None:
    """Take up the question that waits longest; None without any.

    Those whose worker fell silent are taken up again, those whose time is over end here.
    """
    _end_overdue(session, now)
    candidate = session.scalars(
        select(AskedQuestion).where(_is_due(now)).order_by(AskedQuestion.id).limit(1)
    ).first()
    if candidate is None:
        return None
    taken = session.execute(
        update(AskedQuestion)
        .where(
            AskedQuestion.id == candidate.id,
            AskedQuestion.lease_token == candidate.lease_token,
            _is_due(now),
        )
        .values(
            state=QuestionState.RUNNING,
            lease_token=AskedQuestion.lease_token + 1,
            lease_expires_at=now + timedelta(seconds=lease_seconds),
            attempts=AskedQuestion.attempts + 1,
            progress=0.0,
        )
        .returning(AskedQuestion.id)
    ).first()
    if taken is None:
        return None
    session.refresh(candidate)
    return candidate


def _is_due(now: datetime) -> Any:
    stale = (AskedQuestion.state == QuestionState.RUNNING) & (AskedQuestion.lease_expires_at < now)
    return (AskedQuestion.deadline_at > now) & (
        (AskedQuestion.state == QuestionState.QUEUED)
        | (stale & (AskedQuestion.attempts < _ATTEMPTS))
    )


def _end_overdue(session: Session, now: datetime) -> None:
    still_open = AskedQuestion.state.in_(_OPEN)
    late = still_open & (AskedQuestion.deadline_at <= now)
    lost = (
        (AskedQuestion.state == QuestionState.RUNNING)
        & (AskedQuestion.lease_expires_at < now)
        & (AskedQuestion.attempts >= _ATTEMPTS)
    )
    for which, sentence in (
        (late, "The answer did not come in time; the model is busy with other work. Ask again."),
        (lost, "The worker ended while it answered, twice; see log/worker-gpu.log of the node."),
    ):
        session.execute(
            update(AskedQuestion)
            .where(which)
            .values(state=QuestionState.FAILED, error=sentence, answered_at=now)
        )


def beat(
    session: Session,
    question_id: int,
    token: int,
    now: datetime,
    lease_seconds: float,
    progress: float,
) -> None:
    """Tell how far the answer is, and keep the question.

    Raises
    ------
    TakenAwayError
        It is not this worker's any more, was cancelled, or its time is over.
    """
    _write(
        session,
        question_id,
        token,
        {"lease_expires_at": now + timedelta(seconds=lease_seconds), "progress": progress},
        AskedQuestion.deadline_at > now,
    )


def answer(
    session: Session,
    question_id: int,
    token: int,
    now: datetime,
    *,
    findings: Sequence[Mapping[str, Any]],
    model: Mapping[str, str],
) -> None:
    """Keep the answer; `model` has name, version, digest and intensity.

    Raises
    ------
    TakenAwayError
        As for `beat`.
    """
    values: dict[str, Any] = {
        "state": QuestionState.ANSWERED,
        "findings": [dict(one) for one in findings],
        "answered_at": now,
        "progress": 1.0,
        "model_name": model["name"],
        "model_version": model["version"],
        "model_digest": model["digest"],
        "intensity": model["intensity"],
    }
    _write(session, question_id, token, values)


def end(
    session: Session,
    question_id: int,
    token: int,
    state: QuestionState,
    sentence: str,
    now: datetime,
) -> None:
    """End a question without an answer, and say why.

    Raises
    ------
    TakenAwayError
        It is not this worker's any more.
    """
    values = {"state": state, "error": sentence, "answered_at": now}
    _write(session, question_id, token, values)


def _write(
    session: Session, question_id: int, token: int, values: Mapping[str, Any], *also: Any
) -> None:
    written = session.execute(
        update(AskedQuestion)
        .where(
            AskedQuestion.id == question_id,
            AskedQuestion.lease_token == token,
            AskedQuestion.state == QuestionState.RUNNING,
            *also,
        )
        .values(**values)
        .returning(AskedQuestion.id)
    ).first()
    if written is None:
        raise TakenAwayError(f"question {question_id} is not this worker's any more")


def cancel(session: Session, question_id: int, now: datetime) -> bool:
    """Take a question back; False when it has ended already."""
    return (
        session.execute(
            update(AskedQuestion)
            .where(AskedQuestion.id == question_id, AskedQuestion.state.in_(_OPEN))
            .values(state=QuestionState.CANCELLED, answered_at=now, error="Taken back.")
            .returning(AskedQuestion.id)
        ).first()
        is not None
    )


def questions_of(session: Session, study_id: int, limit: int = 50) -> list[AskedQuestion]:
    """List what was asked about a study, newest first."""
    return list(
        session.scalars(
            select(AskedQuestion)
            .where(AskedQuestion.study_id == study_id)
            .order_by(AskedQuestion.id.desc())
            .limit(limit)
        )
    )


def question_by_id(session: Session, question_id: int) -> AskedQuestion | None:
    """Return a question; None when there is none of this number."""
    return session.get(AskedQuestion, question_id)


def instances_asked(session: Session, question: AskedQuestion) -> list[Instance]:
    """List the instances of a question, in the order of its source."""
    found = session.scalars(select(Instance).where(Instance.id.in_(question.instance_ids)))
    by_id = {instance.id: instance for instance in found}
    return [by_id[number] for number in question.instance_ids if number in by_id]


def send_answer(
    session: Session,
    question: AskedQuestion,
    *,
    account: str,
    targets: Sequence[str],
    destinations: Sequence[str],
    now: datetime,
) -> Job:
    """Make a job of an answer, at rest before encoding; a second call gives the same job.

    The caller puts the interpretation into the job's work folder before the transaction ends.
    """
    if question.job_id is not None:
        return session.get_one(Job, question.job_id)
    key = hashlib.sha256(f"question {question.id}".encode()).hexdigest()
    job = Job(
        study_id=question.study_id,
        state=JobState.ENCODING,
        rule=f"asked by {account}"[:128],
        pairing_key=key,
        series_instance_uid=question.series_instance_uid,
        modality=question.modality,
        source_kind=question.source_kind,
        description=f"question {question.id}",
        frame_numbers=list(question.frame_numbers),
        targets=list(targets),
        destinations=list(destinations),
        priority=3,
        model_name=question.model_name,
        model_version=question.model_version,
        model_digest=question.model_digest,
        intensity=question.intensity,
        received_at=question.asked_at,
        updated_at=now,
        next_attempt_at=now,
    )
    session.add(job)
    session.flush()
    session.add_all(
        JobInstance(job_id=job.id, position=position, instance_id=number)
        for position, number in enumerate(question.instance_ids)
    )
    session.add_all(
        _finding(job.id, position, one) for position, one in enumerate(question.findings)
    )
    session.add_all(
        [
            JobStage(
                job_id=job.id,
                stage=JobState.INFERRING,
                started_at=question.asked_at,
                ended_at=question.answered_at,
                note="asked on the dashboard",
            ),
            JobStage(job_id=job.id, stage=JobState.ENCODING, started_at=now),
            JobEvent(
                job_id=job.id,
                at=now,
                text=f"{account} sent the answer to question {question.id} of {question.asked_by}",
            ),
        ]
    )
    question.job_id = job.id
    session.flush()
    return job


def _finding(job_id: int, position: int, told: Mapping[str, Any]) -> FindingRecord:
    kept = FoundFinding(
        target=told["target"],
        text=told["text"],
        presence=told["presence"],
        confidence=told["confidence"],
        phrase=told["phrase"],
        prompt=told["prompt"],
        predicted_iou=told["predicted_iou"],
        key_frame=told["key_frame"],
    )
    return FindingRecord(
        job_id=job_id,
        position=position,
        target=kept.target,
        text=kept.text,
        phrase=kept.phrase,
        prompt=kept.prompt,
        presence=kept.presence,
        confidence=kept.confidence,
        predicted_iou=kept.predicted_iou,
        key_frame=kept.key_frame,
    )


def question_as_json(question: AskedQuestion) -> dict[str, Any]:
    """Tell a question and its answer, ready for `json.dumps`."""
    return {
        "id": question.id,
        "series_instance_uid": question.series_instance_uid,
        "task": question.task,
        "state": str(question.state),
        "error": question.error,
        "progress": question.progress,
        "asked_by": question.asked_by,
        "asked_at": question.asked_at.isoformat(timespec="seconds"),
        "deadline_at": question.deadline_at.isoformat(timespec="seconds"),
        "findings": list(question.findings or []),
        "model": {
            "name": question.model_name,
            "version": question.model_version,
            "digest": question.model_digest,
            "intensity": question.intensity,
        },
        "job_id": question.job_id,
    }
