"""The series in the index by which a study's held instances are counted.

Revision ID: 0015_series_of_instances
Revises: 0014_listed
"""

from __future__ import annotations

from alembic import op

revision = "0015_series_of_instances"
down_revision = "0014_listed"
branch_labels = None
depends_on = None

_COLUMNS = ["study_id", "purged_at", "conflict"]


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.drop_index("ix_instance_study_id", "instance")
    op.create_index("ix_instance_study_id", "instance", [*_COLUMNS, "series_id"])


def downgrade() -> None:
    """Go back to the revision before."""
    op.drop_index("ix_instance_study_id", "instance")
    op.create_index("ix_instance_study_id", "instance", _COLUMNS)
