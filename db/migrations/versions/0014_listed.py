"""What queries at destinations answer for results.

Revision ID: 0014_listed
Revises: 0013_claims
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from db.columns import Json

revision = "0014_listed"
down_revision = "0013_claims"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.add_column("delivery", sa.Column("listed", Json, nullable=True))


def downgrade() -> None:
    """Forget what queries answered."""
    op.drop_column("delivery", "listed")
