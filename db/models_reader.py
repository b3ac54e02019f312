"""The tables of the people who read: what they asked the model, what they think of its findings."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Float, ForeignKey, Index, Integer, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from db.base import UID, Base
from db.columns import BigId, Json, UtcDateTime, words

UNANSWERED = text("state IN ('queued', 'running')")


class QuestionState(enum.StrEnum):
    """How far a question to the model is."""

    QUEUED = "queued"
    RUNNING = "running"
    ANSWERED = "answered"
    NOT_COVERED = "not_covered"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Verdict(enum.StrEnum):
    """What a person makes of a finding."""

    ACCEPTED = "accepted"
    EDITED = "edited"
    REJECTED = "rejected"


class AskedQuestion(Base):
    """What a person asked the model about one source, and the answer.

    `lease_token` grows with each worker that takes the question up, as with jobs. Masks lie in
    the folder `work/question-<id>`. `job_id` is set once the answer was sent.
    """

    __tablename__ = "question"
    __table_args__ = (
        Index("ix_question_study_id_id", "study_id", "id"),
        Index(
            "ix_question_unanswered",
            "state",
            "id",
            sqlite_where=UNANSWERED,
            postgresql_where=UNANSWERED,
        ),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    study_id: Mapped[int] = mapped_column(BigId, ForeignKey("study.id", ondelete="CASCADE"))
    series_instance_uid: Mapped[str] = mapped_column(UID)
    modality: Mapped[str] = mapped_column(String(64), default="")
    source_kind: Mapped[str] = mapped_column(String(16), default="")
    instance_ids: Mapped[list[int]] = mapped_column(Json)
    frame_numbers: Mapped[list[int]] = mapped_column(Json, default=list)
    task: Mapped[dict[str, Any]] = mapped_column(Json)
    state: Mapped[QuestionState] = mapped_column(words(QuestionState))
    error: Mapped[str] = mapped_column(Text, default="")
    progress: Mapped[float | None] = mapped_column(Float)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    asked_by: Mapped[str] = mapped_column(String(64))
    asked_at: Mapped[datetime] = mapped_column(UtcDateTime)
    deadline_at: Mapped[datetime] = mapped_column(UtcDateTime)
    lease_token: Mapped[int] = mapped_column(BigInteger, default=0)
    lease_expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    answered_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    findings: Mapped[list[dict[str, Any]]] = mapped_column(Json, default=list)
    model_name: Mapped[str] = mapped_column(String(256), default="")
    model_version: Mapped[str] = mapped_column(String(64), default="")
    model_digest: Mapped[str] = mapped_column(String(64), default="")
    intensity: Mapped[str] = mapped_column(Text, default="")
    job_id: Mapped[int | None] = mapped_column(BigId, ForeignKey("job.id", ondelete="SET NULL"))


class Review(Base):
    """What a person made of a finding. Rows are only added: the last one of a finding counts.

    `edits` holds the frames that were painted on: run lengths by frame index, as in
    `dashboard.masks`; the other frames are those of the job's segmentation.
    """

    __tablename__ = "review"
    __table_args__ = (
        Index("ix_review_job_id_position_id", "job_id", "position", "id"),
        Index("ix_review_target_id", "target", "id"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    job_id: Mapped[int] = mapped_column(BigId, ForeignKey("job.id", ondelete="CASCADE"))
    position: Mapped[int] = mapped_column(Integer)
    target: Mapped[str] = mapped_column(String(256))
    presence: Mapped[str] = mapped_column(String(16))
    verdict: Mapped[Verdict] = mapped_column(words(Verdict))
    remark: Mapped[str] = mapped_column(Text, default="")
    account: Mapped[str] = mapped_column(String(64))
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    model_digest: Mapped[str] = mapped_column(String(64), default="")
    dice: Mapped[float | None] = mapped_column(Float)
    edits: Mapped[dict[str, list[int]] | None] = mapped_column(Json)
