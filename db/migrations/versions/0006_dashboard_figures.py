"""What the dashboard lists: indexes for a million jobs, workers, echoes, rules' history, notices.

Revision ID: 0006_dashboard_figures
Revises: 0005_job_task
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from db.columns import BigId, Json, UtcDateTime

revision = "0006_dashboard_figures"
down_revision = "0005_job_task"
branch_labels = None
depends_on = None

INDEXES = (
    ("ix_job_updated_at", "job", ["updated_at"]),
    ("ix_job_received_at", "job", ["received_at"]),
    ("ix_job_state_finished_at", "job", ["state", "finished_at"]),
    ("ix_job_state_modality_id", "job", ["state", "modality", "id"]),
    ("ix_job_state_rule_id", "job", ["state", "rule", "id"]),
    ("ix_job_modality_rule_id", "job", ["modality", "rule", "id"]),
    (
        "ix_study_association_calling_ae_title",
        "study_association",
        ["calling_ae_title", "last_received_at"],
    ),
)


def upgrade() -> None:
    """Bring the schema to this revision."""
    for name, table, columns in INDEXES:
        op.create_index(name, table, columns)
    _create_worker()
    _create_echo()
    _create_rules_version()
    _create_notice()


def downgrade() -> None:
    """Go back to the revision before."""
    for table in ("notice", "rules_version", "echo", "worker"):
        op.drop_table(table)
    for name, table, _ in reversed(INDEXES):
        op.drop_index(name, table)


def _create_worker() -> None:
    op.create_table(
        "worker",
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("queue", sa.String(length=32), nullable=False),
        sa.Column("host", sa.String(length=128), nullable=False),
        sa.Column("processes", Json, nullable=False),
        sa.Column("started_at", UtcDateTime, nullable=False),
        sa.Column("seen_at", UtcDateTime, nullable=False),
        sa.Column("memory", sa.BigInteger(), nullable=False),
        sa.Column("processor", sa.Float(), nullable=False),
        sa.Column("model", sa.String(length=256), nullable=False),
        sa.Column("device", Json, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_worker")),
    )


def _create_echo() -> None:
    op.create_table(
        "echo",
        sa.Column("destination", sa.String(length=128), nullable=False),
        sa.Column("asked_at", UtcDateTime, nullable=False),
        sa.Column("answered_at", UtcDateTime, nullable=True),
        sa.Column("answers", sa.Boolean(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("sentence", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("destination", name=op.f("pk_echo")),
    )


def _create_rules_version() -> None:
    op.create_table(
        "rules_version",
        sa.Column("id", BigId, nullable=False),
        sa.Column("at", UtcDateTime, nullable=False),
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("comment", sa.String(length=256), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rules_version")),
    )


def _create_notice() -> None:
    op.create_table(
        "notice",
        sa.Column("id", BigId, nullable=False),
        sa.Column("job_id", BigId, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("channel", sa.String(length=128), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("made_at", UtcDateTime, nullable=False),
        sa.Column("next_attempt_at", UtcDateTime, nullable=False),
        sa.Column("sentence", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notice")),
        sa.UniqueConstraint(
            "job_id", "kind", "channel", name=op.f("uq_notice_job_id_kind_channel")
        ),
        sa.ForeignKeyConstraint(
            ["job_id"], ["job.id"], name=op.f("fk_notice_job_id_job"), ondelete="CASCADE"
        ),
    )
    op.create_index("ix_notice_state_next_attempt_at", "notice", ["state", "next_attempt_at"])
    op.create_index("ix_notice_made_at", "notice", ["made_at"])
