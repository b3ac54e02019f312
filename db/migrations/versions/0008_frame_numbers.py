"""Which frames of a multi-frame image a job looks at.

Revision ID: 0008_frame_numbers
Revises: 0007_readers
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from db.columns import Json

revision = "0008_frame_numbers"
down_revision = "0007_readers"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema to this revision: jobs that are there have single-frame sources."""
    op.add_column(
        "job", sa.Column("frame_numbers", Json, nullable=False, server_default=sa.text("'[]'"))
    )


def downgrade() -> None:
    """Forget the frames."""
    op.drop_column("job", "frame_numbers")
