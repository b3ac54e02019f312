"""What the node committed to is marked, so that it is not deleted by age.

Revision ID: 0023_promises
Revises: 0022_own_moves
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from db.columns import UtcDateTime

revision = "0023_promises"
down_revision = "0022_own_moves"
branch_labels = None
depends_on = None

PROMISED = sa.text("promised_at IS NOT NULL")


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.add_column("instance", sa.Column("promised_at", UtcDateTime(), nullable=True))
    op.create_index(
        "ix_instance_promised",
        "instance",
        ["study_id"],
        sqlite_where=PROMISED,
        postgresql_where=PROMISED,
    )


def downgrade() -> None:
    """Forget what was promised."""
    op.drop_index("ix_instance_promised", "instance")
    op.drop_column("instance", "promised_at")
