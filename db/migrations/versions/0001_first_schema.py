"""First schema: studies, series, instances, jobs, results, deliveries.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from db.columns import BigId, Json, UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

OPEN_STUDY_JOB = sa.text("state IN ('received', 'waiting')")
STANDING_PAIR = sa.text(
    "pairing_key IS NOT NULL "
    "AND state NOT IN ('cancelled', 'failed', 'not_applicable', 'superseded')"
)
LEASED = sa.text("lease_owner IS NOT NULL")
KEPT = sa.text("purged_at IS NULL")
OPEN_ASSOCIATION = sa.text("ended_at IS NULL")
TABLES = (
    "quarantine",
    "refusal",
    "study",
    "job",
    "series",
    "study_association",
    "finding",
    "instance",
    "job_event",
    "job_stage",
    "result",
    "delivery",
    "job_instance",
)


def upgrade() -> None:
    """Bring the schema to this revision."""
    _create_quarantine()
    _create_refusal()
    _create_study()
    _create_job()
    _create_series()
    _create_study_association()
    _create_finding()
    _create_instance()
    _create_job_event()
    _create_job_stage()
    _create_result()
    _create_delivery()
    _create_job_instance()


def downgrade() -> None:
    """Go back to an empty database."""
    for table in reversed(TABLES):
        op.drop_table(table)


def _create_quarantine() -> None:
    op.create_table(
        "quarantine",
        sa.Column("id", BigId, nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("sop_class_uid", sa.String(length=128), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=128), nullable=False),
        sa.Column("calling_ae_title", sa.String(length=64), nullable=False),
        sa.Column("called_ae_title", sa.String(length=64), nullable=False),
        sa.Column("peer_host", sa.String(length=256), nullable=False),
        sa.Column("received_at", UtcDateTime(), nullable=False),
        sa.Column("resolved_at", UtcDateTime(), nullable=True),
        sa.Column("resolution", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_quarantine"),
        sa.UniqueConstraint("path", name="uq_quarantine_path"),
    )
    op.create_index("ix_quarantine_received_at", "quarantine", ["received_at"])


def _create_refusal() -> None:
    op.create_table(
        "refusal",
        sa.Column("id", BigId, nullable=False),
        sa.Column("calling_ae_title", sa.String(length=64), nullable=False),
        sa.Column("called_ae_title", sa.String(length=64), nullable=False),
        sa.Column("peer_host", sa.String(length=256), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.Column("sentence", sa.Text(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("first_at", UtcDateTime(), nullable=False),
        sa.Column("last_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_refusal"),
        sa.UniqueConstraint(
            "calling_ae_title",
            "called_ae_title",
            "peer_host",
            "reason",
            name="uq_refusal_calling_ae_title_called_ae_title_peer_host_reason",
        ),
    )
    op.create_index("ix_refusal_last_at", "refusal", ["last_at"])


def _create_study() -> None:
    op.create_table(
        "study",
        sa.Column("id", BigId, nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("patient_id", sa.String(length=256), nullable=False),
        sa.Column("patient_name", sa.String(length=256), nullable=False),
        sa.Column("patient_birth_date", sa.String(length=64), nullable=False),
        sa.Column("patient_sex", sa.String(length=64), nullable=False),
        sa.Column("accession_number", sa.String(length=256), nullable=False),
        sa.Column("study_date", sa.String(length=64), nullable=False),
        sa.Column("study_time", sa.String(length=64), nullable=False),
        sa.Column("study_id", sa.String(length=256), nullable=False),
        sa.Column("study_description", sa.Text(), nullable=False),
        sa.Column("referring_physician_name", sa.Text(), nullable=False),
        sa.Column("first_received_at", UtcDateTime(), nullable=False),
        sa.Column("last_received_at", UtcDateTime(), nullable=False),
        sa.Column("released_at", UtcDateTime(), nullable=True),
        sa.Column("arrivals", sa.BigInteger(), nullable=False),
        sa.Column("number_of_instances", sa.Integer(), nullable=False),
        sa.Column("conflicts", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_study"),
        sa.UniqueConstraint("study_instance_uid", name="uq_study_study_instance_uid"),
    )
    op.create_index("ix_study_accession_number", "study", ["accession_number"])
    op.create_index("ix_study_last_received_at", "study", ["last_received_at"])
    op.create_index("ix_study_patient_id", "study", ["patient_id"])
    op.create_index("ix_study_patient_name", "study", ["patient_name"])
    op.create_index("ix_study_study_date_id", "study", ["study_date", "id"])


def _create_job() -> None:
    op.create_table(
        "job",
        sa.Column("id", BigId, nullable=False),
        sa.Column("study_id", BigId, nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("wait_reason", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("failed_stage", sa.String(length=16), nullable=True),
        sa.Column("rule", sa.String(length=128), nullable=False),
        sa.Column("pairing_key", sa.String(length=64), nullable=True),
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("modality", sa.String(length=64), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("source_kind", sa.String(length=16), nullable=False),
        sa.Column("notes", Json, nullable=False),
        sa.Column("targets", Json, nullable=True),
        sa.Column("destinations", Json, nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("identifiers", Json, nullable=True),
        sa.Column("model_name", sa.String(length=256), nullable=False),
        sa.Column("model_version", sa.String(length=64), nullable=False),
        sa.Column("model_digest", sa.String(length=64), nullable=False),
        sa.Column("intensity", sa.Text(), nullable=False),
        sa.Column("received_at", UtcDateTime(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.Column("finished_at", UtcDateTime(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("lost_leases", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", UtcDateTime(), nullable=False),
        sa.Column("announced_at", UtcDateTime(), nullable=True),
        sa.Column("lease_owner", sa.String(length=128), nullable=True),
        sa.Column("lease_token", sa.BigInteger(), nullable=False),
        sa.Column("lease_expires_at", UtcDateTime(), nullable=True),
        sa.Column("progress", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_job_study_id_study"),
        sa.PrimaryKeyConstraint("id", name="pk_job"),
    )
    op.create_index("ix_job_finished_at", "job", ["finished_at"])
    op.create_index(
        "ix_job_leased",
        "job",
        ["lease_expires_at"],
        unique=False,
        sqlite_where=LEASED,
        postgresql_where=LEASED,
    )
    op.create_index("ix_job_modality_id", "job", ["modality", "id"])
    op.create_index("ix_job_rule_id", "job", ["rule", "id"])
    op.create_index("ix_job_state_id", "job", ["state", "id"])
    op.create_index("ix_job_state_next_attempt_at", "job", ["state", "next_attempt_at"])
    op.create_index("ix_job_study_id", "job", ["study_id"])
    op.create_index(
        "uq_job_open_study",
        "job",
        ["study_id"],
        unique=True,
        sqlite_where=OPEN_STUDY_JOB,
        postgresql_where=OPEN_STUDY_JOB,
    )
    op.create_index(
        "uq_job_standing_pair",
        "job",
        ["pairing_key"],
        unique=True,
        sqlite_where=STANDING_PAIR,
        postgresql_where=STANDING_PAIR,
    )


def _create_series() -> None:
    op.create_table(
        "series",
        sa.Column("id", BigId, nullable=False),
        sa.Column("study_id", BigId, nullable=False),
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("modality", sa.String(length=64), nullable=False),
        sa.Column("series_number", sa.String(length=64), nullable=False),
        sa.Column("series_description", sa.Text(), nullable=False),
        sa.Column("body_part_examined", sa.String(length=256), nullable=False),
        sa.Column("number_of_instances", sa.Integer(), nullable=False),
        sa.Column("attributes", Json, nullable=False),
        sa.ForeignKeyConstraint(
            ["study_id"], ["study.id"], name="fk_series_study_id_study", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_series"),
        sa.UniqueConstraint(
            "study_id", "series_instance_uid", name="uq_series_study_id_series_instance_uid"
        ),
    )
    op.create_index("ix_series_series_instance_uid", "series", ["series_instance_uid"])


def _create_study_association() -> None:
    op.create_table(
        "study_association",
        sa.Column("study_id", BigId, nullable=False),
        sa.Column("association", sa.String(length=64), nullable=False),
        sa.Column("listener", sa.String(length=128), nullable=False),
        sa.Column("calling_ae_title", sa.String(length=64), nullable=False),
        sa.Column("called_ae_title", sa.String(length=64), nullable=False),
        sa.Column("peer_host", sa.String(length=256), nullable=False),
        sa.Column("instances", sa.Integer(), nullable=False),
        sa.Column("first_received_at", UtcDateTime(), nullable=False),
        sa.Column("last_received_at", UtcDateTime(), nullable=False),
        sa.Column("ended_at", UtcDateTime(), nullable=True),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.ForeignKeyConstraint(
            ["study_id"],
            ["study.id"],
            name="fk_study_association_study_id_study",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("study_id", "association", name="pk_study_association"),
    )
    op.create_index(
        "ix_study_association_open",
        "study_association",
        ["listener"],
        unique=False,
        sqlite_where=OPEN_ASSOCIATION,
        postgresql_where=OPEN_ASSOCIATION,
    )


def _create_finding() -> None:
    op.create_table(
        "finding",
        sa.Column("id", BigId, nullable=False),
        sa.Column("job_id", BigId, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("target", sa.String(length=256), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("phrase", sa.Text(), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("presence", sa.String(length=16), nullable=False),
        sa.Column("confidence", sa.Float(), nullable=False),
        sa.Column("predicted_iou", sa.Float(), nullable=True),
        sa.Column("key_frame", sa.Integer(), nullable=True),
        sa.Column("segment_number", sa.Integer(), nullable=True),
        sa.Column("tracking_uid", sa.String(length=64), nullable=False),
        sa.Column("measurements", Json, nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["job.id"], name="fk_finding_job_id_job", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_finding"),
        sa.UniqueConstraint("job_id", "position", name="uq_finding_job_id_position"),
    )


def _create_instance() -> None:
    op.create_table(
        "instance",
        sa.Column("id", BigId, nullable=False),
        sa.Column("study_id", BigId, nullable=False),
        sa.Column("series_id", BigId, nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("sop_class_uid", sa.String(length=64), nullable=False),
        sa.Column("transfer_syntax_uid", sa.String(length=64), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("conflict", sa.Boolean(), nullable=False),
        sa.Column("instance_number", sa.String(length=64), nullable=False),
        sa.Column("number_of_frames", sa.String(length=64), nullable=False),
        sa.Column("rows", sa.String(length=64), nullable=False),
        sa.Column("columns", sa.String(length=64), nullable=False),
        sa.Column("image_type", sa.Text(), nullable=False),
        sa.Column("association", sa.String(length=64), nullable=False),
        sa.Column("received_at", UtcDateTime(), nullable=False),
        sa.Column("purged_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["series_id"], ["series.id"], name="fk_instance_series_id_series", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["study_id"], ["study.id"], name="fk_instance_study_id_study", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_instance"),
        sa.UniqueConstraint(
            "series_id",
            "sop_instance_uid",
            "sha256",
            name="uq_instance_series_id_sop_instance_uid_sha256",
        ),
    )
    op.create_index(
        "ix_instance_kept_received_at",
        "instance",
        ["received_at"],
        unique=False,
        sqlite_where=KEPT,
        postgresql_where=KEPT,
    )
    op.create_index("ix_instance_sop_instance_uid", "instance", ["sop_instance_uid"])
    op.create_index("ix_instance_study_id", "instance", ["study_id"])


def _create_job_event() -> None:
    op.create_table(
        "job_event",
        sa.Column("id", BigId, nullable=False),
        sa.Column("job_id", BigId, nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("level", sa.String(length=8), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["job.id"], name="fk_job_event_job_id_job", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_job_event"),
    )
    op.create_index("ix_job_event_job_id_id", "job_event", ["job_id", "id"])


def _create_job_stage() -> None:
    op.create_table(
        "job_stage",
        sa.Column("id", BigId, nullable=False),
        sa.Column("job_id", BigId, nullable=False),
        sa.Column("stage", sa.String(length=16), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("started_at", UtcDateTime(), nullable=False),
        sa.Column("claimed_at", UtcDateTime(), nullable=True),
        sa.Column("ended_at", UtcDateTime(), nullable=True),
        sa.Column("owner", sa.String(length=128), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["job.id"], name="fk_job_stage_job_id_job", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_job_stage"),
    )
    op.create_index("ix_job_stage_job_id_id", "job_stage", ["job_id", "id"])


def _create_result() -> None:
    op.create_table(
        "result",
        sa.Column("id", BigId, nullable=False),
        sa.Column("job_id", BigId, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("sop_class_uid", sa.String(length=64), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("problems", Json, nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("purged_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["job_id"], ["job.id"], name="fk_result_job_id_job", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_result"),
        sa.UniqueConstraint("job_id", "position", name="uq_result_job_id_position"),
        sa.UniqueConstraint("sop_instance_uid", name="uq_result_sop_instance_uid"),
    )
    op.create_index(
        "ix_result_kept_created_at",
        "result",
        ["created_at"],
        unique=False,
        sqlite_where=KEPT,
        postgresql_where=KEPT,
    )


def _create_delivery() -> None:
    op.create_table(
        "delivery",
        sa.Column("id", BigId, nullable=False),
        sa.Column("result_id", BigId, nullable=False),
        sa.Column("destination", sa.String(length=128), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("sentence", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("attempted_at", UtcDateTime(), nullable=True),
        sa.Column("sent_at", UtcDateTime(), nullable=True),
        sa.Column("confirmed_at", UtcDateTime(), nullable=True),
        sa.Column("confirmed_by", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["result_id"], ["result.id"], name="fk_delivery_result_id_result", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_delivery"),
        sa.UniqueConstraint("result_id", "destination", name="uq_delivery_result_id_destination"),
    )
    op.create_index("ix_delivery_destination_state", "delivery", ["destination", "state"])


def _create_job_instance() -> None:
    op.create_table(
        "job_instance",
        sa.Column("job_id", BigId, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("instance_id", BigId, nullable=False),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instance.id"], name="fk_job_instance_instance_id_instance"
        ),
        sa.ForeignKeyConstraint(
            ["job_id"], ["job.id"], name="fk_job_instance_job_id_job", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", "position", name="pk_job_instance"),
    )
    op.create_index("ix_job_instance_instance_id", "job_instance", ["instance_id"])
