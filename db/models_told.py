"""Tables of what others and the node told each other: commitments, announcements, moves."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, Integer, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from db.base import UID, Base
from db.columns import BigId, Json, UtcDateTime

UNANSWERED = text("answered_at IS NULL")
"""Transactions whose report has not come, or was not delivered."""


class Commitment(Base):
    """A transaction of storage commitment, asked by us or by a peer.

    Attributes
    ----------
    direction
        ``asked``: by us, of the destination named in `entity`; ``given``: by the AE title there.
    items
        SOP Class UID, SOP Instance UID and, when answered, the failure reason or null.
    answered_at
        When its report came, or was delivered (or given up, see `sentence`).
    """

    __tablename__ = "commitment"
    __table_args__ = (
        UniqueConstraint("direction", "entity", "transaction_uid"),
        Index("ix_commitment_job_id", "job_id"),
        Index(
            "ix_commitment_unanswered",
            "direction",
            "next_attempt_at",
            sqlite_where=UNANSWERED,
            postgresql_where=UNANSWERED,
        ),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    direction: Mapped[str] = mapped_column(String(8))
    entity: Mapped[str] = mapped_column(String(128))
    transaction_uid: Mapped[str] = mapped_column(UID)
    job_id: Mapped[int | None] = mapped_column(BigId, ForeignKey("job.id", ondelete="CASCADE"))
    items: Mapped[list[list[Any]]] = mapped_column(Json, default=list)
    requested_at: Mapped[datetime] = mapped_column(UtcDateTime)
    answered_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    next_attempt_at: Mapped[datetime] = mapped_column(UtcDateTime)
    sentence: Mapped[str] = mapped_column(Text, default="")


class AnnouncedInstances(Base):
    """What a procedure step or an availability notification says of one study."""

    __tablename__ = "announced_instances"
    __table_args__ = (
        UniqueConstraint("kind", "identifier", "study_instance_uid"),
        Index("ix_announced_instances_study_instance_uid", "study_instance_uid"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    kind: Mapped[str] = mapped_column(String(8))
    identifier: Mapped[str] = mapped_column(UID)
    study_instance_uid: Mapped[str] = mapped_column(UID)
    calling_ae_title: Mapped[str] = mapped_column(String(64), default="")
    state: Mapped[str] = mapped_column(String(16))
    sop_instance_uids: Mapped[list[str]] = mapped_column(Json, default=list)
    told_at: Mapped[datetime] = mapped_column(UtcDateTime)


class OwnMove(Base):
    """A C-MOVE by which the node has something sent to itself that is no new study to it.

    Attributes
    ----------
    folder
        Where it is kept, relative to the node's work.
    senders
        AE titles from which its instances are expected.
    originator, message_id
        What they say of it: Move Originator AE Title and Message ID (PS3.7 9.1.1.1).
    until
        When it is given up at the latest.
    ended_at
        When it ended, was given up, or its worker found the one before unfinished.
    """

    __tablename__ = "own_move"
    __table_args__ = (
        Index("ix_own_move_study_instance_uid", "study_instance_uid"),
        Index("ix_own_move_job_id", "job_id"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    job_id: Mapped[int | None] = mapped_column(BigId, ForeignKey("job.id", ondelete="CASCADE"))
    study_instance_uid: Mapped[str] = mapped_column(UID)
    folder: Mapped[str] = mapped_column(String(256))
    senders: Mapped[list[str]] = mapped_column(Json, default=list)
    originator: Mapped[str] = mapped_column(String(16))
    message_id: Mapped[int] = mapped_column(Integer, default=0)
    until: Mapped[datetime] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
