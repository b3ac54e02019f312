"""What the node's processes count.

Revision ID: 0017_counts
Revises: 0016_held_syntaxes
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017_counts"
down_revision = "0016_held_syntaxes"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.create_table(
        "count",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("labels", sa.String(length=256), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", "labels", name="pk_count"),
    )


def downgrade() -> None:
    """Forget the counts."""
    op.drop_table("count")
