"""The tables of a job: its state and lease, what it reads, its stages and events."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from db.base import Base
from db.columns import BigId, Json, UtcDateTime, words
from db.models_received import Study
from db.states import DISCARDED_STATES, JobState

OPEN_STUDY_JOB = text("state IN ('received', 'waiting')")
"""Rows that still collect instances; a study has at most one of them."""
STANDING_PAIR = text(
    "pairing_key IS NOT NULL AND state NOT IN ("
    + ", ".join(f"'{state}'" for state in sorted(DISCARDED_STATES))
    + ")"
)
"""Pairs that are worked on or were delivered; a pair has at most one of them."""
LEASED = text("lease_owner IS NOT NULL")


class Job(Base):
    """One source under one rule, from its first instance to its end.

    `lease_token` is the fencing token: it only grows, and a worker's writes carry the value it
    was given, so that a worker that was thought dead cannot write over its successor.
    `attempts` counts all further tries of the present step, `lost_leases` those among them that
    ended with a lost worker; both start anew with the next step. `strikes` counts the attempts up
    to now that ended one after the other in an error of which few are enough.
    """

    __tablename__ = "job"
    __table_args__ = (
        Index(
            "uq_job_open_study",
            "study_id",
            unique=True,
            sqlite_where=OPEN_STUDY_JOB,
            postgresql_where=OPEN_STUDY_JOB,
        ),
        Index(
            "uq_job_standing_pair",
            "pairing_key",
            unique=True,
            sqlite_where=STANDING_PAIR,
            postgresql_where=STANDING_PAIR,
        ),
        Index("ix_job_state_next_attempt_at", "state", "next_attempt_at"),
        Index("ix_job_state_id", "state", "id"),
        Index("ix_job_study_id", "study_id"),
        Index("ix_job_finished_at", "finished_at"),
        Index("ix_job_modality_id", "modality", "id"),
        Index("ix_job_rule_id", "rule", "id"),
        Index("ix_job_updated_at", "updated_at"),
        Index("ix_job_received_at", "received_at"),
        Index("ix_job_state_finished_at", "state", "finished_at"),
        Index("ix_job_state_modality_id", "state", "modality", "id"),
        Index("ix_job_state_rule_id", "state", "rule", "id"),
        Index("ix_job_modality_rule_id", "modality", "rule", "id"),
        Index(
            "ix_job_leased",
            "lease_expires_at",
            sqlite_where=LEASED,
            postgresql_where=LEASED,
        ),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    study_id: Mapped[int] = mapped_column(BigId, ForeignKey("study.id"))
    state: Mapped[JobState] = mapped_column(words(JobState))
    wait_reason: Mapped[str] = mapped_column(Text, default="")
    complete_by: Mapped[str] = mapped_column(String(64), default="", server_default="")
    error: Mapped[str] = mapped_column(Text, default="")
    failed_stage: Mapped[JobState | None] = mapped_column(words(JobState))

    rule: Mapped[str] = mapped_column(String(128), default="")
    pairing_key: Mapped[str | None] = mapped_column(String(64))
    series_instance_uid: Mapped[str] = mapped_column(String(64), default="")
    modality: Mapped[str] = mapped_column(String(64), default="")
    description: Mapped[str] = mapped_column(Text, default="")
    source_kind: Mapped[str] = mapped_column(String(16), default="")
    frame_numbers: Mapped[list[int]] = mapped_column(Json, default=list)
    notes: Mapped[list[str]] = mapped_column(Json, default=list)
    targets: Mapped[list[str] | None] = mapped_column(Json)
    task: Mapped[str] = mapped_column(String(32), default="segmentation")
    destinations: Mapped[list[str]] = mapped_column(Json, default=list)
    priority: Mapped[int] = mapped_column(Integer, default=6)

    identifiers: Mapped[dict[str, Any] | None] = mapped_column(Json)
    model_name: Mapped[str] = mapped_column(String(256), default="")
    model_version: Mapped[str] = mapped_column(String(64), default="")
    model_digest: Mapped[str] = mapped_column(String(64), default="")
    intensity: Mapped[str] = mapped_column(Text, default="")

    received_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    attempts: Mapped[int] = mapped_column(Integer, default=0)
    lost_leases: Mapped[int] = mapped_column(Integer, default=0)
    strikes: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    next_attempt_at: Mapped[datetime] = mapped_column(UtcDateTime)
    announced_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    lease_owner: Mapped[str | None] = mapped_column(String(128))
    lease_token: Mapped[int] = mapped_column(BigInteger, default=0)
    lease_expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    progress: Mapped[float | None] = mapped_column(Float)

    study: Mapped[Study] = relationship()


class JobInstance(Base):
    """An instance that a job reads, at its place in the source."""

    __tablename__ = "job_instance"
    __table_args__ = (Index("ix_job_instance_instance_id", "instance_id"),)

    job_id: Mapped[int] = mapped_column(
        BigId, ForeignKey("job.id", ondelete="CASCADE"), primary_key=True
    )
    position: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    instance_id: Mapped[int] = mapped_column(BigId, ForeignKey("instance.id"))


class JobStage(Base):
    """The time a job spent in one stage. `claimed_at` is when a worker took it up there."""

    __tablename__ = "job_stage"
    __table_args__ = (Index("ix_job_stage_job_id_id", "job_id", "id"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    job_id: Mapped[int] = mapped_column(BigId, ForeignKey("job.id", ondelete="CASCADE"))
    stage: Mapped[JobState] = mapped_column(words(JobState))
    attempt: Mapped[int] = mapped_column(Integer, default=1)
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    claimed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    owner: Mapped[str] = mapped_column(String(128), default="")
    note: Mapped[str] = mapped_column(Text, default="")


class JobEvent(Base):
    """What happened to a job, in words."""

    __tablename__ = "job_event"
    __table_args__ = (Index("ix_job_event_job_id_id", "job_id", "id"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    job_id: Mapped[int] = mapped_column(BigId, ForeignKey("job.id", ondelete="CASCADE"))
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    level: Mapped[str] = mapped_column(String(8), default="info")
    text: Mapped[str] = mapped_column(Text)
