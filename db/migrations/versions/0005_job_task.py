"""Keep what kind of question a job asks; jobs so far looked for targets.

Revision ID: 0005_job_task
Revises: 0004_dashboard_access
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005_job_task"
down_revision = "0004_dashboard_access"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column(
        "job", sa.Column("task", sa.String(32), nullable=False, server_default="segmentation")
    )


def downgrade() -> None:
    """Take it away."""
    op.drop_column("job", "task")
