"""Workitems of worklists elsewhere that this node has claimed, and how those worklists answer."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Float, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base
from db.columns import Json, UtcDateTime


class Claim(Base):
    """One workitem of a manager elsewhere.

    Attributes
    ----------
    manager
        Name under ``worklists`` in ``node.yaml``.
    transaction_uid
        Drawn by this node: its key to the workitem.
    state
        ``claiming`` until the manager has answered, ``performing``, ``ended``.
    outcome
        ``COMPLETED``, ``CANCELED``, or ``taken away`` by the manager; empty before.
    dataset
        As the manager gave it, in DICOM JSON.
    told
        Progress that the manager knows, in percent.
    images_at
        When its images were asked for.
    """

    __tablename__ = "claim"
    __table_args__ = (
        Index("ix_claim_state", "state"),
        Index("ix_claim_study_instance_uid", "study_instance_uid"),
    )

    manager: Mapped[str] = mapped_column(String(128), primary_key=True)
    workitem_uid: Mapped[str] = mapped_column(String(64), primary_key=True)
    study_instance_uid: Mapped[str] = mapped_column(String(64))
    transaction_uid: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16), default="claiming")
    outcome: Mapped[str] = mapped_column(String(16), default="")
    sentence: Mapped[str] = mapped_column(Text, default="")
    dataset: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)
    told: Mapped[float] = mapped_column(Float, default=-1.0)
    claimed_at: Mapped[datetime] = mapped_column(UtcDateTime)
    images_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class WorklistContact(Base):
    """How a manager answered last, and when it is asked again."""

    __tablename__ = "worklist_contact"

    manager: Mapped[str] = mapped_column(String(128), primary_key=True)
    failures: Mapped[int] = mapped_column(Integer, default=0)
    sentence: Mapped[str] = mapped_column(Text, default="")
    answered_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    next_at: Mapped[datetime] = mapped_column(UtcDateTime)
