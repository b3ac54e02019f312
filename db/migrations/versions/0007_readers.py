"""Questions to the model, and what people make of findings.

Revision ID: 0007_readers
Revises: 0006_dashboard_figures
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from db.columns import BigId, Json, UtcDateTime

revision = "0007_readers"
down_revision = "0006_dashboard_figures"
branch_labels = None
depends_on = None

UNANSWERED = sa.text("state IN ('queued', 'running')")


def upgrade() -> None:
    """Bring the schema to this revision."""
    _create_question()
    _create_review()


def downgrade() -> None:
    """Forget what people asked and said."""
    op.drop_table("review")
    op.drop_table("question")


def _create_question() -> None:
    op.create_table(
        "question",
        sa.Column("id", BigId, nullable=False),
        sa.Column("study_id", BigId, nullable=False),
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("modality", sa.String(length=64), nullable=False),
        sa.Column("source_kind", sa.String(length=16), nullable=False),
        sa.Column("instance_ids", Json, nullable=False),
        sa.Column("frame_numbers", Json, nullable=False),
        sa.Column("task", Json, nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("progress", sa.Float(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("asked_by", sa.String(length=64), nullable=False),
        sa.Column("asked_at", UtcDateTime(), nullable=False),
        sa.Column("deadline_at", UtcDateTime(), nullable=False),
        sa.Column("lease_token", sa.BigInteger(), nullable=False),
        sa.Column("lease_expires_at", UtcDateTime(), nullable=True),
        sa.Column("answered_at", UtcDateTime(), nullable=True),
        sa.Column("findings", Json, nullable=False),
        sa.Column("model_name", sa.String(length=256), nullable=False),
        sa.Column("model_version", sa.String(length=64), nullable=False),
        sa.Column("model_digest", sa.String(length=64), nullable=False),
        sa.Column("intensity", sa.Text(), nullable=False),
        sa.Column("job_id", BigId, nullable=True),
        sa.ForeignKeyConstraint(
            ["study_id"], ["study.id"], name="fk_question_study_id_study", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["job_id"], ["job.id"], name="fk_question_job_id_job", ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_question"),
    )
    op.create_index("ix_question_study_id_id", "question", ["study_id", "id"])
    op.create_index(
        "ix_question_unanswered",
        "question",
        ["state", "id"],
        unique=False,
        sqlite_where=UNANSWERED,
        postgresql_where=UNANSWERED,
    )


def _create_review() -> None:
    op.create_table(
        "review",
        sa.Column("id", BigId, nullable=False),
        sa.Column("job_id", BigId, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("target", sa.String(length=256), nullable=False),
        sa.Column("presence", sa.String(length=16), nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.Column("remark", sa.Text(), nullable=False),
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("model_digest", sa.String(length=64), nullable=False),
        sa.Column("dice", sa.Float(), nullable=True),
        sa.Column("edits", Json, nullable=True),
        sa.ForeignKeyConstraint(
            ["job_id"], ["job.id"], name="fk_review_job_id_job", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_review"),
    )
    op.create_index("ix_review_job_id_position_id", "review", ["job_id", "position", "id"])
    op.create_index("ix_review_target_id", "review", ["target", "id"])
