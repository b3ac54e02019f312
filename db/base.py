"""What all tables share: their base, and the types and conditions that several of them use."""

from __future__ import annotations

from sqlalchemy import MetaData, String, text
from sqlalchemy.orm import DeclarativeBase

UID = String(64)
AE_TITLE = String(16)
ORDERED = String(256).with_variant(String(256, collation="C"), "postgresql")
"""Text whose order is that of its bytes, so that an index finds what begins in a certain way."""

KEPT = text("purged_at IS NULL")
"""Rows whose file is there; the others are history."""
PROMISED = text("promised_at IS NOT NULL")
"""Instances that the node has committed to."""


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
