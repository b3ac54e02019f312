"""Instances that a person withdrew.

Revision ID: 0012_withdrawals
Revises: 0011_probes
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from db.columns import UtcDateTime

revision = "0012_withdrawals"
down_revision = "0011_probes"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.create_table(
        "withdrawal",
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("job_id", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.String(length=16), nullable=False),
        sa.Column("words", sa.Text(), nullable=False),
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("sop_instance_uid", name="pk_withdrawal"),
    )


def downgrade() -> None:
    """Forget what was withdrawn: it is given out again."""
    op.drop_table("withdrawal")
