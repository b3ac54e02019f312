"""The tables of the node's own running: workers, echoes, rules as they were, notices sent."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
)
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base
from db.columns import BigId, Json, UtcDateTime, words


class WorkerRecord(Base):
    """A worker process as it described itself last.

    `processes` are the process ids that may stand in the leases of its jobs. `device` says what
    the model runs on and how busy that is; empty for workers without a model.
    """

    __tablename__ = "worker"

    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    queue: Mapped[str] = mapped_column(String(32))
    host: Mapped[str] = mapped_column(String(128))
    processes: Mapped[list[int]] = mapped_column(Json, default=list)
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    seen_at: Mapped[datetime] = mapped_column(UtcDateTime)
    memory: Mapped[int] = mapped_column(BigInteger, default=0)
    processor: Mapped[float] = mapped_column(Float, default=0.0)
    model: Mapped[str] = mapped_column(String(256), default="")
    device: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)


class EchoRecord(Base):
    """What a destination said last, to a C-ECHO or a delivery, and when it last answered.

    `seconds` is how long a C-ECHO took; 0 where there was none (it answered a delivery, or takes
    no Verification), which `sentence` then tells of.
    """

    __tablename__ = "echo"

    destination: Mapped[str] = mapped_column(String(128), primary_key=True)
    asked_at: Mapped[datetime] = mapped_column(UtcDateTime)
    answered_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    answers: Mapped[bool] = mapped_column(Boolean)
    seconds: Mapped[float] = mapped_column(Float)
    sentence: Mapped[str] = mapped_column(Text)


class RulesVersion(Base):
    """``rules.yaml`` as somebody saved it by the dashboard."""

    __tablename__ = "rules_version"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    account: Mapped[str] = mapped_column(String(64))
    comment: Mapped[str] = mapped_column(String(256), default="")
    text: Mapped[str] = mapped_column(Text)


class Happening(Base):
    """What people may be to be told of a job, until the notices about it are made.

    It is written in the transaction in which it happens, and taken out in the one that makes the
    notices: whatever is away meanwhile, each is told of once.
    """

    __tablename__ = "happening"
    __table_args__ = (Index("ix_happening_job_id", "job_id"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    job_id: Mapped[int] = mapped_column(BigId, ForeignKey("job.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(16))
    at: Mapped[datetime] = mapped_column(UtcDateTime)


class NoticeState(enum.StrEnum):
    """How far a notice is."""

    PENDING = "pending"
    SENT = "sent"
    GIVEN_UP = "given_up"


class Notice(Base):
    """A message about a job to a web address or by e-mail; `made_at` is when it happened."""

    __tablename__ = "notice"
    __table_args__ = (
        Index("ix_notice_job_id", "job_id"),
        Index("ix_notice_state_next_attempt_at", "state", "next_attempt_at"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    job_id: Mapped[int] = mapped_column(BigId, ForeignKey("job.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(16))
    channel: Mapped[str] = mapped_column(String(128))
    state: Mapped[NoticeState] = mapped_column(words(NoticeState), default=NoticeState.PENDING)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    made_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    next_attempt_at: Mapped[datetime] = mapped_column(UtcDateTime)
    sentence: Mapped[str] = mapped_column(Text, default="")


class CountRecord(Base):
    """What all processes of the node counted under one name and its labels, since the first day.

    `labels` are a JSON object with its keys in order.
    """

    __tablename__ = "count"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    labels: Mapped[str] = mapped_column(String(256), primary_key=True)
    value: Mapped[int] = mapped_column(BigInteger, default=0)


class WorkItem(Base):
    """What somebody asked of the node by UPS-RS: the data set as it came, in DICOM JSON.

    Attributes
    ----------
    performance
        What another performer made of it, of those that this node is not to perform itself: see
        `db.worklist.Performance`. None until one claims it.
    """

    __tablename__ = "workitem"
    __table_args__ = (
        Index("ix_workitem_study_instance_uid", "study_instance_uid"),
        Index("ix_workitem_created_at", "created_at"),
    )

    sop_instance_uid: Mapped[str] = mapped_column(String(64), primary_key=True)
    study_instance_uid: Mapped[str] = mapped_column(String(64))
    dataset: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)
    created_by: Mapped[str] = mapped_column(String(64), default="")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    cancelled_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    cancel_reason: Mapped[str] = mapped_column(Text, default="")
    performance: Mapped[dict[str, Any] | None] = mapped_column(Json)
