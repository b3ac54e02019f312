"""The table of what destinations take."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base
from db.columns import Json, UtcDateTime


class ProbeRecord(Base):
    """The last answer of a destination that was asked what it takes.

    `accepted` has the transfer syntaxes by SOP class; a class that was refused has none.
    """

    __tablename__ = "destination_probe"

    destination: Mapped[str] = mapped_column(String(128), primary_key=True)
    probed_at: Mapped[datetime] = mapped_column(UtcDateTime)
    accepted: Mapped[dict[str, list[str]]] = mapped_column(Json)
