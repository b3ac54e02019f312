"""Workitems of UPS-RS.

Revision ID: 0010_workitems
Revises: 0009_told
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from db.columns import Json, UtcDateTime

revision = "0010_workitems"
down_revision = "0009_told"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.create_table(
        "workitem",
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("dataset", Json, nullable=False),
        sa.Column("created_by", sa.String(length=64), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("cancelled_at", UtcDateTime(), nullable=True),
        sa.Column("cancel_reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("sop_instance_uid", name=op.f("pk_workitem")),
    )
    op.create_index("ix_workitem_study_instance_uid", "workitem", ["study_instance_uid"])
    op.create_index("ix_workitem_created_at", "workitem", ["created_at"])


def downgrade() -> None:
    """Forget what was asked."""
    op.drop_table("workitem")
