"""Count the attempts in a row that ended in an error of which few are enough.

Revision ID: 0002_strikes
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002_strikes"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("job", sa.Column("strikes", sa.Integer, nullable=False, server_default="0"))


def downgrade() -> None:
    """Take it away."""
    op.drop_column("job", "strikes")
