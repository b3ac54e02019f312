"""The tables.

Laid out for a million jobs and ten million instances: what is listed, filtered or swept has an
index, and partial indexes keep those of the few live jobs small.
"""

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
    MetaData,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from db.columns import BigId, Json, UtcDateTime, words
from db.states import DISCARDED_STATES, JobState

UID = String(64)
AE_TITLE = String(16)

OPEN_STUDY_JOB = text("state IN ('received', 'waiting')")
"""Rows that still collect instances; a study has at most one of them."""
STANDING_PAIR = text(
    "pairing_key IS NOT NULL AND state NOT IN ("
    + ", ".join(f"'{state}'" for state in sorted(DISCARDED_STATES))
    + ")"
)
"""Pairs that are worked on or were delivered; a pair has at most one of them."""
LEASED = text("lease_owner IS NOT NULL")
KEPT = text("purged_at IS NULL")


class ResultState(enum.StrEnum):
    """What the validator made of a result."""

    READY = "ready"
    QUARANTINED = "quarantined"


class DeliveryState(enum.StrEnum):
    """How far one result is on its way to one destination."""

    PENDING = "pending"
    SENT = "sent"
    CONFIRMED = "confirmed"
    REFUSED = "refused"


class Base(DeclarativeBase):
    """Base of all tables; constraints get predictable names, so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Study(Base):
    """A study of which at least one instance was received; its clock and its query keys."""

    __tablename__ = "study"
    __table_args__ = (Index("ix_study_study_date_id", "study_date", "id"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    study_instance_uid: Mapped[str] = mapped_column(UID, unique=True)
    patient_id: Mapped[str] = mapped_column(String(256), default="", index=True)
    patient_name: Mapped[str] = mapped_column(String(256), default="", index=True)
    patient_birth_date: Mapped[str] = mapped_column(String(64), default="")
    patient_sex: Mapped[str] = mapped_column(String(64), default="")
    accession_number: Mapped[str] = mapped_column(String(256), default="", index=True)
    study_date: Mapped[str] = mapped_column(String(64), default="")
    study_time: Mapped[str] = mapped_column(String(64), default="")
    study_id: Mapped[str] = mapped_column(String(256), default="")
    study_description: Mapped[str] = mapped_column(Text, default="")
    referring_physician_name: Mapped[str] = mapped_column(Text, default="")
    first_received_at: Mapped[datetime] = mapped_column(UtcDateTime)
    last_received_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    released_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    arrivals: Mapped[int] = mapped_column(BigInteger, default=0)
    number_of_instances: Mapped[int] = mapped_column(Integer, default=0)
    conflicts: Mapped[int] = mapped_column(Integer, default=0)


class StudyAssociation(Base):
    """One association that brought instances of one study; open until `ended_at` is set.

    Rows rather than a counter: a listener that is killed leaves rows that the next start closes,
    where a counter would stay wrong for ever.
    """

    __tablename__ = "study_association"
    __table_args__ = (
        Index(
            "ix_study_association_open",
            "listener",
            sqlite_where=text("ended_at IS NULL"),
            postgresql_where=text("ended_at IS NULL"),
        ),
    )

    study_id: Mapped[int] = mapped_column(
        BigId, ForeignKey("study.id", ondelete="CASCADE"), primary_key=True
    )
    association: Mapped[str] = mapped_column(String(64), primary_key=True)
    listener: Mapped[str] = mapped_column(String(128), default="")
    calling_ae_title: Mapped[str] = mapped_column(String(64), default="")
    called_ae_title: Mapped[str] = mapped_column(String(64), default="")
    peer_host: Mapped[str] = mapped_column(String(256), default="")
    instances: Mapped[int] = mapped_column(Integer, default=0)
    first_received_at: Mapped[datetime] = mapped_column(UtcDateTime)
    last_received_at: Mapped[datetime] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    outcome: Mapped[str] = mapped_column(String(16), default="")


class Series(Base):
    """A series of a study. The same UID under two studies is two rows: senders do that."""

    __tablename__ = "series"
    __table_args__ = (
        UniqueConstraint("study_id", "series_instance_uid"),
        Index("ix_series_series_instance_uid", "series_instance_uid"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    study_id: Mapped[int] = mapped_column(BigId, ForeignKey("study.id", ondelete="CASCADE"))
    series_instance_uid: Mapped[str] = mapped_column(UID)
    modality: Mapped[str] = mapped_column(String(64), default="")
    series_number: Mapped[str] = mapped_column(String(64), default="")
    series_description: Mapped[str] = mapped_column(Text, default="")
    body_part_examined: Mapped[str] = mapped_column(String(256), default="")
    number_of_instances: Mapped[int] = mapped_column(Integer, default=0)
    attributes: Mapped[dict[str, str]] = mapped_column(Json, default=dict)


class Instance(Base):
    """A stored data set. Other bytes under the same UID are a row beside, flagged `conflict`."""

    __tablename__ = "instance"
    __table_args__ = (
        UniqueConstraint("series_id", "sop_instance_uid", "sha256"),
        Index("ix_instance_sop_instance_uid", "sop_instance_uid"),
        Index("ix_instance_study_id", "study_id"),
        Index(
            "ix_instance_kept_received_at",
            "received_at",
            sqlite_where=KEPT,
            postgresql_where=KEPT,
        ),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    study_id: Mapped[int] = mapped_column(BigId, ForeignKey("study.id", ondelete="CASCADE"))
    series_id: Mapped[int] = mapped_column(BigId, ForeignKey("series.id", ondelete="CASCADE"))
    sop_instance_uid: Mapped[str] = mapped_column(UID)
    sop_class_uid: Mapped[str] = mapped_column(UID)
    transfer_syntax_uid: Mapped[str] = mapped_column(UID)
    path: Mapped[str] = mapped_column(Text)
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    conflict: Mapped[bool] = mapped_column(Boolean, default=False)
    instance_number: Mapped[str] = mapped_column(String(64), default="")
    number_of_frames: Mapped[str] = mapped_column(String(64), default="")
    rows: Mapped[str] = mapped_column(String(64), default="")
    columns: Mapped[str] = mapped_column(String(64), default="")
    image_type: Mapped[str] = mapped_column(Text, default="")
    association: Mapped[str] = mapped_column(String(64), default="")
    received_at: Mapped[datetime] = mapped_column(UtcDateTime)
    purged_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class Quarantine(Base):
    """An object that was received and could not be taken up, with its reason."""

    __tablename__ = "quarantine"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    path: Mapped[str] = mapped_column(Text, unique=True)
    size: Mapped[int] = mapped_column(BigInteger, default=0)
    reason: Mapped[str] = mapped_column(Text)
    sop_class_uid: Mapped[str] = mapped_column(String(128), default="")
    sop_instance_uid: Mapped[str] = mapped_column(String(128), default="")
    calling_ae_title: Mapped[str] = mapped_column(String(64), default="")
    called_ae_title: Mapped[str] = mapped_column(String(64), default="")
    peer_host: Mapped[str] = mapped_column(String(256), default="")
    received_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    resolved_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    resolution: Mapped[str] = mapped_column(Text, default="")


class Refusal(Base):
    """Association requests that were rejected, counted per sender and reason."""

    __tablename__ = "refusal"
    __table_args__ = (
        UniqueConstraint("calling_ae_title", "called_ae_title", "peer_host", "reason"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    calling_ae_title: Mapped[str] = mapped_column(String(64))
    called_ae_title: Mapped[str] = mapped_column(String(64))
    peer_host: Mapped[str] = mapped_column(String(256))
    reason: Mapped[str] = mapped_column(String(64))
    sentence: Mapped[str] = mapped_column(Text)
    count: Mapped[int] = mapped_column(Integer, default=1)
    first_at: Mapped[datetime] = mapped_column(UtcDateTime)
    last_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class Job(Base):
    """One source under one rule, from its first instance to its end.

    `lease_token` is the fencing token: it only grows, and a worker's writes carry the value it
    was given, so that a worker that was thought dead cannot write over its successor.
    `attempts` counts all further tries of the present step, `lost_leases` those among them that
    ended with a lost worker; both start anew with the next step.
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
    error: Mapped[str] = mapped_column(Text, default="")
    failed_stage: Mapped[JobState | None] = mapped_column(words(JobState))

    rule: Mapped[str] = mapped_column(String(128), default="")
    pairing_key: Mapped[str | None] = mapped_column(String(64))
    series_instance_uid: Mapped[str] = mapped_column(String(64), default="")
    modality: Mapped[str] = mapped_column(String(64), default="")
    description: Mapped[str] = mapped_column(Text, default="")
    source_kind: Mapped[str] = mapped_column(String(16), default="")
    notes: Mapped[list[str]] = mapped_column(Json, default=list)
    targets: Mapped[list[str] | None] = mapped_column(Json)
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


class FindingRecord(Base):
    """One finding of a job; masks stay in the job's results, not in the database."""

    __tablename__ = "finding"
    __table_args__ = (UniqueConstraint("job_id", "position"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    job_id: Mapped[int] = mapped_column(BigId, ForeignKey("job.id", ondelete="CASCADE"))
    position: Mapped[int] = mapped_column(Integer)
    target: Mapped[str] = mapped_column(String(256))
    text: Mapped[str] = mapped_column(Text)
    phrase: Mapped[str] = mapped_column(Text, default="")
    prompt: Mapped[str] = mapped_column(Text, default="")
    presence: Mapped[str] = mapped_column(String(16))
    confidence: Mapped[float] = mapped_column(Float)
    predicted_iou: Mapped[float | None] = mapped_column(Float)
    key_frame: Mapped[int | None] = mapped_column(Integer)
    segment_number: Mapped[int | None] = mapped_column(Integer)
    tracking_uid: Mapped[str] = mapped_column(String(64), default="")
    measurements: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)


class ResultRecord(Base):
    """An object that a job wrote; `position` is its place in the order of sending."""

    __tablename__ = "result"
    __table_args__ = (
        UniqueConstraint("job_id", "position"),
        Index("ix_result_kept_created_at", "created_at", sqlite_where=KEPT, postgresql_where=KEPT),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    job_id: Mapped[int] = mapped_column(BigId, ForeignKey("job.id", ondelete="CASCADE"))
    position: Mapped[int] = mapped_column(Integer)
    kind: Mapped[str] = mapped_column(String(32))
    sop_class_uid: Mapped[str] = mapped_column(UID)
    sop_instance_uid: Mapped[str] = mapped_column(UID, unique=True)
    series_instance_uid: Mapped[str] = mapped_column(UID)
    path: Mapped[str] = mapped_column(Text)
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    state: Mapped[ResultState] = mapped_column(words(ResultState), default=ResultState.READY)
    problems: Mapped[list[dict[str, str]]] = mapped_column(Json, default=list)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    purged_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    deliveries: Mapped[list[DeliveryRecord]] = relationship(order_by="DeliveryRecord.id")


class DeliveryRecord(Base):
    """How one result fares at one destination."""

    __tablename__ = "delivery"
    __table_args__ = (
        UniqueConstraint("result_id", "destination"),
        Index("ix_delivery_destination_state", "destination", "state"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    result_id: Mapped[int] = mapped_column(BigId, ForeignKey("result.id", ondelete="CASCADE"))
    destination: Mapped[str] = mapped_column(String(128))
    state: Mapped[DeliveryState] = mapped_column(
        words(DeliveryState), default=DeliveryState.PENDING
    )
    status: Mapped[int | None] = mapped_column(Integer)
    sentence: Mapped[str] = mapped_column(Text, default="")
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    attempted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    sent_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    confirmed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    confirmed_by: Mapped[str] = mapped_column(String(32), default="")
