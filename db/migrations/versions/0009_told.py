"""Transactions of storage commitment, and announced instances.

Revision ID: 0009_told
Revises: 0008_frame_numbers
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from db.columns import BigId, Json, UtcDateTime

revision = "0009_told"
down_revision = "0008_frame_numbers"
branch_labels = None
depends_on = None

UNANSWERED = sa.text("answered_at IS NULL")


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.create_table(
        "commitment",
        sa.Column("id", BigId, nullable=False),
        sa.Column("direction", sa.String(8), nullable=False),
        sa.Column("entity", sa.String(128), nullable=False),
        sa.Column("transaction_uid", sa.String(64), nullable=False),
        sa.Column("job_id", BigId, nullable=True),
        sa.Column("items", Json, nullable=False),
        sa.Column("requested_at", UtcDateTime(), nullable=False),
        sa.Column("answered_at", UtcDateTime(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", UtcDateTime(), nullable=False),
        sa.Column("sentence", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_commitment"),
        sa.ForeignKeyConstraint(
            ["job_id"], ["job.id"], name="fk_commitment_job_id_job", ondelete="CASCADE"
        ),
        sa.UniqueConstraint(
            "direction",
            "entity",
            "transaction_uid",
            name="uq_commitment_direction_entity_transaction_uid",
        ),
    )
    op.create_index("ix_commitment_job_id", "commitment", ["job_id"])
    op.create_index(
        "ix_commitment_unanswered",
        "commitment",
        ["direction", "next_attempt_at"],
        sqlite_where=UNANSWERED,
        postgresql_where=UNANSWERED,
    )
    op.create_table(
        "announced_instances",
        sa.Column("id", BigId, nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("identifier", sa.String(64), nullable=False),
        sa.Column("study_instance_uid", sa.String(64), nullable=False),
        sa.Column("calling_ae_title", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("sop_instance_uids", Json, nullable=False),
        sa.Column("told_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_announced_instances"),
        sa.UniqueConstraint(
            "kind",
            "identifier",
            "study_instance_uid",
            name="uq_announced_instances_kind_identifier_study_instance_uid",
        ),
    )
    op.create_index(
        "ix_announced_instances_study_instance_uid", "announced_instances", ["study_instance_uid"]
    )


def downgrade() -> None:
    """Go back to the revision before."""
    op.drop_table("announced_instances")
    op.drop_table("commitment")
