"""Moves to the node itself.

Revision ID: 0022_own_moves
Revises: 0021_happenings
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from db.columns import BigId, Json, UtcDateTime

revision = "0022_own_moves"
down_revision = "0021_happenings"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.create_table(
        "own_move",
        sa.Column("id", BigId, nullable=False),
        sa.Column("job_id", BigId, nullable=True),
        sa.Column("study_instance_uid", sa.String(64), nullable=False),
        sa.Column("folder", sa.String(256), nullable=False),
        sa.Column("senders", Json, nullable=False),
        sa.Column("originator", sa.String(16), nullable=False),
        sa.Column("message_id", sa.Integer(), nullable=False),
        sa.Column("until", UtcDateTime(), nullable=False),
        sa.Column("ended_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_own_move"),
        sa.ForeignKeyConstraint(
            ["job_id"], ["job.id"], name="fk_own_move_job_id_job", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_own_move_study_instance_uid", "own_move", ["study_instance_uid"])
    op.create_index("ix_own_move_job_id", "own_move", ["job_id"])


def downgrade() -> None:
    """Forget the moves."""
    op.drop_table("own_move")
