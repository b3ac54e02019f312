"""The tables of what a job found and wrote, and how that fares at its destinations."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from db.base import KEPT, UID, Base
from db.columns import BigId, Json, UtcDateTime, words


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


REJECTION_NOTE: Final = "rejection_note"
"""The kind of result that withdraws the others of its job."""


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
    attributes: Mapped[dict[str, str]] = mapped_column(Json, default=dict)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    purged_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    deliveries: Mapped[list[DeliveryRecord]] = relationship(order_by="DeliveryRecord.id")
    withdrawal: Mapped[Withdrawal | None] = relationship(
        primaryjoin="foreign(ResultRecord.sop_instance_uid) == Withdrawal.sop_instance_uid",
        viewonly=True,
    )


class Withdrawal(Base):
    """An instance that is not given out any more, because a person withdrew it.

    It names the instance and no row, and outlives the job: a PACS may send the object back later.
    """

    __tablename__ = "withdrawal"

    sop_instance_uid: Mapped[str] = mapped_column(UID, primary_key=True)
    job_id: Mapped[int] = mapped_column(BigInteger)
    reason: Mapped[str] = mapped_column(String(16))
    words: Mapped[str] = mapped_column(Text)
    account: Mapped[str] = mapped_column(String(64))
    at: Mapped[datetime] = mapped_column(UtcDateTime)


class DeliveryRecord(Base):
    """How one result fares at one destination.

    `listed` is what a query there answers for it: DICOM keyword to text; nothing where the query
    does not find it, null where nobody asked.
    """

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
    listed: Mapped[dict[str, str] | None] = mapped_column(Json)
