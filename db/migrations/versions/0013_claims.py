"""Workitems that others perform, and those of others that this node performs.

Revision ID: 0013_claims
Revises: 0012_withdrawals
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from db.columns import Json, UtcDateTime

revision = "0013_claims"
down_revision = "0012_withdrawals"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.add_column("workitem", sa.Column("performance", Json, nullable=True))
    op.create_table(
        "claim",
        sa.Column("manager", sa.String(length=128), nullable=False),
        sa.Column("workitem_uid", sa.String(length=64), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("sentence", sa.Text(), nullable=False),
        sa.Column("dataset", Json, nullable=False),
        sa.Column("told", sa.Float(), nullable=False),
        sa.Column("claimed_at", UtcDateTime(), nullable=False),
        sa.Column("images_at", UtcDateTime(), nullable=True),
        sa.Column("ended_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("manager", "workitem_uid", name="pk_claim"),
    )
    op.create_index("ix_claim_state", "claim", ["state"])
    op.create_index("ix_claim_study_instance_uid", "claim", ["study_instance_uid"])
    op.create_table(
        "worklist_contact",
        sa.Column("manager", sa.String(length=128), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("sentence", sa.Text(), nullable=False),
        sa.Column("answered_at", UtcDateTime(), nullable=True),
        sa.Column("next_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("manager", name="pk_worklist_contact"),
    )


def downgrade() -> None:
    """Forget what others perform, and what was claimed elsewhere."""
    op.drop_table("worklist_contact")
    op.drop_table("claim")
    op.drop_column("workitem", "performance")
