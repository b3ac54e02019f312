"""How far the audit trail has come to each collector.

Revision ID: 0018_audit_positions
Revises: 0017_counts
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from db.columns import BigId, UtcDateTime

revision = "0018_audit_positions"
down_revision = "0017_counts"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.create_table(
        "audit_position",
        sa.Column("collector", sa.String(length=128), nullable=False),
        sa.Column("record_id", BigId, nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("sent_at", UtcDateTime(), nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("sentence", sa.Text(), nullable=False),
        sa.Column("next_attempt_at", UtcDateTime(), nullable=False),
        sa.Column("claimed_until", UtcDateTime(), nullable=True),
        sa.Column("claimed_by", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("collector", name="pk_audit_position"),
    )


def downgrade() -> None:
    """Forget what collectors have."""
    op.drop_table("audit_position")
