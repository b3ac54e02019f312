"""The tables of what was received: studies, series, instances, and what was not taken."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    BigInteger,
    Boolean,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from db.base import KEPT, ORDERED, PROMISED, UID, Base
from db.columns import BigId, Json, UtcDateTime


class HeldSyntax(Base):
    """A SOP class and a transfer syntax in which an instance of it came; never forgotten."""

    __tablename__ = "held_syntax"

    sop_class_uid: Mapped[str] = mapped_column(UID, primary_key=True)
    transfer_syntax_uid: Mapped[str] = mapped_column(UID, primary_key=True)


class Study(Base):
    """A study of which at least one instance was received; its clock and its query keys.

    The columns named ``..._key`` hold names as `db.names.folded_name` gives them.
    """

    __tablename__ = "study"
    __table_args__ = (Index("ix_study_study_date_id", "study_date", "id"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    study_instance_uid: Mapped[str] = mapped_column(UID, unique=True)
    patient_id: Mapped[str] = mapped_column(String(256), default="", index=True)
    patient_name: Mapped[str] = mapped_column(String(256), default="")
    patient_name_key: Mapped[str] = mapped_column(ORDERED, default="", index=True)
    patient_birth_date: Mapped[str] = mapped_column(String(64), default="")
    patient_sex: Mapped[str] = mapped_column(String(64), default="")
    accession_number: Mapped[str] = mapped_column(String(256), default="", index=True)
    study_date: Mapped[str] = mapped_column(String(64), default="")
    study_time: Mapped[str] = mapped_column(String(64), default="")
    study_id: Mapped[str] = mapped_column(String(256), default="")
    study_description: Mapped[str] = mapped_column(Text, default="")
    referring_physician_name: Mapped[str] = mapped_column(Text, default="")
    referring_physician_key: Mapped[str] = mapped_column(ORDERED, default="")
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
        Index("ix_study_association_calling_ae_title", "calling_ae_title", "last_received_at"),
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
    """A stored data set. Other bytes under the same UID are a row beside, flagged `conflict`.

    `promised_at` is when the node committed to it (storage commitment), until an archive is proven
    to hold it.
    """

    __tablename__ = "instance"
    __table_args__ = (
        UniqueConstraint("series_id", "sop_instance_uid", "sha256"),
        Index("ix_instance_sop_instance_uid", "sop_instance_uid"),
        # With what says whether it is held: to count a study's series and instances needs no rows.
        Index("ix_instance_study_id", "study_id", "purged_at", "conflict", "series_id"),
        Index(
            "ix_instance_kept_received_at",
            "received_at",
            sqlite_where=KEPT,
            postgresql_where=KEPT,
        ),
        Index(
            "ix_instance_promised",
            "study_id",
            sqlite_where=PROMISED,
            postgresql_where=PROMISED,
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
    promised_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


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
